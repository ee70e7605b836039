"""Worker: the task that runs the ``async def`` turns of one object.

A task per turn would cost more than twice as much as waking one. So one task runs the turns of many
callers, and nothing of one turn may be left for the next:

- It is a task of the runtime's, in the context variables that the runtime was entered in, within a
  cancel scope of its own. No caller's scope reaches it.
- It has each turn's request only while it runs that.
- A handler may leave its task's cancellation changed: a scope left open in a generator, a
  cancellation that came from elsewhere. Then the worker ends, and the next turn has another one.
- The same after a turn that was interrupted: that cancels the worker's own scope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._eventloop.loop import CallbackWaiter, Loop, Waiter
from .._eventloop.tasks import OwnTask, OwnTasks
from .envelope import Envelope
from .pump import Slice, SliceClock


class Workplace(Protocol):
    """The object that a worker serves: an activation."""

    worker: Worker | None
    """Its worker. Another one ends when it notices, so an object has one at most that does
    anything."""

    def advance(self, share: Slice) -> Envelope | None:
        """Serve the mailbox; return a request whose turn needs the worker."""
        ...

    async def run(self, envelope: Envelope) -> None:
        """Run that turn, and reply. Must not raise."""
        ...

    def worker_left(self, worker: Worker) -> None:
        """The worker's task ends."""
        ...


class Worker:
    """Runs the turns of one object for as long as it is the object's worker.

    Args:
        loop: The event loop.
        clock: The time of its slices.
        place: The object.
    """

    __slots__ = (
        "_assigned",
        "_clock",
        "_is_woken",
        "_loop",
        "_parked",
        "_place",
        "_resistance",
        "_task",
    )

    def __init__(self, loop: Loop, clock: SliceClock, place: Workplace) -> None:
        self._loop = loop
        self._clock = clock
        self._place = place
        self._assigned: Envelope | None = None
        self._is_woken = False
        self._parked: Waiter | None = None
        self._resistance: CallbackWaiter | None = None
        self._task: OwnTask | None = None

    def start(self, tasks: OwnTasks, name: str, failed: Callable[[BaseException], object]) -> None:
        """Start the task; ``failed`` is called with what it raises."""
        self._task = tasks.start(self.main, name, failed)

    def cancel(self, resistance: CallbackWaiter) -> None:
        """Cancel the turn that runs. The task ends with it.

        Args:
            resistance: Discarded when the task ends.
        """
        self._resistance = resistance
        if self._task is not None:
            self._task.cancel()

    @property
    def is_parked(self) -> bool:
        """True if it waits for work, and wasn't woken."""
        return self._parked is not None and not self._parked.ended

    def assign(self, envelope: Envelope) -> None:
        """Run ``envelope`` next."""
        self._assigned = envelope
        self.wake()

    def wake(self) -> None:
        """Look at the mailbox. May be repeated."""
        self._is_woken = True
        if self._parked is not None:
            self._parked.wake()

    async def main(self) -> None:
        """The task's function."""
        loop, clock, place = self._loop, self._clock, self._place
        task = loop.current_task()
        clean = loop.cancel_state(task)
        try:
            while place.worker is self:
                self._is_woken = False
                envelope, self._assigned = self._assigned, None
                share = clock.slice(clock.end_of_pass())
                if envelope is None:
                    envelope = place.advance(share)
                if envelope is not None:
                    await place.run(envelope)
                    envelope = None
                    if self._resistance is not None or loop.cancel_state(task) != clean:
                        return
                elif share.is_over:
                    await loop.checkpoint()
                elif not self._is_woken:
                    await self._park()
        finally:
            self._task = None  # or the two would be a cycle
            if self._resistance is not None:
                self._resistance.discard()
            place.worker_left(self)

    async def _park(self) -> None:
        self._parked = parked = self._loop.waiter()
        try:
            if not self._is_woken:  # by what ran since the mailbox was looked at
                await parked.wait()
        finally:
            self._parked = None
