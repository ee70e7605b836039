"""Wall time, real and virtual.

Alarms are due at instants, so they follow the wall clock wherever it is set; but under a test's
virtual clock they follow that, so that a day passes as fast as the test lets it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
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


class Clock(ABC):
    """Where the time of alarms comes from."""

    @property
    @abstractmethod
    def may_jump(self) -> bool:
        """Whether it may be set, or go on while the event loop's clock stands still.

        It is looked at every second then.
        """

    @abstractmethod
    def now(self) -> int:
        """Microseconds since 1970 UTC; from any thread."""


class SystemClock(Clock):
    """The machine's wall clock."""

    @property
    def may_jump(self) -> bool:
        """It is set by people and daemons, and goes on while the machine is suspended."""
        return True

    def now(self) -> int:
        """See `Clock.now`."""
        return time.time_ns() // 1000


class LoopClock(Clock):
    """Goes as an event loop's clock does; begins at the real time.

    Args:
        source: What the time comes from. All clocks of one source agree, so that a runtime that
            is opened after another one finds its alarms at their time.
        loop_now: The source's time, in seconds.
    """

    def __init__(self, source: object, loop_now: Callable[[], float]) -> None:
        self._loop_now = loop_now
        start = time.time_ns() // 1000 - round(loop_now() * 1e6)
        with suppress(TypeError):  # it can't be a key; then its clocks don't agree
            start = _starts.setdefault(source, start)
        self._start = start

    @property
    def may_jump(self) -> bool:
        """It does what the loop does."""
        return False

    def now(self) -> int:
        """See `Clock.now`."""
        return self._start + round(self._loop_now() * 1e6)


_starts: WeakKeyDictionary[object, int] = WeakKeyDictionary()
"""What the wall clock said when the source's said 0."""
