"""Bounces: runs of jobs that this process can't serve, each put off for longer than the one before.

The processes of a queue may serve different types, so the first pause is short: another process is
likely to get the job next. An alarm that nothing serves would be fetched all the time with such a
pause, so it doubles, up to the longest.
"""

from __future__ import annotations

from collections import OrderedDict

from ..._keys import AlarmKey

FIRST_SECONDS = 0.05
CAPACITY = 10_000
"""How many alarms are kept. One that isn't begins with the first pause."""


class Bounces:
    """The bounces of one scheduler.

    Args:
        longest: The longest pause in seconds. An alarm that hasn't bounced for twice as long begins
            with the first one.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._latest: OrderedDict[AlarmKey, tuple[float, float]] = OrderedDict()
        """The time and the pause of each alarm's latest bounce."""

    def pause(self, key: AlarmKey, now: float) -> float:
        """The seconds after which an alarm is run once more.

        Args:
            key: The alarm.
            now: The time in seconds, by any clock that doesn't go backwards.
        """
        seconds = min(FIRST_SECONDS, self._longest)
        before = self._latest.pop(key, None)
        if before is not None and now - before[0] <= 2 * self._longest:
            seconds = min(2 * before[1], self._longest)
        self._latest[key] = now, seconds
        if len(self._latest) > CAPACITY:
            self._latest.popitem(last=False)
        return seconds
