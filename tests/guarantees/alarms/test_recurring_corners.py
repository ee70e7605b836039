"""Recurring alarms where rules meet: changed clocks, zones, releases, and turns that do several."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from trio_durable import (
    Alarm,
    AlarmUnhandled,
    DefinitionError,
    DurableObject,
    MemoryStorage,
    Retry,
    alarm,
    handler,
)
from trio_durable._alarms import cron
from trio_durable._keys import ObjectKey
from trio_durable.storage import MOVED, STOPPED, Commit
from trio_durable.testing import fire_alarm

from . import reports as on
from .bench import errors

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


def clock_at(time: datetime) -> on.CertainClock:
    """A clock that shows a certain time now."""
    clock = on.CertainClock()
    clock.ahead = time.timestamp() - clock.now() / 1e6
    return clock


# --- clocks that are set by an hour --------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "before"),
    [
        ("Europe/Berlin", datetime(2030, 3, 28, tzinfo=UTC)),  # an hour is skipped
        ("Europe/Berlin", datetime(2030, 10, 24, tzinfo=UTC)),  # an hour comes twice
        ("Australia/Sydney", datetime(2030, 10, 3, tzinfo=UTC)),
        ("Australia/Sydney", datetime(2030, 4, 4, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("is_missed", [False, True])
async def test_each_local_day_has_one_firing_whatever_the_clocks_do(
    zone: str, before: datetime, is_missed: bool
) -> None:
    cls = on.report(cron="30 2 * * *", zone=zone, missed="all")
    clock = clock_at(before)
    storage, first = await on.left_on(cls, clock)
    if is_missed:
        await anyio.sleep(7 * 86400)
    async with on.opened(storage, cls, clock):
        await anyio.sleep(8 * 86400 if not is_missed else 86400)
    days = [due_at.astimezone(ZoneInfo(zone)).date() for due_at, _ in on.runs]
    assert days == [days[0] + n * DAY for n in range(8)]
    assert on.runs[0][0] == first


@pytest.mark.parametrize(
    ("zone", "month", "day"),
    [("Europe/Berlin", 10, 23), ("Australia/Sydney", 10, 2), ("Australia/Lord_Howe", 4, 3)],
)
async def test_each_half_hour_has_one_firing_whatever_the_clocks_do(
    zone: str, month: int, day: int
) -> None:
    cls = on.report(cron="*/30 * * * *", zone=zone, missed="all")
    clock = clock_at(datetime(2030, month, day, tzinfo=UTC))
    storage, first = await on.left_on(cls, clock)
    await anyio.sleep(8 * 86400)
    async with on.opened(storage, cls, clock):
        await anyio.sleep(1)
    half = timedelta(minutes=30)
    times = [due_at for due_at, _ in on.runs]
    assert times == [first + n * half for n in range(len(times))]
    assert len(times) == 8 * 48


# --- long gaps, wide spreads ---------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [{"every": timedelta(minutes=1)}, {"cron": "* * * * *"}])
async def test_of_a_missed_year_the_last_thousand_fire(
    schedule: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cls = on.report(missed="all", **schedule)
    clock = on.CertainClock()
    storage, first = await on.left_on(cls, clock)
    await anyio.sleep(366 * 86400)
    async with on.opened(storage, cls, clock):
        await anyio.sleep(1)
    assert (len(on.runs), on.runs[0][0]) == (1001, first)
    assert on.runs[1][0] == on.runs[-1][0] - timedelta(minutes=999)
    assert sum("leaves out" in each for each in errors(caplog)) == 1


@pytest.mark.parametrize("spread", [DAY - timedelta(seconds=1), DAY, 3 * DAY])
@pytest.mark.parametrize("missed", ["once", "all"])
async def test_a_spread_as_long_as_the_period_leaves_one_firing_a_period(
    spread: timedelta, missed: str
) -> None:
    cls = on.report(cron="0 9 * * *", spread=spread, missed=missed)
    storage, clock = MemoryStorage(), on.CertainClock()
    async with on.opened(storage, cls, clock) as runtime:
        for number in range(8):
            await runtime.schedule_alarm(cls, f"{number}", "digest")
        await anyio.sleep(5 * 86400 - 1)
        assert len(on.runs) == 8 * 5
        assert [await runtime.get(cls, f"{number}").read() for number in range(8)] == [5] * 8
    async with on.opened(storage, cls, clock) as runtime:
        before = [on.row(storage, f"{number}").alarm.due_at for number in range(8)]
        for number in range(8):
            await runtime.get(cls, f"{number}").read()
        assert [on.row(storage, f"{number}").alarm.due_at for number in range(8)] == before


# --- zones ---------------------------------------------------------------------------------------


async def test_other_rules_of_a_zone_move_the_next_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = on.report(cron="30 9 * * *", zone="Europe/Berlin")
    clock = on.CertainClock()
    storage, first = await on.left_on(cls, clock)
    monkeypatch.setattr(cron, "_zone", lambda _name: ZoneInfo("Europe/London"))
    cron._rules_of.cache_clear()
    try:
        async with on.opened(storage, cls, clock) as runtime:
            await runtime.get(cls, "a").read()
            assert on.due(storage) == first + on.HOUR
    finally:
        cron._rules_of.cache_clear()


def test_a_zone_without_data_is_refused_with_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ZoneInfo:
        raise LookupError(name)

    monkeypatch.setattr("zoneinfo.ZoneInfo", missing)
    cron._zone.cache_clear()
    with pytest.raises(DefinitionError, match="isn't in this machine's data of time zones"):
        on.report(cron="30 9 * * *", zone="Europe/Rome")


# --- other declarations --------------------------------------------------------------------------


class PlainDigest(DurableObject, name="Report"):
    """A release whose alarm of that name fires once."""

    count: int = 0

    @alarm
    def digest(self) -> None:
        self.count += 1

    @handler(readonly=True)
    def read(self) -> int:
        return self.count


class CatchAll(DurableObject, name="Report"):
    """A release that handles any alarm, and doesn't know this one."""

    count: int = 0

    def handle_alarm(self, alarm: Alarm) -> None:
        self.count += 1

    @handler(readonly=True)
    def read(self) -> int:
        return self.count


@pytest.mark.parametrize("autostart", [False, True])
async def test_a_handler_that_no_longer_recurs_has_one_firing_more(autostart: bool) -> None:
    cls = on.report(autostart=autostart)
    storage, _ = await on.left_on(cls)
    async with on.opened(storage, PlainDigest) as runtime:
        await anyio.sleep(3 * 3600)
        assert on.rows(storage) == []
        assert await runtime.get(PlainDigest, "a").read() == 2
    async with on.opened(storage, cls) as runtime:
        await runtime.get(cls, "a").read()
        assert len(on.rows(storage)) == autostart
        await runtime.schedule_alarm(cls, "a", "digest")
        await anyio.sleep(2 * 3600 + 1)
    assert len(on.runs) == 2


async def test_the_mark_of_one_that_is_off_is_no_obstacle_to_a_plain_alarm() -> None:
    cls = on.report()
    async with on.turned_on(cls) as (runtime, storage, _):
        await runtime.cancel_alarm(cls, "a", "digest")
    async with on.opened(storage, PlainDigest) as runtime:
        await runtime.schedule_alarm(PlainDigest, "a", "digest", after=5, keep=True)
        await anyio.sleep(6)
        assert await runtime.get(PlainDigest, "a").read() == 1
        assert on.rows(storage) == []


async def test_it_stays_off_in_a_later_release_that_begins_it_by_itself() -> None:
    cls = on.report()
    async with on.turned_on(cls) as (runtime, storage, _):
        await runtime.get(cls, "a").change()
        await runtime.get(cls, "a").do("cancel_alarm")
    later = on.report(autostart=True)
    async with on.opened(storage, later) as runtime:
        await runtime.get(later, "a").change()
        assert on.row(storage).alarm.recurrence == STOPPED


async def test_an_older_release_that_handles_any_alarm_leaves_it() -> None:
    cls = on.report()
    storage, first = await on.left_on(cls)
    async with on.opened(storage, CatchAll) as runtime:
        await anyio.sleep(2 * 3600)
        with pytest.raises(AlarmUnhandled):
            await fire_alarm(runtime, CatchAll, "a", "digest")
        assert await runtime.get(CatchAll, "a").read() == 1
        assert on.due(storage) == first


async def test_a_firing_that_has_died_is_retried_by_the_handler_that_there_is() -> None:
    def fails(_self: object) -> None:
        raise KeyError("on purpose")

    cls = on.report(fails, retry=Retry(attempts=1))
    async with on.turned_on(cls) as (runtime, storage, _):
        await runtime.get(cls, "a").change()
        await anyio.sleep(3601)
        (letter,) = await runtime.list_dead_letters(cls)
        await runtime.cancel_alarm(cls, "a", "digest")
    async with on.opened(storage, CatchAll) as runtime:
        assert await runtime.retry_alarm(CatchAll, "a", letter.name)
        await anyio.sleep(1)
        assert await runtime.get(CatchAll, "a").read() == 1
    async with on.opened(storage, PlainDigest) as runtime:
        await anyio.sleep(301)
        assert await runtime.get(PlainDigest, "a").read() == 2
        assert [each.alarm.key.name for each in on.rows(storage)] == ["digest"]


async def test_an_alarm_whose_name_only_looks_like_a_firing_is_one_of_its_own() -> None:
    class Both(DurableObject, name="Report"):
        names: str = ""

        @alarm(every=on.HOUR)
        def digest(self) -> None:
            self.names += "digest "

        def handle_alarm(self, alarm: Alarm) -> None:
            self.names += alarm.name

        @handler(readonly=True)
        def read(self) -> str:
            return self.names

    async with on.opened(MemoryStorage(), Both) as runtime:
        await runtime.schedule_alarm(Both, "a", "digest@home", after=1)
        await anyio.sleep(2)
        assert await runtime.get(Both, "a").read() == "digest@home"


# --- turns that do several things ----------------------------------------------------------------


def in_turn(*steps: tuple[str, dict[str, Any]]) -> Any:
    """Calls of ``self.ctx``, one after the other, for the alarm; "commit" commits."""

    async def act(self: Any) -> None:
        for what, options in steps:
            if what == "commit":
                await self.ctx.commit()
            elif what in ("delete", "cancel_all_alarms"):
                getattr(self.ctx, what)()
            else:
                getattr(self.ctx, what)("digest", **options)

    return act


CANCEL: tuple[str, dict[str, Any]] = ("cancel_alarm", {})
CLEAR: tuple[str, dict[str, Any]] = ("cancel_all_alarms", {})
DELETE: tuple[str, dict[str, Any]] = ("delete", {})
COMMIT: tuple[str, dict[str, Any]] = ("commit", {})
ON: tuple[str, dict[str, Any]] = ("schedule_alarm", {})
KEEP: tuple[str, dict[str, Any]] = ("schedule_alarm", {"after": 60, "keep": True})
MOVE: tuple[str, dict[str, Any]] = ("schedule_alarm", {"after": 60})


@pytest.mark.parametrize(
    ("steps", "mark", "after"),
    [
        ([], "on", 3600),
        ([ON], "on", 3600),
        ([ON, COMMIT], "on", 3600),
        ([COMMIT, ON], "on", 3600),
        ([MOVE], MOVED, 60),
        ([MOVE, COMMIT], MOVED, 60),
        ([COMMIT, MOVE], MOVED, 60),
        ([MOVE, ON], MOVED, 60),
        ([KEEP], "on", 3600),
        ([KEEP, COMMIT], "on", 3600),
        ([CANCEL], STOPPED, None),
        ([CANCEL, COMMIT], STOPPED, None),
        ([CANCEL, KEEP], MOVED, 60),
        ([CANCEL, COMMIT, KEEP], MOVED, 60),
        ([CLEAR, KEEP], MOVED, 60),
        ([CANCEL, ON], "on", 3600),
        ([CANCEL, COMMIT, ON], "on", 3600),
        ([ON, CANCEL], STOPPED, None),
        ([DELETE], "gone", None),
        ([DELETE, COMMIT], "gone", None),
        ([COMMIT, DELETE], "gone", None),
    ],
)
async def test_its_own_turn_leaves_one_firing_or_none(
    steps: list[tuple[str, dict[str, Any]]], mark: str, after: int | None
) -> None:
    cls = on.report(in_turn(*steps))
    async with on.turned_on(cls) as (runtime, storage, _):
        await runtime.get(cls, "a").change()
        await anyio.sleep(3601)
        assert len(on.runs) == 1
        if mark == "gone":
            assert on.rows(storage) == []
            return
        found = on.row(storage).alarm
        assert found.recurrence == mark or (
            mark == "on" and found.recurrence not in (MOVED, STOPPED)
        )
        if after is not None:
            left = on.due(storage) - on.runs[0][1]
            assert abs(left - timedelta(seconds=after)) < timedelta(seconds=1)


@pytest.mark.parametrize("commits", [False, True])
async def test_a_plain_alarm_that_its_own_turn_keeps_is_set(commits: bool) -> None:
    class Chain(DurableObject, name="Report"):
        count: int = 0

        @alarm
        async def digest(self) -> None:
            self.count += 1
            self.ctx.schedule_alarm("digest", after=60, keep=True)
            if commits:
                await self.ctx.commit()

        @handler(readonly=True)
        def read(self) -> int:
            return self.count

    storage = MemoryStorage()
    async with on.opened(storage, Chain) as runtime:
        await runtime.schedule_alarm(Chain, "a", "digest", after=1)
        await anyio.sleep(150)
        assert len(on.rows(storage)) == 1
        assert await runtime.get(Chain, "a").read() == 3


@pytest.mark.parametrize("missed", ["once", "skip", "all"])
async def test_a_firing_that_is_moved_to_the_past_happens_once_and_now(missed: str) -> None:
    cls = on.report(missed=missed)
    async with on.turned_on(cls) as (runtime, storage, _):
        begun = await on.now(runtime)
        await runtime.schedule_alarm(cls, "a", "digest", at=begun - 5 * on.HOUR, payload=1)
        await anyio.sleep(1)
        assert [at - begun < timedelta(seconds=1) for _, at in on.runs] == [True]
        assert on.due(storage) - begun >= on.HOUR


# --- turns that fail -----------------------------------------------------------------------------


async def test_a_turn_that_takes_too_long_does_not_end_it() -> None:
    async def hangs(_self: object) -> None:
        await anyio.sleep_forever()

    cls = on.report(hangs, limit=5, retry=Retry(attempts=2, initial=1, factor=1))
    async with on.turned_on(cls) as (runtime, storage, first):
        await anyio.sleep(3650)
        (letter,) = await runtime.list_dead_letters(cls)
        assert "TurnTimeout" in (letter.last_error or "")
        assert (len(on.runs), on.due(storage)) == (2, first + on.HOUR)


async def test_a_turn_that_a_closing_runtime_cuts_off_is_repeated() -> None:
    lengths = [7200.0]

    async def long_once(_self: object) -> None:
        if lengths:
            await anyio.sleep(lengths.pop())

    cls = on.report(long_once)
    async with on.turned_on(cls) as (_, storage, first):
        await anyio.sleep(3700)
        assert len(on.runs) == 1
    assert on.due(storage) == first
    async with on.opened(storage, cls) as runtime:
        await anyio.sleep(1)
        assert [due_at for due_at, _ in on.runs] == [first, first]
        assert await runtime.get(cls, "a").read() == 1


@pytest.mark.parametrize("missed", ["once", "skip"])
async def test_a_state_that_cant_be_read_does_not_end_it(missed: str) -> None:
    cls = on.report(missed=missed, retry=Retry(attempts=1))
    storage, first = await on.left_on(cls)
    writer = storage.open_writer()
    writer.commit([Commit(ObjectKey("Report", "a"), 1, b'{"count": "none"}')], 0)
    writer.close()
    if missed == "skip":
        await anyio.sleep(2.5 * 3600)
    async with on.opened(storage, cls) as runtime:
        await anyio.sleep(3700)
        letters = await runtime.list_dead_letters(cls)
        assert len(letters) == 1
        assert "StateDecodeError" in (letters[0].last_error or "")
        assert on.due(storage) == first + (on.HOUR if missed == "once" else 3 * on.HOUR)
        assert on.runs == []


async def test_it_recurs_though_no_turn_of_it_changes_anything() -> None:
    class Quiet(DurableObject, name="Report"):
        count: int = 0

        @alarm(every=on.HOUR)
        def digest(self) -> None:
            on.runs.append((self.ctx.now(), self.ctx.now()))

    storage = MemoryStorage()
    async with on.opened(storage, Quiet) as runtime:
        await runtime.schedule_alarm(Quiet, "a", "digest")
        await anyio.sleep(3.5 * 3600)
        assert len(on.runs) == 3
        assert len(on.rows(storage)) == 1


async def test_a_clock_that_is_set_back_and_forth_leaves_one_firing() -> None:
    cls, clock = on.report(missed="all"), on.CertainClock()
    async with on.turned_on(cls, clock=clock) as (_, storage, first):
        for jump in (1800, -5400, 7200, -3600, 86400, -86400, 3600):
            clock.ahead += jump
            await anyio.sleep(1800)
            assert len(on.rows(storage)) == 1
    assert first <= on.runs[0][0]


async def test_plain_releases_never_see_a_mark() -> None:
    cls = on.report()
    async with on.turned_on(cls) as (runtime, storage, _):
        await runtime.cancel_all_alarms(cls, "a")
    async with on.opened(storage, on.Plain) as runtime:
        assert await runtime.list_alarms(on.Plain, "a") == []
        await runtime.cancel_all_alarms(on.Plain, "a")
        assert on.rows(storage) == []
