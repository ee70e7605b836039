"""The retry policy of an alarm: exponential backoff with jitter."""

from __future__ import annotations

import math
import random

import attrs

from .._durations import Duration, positive_int, seconds


def _initial(value: Duration) -> float:
    return seconds(value, "initial")


def _maximum(value: Duration) -> float:
    return seconds(value, "maximum")


def _factor(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"factor must be a number, not {value!r}")
    try:
        factor = float(value)
    except OverflowError:
        factor = math.inf
    if not 1 <= factor < math.inf:
        raise ValueError(f"factor must be a finite number of 1 or more, not {value!r:.60}")
    return factor


@attrs.frozen
class Retry:
    """Exponential backoff: each delay is ``factor`` times the one before, up to ``maximum``.

    Each delay is shortened by a random part of up to a half ("equal jitter" in Marc Brooker's
    "Exponential Backoff and Jitter", 2015), so that alarms that failed together aren't retried
    together.

    Raises:
        ValueError: An argument is out of its range.
    """

    initial: float = attrs.field(default=2.0, converter=_initial)
    """The first delay; a ``timedelta`` or seconds."""
    factor: float = attrs.field(default=2.0, converter=_factor)
    """The ratio of each delay to the one before; 1 or more."""
    maximum: float = attrs.field(default=300.0, converter=_maximum)
    """The longest delay; a ``timedelta`` or seconds."""
    attempts: int | None = None
    """Attempts before the alarm becomes a dead letter, 1 or more; None for no limit."""
    crashes: int | None = 10
    """Crashes before the alarm or message becomes a dead letter, 1 or more; None for no limit.

    A crash is the death of the process in the first 10 seconds of a delivery. The first one isn't
    counted, since any of the alarms that were being delivered may have caused it. From then on
    these alarms begin one at a time until a delivery of theirs outlasts that, and crashes are
    counted for the one that has begun. The delay after each is that after as many failures."""

    def __attrs_post_init__(self) -> None:
        if self.attempts is not None:
            positive_int(self.attempts, "attempts")
        if self.crashes is not None:
            positive_int(self.crashes, "crashes")

    def is_exhausted(self, failures: int) -> bool:
        """True if the alarm has no attempt left after ``failures``."""
        return self.attempts is not None and failures >= self.attempts

    def is_fatal(self, crashes: int) -> bool:
        """True if the alarm isn't delivered any more after ``crashes``."""
        return self.crashes is not None and crashes >= self.crashes

    def delay(self, failures: int) -> float:
        """The seconds until the next attempt, after ``failures`` of 1 or more."""
        try:
            longest = min(self.initial * self.factor ** (failures - 1), self.maximum)
        except OverflowError:
            longest = self.maximum if self.initial else 0.0
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter


DEFAULT_RETRY = Retry()
