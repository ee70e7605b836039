"""Schedules by calendar: five fields of cron in a time zone.

``cronsim`` reads the fields and finds matching local times, on a calendar without a time zone. The
way from local time to instants is here, since there the library isn't exact: from an instant in
the hour that is doubled when clocks are set back it may return an instant that has passed, and
where clocks change by half an hour it may miss the first half. So time is cut where the offset of
the zone changes, and each piece is a calendar without changes.

Local times that clocks skip or repeat are treated as in Debian's cron. An alarm for certain times,
which names its minutes and hours, fires once: right after the gap that its time is in, or in the
first pass of a repeated hour. If the field of minutes or hours begins with a star, the alarm fires
at all local times that there are: never in a gap, and in both passes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from .._clock import EARLIEST, instant, microseconds_of

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_DAY, _MONTH, _WEEKDAY = 2, 3, 4
_NUMBER = r"[0-9]{1,2}"
_NAMES = {
    _MONTH: "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
    _WEEKDAY: "SUN|MON|TUE|WED|THU|FRI|SAT",
}
_LENGTHS = (60, 24, 31, 12, 7)

_HOUR = 3600_000_000
_DAY_AND_NIGHT = 24 * _HOUR
_YEAR = 365 * _DAY_AND_NIGHT
"""In microseconds."""
_SECOND = timedelta(seconds=1)
_DAY_LONG = timedelta(days=1)
"""Offsets of zones change twice within a day nowhere."""


@attrs.frozen
class Cron:
    """Certain local times in a time zone."""

    expression: str
    """The five fields, in capitals, with one space between two of them."""
    zone: str
    """The name of the zone in the IANA's data, such as "Europe/Berlin"."""

    def after(self, at: int) -> int | None:
        """The first time of the schedule after ``at``; None if there is none in fifty years.

        Both in microseconds since 1970 UTC.
        """
        try:
            found = self._after(instant(max(at, EARLIEST)).replace(tzinfo=None))
        except (OverflowError, ValueError):  # after the year 9999
            return None
        return None if found is None else microseconds_of(found.replace(tzinfo=UTC))

    def most_within(self, span: int) -> int:
        """A number of times that so many microseconds can't exceed. It is cheap, and too large."""
        per_hour, per_day, per_year = _densities(self.expression)
        return min(
            per_hour * (span // _HOUR + 2),
            per_day * (span // _DAY_AND_NIGHT + 2),
            per_year * (span // _YEAR + 2),
        )

    def last_until(self, until: int, number: int) -> list[int]:
        """The last times of the schedule until a time, up to so many; of fifty years at most."""
        # They are computed for the hour that ends next, so that catching up, which asks for each
        # firing, takes the time for that once.
        times = _last_times(self, (until // _HOUR + 1) * _HOUR, number + 60)
        return times[: bisect_right(times, until)][-number:]

    @property
    def rules(self) -> str:
        """The schedule and the rules of its zone, as a text that changes if any time may change."""
        return f"cron {self.expression} {_rules_of(self.zone)}"

    def __str__(self) -> str:
        return f"{self.expression} {self.zone}"

    # --- inside: times without tzinfo are UTC, or local where they are called so ------------------

    def _after(self, now: datetime) -> datetime | None:
        zone = _zone(self.zone)
        offset = _offset(zone, now)
        local = now + offset
        while True:
            candidate = self._local_after(local)
            if candidate is None:
                return None
            change = _next_change(zone, now, candidate - offset)
            if change is None:
                if not self._is_repeated(zone, candidate, offset):
                    return candidate - offset
                local = candidate
                continue
            before, now, offset = offset, change, _offset(zone, change)
            if self._names_times and change + before <= candidate < change + offset:
                return change
            local = change + offset - _SECOND

    def _local_after(self, local: datetime) -> datetime | None:
        from cronsim import CronSim  # an import that few programs need

        return next(CronSim(self.expression, local), None)

    @property
    def _names_times(self) -> bool:
        """True if it is for certain times, see the module."""
        minute, hour, *_ = self.expression.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def _is_repeated(self, zone: ZoneInfo, local: datetime, offset: timedelta) -> bool:
        """True if the alarm has fired at this local time, in the first pass of its hour."""
        first = local.replace(tzinfo=zone, fold=0).utcoffset()
        assert first is not None
        return self._names_times and first > offset


@lru_cache(maxsize=1024)
def _densities(expression: str) -> tuple[int, int, int]:
    """The largest numbers of times in an hour, a day and a year."""
    from cronsim import CronSim

    fields = CronSim(expression, datetime(2024, 1, 1))
    _, _, days, _, weekdays = expression.split()
    days_a_month = 31
    if weekdays == "*":
        days_a_month = len(fields.days)
    elif days == "*":
        days_a_month = min(31, 5 * len(fields.weekdays))
    per_hour = len(fields.minutes)
    per_day = per_hour * len(fields.hours)
    return per_hour, per_day, per_day * days_a_month * len(fields.months)


@lru_cache(maxsize=16)
def _last_times(cron: Cron, until: int, number: int) -> list[int]:
    """See `Cron.last_until`."""
    span = number * _HOUR // 60
    while True:
        # Backwards in steps that grow, since the times aren't evenly far apart.
        found = deque[int](maxlen=number)
        at: int | None = until - span
        while at is not None and (at := cron.after(at)) is not None and at <= until:
            found.append(at)
        if len(found) == number or span > 50 * _YEAR:
            return list(found)
        span = span * number // len(found) * 9 // 8 if len(found) > 30 else span * 4


def checked_cron(expression: object, zone: object) -> Cron:
    """The schedule of ``cron=`` and ``zone=``.

    Raises:
        ValueError: It is none, or has a form that isn't promised. The message names that.
    """
    if not isinstance(expression, str):
        raise ValueError(f"cron must be a str of five fields, not {expression!r:.60}")
    if not isinstance(zone, str):
        raise ValueError(f"zone must be the name of a time zone, a str, not {zone!r:.60}")
    fields = expression.upper().split()
    if len(fields) != len(_FIELDS):
        hint = "; seconds aren't supported" if len(fields) == len(_FIELDS) + 1 else ""
        if expression.startswith("@"):
            hint = "; write a macro such as @daily as its fields, 0 0 * * *"
        raise ValueError(
            f"cron={expression!r:.60} has {len(fields)} fields, not five: minute, hour, day of "
            f"the month, month, day of the week{hint}"
        )
    for position, field in enumerate(fields):
        problem = _field_problem(position, field)
        if problem is not None:
            raise ValueError(f"cron={expression!r:.60}, {_FIELDS[position]} {field!r}: {problem}")
    _zone(zone)
    cron = Cron(" ".join(fields), zone)
    _check_by_library(cron, expression)
    return cron


def _check_by_library(cron: Cron, expression: str) -> None:
    from cronsim import CronSimError

    try:
        found = cron.after(microseconds_of(datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"cron={expression!r:.60} can't be read: {error}") from None
    if found is None:
        raise ValueError(f"cron={expression!r:.60} matches no day within fifty years")


def _field_problem(position: int, field: str) -> str | None:
    """The reason why a field is refused. Its numbers' ranges are left to the library."""
    if step := re.fullmatch(rf"\*/({_NUMBER})", field):
        return _step_problem(int(step[1]), _LENGTHS[position])
    if field == "*":
        return None
    names = _NAMES.get(position)
    value = f"(?:{_NUMBER}|{names})" if names else _NUMBER
    for term in field.split(","):
        if "*" in term:
            return "a star stands alone or with a step, as in */5"
        if re.fullmatch(value, term) or re.fullmatch(f"{value}-{value}", term):
            continue
        if step := re.fullmatch(f"({value}-{value})/({_NUMBER})", term):
            problem = _step_problem(int(step[2]), _length(step[1], _LENGTHS[position]))
            if problem is not None:
                return problem
            continue
        if re.fullmatch(f"{value}/{_NUMBER}", term):
            return "a step follows a star or a range, as in */5 or 10-59/5"
        if position == _DAY and term in ("L", "LW"):
            continue
        if position == _WEEKDAY and re.fullmatch(f"[0-7]L|{value}#[1-5]", term):
            continue
        return (
            f"{term!r} isn't a number, a range, or a range with a step"
            + (", L or LW" if position == _DAY else "")
            + (", a name, MON#1 or 5L" if position == _WEEKDAY else "")
            + (" or a name" if position == _MONTH else "")
        )
    return None


def _length(given: str, most: int) -> int:
    first, _, last = given.partition("-")
    return int(last) - int(first) + 1 if first.isdigit() and last.isdigit() else most


def _step_problem(step: int, length: int) -> str | None:
    if step == 0:
        return "a step is 1 or more"
    if step >= length > 1:
        return f"a step of {step} selects only the first of {length}; name that one"
    return None


# --- zones ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    """The zone of that name.

    Raises:
        ValueError: It isn't known.
    """
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(
            f"zone={name!r:.60} isn't in this machine's data of time zones; write a name such as "
            "Europe/Berlin or UTC, or install the package tzdata"
        ) from None


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    offset = at.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _next_change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first second after ``after``, up to ``until``, at which the offset is another one."""
    offset = _offset(zone, after)
    low = after.replace(microsecond=0)
    while low < until:
        high = min(low + _DAY_LONG, until)
        if _offset(zone, high) != offset:
            while high - low > _SECOND:
                middle = low + (high - low) // _SECOND // 2 * _SECOND
                low, high = (low, middle) if _offset(zone, middle) != offset else (middle, high)
            return high
        low = high
    return None


_FIRST_YEAR, _LAST_YEAR = 2025, 2050
"""The years whose rules count for a fingerprint. Data that tell of later ones repeat these."""


@lru_cache(maxsize=1024)
def _rules_of(name: str) -> str:
    """A hash of a zone's offsets. Names and encodings of the same rules have the same one."""
    rules = blake2b(digest_size=8)
    for change in _changes(_zone(name)):
        rules.update(repr(change).encode())
    return rules.hexdigest()


def _changes(zone: ZoneInfo) -> Iterator[tuple[str, float]]:
    at, end = datetime(_FIRST_YEAR, 1, 1), datetime(_LAST_YEAR, 1, 1)  # UTC
    yield "", _offset(zone, at).total_seconds()
    while (change := _next_change(zone, at, end)) is not None:
        yield change.isoformat(), _offset(zone, change).total_seconds()
        at = change
