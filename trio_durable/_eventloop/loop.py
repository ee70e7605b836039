"""Where tasks meet: the seam between trio and asyncio, and the only module that knows which runs.

Structure (nurseries, scopes, sleeping) is written once, in anyio. What stands on a call's own
path is not: a call parks once and is released once, and anyio's events and streams cost about
half of what that takes natively. So there are two small loops here with one face, `Loop`, and
one primitive, `Waiter`: a one-shot meeting of the task that waits and whoever releases it.

Prior art: trio's `wait_task_rescheduled` and `reschedule` on the one side, asyncio's futures on
the other.

Invariants of a waiter:

- it ends exactly once: released with a value or an error, or abandoned by its task's
  cancellation. Whatever comes later is ignored, so releasing never needs a look first;
- it is released from within the loop only. Threads come in by `Loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVarTuple

import trio
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_clock,
    current_task,
    current_trio_token,
    in_trio_task,
    reschedule,
    wait_task_rescheduled,
)

from .._errors import WrongEventLoop

Ts = TypeVarTuple("Ts")


class Expired(Exception):
    """The waiter's deadline passed before it was released."""


class Waiter(ABC):
    """A one-shot rendezvous."""

    __slots__ = ("deadline", "ended", "error", "expiry", "value")

    ended: bool
    """Released, expired or abandoned."""
    value: object
    """What the waiting task gets."""
    error: BaseException | None
    """What it gets raised instead."""
    deadline: float
    """When it expires; set by what looks after that."""
    expiry: Callable[[], BaseException] | None
    """Makes the error of its expiry, at that moment, if it isn't to be a plain `Expired`."""

    @abstractmethod
    def release(self) -> None:
        """Let the waiting task go on with `value` or `error`."""

    def settle(self, value: object = None) -> None:
        """Let the waiting task go on with ``value``."""
        if not self.ended:
            self.value = value
            self.release()

    def fail(self, error: BaseException) -> None:
        """Let ``error`` be raised in the waiting task."""
        if not self.ended:
            self.error = error
            self.release()

    def expire(self) -> None:
        """Let the waiting task know that its time is up."""
        if not self.ended:
            self.fail(Expired() if self.expiry is None else self.expiry())

    @abstractmethod
    async def wait(self) -> object:
        """Park until released; always a checkpoint. One task, once."""


class Told(Waiter):
    """A waiter for which no task waits: it tells a function instead, in the loop."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self.ended = False
        self.value = self.error = self.expiry = None
        self._tell = tell

    def release(self) -> None:
        """Tell the function."""
        if not self.ended:
            self.ended = True
            self._tell(self)

    async def wait(self) -> object:
        """Not for this one."""
        raise TypeError("nobody waits for this one")


class Loop(ABC):
    """What the runtime needs of the event loop it serves.

    `now`, `waiter` and `checkpoint` are attributes, not methods, so that each loop can put there
    the very function that does it: they stand on the path of a call.
    """

    token: object
    """Identifies this loop among all that ever ran in the process."""

    time_source: object
    """What the time comes from."""

    is_virtual: bool
    """Whether its clock goes otherwise than real time does, as in tests."""

    now: Callable[[], float]
    """The loop's own clock, in seconds; virtual under a virtual clock."""

    waiter: Callable[[], Waiter]
    """Makes a new rendezvous."""

    checkpoint: Callable[[], Awaitable[None]]
    """Lets others run, and notices cancellation."""

    @abstractmethod
    def is_current(self) -> bool:
        """Whether the caller runs in this loop."""

    @abstractmethod
    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Run ``callback`` in the loop; from any thread. In order of submission.

        Does nothing once the loop has ended.
        """

    @abstractmethod
    def forgive_cancellation(self) -> bool:
        """Take back the cancellation that the current task is handling, if it can be.

        True if the task may go on: the cancellation was asked of the task itself rather than of
        a scope around it, which only asyncio knows.
        """


# --- trio ----------------------------------------------------------------------------------------


class _TrioWaiter(Waiter):
    __slots__ = ("_task",)

    def __init__(self) -> None:
        self.ended = False
        self.value = self.error = self.expiry = None
        self._task: Task | None = None

    def release(self) -> None:
        if not self.ended:
            self.ended = True
            if self._task is not None:
                reschedule(self._task)

    def _abort(self, _raise_cancel: object) -> Abort:
        self.ended = True
        return Abort.SUCCEEDED

    async def wait(self) -> object:
        if self.ended:
            await checkpoint()
        else:
            self._task = current_task()
            await wait_task_rescheduled(self._abort)
        if self.error is not None:
            raise self.error
        # What looks after its deadline may keep the waiter for a while, but not a large reply.
        value, self.value = self.value, None
        return value


class _TrioLoop(Loop):
    def __init__(self) -> None:
        self.token = self._token = current_trio_token()
        self.time_source = clock = current_clock()
        self.is_virtual = not type(clock).__module__.startswith("trio._core")
        self.now = clock.current_time
        self.waiter = _TrioWaiter
        self.checkpoint = checkpoint

    def is_current(self) -> bool:
        try:
            return current_trio_token() is self._token
        except RuntimeError:
            return False

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, *args)

    def forgive_cancellation(self) -> bool:
        return False


# --- asyncio -------------------------------------------------------------------------------------


class _AsyncioWaiter(Waiter):
    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = False
        self.value = self.error = self.expiry = None
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def release(self) -> None:
        if not self.ended:
            self.ended = True
            if self._future is not None and not self._future.done():
                self._future.set_result(None)

    async def wait(self) -> object:
        if self.ended:
            await asyncio.sleep(0)
        else:
            self._future = self._loop.create_future()
            try:
                await self._future
            except asyncio.CancelledError:
                self.ended = True
                raise
        if self.error is not None:
            raise self.error
        # What looks after its deadline may keep the waiter for a while, but not a large reply.
        value, self.value = self.value, None
        return value


class _AsyncioLoop(Loop):
    def __init__(self) -> None:
        self.token = self.time_source = self._loop = loop = asyncio.get_running_loop()
        self.is_virtual = not (
            type(loop).__module__.startswith("uvloop")
            or getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
        )
        self.now = self._loop.time
        self.waiter = partial(_AsyncioWaiter, self._loop)
        self.checkpoint = partial(asyncio.sleep, 0)

    def is_current(self) -> bool:
        return asyncio._get_running_loop() is self._loop

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, *args)

    def forgive_cancellation(self) -> bool:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is not None:
            while task.cancelling():
                task.uncancel()
        return True


def running_loop() -> Loop:
    """The event loop that runs the caller.

    Raises:
        WrongEventLoop: None does.
    """
    if in_trio_task():
        return _TrioLoop()
    try:
        return _AsyncioLoop()
    except RuntimeError:
        raise WrongEventLoop(
            f"no event loop runs in thread {threading.current_thread().name!r}"
        ) from None


def running_loop_token() -> object:
    """What `Loop.token` of the running loop is, or None where none runs."""
    if in_trio_task():
        return current_trio_token()
    return asyncio._get_running_loop()
