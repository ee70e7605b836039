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
from typing import ClassVar, TypeVar, cast

from .loop import Loop, Waiter

T = TypeVar("T")
Job = Callable[[], object]


def _ignore(error: BaseException) -> None:
    pass


class Runner(ABC):
    """Runs jobs one after the other, in order of submission. Jobs come from the loop only."""

    failed: Callable[[BaseException], object] = staticmethod(_ignore)
    """Called in the loop with the exception of a posted job. Its work is half done then, so
    the runtime ends; the runner goes on, since storages are closed in their own thread."""

    takes_real_time: ClassVar[bool] = False
    """Its jobs take time that a virtual clock of the event loop knows nothing of."""

    _waiters: set[Waiter] | None = None

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
        if self._waiters is None:
            self._waiters = set()
        self._waiters.add(waiter)
        try:
            self.post(lambda: self._answer(waiter, job))
            return cast("T", await waiter.wait())
        finally:
            self._waiters.discard(waiter)

    def abandon(self, error: Callable[[], BaseException]) -> None:
        """Fail all callers of `run`, each with an error of its own. Their jobs may still run."""
        for waiter in list(self._waiters or ()):
            waiter.fail(error())

    def _perform(self, job: Job) -> None:
        """Run a job; report what it raises."""
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # storages may raise anything
            self._loop.call_soon_threadsafe(self.failed, error)

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

    takes_real_time = True

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__(loop, name)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon, so that the process can exit although its event loop died without closing.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._perform(job)
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
        self._loop.call_soon_threadsafe(self._perform, job)

    def stop(self) -> None:
        """Nothing to stop."""
