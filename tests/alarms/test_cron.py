"""Schedules by calendar: the next time, at each change of clocks of every zone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable._alarms.cron import Cron, checked_cron
from trio_durable._clock import instant, microseconds_of

MINUTE = timedelta(minutes=1)
EXAMPLES = int(os.environ.get("TRIO_DURABLE_EXAMPLES", "15"))


def at(text: str) -> int:
    return microseconds_of(datetime.fromisoformat(text))


def following(cron: Cron, after: str, count: int = 1) -> list[str]:
    """The next times after an instant, in the cron's zone."""
    found, time = [], at(after)
    for _ in range(count):
        next_time = cron.after(time)
        assert next_time is not None
        assert next_time > time
        time = next_time
        found.append(instant(time).astimezone(ZoneInfo(cron.zone)).isoformat(" ", "minutes"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * mon-fri", ["2026-01-05 09:00+01:00", "2026-01-06 09:00+01:00"]),
        ("*/20 8 1 * *", ["2026-02-01 08:00+01:00", "2026-02-01 08:20+01:00"]),
        ("30 6 L * *", ["2026-01-31 06:30+01:00", "2026-02-28 06:30+01:00"]),
        ("0 0 * * MON#1", ["2026-01-05 00:00+01:00", "2026-02-02 00:00+01:00"]),
        ("0 12 * jan,jul 5L", ["2026-01-30 12:00+01:00", "2026-07-31 12:00+02:00"]),
    ],
)
def test_the_next_times_are_those_of_the_fields(expression: str, expected: list[str]) -> None:
    cron = checked_cron(expression, "Europe/Berlin")
    assert following(cron, "2026-01-03T12:00:00+01:00", 2) == expected


def test_a_certain_time_in_a_gap_comes_right_after_it() -> None:
    cron = checked_cron("30 2 * * *", "Europe/Berlin")
    assert following(cron, "2026-03-28T12:00:00+01:00", 2) == [
        "2026-03-29 03:00+02:00",
        "2026-03-30 02:30+02:00",
    ]


def test_a_certain_time_in_a_doubled_hour_comes_once() -> None:
    cron = checked_cron("30 2 * * *", "Europe/Berlin")
    assert following(cron, "2026-10-24T12:00:00+02:00", 2) == [
        "2026-10-25 02:30+02:00",
        "2026-10-26 02:30+01:00",
    ]


def test_from_the_second_pass_of_a_doubled_hour_no_time_has_passed() -> None:
    # Where the library gave one of the first pass.
    cron = checked_cron("45 2 * * *", "Europe/Berlin")
    assert following(cron, "2026-10-25T02:30:00+01:00") == ["2026-10-26 02:45+01:00"]


def test_a_frequent_alarm_comes_in_both_passes_and_never_in_a_gap() -> None:
    cron = checked_cron("*/30 2 * * *", "Europe/Berlin")
    assert following(cron, "2026-10-24T12:00:00+02:00", 4) == [
        "2026-10-25 02:00+02:00",
        "2026-10-25 02:30+02:00",
        "2026-10-25 02:00+01:00",
        "2026-10-25 02:30+01:00",
    ]
    assert following(cron, "2026-03-28T12:00:00+01:00") == ["2026-03-30 02:00+02:00"]


def test_a_change_by_half_an_hour_loses_nothing() -> None:
    # Where the library began at half past.
    cron = checked_cron("*/10 3 * * *", "Australia/Lord_Howe")
    assert following(cron, "2026-10-04T01:10:00+10:30", 2) == [
        "2026-10-04 03:00+11:00",
        "2026-10-04 03:10+11:00",
    ]


def test_a_day_that_a_zone_skipped_has_its_alarm_right_after() -> None:
    cron = checked_cron("0 9 30 12 *", "Pacific/Apia")
    assert following(cron, "2011-12-29T12:00:00-10:00") == ["2011-12-31 00:00+14:00"]


def test_microseconds_and_the_end_of_time_are_no_trouble() -> None:
    cron = checked_cron("* * * * *", "UTC")
    assert cron.after(at("2026-01-01T00:00:00+00:00") - 1) == at("2026-01-01T00:00:00+00:00")
    assert cron.after(at("2026-01-01T00:00:00+00:00")) == at("2026-01-01T00:01:00+00:00")
    assert cron.after(at("9999-12-31T23:59:30+00:00")) is None
    assert cron.after(-(2**63)) is not None


# --- all zones -----------------------------------------------------------------------------------

FIRST, LAST = datetime(2006, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
ZONES = sorted(name for name in available_timezones() if "/" in name)


@lru_cache(maxsize=8)
def changes_of(zone: str) -> list[datetime]:
    """The minutes in twenty years at which the offset of a zone changes, by looking at each day."""
    info, found, day = ZoneInfo(zone), [], FIRST
    while day < LAST:
        after = day + timedelta(days=1)
        if day.astimezone(info).utcoffset() != after.astimezone(info).utcoffset():
            minute = day
            while minute.astimezone(info).utcoffset() == day.astimezone(info).utcoffset():
                minute += MINUTE
            found.append(minute)
        day = after
    return found


MINUTES = {"*": range(60), "*/15": range(0, 60, 15), "0": [0], "30": [30], "10,40": [10, 40]}
HOURS = {"*": range(24), "*/2": range(0, 24, 2), "0": [0], "1": [1], "2": [2], "3": [3], "23": [23]}
DAYS = {"*": range(7), "0": [0], "6": [6], "1-5": range(1, 6)}


def local_times(zone: ZoneInfo, minute: str, hour: str, day: str, near: datetime) -> set[datetime]:
    """The instants of a schedule within two days around a change of clocks, by their definition."""
    minutes = [near + MINUTE * n for n in range(-1500, 2200)]
    local = [(each, each.astimezone(zone).replace(tzinfo=None)) for each in minutes]

    def matches(time: datetime) -> bool:
        return (
            time.minute in MINUTES[minute]
            and time.hour in HOURS[hour]
            and time.isoweekday() % 7 in DAYS[day]
        )

    if minute.startswith("*") or hour.startswith("*"):
        return {each for each, time in local if matches(time)}
    return set(_once_each(local, matches))


def _once_each(local: list[tuple[datetime, datetime]], matches: object) -> Iterator[datetime]:
    assert callable(matches)
    latest = local[0][1] - MINUTE
    for each, time in local:
        # The local times that come at this instant: mostly one, none in a second pass, and all of a
        # gap at its end.
        while latest < time:
            latest += MINUTE
            if matches(latest):
                yield each


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_the_next_time_is_the_first_one_after_around_every_change_of_clocks(
    data: st.DataObject,
) -> None:
    zone = data.draw(st.sampled_from(ZONES))
    changes = changes_of(zone)
    near = data.draw(st.sampled_from(changes)) if changes else FIRST
    minute = data.draw(st.sampled_from(sorted(MINUTES)))
    hour = data.draw(st.sampled_from(sorted(HOURS)))
    day = data.draw(st.sampled_from(sorted(DAYS)))
    start = near + MINUTE * data.draw(st.integers(-1400, 300))
    cron = checked_cron(f"{minute} {hour} * * {day}", zone)
    expected = sorted(
        each for each in local_times(ZoneInfo(zone), minute, hour, day, near) if each > start
    )
    end, time, found = near + timedelta(days=1, hours=12), start, []
    while True:
        next_time = cron.after(microseconds_of(time))
        assert next_time is not None
        time = instant(next_time)
        if time > end:
            break
        found.append(time)
    assert found == [each for each in expected if each <= end]


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        (5, "cron must be a str of five fields, not 5"),
        ("0 9 * *", "has 4 fields, not five: minute, hour, "),
        ("0 0 9 * * *", "has 6 fields, not five: .*; seconds aren't supported"),
        ("@daily", "has 1 fields, not five: .*; write a macro such as @daily as its fields, "),
        ("60 9 * * *", "can't be read: Bad minute"),
        ("0 9 * * mon-sun", "can't be read: Bad day-of-week"),
        ("0 9 L/2 * *", "day of the month 'L/2': 'L/2' isn't a number, a range, or a range "),
        ("10/5 9 * * *", "minute '10/5': a step follows a star or a range, as in "),
        ("*/0 9 * * *", "minute '\\*/0': a step is 1 or more"),
        ("*/70 9 * * *", "minute '\\*/70': a step of 70 selects only the first of 60; name that"),
        ("0-9/10 9 * * *", "minute '0-9/10': a step of 10 selects only the first of 10"),
        ("*,5 9 * * *", "minute '\\*,5': a star stands alone or with a step"),
        ("0 9 15W * *", "day of the month '15W': '15W' isn't a number"),
        ("0 9 ? * *", "day of the month '\\?': '\\?' isn't a number"),
        ("0 9 * * fri#6", "day of the week 'FRI#6': 'FRI#6' isn't a number, .* MON#1 or 5L"),
        ("0 9 30 2 *", "can't be read: Bad day-of-month"),
        ("* * */20 * 1L", "matches no day within fifty years"),
    ],
)
def test_what_is_not_promised_is_refused_by_name(expression: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        checked_cron(expression, "UTC")


@pytest.mark.parametrize("zone", ["Europe/Berlinn", "", "../etc/passwd", "/etc/localtime", 5, None])
def test_a_zone_that_is_not_known_is_refused_by_name(zone: object) -> None:
    with pytest.raises(ValueError, match=r"^zone"):
        checked_cron("0 9 * * *", zone)


def test_rules_are_those_of_the_zone_and_not_its_name() -> None:
    berlin = checked_cron("0  9 * * MON-fri", "Europe/Berlin")
    assert berlin.rules == checked_cron("0 9 * * mon-fri", "Europe/Vienna").rules
    assert berlin.rules != checked_cron("0 9 * * mon-fri", "Europe/London").rules
    assert berlin.rules != checked_cron("0 8 * * mon-fri", "Europe/Berlin").rules
    assert str(berlin) == "0 9 * * MON-FRI Europe/Berlin"
