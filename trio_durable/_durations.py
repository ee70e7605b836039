"""Lengths of time as users give them."""

from __future__ import annotations

import enum
import math
from datetime import timedelta
from typing import Final

Duration = timedelta | float
"""A ``timedelta``, or a number of seconds."""


class Unset(enum.Enum):
    """Tells a duration that wasn't given from None, which stands for never."""

    UNSET = enum.auto()


UNSET: Final = Unset.UNSET


def seconds(value: Duration, name: str) -> float:
    """``value`` in seconds.

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
    """``value`` in seconds, or None, which stands for never or no limit."""
    return None if value is None else seconds(value, name)
