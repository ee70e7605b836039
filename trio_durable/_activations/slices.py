"""Slices: the shares of mailboxes in the time of the event loop.

After so many turns of one object others are served, and after so much time other tasks of the
program run. Prior art: Akka's dispatchers, with their throughput and deadline.
"""

from __future__ import annotations

from collections.abc import Callable

from .._eventloop.loop import Loop

TURNS = 16
"""The turns of one object in a slice."""
SECONDS = 0.005
"""How long tasks of the program wait for a slice, but for a turn that takes longer."""


class Slice:
    """The share of one object in a pass of the pump, or of a worker that finishes its turn.

    Args:
        now: The clock, in seconds.
        until: The end of the pass.
    """

    __slots__ = ("_now", "_until", "turns")

    def __init__(self, now: Callable[[], float], until: float) -> None:
        self._now = now
        self._until = until
        self.turns: int = 0
        """Turns that were run in it."""

    def end(self) -> None:
        """Let others come first now."""
        self.turns = TURNS

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
