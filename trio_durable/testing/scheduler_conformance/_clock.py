"""A wall clock that a test can set."""

from __future__ import annotations

from ..._clock import Clock
from ..._eventloop.loop import Loop

_START = 1_790_000_000_000_000


class SettableClock(Clock):
    """Follows the event loop's clock, with jumps.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._start = _START - round(loop.now() * 1e6)
        self.can_be_set = False
        """A test that calls `jump` sets this to True before a scheduler runs."""

    @property
    def may_jump(self) -> bool:
        """See `Clock.may_jump`."""
        return self.can_be_set

    def now(self) -> int:
        """See `Clock.now`."""
        return self._start + round(self._loop.now() * 1e6)

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back if ``seconds`` is negative."""
        assert self.can_be_set
        self._start += round(seconds * 1e6)
