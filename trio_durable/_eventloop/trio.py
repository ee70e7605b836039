"""The backend for trio."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

import trio
from trio.abc import Clock
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_clock,
    current_task,
    current_trio_token,
    reschedule,
    wait_task_rescheduled,
)

from .loop import Loop, Ts, Waiter

_LONG = 1e6
"""Seconds: much longer than the process can be suspended between two readings of a clock."""


def is_virtual(clock: Clock) -> bool:
    """True if ``clock`` differs from real time.

    The class of trio's own clock isn't public, so the clock is judged by how long it would let the
    loop sleep: in real time, for as long as there is until the deadline.
    """
    if "trio.testing" in sys.modules:  # otherwise there is no MockClock
        from trio.testing import MockClock

        if isinstance(clock, MockClock):  # it can jump, even at the rate of real time
            return True
    return abs(clock.deadline_to_sleep_time(clock.current_time() + _LONG) - _LONG) > _LONG / 100


class TrioWaiter(Waiter):
    """A waiter whose task is parked in trio."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self.ended = False
        self.value = self.error = self.expiry = None
        self._task: Task | None = None

    def release(self) -> None:
        """See `Waiter.release`."""
        if not self.ended:
            self.ended = True
            if self._task is not None:
                reschedule(self._task)

    def _abort(self, _raise_cancel: object) -> Abort:
        self.ended = True
        return Abort.SUCCEEDED

    async def wait(self) -> object:
        """See `Waiter.wait`."""
        if self.ended:
            await checkpoint()
        else:
            self._task = current_task()
            await wait_task_rescheduled(self._abort)
        if self.error is not None:
            raise self.error
        # `Deadlines` may hold the waiter for a while longer; it must not hold a large reply.
        value, self.value = self.value, None
        return value


class TrioLoop(Loop):
    """The trio run that runs the caller."""

    def __init__(self) -> None:
        self.token = self._token = current_trio_token()
        self.time_source = clock = current_clock()
        self.is_virtual = is_virtual(clock)
        self.now = clock.current_time
        self.waiter = TrioWaiter
        self.checkpoint = checkpoint
        self.current_task = current_task

    def is_current(self) -> bool:
        """See `Loop.is_current`."""
        try:
            return current_trio_token() is self._token
        except RuntimeError:
            return False

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """See `Loop.call_soon_threadsafe`."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, *args)

    def waits_for_me(self, task: object) -> bool:
        """See `Loop.waits_for_me`."""
        ancestor: Task | None = current_task()
        while ancestor is not None and ancestor is not task:
            nursery = ancestor.parent_nursery
            ancestor = None if nursery is None else nursery.parent_task
        return ancestor is not None

    def forgive_cancellation(self) -> bool:
        """Never: trio cancels scopes, not tasks."""
        return False
