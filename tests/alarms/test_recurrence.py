"""Recurrences as values: next times, what was missed, and declarations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable import DefinitionError, DurableObject, ObjectKey, alarm
from trio_durable._alarms.cron import Cron
from trio_durable._alarms.recurrence import (
    MOST_MISSED,
    Every,
    Recurrence,
    alarm_name,
    autostarts,
    checked_recurrence,
    letter_name,
    with_marks,
)
from trio_durable.storage import (
    STOPPED,
    AlarmChanges,
    AlarmRow,
    NewAlarm,
    Onto,
    StoredAlarm,
)

KEY = ObjectKey("Report", "a")
SECOND = 1_000_000
HOUR = 3600 * SECOND
NOW = 1_900_000_000 * SECOND


def made(**given: Any) -> Recurrence:
    names = ("cron", "every", "zone", "missed", "grace", "spread", "autostart")
    found = checked_recurrence(**{name: given.get(name) for name in names})
    assert found is not None
    return found


times = st.integers(-(10**15), 10**16)
recurrences = st.sampled_from(
    [
        made(every=1),
        made(every=timedelta(hours=7), spread=3),
        made(cron="*/7 * * * *", spread=timedelta(hours=2)),
        made(cron="30 2 * * *", zone="Europe/Berlin", spread=timedelta(minutes=5)),
        made(cron="0 9 * * mon-fri", zone="America/New_York", missed="all"),
    ]
)


@settings(deadline=None)  # gaps of centuries take long
@given(recurrences, times, times)
def test_the_next_time_is_after_both_the_due_time_and_now(
    recurrence: Recurrence, due_at: int, now: int
) -> None:
    found = recurrence.next_time(KEY, due_at, now)
    assert found > max(due_at, now)
    assert recurrence.first(KEY, now) <= recurrence.latest(now)
    if recurrence.missed == "all":
        assert recurrence.following(KEY, due_at, now, now)[0].due_at > due_at


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_an_interval_does_not_drift(due_at: int, late: int) -> None:
    recurrence = Recurrence(Every(HOUR))
    found = recurrence.next_time(KEY, due_at, due_at + late)
    assert (found - due_at) % HOUR == 0
    assert found - (due_at + late) <= HOUR


@given(st.text(), st.integers(1, 10**12))
def test_a_spread_is_from_zero_up_to_its_length_and_always_the_same(
    object_id: str, spread: int
) -> None:
    key = ObjectKey("Report", object_id)
    recurrence = Recurrence(Every(HOUR), spread=spread)
    assert 0 <= recurrence.offset(key) < spread
    assert recurrence.offset(key) == Recurrence(Every(1), spread=spread).offset(key)


def test_a_spread_differs_between_objects() -> None:
    recurrence = Recurrence(Every(HOUR), spread=HOUR)
    keys = [ObjectKey("Report", f"{n}", tenant) for n in range(100) for tenant in ("", "acme")]
    assert len({recurrence.offset(key) for key in keys}) == 200


@pytest.mark.parametrize("schedule", [{"every": 60}, {"cron": "* * * * *"}])
@pytest.mark.parametrize("count", [1, MOST_MISSED - 1, MOST_MISSED, MOST_MISSED + 1, 5000])
def test_of_all_that_was_missed_the_last_thousand_are_left(
    schedule: dict[str, Any], count: int
) -> None:
    recurrence = made(missed="all", **schedule)
    due_at = NOW // (60 * SECOND) * 60 * SECOND
    now = due_at + count * 60 * SECOND
    found, left_out = recurrence.next_of_all(KEY, due_at, now)
    kept = min(count, MOST_MISSED)
    assert found == now - (kept - 1) * 60 * SECOND
    if count <= MOST_MISSED:
        assert left_out is None
    else:
        assert left_out is not None
        assert (left_out.first, left_out.before) == (due_at + 60 * SECOND, found)


@pytest.mark.parametrize(
    ("cron", "days", "left"),
    [
        ("*/30 * * * *", 20, 20 * 48),  # clocks are set in these days
        ("*/30 * * * *", 21, MOST_MISSED),
        ("0 9-17 * * mon-fri", 150, 106 * 9),
        ("0 9-17 * * mon-fri", 160, MOST_MISSED),
        ("30 2 * * *", 999, 999),
        ("30 2 * * *", 1100, MOST_MISSED),
        ("0 0 1 * *", 1100, 36),
        ("* * * jan *", 365, MOST_MISSED),
    ],
)
def test_no_more_than_a_thousand_are_left_however_they_lie(cron: str, days: int, left: int) -> None:
    recurrence = made(missed="all", cron=cron, zone="Europe/Berlin", spread=timedelta(minutes=5))
    due_at = NOW - days * 24 * HOUR
    first, left_out = recurrence.next_of_all(KEY, due_at, NOW)
    assert (left_out is not None) == (left == MOST_MISSED)
    times = [first]
    while (at := recurrence.next_of_all(KEY, times[-1], NOW)[0]) <= NOW:
        times.append(at)
    assert len(times) == left
    assert len(set(times)) == left


def test_catching_up_computes_few_times_for_each_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = 0
    after = Cron.after

    def counted(cron: Cron, at: int) -> int | None:
        nonlocal computed
        computed += 1
        return after(cron, at)

    monkeypatch.setattr(Cron, "after", counted)
    recurrence = made(missed="all", cron="*/20 * * * *")
    for days in (12, 15):
        at, firings, computed = NOW - days * 24 * HOUR, 0, 0
        while at <= NOW:
            at = recurrence.next_of_all(KEY, at, NOW)[0]
            firings += 1
        assert firings > 800
        assert computed < 5 * firings


@pytest.mark.parametrize(
    ("recurrence", "firing"),
    [
        (made(every=1), NOW),
        (made(cron="0 9 * * *", spread=timedelta(minutes=5)), NOW - NOW % (24 * HOUR) + 9 * HOUR),
    ],
    ids=str,
)
def test_a_time_that_a_firing_has_just_set_is_not_too_late(
    recurrence: Recurrence, firing: int
) -> None:
    firing += recurrence.offset(KEY)
    following = recurrence.next_time(KEY, firing, firing)
    stored = StoredAlarm(KEY.alarm("x"), following, None, 0, None, None, recurrence.fingerprint)
    row = AlarmRow(stored, following, "pending")
    # By a clock that is behind, or was read before the firing.
    for behind in (0, 1, 20_000, SECOND, 30 * SECOND):
        assert recurrence.corrected(row, firing - behind) is None
        assert recurrence.latest(firing - behind) >= following
    found = recurrence.corrected(row, firing - 25 * HOUR)
    assert found is not None
    assert found.onto == Onto.OUTDATED | Onto.LATE
    assert found.due_at < following


def test_fingerprints_are_those_of_times() -> None:
    base = made(cron="0 9 * * *", zone="Europe/Berlin")
    same = made(cron="0  9 * * *", zone="Europe/Vienna", missed="skip", autostart=True)
    assert base.fingerprint == same.fingerprint
    others = [
        made(cron="0 9 * * *", zone="Europe/London"),
        made(cron="0 8 * * *", zone="Europe/Berlin"),
        made(cron="0 9 * * *", zone="Europe/Berlin", spread=5),
        made(every=86400),
        made(every=86400, spread=5),
    ]
    assert len({each.fingerprint for each in (base, *others)}) == 6


def test_names_of_firings_that_have_died_lead_back_to_their_alarm() -> None:
    name = letter_name(KEY.alarm("digest"), NOW + 5)
    assert name == "digest@2030-03-17T17:46:40.000005Z"
    assert alarm_name(name) == alarm_name("digest") == "digest"
    assert letter_name(KEY.alarm("digest"), -(2**63)).startswith("digest@")


def test_cancelling_leaves_marks_for_recurring_alarms_alone() -> None:
    known = {"digest": made(every=5, autostart=True), "other": made(every=5)}
    marked = with_marks(known, AlarmChanges(changed={"digest": None, "x": None}), NOW)
    assert marked.changed["x"] is None
    assert marked.changed["digest"] is not None
    assert marked.changed["digest"].recurrence == STOPPED
    cleared = with_marks(known, AlarmChanges(clear=True), NOW)
    assert cleared.clear
    assert list(cleared.changed) == ["digest", "other"]
    begun = autostarts(known, KEY, NOW)
    assert begun is not None
    assert list(begun.changed) == ["digest"]
    assert autostarts({"other": known["other"]}, KEY, NOW) is None


def test_conditional_changes_are_merged_in_order() -> None:
    def result(*steps: NewAlarm | None) -> NewAlarm | None:
        changes = AlarmChanges()
        for step in steps:
            changes.merge(AlarmChanges(changed={"x": step}))
        return changes.changed["x"]

    sets, off = NewAlarm(1, None, "a"), NewAlarm(2, None, STOPPED)
    begins = NewAlarm(3, None, "a", Onto.STOPPED | Onto.OUTDATED)
    starts = NewAlarm(4, None, "a", Onto.NOTHING)
    assert result(sets, begins) is sets
    assert result(off, starts) is off
    on = result(off, begins)
    assert on is not None
    assert (on.due_at, on.is_conditional) == (3, False)
    after = result(None, starts)
    assert after is not None
    assert (after.due_at, after.is_conditional) == (4, False)
    both = result(starts, begins)
    assert both is not None
    assert (both.due_at, both.onto) == (4, Onto.STOPPED | Onto.OUTDATED)
    assert result(begins, sets) is sets


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"cron": "0 9 * *"}, "has 4 fields, not five"),
        ({"cron": "0 9 * * *", "every": 5}, "cron and every are both given"),
        ({"cron": "0 9 * * *", "zone": "Mars/Olympus"}, "zone='Mars/Olympus' isn't in this"),
        ({"every": 5, "zone": "UTC"}, "zone is for cron"),
        ({"every": 0.5}, "every must be a second or more, not 0.5"),
        ({"every": "5"}, "every must be a timedelta or seconds, not '5'"),
        ({"every": timedelta(days=400)}, "every must be between a millisecond and a year"),
        ({"every": 5, "missed": "never"}, 'missed must be "once", "skip" or "all", not '),
        ({"every": 5, "missed": ["once"]}, 'missed must be "once", "skip" or "all", not '),
        ({"every": 5, "grace": 5}, 'grace is for missed="skip"'),
        (
            {"every": 5, "missed": "skip", "grace": -5},
            "grace must be a finite time of zero or more",
        ),
        ({"every": 5, "spread": 0}, "spread must be longer than zero, not 0"),
        ({"every": 5, "spread": timedelta(-1)}, "spread must be a finite time of zero or more"),
        ({"every": 5, "autostart": 1}, "autostart must be True or False, not 1"),
        ({"spread": 5}, "spread needs a schedule: give cron or every, too"),
        ({"autostart": True}, "autostart needs a schedule"),
    ],
)
def test_what_makes_no_sense_is_refused_as_the_class_is_defined(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DefinitionError) as caught:

        class Report(DurableObject, name="Refused"):
            @alarm(**options)
            def digest(self) -> None: ...

    assert "Report.digest: " in str(caught.value)
    assert problem in str(caught.value)


def test_a_name_that_is_too_long_for_its_firings_is_refused() -> None:
    with pytest.raises(DefinitionError, match="has up to 480 bytes"):
        type("Long", (DurableObject,), {"d" * 481: alarm(every=5)(lambda self: None)})
