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

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVarTuple

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


# --- asyncio -------------------------------------------------------------------------------------
