"""When an alarm whose handler failed is due again."""

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

    A random part of up to a half is taken off each ("equal jitter" in Marc Brooker's
    "Exponential Backoff and Jitter", 2015), so that what failed together isn't tried again
    together.

    Raises:
        ValueError: An argument makes no sense.
    """

    initial: float = attrs.field(default=2.0, converter=_initial)
    """The first delay; a ``timedelta`` or seconds."""
    factor: float = attrs.field(default=2.0, converter=_factor)
    """1 or more."""
    maximum: float = attrs.field(default=300.0, converter=_maximum)
    """The longest delay; a ``timedelta`` or seconds."""
    attempts: int | None = None
    """How often the handler is tried before the alarm becomes a dead letter; None: for ever."""

    def __attrs_post_init__(self) -> None:
        if self.attempts is not None:
            positive_int(self.attempts, "attempts")

    def is_exhausted(self, failures: int) -> bool:
        """Whether ``failures`` were enough."""
        return self.attempts is not None and failures >= self.attempts

    def delay(self, failures: int) -> float:
        """The seconds to wait after so many ``failures``, of which there is at least one."""
        try:
            longest = min(self.initial * self.factor ** (failures - 1), self.maximum)
        except OverflowError:
            longest = self.maximum if self.initial else 0.0
        return longest * random.uniform(0.5, 1.0)


DEFAULT_RETRY = Retry()
