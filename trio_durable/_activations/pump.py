"""Pump: the mailboxes to serve, and the pool of the workers that do it.

A call's task does two things only: it runs a ``def`` turn on an open object, or it appends to a
mailbox and wakes the pump. Loading, starting workers and draining mailboxes happen there, on a
stack of the runtime's own: not in the depth of a caller's recursion, and not in a task that may be
cancelled, or interrupted by Control-C, in the middle.

One worker has the pump, the holder, and serves mailbox after mailbox in slices. When a turn
suspends in it, it hands the pump over to the worker that has rested the shortest (LIFO, as pools of
connections do): its stack is the likeliest to be in a cache of the processor.

Invariants:

- There is one holder, until the runtime's tasks are cancelled. It is parked, or runs a pass, or is
  about to.
- A worker rests, holds the pump, or has a turn, and is in no two of these.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import anyio

from .._eventloop.loop import Loop
from .._eventloop.tasks import OwnTasks
from .._text import error_summary
from .slices import SliceClock
from .worker import Worker, Workplace

logger = logging.getLogger("trio_durable")

MAX_RESTING = 64
"""The most workers of a runtime that have nothing to do."""


class Pump:
    """The mailboxes to serve, in order, and the workers.

    Args:
        loop: The event loop.
        clock: The time of slices.
        tasks: The runtime's tasks.
        deliver: Hands over the loads that have ended.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        loop: Loop,
        clock: SliceClock,
        tasks: OwnTasks,
        deliver: Callable[[], None],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._tasks = tasks
        self._deliver = deliver
        self._failed = failed
        self._ready: OrderedDict[Workplace, None] = OrderedDict()
        self._serving: Workplace | None = None
        """Not in ``_ready``, but not served yet; left over by a pass that was cut off."""
        self._is_woken = False
        self._resting: list[Worker] = []
        self._passing: Worker | None = None
        """The worker that is in a pass."""
        self.holder: Worker | None = None
        """The worker that serves mailboxes."""

    def open(self) -> None:
        """Start the first worker."""
        self.holder = self._start()

    def add(self, place: Workplace) -> None:
        """Serve a mailbox soon. May be repeated."""
        self._ready[place] = None
        self.wake()

    def wake(self) -> None:
        """Serve mailboxes, and hand over loads, soon. May be repeated."""
        self._is_woken = True
        if self._passing is not None and self._passing.task is not self._loop.current_task():
            # A handler lets the event loop run (greenback, nest_asyncio), so its pass stands still.
            self.hand_over(self._passing)
        if self.holder is not None:
            self.holder.wake()

    def __contains__(self, place: Workplace) -> bool:
        return place in self._ready or place is self._serving

    @property
    def is_overslept(self) -> bool:
        """True if there is work, and no worker was woken for it."""
        return self.has_work and self.holder is not None and self.holder.is_parked

    # --- for workers: see `Pool` -----------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """See `Pool.has_work`."""
        return self._is_woken or bool(self._ready) or self._serving is not None

    def run_pass(self, worker: Worker) -> None:
        """See `Pool.run_pass`."""
        self._passing = worker
        try:
            self._run_pass(worker)
        finally:
            if self._passing is worker:
                self._passing = None

    def _run_pass(self, worker: Worker) -> None:
        try:
            self._deliver()
            self._is_woken = False  # last: objects whose loads have ended are served in this pass
        except BaseException as error:  # noqa: BLE001  # anything, or all objects would stand still
            self._failed(error)
        ready, clock = self._ready, self._clock
        if self._serving is not None:
            ready[self._serving] = None
        until = clock.end_of_pass()
        # An object that is served in part waits for the next pass.
        for _ in range(len(ready)):
            self._serving = place = next(iter(ready))
            del ready[place]  # first: what is added from here on is in it again
            share = clock.slice(until)
            try:
                place.serve(share, worker)
            except BaseException as error:  # noqa: BLE001
                ready[place] = None
                self._failed(error)
            self._serving = None
            if share.is_late or worker.has_turn or worker.is_spent or self.holder is not worker:
                break

    def hand_over(self, worker: Worker) -> None:
        """See `Pool.hand_over`."""
        if self.holder is worker:
            self.holder = self._resting.pop() if self._resting else self._start()
            if self._passing is worker:
                self._passing = None
            if self.has_work:
                self.holder.wake()

    def rest(self, worker: Worker) -> bool:
        """See `Pool.rest`."""
        if worker in self._resting:
            return True
        if len(self._resting) >= MAX_RESTING:
            return False
        self._resting.append(worker)
        return True

    def left(self, worker: Worker) -> None:
        """See `Pool.left`."""
        if worker in self._resting:
            self._resting.remove(worker)
        if not self._tasks.is_cancelled:
            self.hand_over(worker)

    # --- inside ----------------------------------------------------------------------------------

    def _start(self) -> Worker:
        worker = Worker(self._loop, self._clock, self)
        worker.start(self._tasks, partial(self._worker_failed, worker))
        return worker

    def _worker_failed(self, worker: Worker, error: BaseException) -> None:
        worker.failed(error)
        if worker.was_cut_off or isinstance(error, anyio.get_cancelled_exc_class()):
            logger.debug("a worker has ended: %s", error_summary(error))
        else:
            self._failed(error)
