"""Durations, and checks of the numbers that users give."""

from __future__ import annotations

import enum
import math
from datetime import timedelta
from typing import Final

Duration = timedelta | float
"""A ``timedelta``, or a number of seconds."""

_YEAR = 366 * 86400.0


class Unset(enum.Enum):
    """The type of `UNSET`: the default of a duration where None stands for never."""

    UNSET = enum.auto()


UNSET: Final = Unset.UNSET


def seconds(value: Duration, name: str) -> float:
    """The length of ``value`` in seconds.

    Raises:
        ValueError: It is negative, not finite, or not a duration at all. The message begins
            with ``name``.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a timedelta or seconds, not {value!r}")
    try:
        length = float(value)
    except OverflowError:
        length = math.inf
    if not 0 <= length < math.inf:
        raise ValueError(f"{name} must be a finite time of zero or more, not {value!r:.60}")
    return length


def optional_seconds(value: Duration | None, name: str) -> float | None:
    """The length of ``value`` in seconds, or None, which stands for never or no limit.

    Raises:
        ValueError: See `seconds`.
    """
    return None if value is None else seconds(value, name)


def interval_seconds(value: Duration, name: str) -> float:
    """The length of ``value`` in seconds, as the period of a task or a timeout.

    Raises:
        ValueError: It isn't between a millisecond and a year. The message begins with ``name``.
    """
    length = seconds(value, name)
    if not 0.001 <= length <= _YEAR:
        raise ValueError(f"{name} must be between a millisecond and a year, not {value!r}")
    return length


def positive_int(value: object, name: str) -> int:
    """``value`` itself, a count of 1 or more.

    Raises:
        ValueError: It isn't an int of 1 or more. The message begins with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an int of 1 or more, not {value!r:.60}")
    return value
