"""Pump: the task that serves the mailboxes of objects which have no worker of their own.

A call's task does two things only: it runs a ``def`` turn on an open object, or it appends to a
mailbox and wakes whatever serves that. Loading, starting workers and draining mailboxes happen
here, on a stack of the runtime's own: not in the depth of a caller's recursion, and not in a task
that may be cancelled, or interrupted by Control-C, in the middle.

Mailboxes are served in slices, as by Akka's dispatchers with their throughput and deadline: after
so many turns of one object others are served, and after so much time other tasks of the program
run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

TURNS = 16
"""The turns of one object in a slice."""
SECONDS = 0.005
"""How long tasks of the program wait for a slice, but for a turn that takes longer."""


class Slice:
    """The share of one object in a pass of the pump, or of its worker.

    Args:
        now: The clock, in seconds.
        until: The end of the pass.
    """

    __slots__ = ("_now", "_until", "turns")

    def __init__(self, now: Callable[[], float], until: float) -> None:
        self._now = now
        self._until = until
        self.turns = 0
        """Turns that were run in it."""

    @property
    def is_over(self) -> bool:
        """True if other objects, or other tasks, come first now."""
        return self.turns >= TURNS or (self.turns > 0 and self.is_late)

    @property
    def is_late(self) -> bool:
        """True if other tasks come first now."""
        return self._now() >= self._until


class SliceClock:
    """The time of slices.

    Args:
        loop: The event loop. Its own time is used if it is virtual, so that runs can be repeated.
    """

    def __init__(self, loop: Loop) -> None:
        self._now = loop.stopwatch()

    def end_of_pass(self) -> float:
        """The end of a pass that begins now."""
        return self._now() + SECONDS

    def slice(self, until: float) -> Slice:
        """A slice of the pass that ends at ``until``."""
        return Slice(self._now, until)


class Served(Protocol):
    """An object whose mailbox is served: an activation."""

    def serve(self, share: Slice) -> bool:
        """Serve the mailbox; return True if the slice was too short. Must not raise."""
        ...


class Pump:
    """The mailboxes to serve, in order.

    Args:
        loop: The event loop.
        clock: The time of its slices.
        deliver: Hands over the loads that have ended.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        loop: Loop,
        clock: SliceClock,
        deliver: Callable[[], None],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._deliver = deliver
        self._failed = failed
        self._ready: OrderedDict[Served, None] = OrderedDict()
        self._serving: Served | None = None
        """Not in ``_ready``, but not served yet; left over by a pass that was cut off."""
        self._work = AutoResetEvent(loop)

    def add(self, served: Served) -> None:
        """Serve a mailbox soon. May be repeated."""
        self._ready[served] = None
        self._work.set()

    def wake(self) -> None:
        """Hand over loads soon. May be repeated."""
        self._work.set()

    def __contains__(self, served: Served) -> bool:
        return served in self._ready or served is self._serving

    async def run(self) -> None:
        """Serve mailboxes, until cancelled."""
        while True:
            if self._ready or self._serving is not None:
                await self._loop.checkpoint()
            else:
                await self._work.wait()
            self._run_pass()

    def _run_pass(self) -> None:
        self._guarded(self._deliver)
        ready, clock = self._ready, self._clock
        if self._serving is not None:
            ready[self._serving] = None
        until = clock.end_of_pass()
        # An object that is served in part waits for the next pass.
        for _ in range(len(ready)):
            self._serving = served = next(iter(ready))
            del ready[served]  # first: what is added from here on is in it again
            share = clock.slice(until)
            if self._guarded(served.serve, share) is not False:  # or it was cut off
                ready[served] = None
            self._serving = None
            if share.is_late:
                break

    def _guarded(self, run: Callable[[*Ts], R], *args: *Ts) -> R | None:
        try:
            return run(*args)
        except BaseException as error:  # noqa: BLE001  # anything, or all objects would stand still
            self._failed(error)
            return None
