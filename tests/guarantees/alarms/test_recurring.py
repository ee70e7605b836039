"""Recurring alarms: each has one firing to come, or one that runs, or is off."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from cluster.away import first_look

from trio_durable import (
    AlarmUnhandled,
    DurableObject,
    InvalidAlarm,
    MemoryStorage,
    PersistenceError,
    Retry,
    alarm,
    handler,
)
from trio_durable.storage import MOVED, STOPPED, StorageFault
from trio_durable.testing import fire_alarm

from .bench import errors
from .reports import (
    HOUR,
    Act,
    CertainClock,
    Plain,
    due,
    left_on,
    now,
    opened,
    report,
    row,
    rows,
    runs,
    turned_on,
)
from .test_clocks import WallClock

pytestmark = pytest.mark.anyio


# --- the next time -------------------------------------------------------------------------------


async def test_an_interval_is_counted_from_due_times_whatever_the_delay() -> None:
    async def slowly(_self: object) -> None:
        await anyio.sleep(100)

    storage, cls = MemoryStorage(), report(slowly)
    async with opened(storage, cls) as runtime:
        began = await now(runtime)
        await runtime.schedule_alarm(cls, "a", "digest")
        await anyio.sleep(3.5 * 3600)
    assert [due_at - began for due_at, _ in runs] == [HOUR, 2 * HOUR, 3 * HOUR]


async def test_the_next_firing_is_in_the_commit_that_acknowledges_the_last() -> None:
    storage = MemoryStorage()
    cls = report(lambda self: self.ctx.commit())
    async with opened(storage, cls) as runtime:
        await runtime.schedule_alarm(cls, "a", "digest")
        first = row(storage).alarm.due_at
        await anyio.sleep(3700)
        assert len(runs) == 1
        assert row(storage).alarm.due_at == first + 3600_000_000
        assert len(rows(storage)) == 1


async def test_a_schedule_by_calendar_fires_at_local_times() -> None:
    storage, clock = MemoryStorage(), CertainClock()
    cls = report(cron="30 9 * * mon-fri", zone="Europe/Berlin")
    async with opened(storage, cls, clock) as runtime:
        await runtime.get(cls, "a").do("schedule_alarm")
        await anyio.sleep(3 * 86400)
    assert [due_at.isoformat() for due_at, _ in runs] == [
        "2030-03-18T08:30:00+00:00",
        "2030-03-19T08:30:00+00:00",
        "2030-03-20T08:30:00+00:00",
    ]


async def test_a_firing_before_its_time_counts_as_that_of_its_time() -> None:
    cls = report()
    async with turned_on(cls) as (runtime, storage, first):
        await fire_alarm(runtime, cls, "a", "digest")
        assert (runs[0][0], due(storage)) == (first, first + HOUR)


async def test_firings_of_many_objects_are_spread_after_their_time() -> None:
    storage, clock = MemoryStorage(), CertainClock()
    cls = report(cron="0 * * * *", spread=timedelta(minutes=10))
    async with opened(storage, cls, clock) as runtime:
        for number in range(30):
            await runtime.schedule_alarm(cls, f"{number}", "digest")
        await anyio.sleep(3600)
    minutes = [due_at.minute + due_at.second / 60 for due_at, _ in runs]
    assert len(minutes) == 30
    assert all(0 <= minute < 10 for minute in minutes)
    assert max(minutes) - min(minutes) > 5


# --- on and off ----------------------------------------------------------------------------------


async def test_turning_it_on_again_changes_nothing() -> None:
    storage, cls = MemoryStorage(), report()
    async with opened(storage, cls) as runtime:
        one = runtime.get(cls, "a")
        await one.do("schedule_alarm")
        first = due(storage)
        await anyio.sleep(100)
        await one.do("schedule_alarm")
        await runtime.schedule_alarm(cls, "a", "digest")
        assert due(storage) == first
        await anyio.sleep(3600)
        assert len(runs) == 1


async def test_turning_it_on_in_its_own_turn_changes_nothing() -> None:
    storage = MemoryStorage()
    cls = report(lambda self: self.ctx.schedule_alarm("digest"))
    async with opened(storage, cls) as runtime:
        await runtime.schedule_alarm(cls, "a", "digest")
        await anyio.sleep(2.5 * 3600)
        assert [later - earlier for (earlier, _), (later, _) in pairwise(runs)] == [HOUR]


@pytest.mark.parametrize("how", ["turn", "outside", "all", "all outside", "its own turn"])
async def test_it_stays_off_once_it_was_cancelled(how: str) -> None:
    def act(self: Any) -> None:
        if how == "its own turn":
            self.ctx.cancel_alarm("digest")

    storage, cls = MemoryStorage(), report(act, autostart=True)
    async with opened(storage, cls) as runtime:
        one = runtime.get(cls, "a")
        await one.change()
        if how == "turn":
            await one.do("cancel_alarm")
        elif how == "outside":
            await runtime.cancel_alarm(cls, "a", "digest")
        elif how == "all":
            await one.clear()
        elif how == "all outside":
            await runtime.cancel_all_alarms(cls, "a")
        else:
            await anyio.sleep(3700)
            assert len(runs) == 1
        assert (row(storage).status, row(storage).alarm.recurrence) == ("stopped", STOPPED)
        assert await runtime.list_alarms(cls, "a") == []
        assert await runtime.list_dead_letters(cls) == []
        assert await runtime.retry_alarm(cls, "a", "digest") is False
    runs.clear()
    async with opened(storage, cls) as runtime:
        assert await runtime.get(cls, "a").read() > 0
        await runtime.ensure_started(cls, "a")
        await anyio.sleep(5000)
        assert runs == []
        await runtime.schedule_alarm(cls, "a", "digest")
        await anyio.sleep(3700)
        assert len(runs) == 1


async def test_it_begins_with_the_first_commit_of_its_object() -> None:
    storage, cls = MemoryStorage(), report(autostart=True)
    async with opened(storage, cls) as runtime:
        assert await runtime.get(cls, "a").read() == 0  # which stores nothing
        assert rows(storage) == []
        await runtime.get(cls, "a").change()
        assert row(storage).status == "pending"


async def test_it_begins_when_its_object_is_started() -> None:
    storage, cls = MemoryStorage(), report(autostart=True)
    async with opened(storage, cls) as runtime:
        await runtime.ensure_started(cls, "a")
        first = due(storage)
        await anyio.sleep(100)
        await runtime.ensure_started(cls, "a")
        assert due(storage) == first
        await anyio.sleep(3600)
        assert len(runs) == 1


async def test_a_stored_object_that_lacks_it_has_it_once_it_is_loaded() -> None:
    storage, cls = MemoryStorage(), report(autostart=True)
    async with opened(storage, Plain) as runtime:
        await runtime.get(Plain, "a").change()
        assert rows(storage) == []
    async with opened(storage, cls) as runtime:
        assert await runtime.get(cls, "a").read() == 1
        assert row(storage).status == "pending"


async def test_deletion_ends_it_for_the_next_life_to_begin_it_again() -> None:
    storage, cls = MemoryStorage(), report(autostart=True)
    async with opened(storage, cls) as runtime:
        one = runtime.get(cls, "a")
        await one.change()
        await one.remove()
        assert rows(storage) == []
        assert await one.read() == 0
        assert rows(storage) == []
        await runtime.delete(cls, "a")
        await one.change()
        assert row(storage).status == "pending"


async def test_deletion_in_its_own_turn_ends_it() -> None:
    storage, cls = MemoryStorage(), report(lambda self: self.ctx.delete())
    async with opened(storage, cls) as runtime:
        await runtime.get(cls, "a").change()
        await runtime.schedule_alarm(cls, "a", "digest")
        await anyio.sleep(3700)
        assert len(runs) == 1
        assert rows(storage) == []


async def test_one_firing_can_be_moved() -> None:
    cls = report()
    async with turned_on(cls) as (runtime, storage, _):
        moved = await now(runtime) + timedelta(minutes=90)
        await runtime.schedule_alarm(cls, "a", "digest", at=moved, payload="once")
        assert (due(storage), row(storage).alarm.recurrence) == (moved, MOVED)
    async with opened(storage, cls) as runtime:
        await runtime.get(cls, "a").read()
        assert due(storage) == moved
        await anyio.sleep(5500)
        assert [due_at for due_at, _ in runs] == [moved]
        assert due(storage) == moved + HOUR
        assert row(storage).alarm.payload is None


async def test_a_payload_is_of_a_moved_firing_only() -> None:
    storage, cls = MemoryStorage(), report()
    async with opened(storage, cls) as runtime:
        with pytest.raises(InvalidAlarm, match="it recurs, so it has no payload"):
            await runtime.schedule_alarm(cls, "a", "digest", payload=1)
        with pytest.raises(InvalidAlarm, match="keep must be True or False, not 1"):
            await runtime.schedule_alarm(cls, "a", "x", after=1, keep=1)  # type: ignore[arg-type]
        with pytest.raises(InvalidAlarm, match="neither of after and at was given"):
            await runtime.schedule_alarm(cls, "a", "another")


async def test_an_alarm_that_is_kept_is_set_only_if_it_is_missing() -> None:
    storage, cls = MemoryStorage(), report()
    async with opened(storage, cls) as runtime:
        await runtime.schedule_alarm(cls, "a", "x", after=100, keep=True)
        (first,) = await runtime.list_alarms(cls, "a")
        await runtime.schedule_alarm(cls, "a", "x", after=5, payload=1, keep=True)
        assert await runtime.list_alarms(cls, "a") == [first]
        await anyio.sleep(50)
        assert await runtime.list_alarms(cls, "a") == [first]
        await runtime.schedule_alarm(cls, "a", "x", after=5)
        assert (await runtime.list_alarms(cls, "a"))[0].due_at < first.due_at


async def test_what_a_turn_has_staged_is_listed() -> None:
    storage, cls = MemoryStorage(), report()
    async with opened(storage, cls) as runtime:
        one = runtime.get(cls, "a")
        assert await one.listed() == []
        assert await one.listed("schedule_alarm") == [due(storage)]
        assert await one.listed("schedule_alarm") == [due(storage)]
        assert await one.listed("cancel_alarm") == []
        assert await one.listed() == []
        assert len(await one.listed("schedule_alarm")) == 1


async def test_its_own_turn_lists_the_next_firing() -> None:
    found: list[datetime] = []

    async def look(self: Any) -> None:
        found.extend([each.due_at for each in await self.ctx.list_alarms()])

    cls = report(look)
    async with turned_on(cls) as (_, storage, _):
        await anyio.sleep(3700)
        assert found == [due(storage)]


# --- failures ------------------------------------------------------------------------------------


def fails_first(times: int) -> Act:
    left = times

    def act(_self: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise KeyError("on purpose")

    return act


async def test_a_dead_letter_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage()
    cls = report(fails_first(2), retry=Retry(attempts=2, initial=1, factor=1))
    async with opened(storage, cls) as runtime:
        await runtime.schedule_alarm(cls, "a", "digest")
        first = due(storage)
        await anyio.sleep(3700)
        assert due(storage) == first + HOUR
        (letter,) = await runtime.list_dead_letters(cls)
        assert letter.name == f"digest@{first:%Y-%m-%dT%H:%M:%S.%f}Z"
        assert (letter.due_at, letter.attempt, letter.is_recurring) == (first, 2, False)
        assert letter.last_error == "KeyError: 'on purpose'"
        await anyio.sleep(3600)
        assert len(runs) == 3
        # The one that has died can be retried, beside the firings to come.
        assert await runtime.retry_alarm(cls, "a", letter.name) is True
        await anyio.sleep(1)
        assert runs[3][0] == first
        assert await runtime.list_dead_letters(cls) == []
        assert due(storage) == first + 2 * HOUR
    assert len(errors(caplog)) == 2


async def test_a_failed_attempt_is_retried_before_the_next_time() -> None:
    cls = report(fails_first(3), retry=Retry(initial=10, factor=1))
    async with turned_on(cls) as (_, storage, first):
        await anyio.sleep(3700)
        assert due(storage) - first == HOUR
    assert [due_at - first for due_at, _ in runs] == [0 * HOUR] * 4


class Faulty(MemoryStorage):
    """Refuses commits while it is told to."""

    faults = 0

    def open_writer(self) -> Any:
        writer = super().open_writer()
        commit = writer.commit

        def faulty(batch: Any, now: int) -> Any:
            if self.faults:
                self.faults -= 1
                raise StorageFault("disk full")
            return commit(batch, now)

        writer.commit = faulty  # type: ignore[method-assign]
        return writer


async def test_a_commit_that_fails_leaves_the_firing_to_be_repeated() -> None:
    storage, cls = Faulty(), report()
    async with turned_on(cls, storage) as (runtime, _, first):
        await anyio.sleep(3500)
        storage.faults = 1
        await anyio.sleep(200)
        assert [due_at for due_at, _ in runs] == [first, first]
        assert due(storage) == first + HOUR
        assert await runtime.get(cls, "a").read() == 1
        storage.faults = 1
        with pytest.raises(PersistenceError):
            await runtime.cancel_alarm(cls, "a", "digest")
        assert due(storage) == first + HOUR


async def test_an_older_release_without_its_handler_keeps_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cls = report()
    storage, first = await left_on(cls)
    async with opened(storage, Plain) as runtime:
        await anyio.sleep(3 * 3600)
        with pytest.raises(AlarmUnhandled, match="digest of Report\\('a'\\) has no handler in "):
            await fire_alarm(runtime, Plain, "a", "digest")
        assert due(storage) == first
        assert len(errors(caplog)) == 1
        assert "recurring alarm 'digest' of type 'Report' has no handler" in errors(caplog)[0]
    async with opened(storage, cls) as runtime:
        await anyio.sleep(301)
        assert [due_at for due_at, _ in runs] == [first]


# --- declarations that change --------------------------------------------------------------------


async def test_another_schedule_counts_from_when_its_object_is_loaded() -> None:
    # A longer one: times that are too late are corrected without a load.
    new = report(every=timedelta(minutes=90))
    storage, first = await left_on(report())
    async with opened(storage, new) as runtime:
        await anyio.sleep(600)
        assert due(storage) == first
        assert await runtime.get(new, "a").read() == 1
        assert timedelta(minutes=39) < due(storage) - first < timedelta(minutes=41)
        await anyio.sleep(5401)
    assert len(runs) == 1


async def test_the_same_schedule_is_not_written_again() -> None:
    cls = report(autostart=True)
    storage, first = await left_on(cls)
    async with opened(storage, cls) as runtime:
        await anyio.sleep(100)
        assert await runtime.get(cls, "a").read() == 1
        assert due(storage) == first
        assert runtime.statistics().commits == 0


async def test_a_firing_that_is_due_is_not_put_off_by_another_schedule() -> None:
    storage, first = await left_on(report())
    await anyio.sleep(4000)
    new = report(cron="0 0 1 1 *")
    async with opened(storage, new) as runtime:
        await runtime.get(new, "a").read()
        await anyio.sleep(1)
        assert [due_at for due_at, _ in runs] == [first]
        assert (due(storage).month, due(storage).day) == (1, 1)


async def test_a_method_that_was_renamed_leaves_its_alarm_for_people() -> None:
    class Renamed(DurableObject, name="Report"):
        count: int = 0

        @alarm(every=HOUR, autostart=True)
        def weekly(self) -> None:
            runs.append((self.ctx.now(), self.ctx.now()))

        @handler(readonly=True)
        def read(self) -> int:
            return self.count

    storage, cls = MemoryStorage(), report(autostart=True)
    async with opened(storage, cls) as runtime:
        await runtime.get(cls, "a").change()
    async with opened(storage, Renamed) as runtime:
        await runtime.get(Renamed, "a").read()
        await anyio.sleep(3700)
        assert len(runs) == 1
        assert sorted(each.alarm.key.name for each in rows(storage)) == ["digest", "weekly"]
        await runtime.cancel_alarm(Renamed, "a", "digest")
        assert [each.alarm.key.name for each in rows(storage)] == ["weekly"]


async def test_a_plain_alarm_of_an_older_release_becomes_the_recurring_one() -> None:
    class Old(DurableObject, name="Report"):
        count: int = 0

        @alarm
        def digest(self) -> None:
            pass

        @handler
        def change(self) -> None:
            self.count += 1

    storage, cls = MemoryStorage(), report()
    async with opened(storage, Old) as runtime:
        await runtime.get(Old, "a").change()
        await runtime.schedule_alarm(Old, "a", "digest", after=86400)
    async with opened(storage, cls) as runtime:
        await runtime.get(cls, "a").read()
        await anyio.sleep(3700)
        assert len(runs) == 1


# --- what was missed -----------------------------------------------------------------------------


async def test_what_was_missed_is_one_firing() -> None:
    cls = report()
    storage, first = await left_on(cls)
    await anyio.sleep(10.5 * 3600)
    async with opened(storage, cls):
        await anyio.sleep(1)
        assert [due_at for due_at, _ in runs] == [first]
        assert due(storage) == first + 10 * HOUR


@pytest.mark.parametrize(("grace", "expected"), [(None, 0), (timedelta(hours=2), 1)])
async def test_what_was_missed_is_skipped_beyond_the_grace(
    grace: timedelta | None, expected: int
) -> None:
    options: dict[str, Any] = {} if grace is None else {"grace": grace}
    cls = report(missed="skip", **options)
    storage, first = await left_on(cls)
    await anyio.sleep(2.5 * 3600)
    async with opened(storage, cls):
        await anyio.sleep(1)
        assert len(runs) == expected
        assert due(storage) == first + 2 * HOUR
        await anyio.sleep(3600)
        assert len(runs) == expected + 1


@pytest.mark.parametrize("missed", ["once", "skip"])
async def test_what_its_own_last_run_has_delayed_runs_once(missed: str) -> None:
    lengths = [2.5 * 3600, 0.0]

    async def act(_self: object) -> None:
        await anyio.sleep(lengths.pop(0) if lengths else 0)

    storage, cls = MemoryStorage(), report(act, missed=missed)
    async with opened(storage, cls, call_timeout=None) as runtime:
        await runtime.schedule_alarm(cls, "a", "digest")
        first = due(storage)
        await anyio.sleep(4 * 3600 + 10)
        assert [due_at - first for due_at, _ in runs] == [0 * HOUR, HOUR, 3 * HOUR]
        assert runs[1][1] - runs[0][1] < 2.51 * HOUR


async def test_all_that_was_missed_fires(caplog: pytest.LogCaptureFixture) -> None:
    cls = report(missed="all")
    storage, first = await left_on(cls)
    await anyio.sleep(10.5 * 3600)
    async with opened(storage, cls):
        await anyio.sleep(1)
        assert [due_at - first for due_at, _ in runs] == [n * HOUR for n in range(10)]
        assert due(storage) == first + 10 * HOUR
    assert errors(caplog) == []


async def test_all_that_was_missed_is_a_thousand_at_most(caplog: pytest.LogCaptureFixture) -> None:
    cls = report(every=timedelta(seconds=1), missed="all")
    storage, first = await left_on(cls)
    await anyio.sleep(5000.5)
    with caplog.at_level(logging.WARNING):
        async with opened(storage, cls) as runtime:
            await first_look(runtime)
            await anyio.sleep(0.1)
            assert len(runs) == 1001
            assert runs[0][0] == first
            assert runs[1][0] == runs[-1][0] - timedelta(seconds=999)
    (warning,) = errors(caplog)
    assert "alarm digest of Report('a') leaves out its firings from " in warning


# --- clocks that are set -------------------------------------------------------------------------


async def test_after_a_year_ahead_and_back_it_does_not_wait_for_a_year() -> None:
    storage, clock, cls = MemoryStorage(), WallClock(), report()
    clock.ahead = 366 * 86400.0
    async with opened(storage, cls, clock) as runtime:
        await runtime.schedule_alarm(cls, "a", "digest")
        await runtime.schedule_alarm(cls, "b", "digest", after=5)
        first = row(storage, "a").alarm.due_at
    clock.ahead = 0
    async with opened(storage, cls, clock) as runtime:
        await anyio.sleep(10)  # nothing loads the object
        assert row(storage, "a").alarm.due_at < first - 365 * 86400_000_000
        assert row(storage, "b").alarm.due_at > first - 86400_000_000  # it was moved there
        await anyio.sleep(3700)
        assert len(runs) == 1
