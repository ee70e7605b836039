"""Wall time: real and virtual clocks, and instants as integers.

Alarms are due at instants, so they follow the machine's wall clock even when it is set. Under a
test's virtual clock they follow that one, so that a day passes as fast as the test lets it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def instant(microseconds: int) -> datetime:
    """The instant ``microseconds`` after 1970 UTC.

    Raises:
        OverflowError: It is outside the years 1 to 9999.
    """
    return _EPOCH + timedelta(microseconds=microseconds)


def microseconds_of(at: datetime) -> int:
    """Microseconds since 1970 UTC at the instant ``at``, an aware datetime."""
    return (at - _EPOCH) // timedelta(microseconds=1)


EARLIEST: Final = microseconds_of(datetime.min.replace(tzinfo=UTC))
"""The first microsecond of the year 1."""
LATEST: Final = microseconds_of(datetime.max.replace(tzinfo=UTC))
"""The last microsecond of the year 9999."""


def _boot_clock() -> Callable[[], float]:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if clock is None else partial(time.clock_gettime, clock)


boot_time: Final = _boot_clock()
"""Seconds since the machine was started, with those in which it was suspended, where the system
counts these. Never set, so the time of leases."""


class Clock(ABC):
    """The wall clock that alarms follow."""

    @property
    @abstractmethod
    def may_jump(self) -> bool:
        """True if the clock can be set, or go on while the event loop's clock stands still.

        The scheduler then reads it every second.
        """

    @abstractmethod
    def now(self) -> int:
        """Microseconds since 1970 UTC; from any thread."""


class SystemClock(Clock):
    """The machine's wall clock."""

    @property
    def may_jump(self) -> bool:
        """True: people and daemons set it, and it goes on while the machine is suspended."""
        return True

    def now(self) -> int:
        """See `Clock.now`."""
        return time.time_ns() // 1000


class LoopClock(Clock):
    """The clock of an event loop as wall time, starting at the real time.

    Args:
        source: The object that the time comes from. All clocks of one source agree, so that a
            runtime finds the alarms of an earlier one at their time.
        loop_now: The source's time, in seconds.
    """

    def __init__(self, source: object, loop_now: Callable[[], float]) -> None:
        self._loop_now = loop_now
        start = time.time_ns() // 1000 - round(loop_now() * 1e6)
        with suppress(TypeError):  # unhashable or without weak references: its clocks don't agree
            start = _starts.setdefault(source, start)
        self._start = start

    @property
    def may_jump(self) -> bool:
        """False: it is the loop's own clock."""
        return False

    def now(self) -> int:
        """See `Clock.now`."""
        return self._start + round(self._loop_now() * 1e6)


_starts: WeakKeyDictionary[object, int] = WeakKeyDictionary()
"""The wall time, in microseconds, at which the time of each source was 0."""
