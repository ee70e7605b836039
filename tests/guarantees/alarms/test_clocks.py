"""Alarms under clocks that are set, and over long times."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from support.clock import VirtualTimeLoop
from support.scripted import ScriptedStorage
from trio.testing import MockClock

from trio_durable import Alarm, Clock, DurableObject, DurableRuntime, handler
from trio_durable._eventloop.running import running_loop

from .bench import (
    EPOCH,
    TICK,
    AsyncBench,
    Bench,
    SharedStorage,
    fails,
    faults,
    fired,
    names,
    opened,
    script,
    sharing,
    sleeps,
)

pytestmark = pytest.mark.anyio


# --- clocks that are set --------------------------------------------------------------------------

HOUR = 3600


class WallClock(Clock):
    """Goes with the loop, and can be set."""

    def __init__(self) -> None:
        self._loop_now = running_loop().now
        self.ahead = 0.0
        """In seconds."""

    @property
    def may_jump(self) -> bool:
        return True

    def now(self) -> int:
        return 1_900_000_000_000_000 + round((self._loop_now() + self.ahead) * 1e6)


async def test_what_a_clock_set_forward_makes_due_fires_within_a_second() -> None:
    clock = WallClock()
    async with opened(clock=clock) as runtime:
        for number, after in enumerate((50, 40, 3000, 30, HOUR - 1, HOUR + 100)):
            await runtime.schedule_alarm(Bench, f"{number}", "x", after=after)
        await anyio.sleep(10.5)
        clock.ahead = HOUR
        await anyio.sleep(1.001)
        assert [firing.object_id for firing in fired] == ["3", "1", "0", "2", "4"]
        # The last one follows the new time.
        await anyio.sleep(100 - 11.5 - 0.1)
        assert len(fired) == 5
        await anyio.sleep(0.2)
        assert len(fired) == 6


async def test_nothing_fires_early_after_a_clock_was_set_back() -> None:
    clock = WallClock()
    async with opened(clock=clock) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=20)
        await runtime.schedule_alarm(Bench, "b", "x", after=HOUR)
        await anyio.sleep(10)
        clock.ahead = -HOUR
        await anyio.sleep(5)
        await runtime.schedule_alarm(Bench, "c", "x", after=5)
        await anyio.sleep(10)
        assert [firing.object_id for firing in fired] == ["c"]
        await anyio.sleep(HOUR - 6)
        assert [firing.object_id for firing in fired] == ["c"]
        await anyio.sleep(2)
        assert [firing.object_id for firing in fired] == ["c", "a"]
        await anyio.sleep(HOUR)
        assert [firing.object_id for firing in fired] == ["c", "a", "b"]
        assert all(timedelta(0) <= firing.late < TICK for firing in fired)


async def test_what_has_become_due_does_not_fire_once_the_clock_was_set_back() -> None:
    clock = WallClock()
    storage = ScriptedStorage()
    async with opened(storage, clock=clock) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=20)
        await anyio.sleep(19)
        storage.fail_alarm_work(*faults(5))
        await anyio.sleep(2.5)  # due, but it could not be claimed
        assert storage.claims
        clock.ahead = -HOUR
        await anyio.sleep(HOUR - 10)
        assert fired == []
        await anyio.sleep(10)
        assert len(fired) == 1
        assert timedelta(0) <= fired[0].late < TICK


async def test_a_failed_alarm_is_tried_again_after_the_clock_was_set() -> None:
    clock = WallClock()
    async with opened(clock=clock) as runtime:
        await runtime.schedule_alarm(Bench, "a", "patient", after=1)
        script("patient", fails(3))
        await anyio.sleep(2)
        clock.ahead = HOUR
        await anyio.sleep(1.001)
        assert len(fired) == 2
        clock.ahead = 0
        await anyio.sleep(HOUR + 300)
        assert len(fired) == 4
        assert await runtime.get(Bench, "a").read() == ["patient"]


async def test_after_a_suspension_overdue_alarms_come_oldest_first_and_once() -> None:
    clock = WallClock()
    shared = SharedStorage()
    async with sharing(shared.side(), clock=clock) as runtime:
        await runtime.schedule_alarm(AsyncBench, "slow", "slow", after=1)
        script("slow", sleeps(100))
        for number in range(50):
            await runtime.schedule_alarm(Bench, f"{number}", "x", after=60 + number * 37 % 50 * 60)
        await anyio.sleep(10)
        clock.ahead = 8 * HOUR  # the loop's own clock stood still meanwhile
        await anyio.sleep(1.001)
        assert names() == ["slow"] + ["x"] * 50
        due = [firing.alarm.due_at for firing in fired]
        assert due == sorted(due)
        await anyio.sleep(500)
        # Its claim had run out long ago, but this runtime has it in hands.
        assert names().count("slow") == 1
        assert await runtime.get(AsyncBench, "slow").read() == ["slow"]


# --- long times -----------------------------------------------------------------------------------

DAY = timedelta(days=1)

rung: list[tuple[str, str, datetime, int]] = []


class Rota(DurableObject):
    """Does some things once a day."""

    @handler
    def begin(self, first: datetime, minutes: list[int]) -> None:
        for number, minute in enumerate(minutes):
            self.ctx.schedule_alarm(f"{number}", at=first + timedelta(minutes=minute))

    def handle_alarm(self, alarm: Alarm) -> None:
        now = self.ctx.runtime._open().clock.now()
        late = now - (alarm.due_at - EPOCH) // timedelta(microseconds=1)
        rung.append((self.ctx.object_id, alarm.name, alarm.due_at, late))
        self.ctx.schedule_alarm(alarm.name, at=alarm.due_at + DAY)


async def _week(objects: int, alarms: int) -> datetime:
    """Let daily alarms ring for a week; when they began."""
    rung.clear()
    options: dict[str, Any] = {"polling_interval": 6 * HOUR, "claim_ttl": 6 * HOUR}
    async with DurableRuntime(":memory:", objects=[Rota], **options) as runtime:
        first = EPOCH + timedelta(microseconds=runtime._open().clock.now(), minutes=1)
        for number in range(objects):
            minutes = [(number * alarms + i) * 7919 % 144 * 10 for i in range(alarms)]
            await runtime.get(Rota, f"{number}").begin(first, minutes)
        await anyio.sleep(7 * 86400 + 30)
    return first


def _check_week(first: datetime, objects: int, alarms: int) -> None:
    expected = {}
    for number in range(objects):
        for i in range(alarms):
            minute = (number * alarms + i) * 7919 % 144 * 10
            begins = first + timedelta(minutes=minute)
            expected[f"{number}", f"{i}"] = [begins + DAY * day for day in range(7)]
    found: dict[tuple[str, str], list[datetime]] = {}
    for object_id, name, due_at, late in rung:
        found.setdefault((object_id, name), []).append(due_at)
        assert 0 <= late < 1005
    assert found == expected


def test_a_week_of_ten_thousand_recurring_alarms_passes_in_seconds() -> None:
    first = anyio.run(_week, 100, 100, backend_options={"loop_factory": VirtualTimeLoop})
    assert len(rung) == 70_000
    _check_week(first, 100, 100)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_week_is_the_same_each_time(backend: str) -> None:
    runs = []
    for _ in range(2):
        options: dict[str, Any] = {"loop_factory": VirtualTimeLoop}
        if backend == "trio":
            options = {"clock": MockClock(autojump_threshold=0)}
        first = anyio.run(_week, 50, 10, backend=backend, backend_options=options)
        _check_week(first, 50, 10)
        runs.append([(object_id, name, due_at - first) for object_id, name, due_at, _ in rung])
    assert runs[0] == runs[1]
