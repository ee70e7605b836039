"""The backend for trio."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

import trio
from outcome import Outcome
from trio.abc import Clock
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_clock,
    current_task,
    current_trio_token,
    disable_ki_protection,
    enable_ki_protection,
    reschedule,
    spawn_system_task,
    wait_task_rescheduled,
)

from .budget import current_budget
from .loop import Loop, Ts, Waiter, check_headroom

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


T = TypeVar("T")

_LEVELS = 8
"""How deep functions call each other to resume a task."""


class _Resumed(Outcome[None]):
    """The outcome of parking: None, since the waiter itself has the result.

    One instance serves all tasks. `outcome.Value`, which is trio's default, is for one use: making
    and unwrapping it takes 0.8 µs per release, which is 7 % of a change in memory.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        """See `Outcome.unwrap`."""

    def send(self, gen: Generator[T, None, object]) -> T:
        """See `Outcome.send`."""
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[T, None]) -> T:
        """See `Outcome.asend`."""
        return await agen.asend(None)


_RESUMED = _Resumed()


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
            if self._task is not None:
                try:  # noqa: SIM105  # nearly every call comes by
                    reschedule(self._task, _RESUMED)
                except AssertionError:
                    pass  # resumed already, by a release that was cut off here
            self.ended = True

    def wake(self) -> None:
        """See `Waiter.wake`.

        A task whose rescheduling meets the limit on recursion may be marked as scheduled, and be in
        no queue.
        """
        if not self.ended:
            check_headroom(_LEVELS)
            self.settle()

    def _abort(self, _raise_cancel: object) -> Abort:
        self.ended = True
        return Abort.SUCCEEDED

    async def wait(self) -> object:
        """See `Waiter.wait`."""
        try:
            if self.ended:
                await checkpoint()
            else:
                self._task = current_task()
                await wait_task_rescheduled(self._abort)
        finally:
            self.ended = True  # a release from now on would resume a task that isn't parked
            self._task = None  # `Deadlines` may hold the waiter for longer
        if self.error is not None:
            self._raise()
        value, self.value = self.value, None
        return value


class TrioLoop(Loop):
    """The trio run that runs the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.token = self._token = current_trio_token()
        self.time_source = clock = current_clock()
        self.is_virtual = is_virtual(clock)
        self.now = clock.current_time
        self.waiter = TrioWaiter
        self.checkpoint = checkpoint
        # In virtual time always a checkpoint: the order of tasks must not depend on real time.
        self.pause = checkpoint if self.is_virtual else current_budget().spend
        self.interruptible = _interruptible
        self.current_task = current_task

    def is_current(self) -> bool:
        """See `Loop.is_current`."""
        try:
            return current_trio_token() is self._token
        except RuntimeError:
            return False

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """See `Loop.call_soon_threadsafe`."""
        self._arrived.append((callback, args))
        try:
            with _entering:
                self._token.run_sync_soon(self._guard.send, None)
        except trio.RunFinishedError:
            self._arrived.clear()

    def spawn(
        self, run: Callable[[], Coroutine[Any, Any, None]], name: str, context: Context
    ) -> object:
        """See `Loop.spawn`."""
        return spawn_system_task(run, name=name, context=context)

    def cancel_probe(self, task: object) -> Callable[[], object]:
        """See `Loop.cancel_probe`: the innermost open scope of the task.

        No public attribute has it. Without this one a scope that a handler leaves open would be
        noticed when it is cancelled, in the turn of another object.
        """
        return partial(getattr, task, "_cancel_status", None)

    @enable_ki_protection
    def interrupt(self, error: BaseException) -> None:
        """See `Loop.interrupt`."""
        is_main = threading.current_thread() is threading.main_thread()
        if isinstance(error, KeyboardInterrupt) and is_main:
            signal.raise_signal(signal.SIGINT)  # from a protected function it goes to the main task

    def waits_for_me(self, task: object) -> bool:
        """See `Loop.waits_for_me`."""
        ancestor: Task | None = current_task()
        while ancestor is not None and ancestor is not task:
            nursery = ancestor.parent_nursery
            ancestor = None if nursery is None else nursery.parent_task
        return ancestor is not None


# Trio's queue of such callbacks has a lock. A thread of ours that held it while the process forks
# would leave it locked in the child for ever, and with it the end of the child's trio run.
_entering = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_entering.acquire,
        after_in_parent=_entering.release,
        after_in_child=_entering.release,
    )


@disable_ki_protection
def _interruptible(function: Callable[..., Any], *args: object) -> Any:
    try:
        return function(*args)
    finally:
        del args  # may hold an exception whose traceback holds this frame
