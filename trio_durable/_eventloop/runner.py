"""Where blocking work runs: in a thread of its own, or inline.

A storage's connections belong to the thread that opened them, so this is one long-lived thread
with a queue rather than a pool. Under a virtual clock a real thread would let time run away while
the loop waits for it; then the work runs inline.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar, cast

from .loop import Loop, Waiter

T = TypeVar("T")
Job = Callable[[], object]


class Runner(ABC):
    """Runs jobs one after the other, in order of submission. Submitted to from the loop only."""

    def __init__(self, loop: Loop, name: str) -> None:
        """Start, under a name for debuggers."""
        self._loop = loop
        self._name = name

    @abstractmethod
    def post(self, job: Job) -> None:
        """Run ``job``, which must not raise, and don't wait for it."""

    async def run(self, job: Callable[[], T]) -> T:
        """Run ``job`` and return or raise what it does. If cancelled, the job runs all the same."""
        waiter = self._loop.waiter()
        self.post(lambda: self._answer(waiter, job))
        return cast("T", await waiter.wait())

    def _answer(self, waiter: Waiter, job: Job) -> None:
        try:
            value = job()
        except BaseException as error:
            self._loop.call_soon_threadsafe(waiter.fail, error)
        else:
            self._loop.call_soon_threadsafe(waiter.settle, value)

    @abstractmethod
    def stop(self) -> None:
        """End after the jobs submitted so far."""


class ThreadRunner(Runner):
    """Runs jobs in a thread."""

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__(loop, name)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon, so that an event loop that died without closing doesn't keep the process.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job

    def post(self, job: Job) -> None:
        """Run ``job`` in the thread, after the earlier ones."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread after the jobs that are posted; doesn't wait for it."""
        self._jobs.put(None)


class InlineRunner(Runner):
    """Runs jobs in the event loop itself: deterministic, and blocking it meanwhile."""

    def post(self, job: Job) -> None:
        """Run ``job`` in the event loop, after what it has to do already."""
        self._loop.call_soon_threadsafe(job)

    def stop(self) -> None:
        """There is nothing to end."""
