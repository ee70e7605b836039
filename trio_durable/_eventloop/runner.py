"""Runners of a storage's blocking work: in a thread of its own, or inline.

A storage's connections belong to the thread that opened them, so `ThreadRunner` is one long-lived
thread with a queue and no pool. Under a virtual clock the work runs inline: while the loop waited
for a real thread, virtual time would jump ahead.
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
    """Runs jobs one after the other, in order of submission. Jobs come from the loop only."""

    def __init__(self, loop: Loop, name: str) -> None:
        """Start; debuggers show ``name``."""
        self._loop = loop
        self._name = name

    @abstractmethod
    def post(self, job: Job) -> None:
        """Submit ``job``, which must not raise, and return at once."""

    async def run(self, job: Callable[[], T]) -> T:
        """Run ``job``; its result or its error. A cancelled caller doesn't stop the job."""
        waiter = self._loop.waiter()
        self.post(lambda: self._answer(waiter, job))
        return cast("T", await waiter.wait())

    def _answer(self, waiter: Waiter, job: Job) -> None:
        try:
            value = job()
        except BaseException as error:  # noqa: BLE001  # jobs may raise anything
            self._loop.call_soon_threadsafe(waiter.fail, error)
        else:
            self._loop.call_soon_threadsafe(waiter.settle, value)

    @abstractmethod
    def stop(self) -> None:
        """Stop after the jobs submitted so far."""


class ThreadRunner(Runner):
    """Runs jobs in a thread."""

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__(loop, name)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon, so that the process can exit although its event loop died without closing.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job

    def post(self, job: Job) -> None:
        """Run ``job`` in the thread, after the earlier jobs."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread after the jobs submitted so far, without waiting for it."""
        self._jobs.put(None)


class InlineRunner(Runner):
    """Runs jobs in the event loop itself. Deterministic; each job blocks the loop."""

    def post(self, job: Job) -> None:
        """Run ``job`` in the event loop, after the callbacks it already has."""
        self._loop.call_soon_threadsafe(job)

    def stop(self) -> None:
        """Nothing to stop."""
