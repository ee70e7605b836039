"""The interface of an event loop: waiting for a single result, time, and calls from threads.

Structure (nurseries, cancel scopes, sleeping) is written once, on anyio. The path of a call is not:
a call parks its task once and is released once, and anyio's events and streams cost twice what
that takes natively. So trio and asyncio each have a small backend with one interface, `Loop`, and
one primitive, `Waiter`, in which one task waits for one result.

Prior art: trio's `wait_task_rescheduled` and `reschedule`, and asyncio's futures.

Invariants of a waiter:

- It ends exactly once: released with a value or an error, or abandoned because its task left `wait`
  by an exception, whichever. Later releases are ignored, so a release needs no check first.
- It is released inside the loop only. Threads use `Loop.call_soon_threadsafe`.
- It keeps neither value nor error once `wait` has handed them over: `Deadlines` may hold a waiter
  for longer, and an error refers to the frames and arguments of its call.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from time import perf_counter
from typing import Any, TypeAlias, TypeVarTuple

from .._clock import Clock, LoopClock, SystemClock

Ts = TypeVarTuple("Ts")
_Callback: TypeAlias = "tuple[Callable[..., object], tuple[object, ...]]"

logger = logging.getLogger("trio_durable")

_REPORTS = 3
"""Attempts to report what a callback has raised."""


class Expired(Exception):
    """The waiter's deadline passed before it was released."""


class Waiter(ABC):
    """A one-shot result, for one task that waits for it."""

    __slots__ = ("deadline", "ended", "error", "expiry", "value")

    ended: bool
    """Released, expired or abandoned."""
    value: object
    """The result that `wait` returns."""
    error: BaseException | None
    """The error that `wait` raises instead."""
    deadline: float
    """The loop's time at which it expires; set by `Deadlines`."""
    expiry: Callable[[], BaseException] | None
    """Makes the error of its expiry, at that moment; a plain `Expired` without it."""

    @abstractmethod
    def release(self) -> None:
        """Resume the waiting task with `value` or `error`.

        `ended` is set last: a release that was cut off in between can be repeated.
        """

    def settle(self, value: object = None) -> None:
        """Resume the waiting task with ``value``."""
        if not self.ended:
            self.value = value
            self.release()

    def wake(self) -> None:
        """`settle`, where the stack is a user's and may have no room left.

        Raises:
            RecursionError: It has none. The waiter can still be released.
        """
        self.settle()

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the waiting task."""
        if not self.ended:
            self.error = error
            self.release()

    def expire(self) -> None:
        """Raise `Expired`, or the error of `expiry`, in the waiting task."""
        if not self.ended:
            self.fail(Expired() if self.expiry is None else self.expiry())

    @abstractmethod
    async def wait(self) -> object:
        """Park the task until the release. Always a checkpoint. For one task, once."""

    def _raise(self) -> None:
        """Raise the error from `wait`; the waiter forgets it."""
        error, self.error, self.value = self.error, None, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # or the error's traceback, this frame and the error would be a cycle


class CallbackWaiter(Waiter):
    """A waiter without a task: its release calls a function, inside the loop.

    The function is called a second time if a release is repeated that it was cut off in.
    """

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[Any], object]) -> None:
        self.ended: bool = False
        self.value: object = None
        self.error: BaseException | None = None
        self.expiry: Callable[[], BaseException] | None = None
        self._callback = callback

    def release(self) -> None:
        """Call the function with this waiter."""
        if not self.ended:
            self._callback(self)
            self.ended = True

    def discard(self) -> None:
        """End without a call of the function, and forget it."""
        self.ended = True
        self._callback = _ignore

    async def wait(self) -> object:
        """Not supported.

        Raises:
            TypeError: Always.
        """
        raise TypeError("no task can wait for a CallbackWaiter; it calls a function")


def check_headroom(levels: int) -> None:
    """Raise RecursionError if the stack has no room for so many levels, to resume a task."""
    if levels:
        check_headroom(levels - 1)


def _ignore(_waiter: object) -> None:
    pass


def _log(error: BaseException) -> None:
    logger.error("a callback has failed", exc_info=error)


def _run_guarded(loop: Loop, arrived: deque[_Callback]) -> Generator[None, None, None]:
    """Calls the callbacks that have arrived, in order, and passes on their exceptions.

    It stands in its ``try`` when it is resumed. A function that began one would let an exception of
    a signal's handler out that comes before its first line. A callback is in the queue until it has
    returned, since such an exception may also come when the generator is resumed. One that raises
    is called a second time: it may have been cut off before it has done anything.
    """
    first: _Callback | None = None
    tried: _Callback | None = None
    while True:
        try:
            while True:  # in the ``try``, since a signal's handler may be run at a jump back, too
                while arrived:
                    first = arrived[0]
                    if first is tried:
                        del arrived[0]
                    tried = first
                    first[0](*first[1])
                    if arrived and arrived[0] is first:
                        del arrived[0]
                tried = first = None  # or they would be kept while this waits
                yield
        except GeneratorExit:
            return
        except BaseException as error:  # noqa: BLE001  # anything: see `Loop.failed`
            _report(loop, error)


def _report(loop: Loop, error: BaseException) -> None:
    """Call `Loop.failed`. Its exception is another signal's, or the same fault."""
    for _ in range(_REPORTS):
        with suppress(BaseException):
            loop.failed(error)
            return


class Loop(ABC):
    """The part of an event loop that the runtime needs.

    `now`, `waiter`, `checkpoint`, `pause` and `current_task` are attributes, not methods, so that
    each backend can put its native function there: every call uses them.
    """

    token: object
    """Identifies this loop among all that ever ran in the process."""

    time_source: object
    """The object that the time comes from: a clock, or the loop itself."""

    is_asyncio = False
    """True on asyncio, for other libraries there."""
    is_virtual: bool
    """True if its clock differs from real time, as in tests."""

    now: Callable[[], float]
    """The loop's own clock, in seconds; virtual under a virtual clock."""

    waiter: Callable[[], Waiter]
    """Makes a new waiter."""

    checkpoint: Callable[[], Awaitable[None]]
    """Lets other tasks run, and delivers cancellation."""

    pause: Callable[[], Awaitable[None]]
    """The checkpoint of a call that waited for nothing. Always a cancel point; on Trio in real time
    other tasks run within a `Budget` only, on asyncio each time."""

    current_task: Callable[[], object]
    """The task that runs the caller, by identity."""

    failed: Callable[[BaseException], object]
    """Called with the exception of a callback. Nothing else of it leaves the loop."""

    def __init__(self) -> None:
        self.failed = _log
        self._arrived: deque[_Callback] = deque()
        self._guard = _run_guarded(self, self._arrived)
        next(self._guard)

    def wall_clock(self) -> Clock:
        """The source of wall time: the system's clock, or this loop's if that is virtual."""
        return LoopClock(self.time_source, self.now) if self.is_virtual else SystemClock()

    def stopwatch(self) -> Callable[[], float]:
        """The clock for durations, in seconds: `now` of a virtual clock, else the finest one.

        uvloop's `now` counts whole milliseconds, and turns mostly take less.
        """
        return self.now if self.is_virtual else perf_counter

    @abstractmethod
    def is_current(self) -> bool:
        """True if the caller runs in this loop."""

    @abstractmethod
    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Run ``callback`` in the loop; from any thread. In order of submission.

        It is run a second time if it raises, so it must allow that. Does nothing once the loop has
        ended.
        """

    @abstractmethod
    def waits_for_me(self, task: object) -> bool:
        """True if ``task`` can't end before the current task: it is the same or an ancestor.

        On Trio all ancestors are known. On asyncio tasks have no parents, except in AnyIO's task
        groups, and of these the next one is known; a task that is awaited by other means isn't.
        """

    @abstractmethod
    def spawn(
        self, run: Callable[[], Coroutine[Any, Any, None]], name: str, context: Context
    ) -> object:
        """Start a task that belongs to the loop: no nursery or cancel scope of the caller has it.

        The loop cancels it when it ends. ``run`` may raise nothing but that cancellation.

        Returns:
            The task, to be kept while it runs.
        """

    @abstractmethod
    def cancel_probe(self, task: object) -> Callable[[], object]:
        """A function whose value changes while ``task`` is in another cancel scope than now.

        On asyncio it changes with a cancellation to come, too; and scopes count only for a task
        that is in one now.
        """

    interruptible: Callable[..., Any]
    """Calls a function with arguments, in which Control-C may be raised.

    In a task of `spawn` it isn't raised elsewhere, if the loop can hold it off.
    """

    @abstractmethod
    def interrupt(self, error: BaseException) -> None:
        """Raise Control-C or an exit, which no caller waits for, where the program was started.

        Does nothing if the loop has no means for it.
        """
