"""Alarms that fire: when, with what payload, and what their handler sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import attrs
import pytest
from cluster.away import first_look
from support.clock import settle
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import Alarm, InvalidAlarm, ObjectKey

from .desk import (
    TICK,
    AsyncDesk,
    Deaf,
    Desk,
    Named,
    Script,
    Starter,
    alarms_of,
    fired,
    names,
    opened,
    script,
    seen,
    sets,
    wall,
)

pytestmark = pytest.mark.anyio


def sets_at(name: str, at: datetime) -> Script:
    return lambda self: self.ctx.schedule_alarm(name, at=at)


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.25, 5, timedelta(seconds=5), timedelta(microseconds=1), 86400])
@pytest.mark.parametrize("outside", [False, True])
async def test_a_delay_is_seconds_or_a_timedelta(after: float | timedelta, outside: bool) -> None:
    length = after if isinstance(after, timedelta) else timedelta(seconds=after)
    async with opened() as runtime:
        now = wall(runtime)
        if outside:
            await runtime.schedule_alarm(Desk, "a", "x", after=after)
        else:
            await runtime.get(Desk, "a").do(
                script("set", lambda self: self.ctx.schedule_alarm("x", after=after))
            )
        await anyio.sleep(length.total_seconds() + 0.01)
        (firing,) = fired
        assert timedelta(0) <= firing.alarm.due_at - (now + length) < TICK
        assert timedelta(0) <= firing.late < TICK


@pytest.mark.parametrize("outside", [False, True])
async def test_an_alarm_is_due_at_an_instant_in_any_time_zone(outside: bool) -> None:
    async with opened() as runtime:
        at = (wall(runtime) + timedelta(hours=3, microseconds=1)).astimezone(
            timezone(timedelta(hours=5, minutes=45))
        )
        if outside:
            await runtime.schedule_alarm(Desk, "a", "x", at=at)
        else:
            await runtime.get(Desk, "a").do(script("set", sets_at("x", at)))
        await anyio.sleep(3 * 3600 - 1)
        assert fired == []
        await anyio.sleep(2)
        (firing,) = fired
        assert firing.alarm.due_at == at
        assert firing.alarm.due_at.tzinfo is UTC
        assert timedelta(0) <= firing.late < TICK


@pytest.mark.parametrize("outside", [False, True])
async def test_what_is_past_is_due_at_once(outside: bool) -> None:
    async with opened() as runtime:
        long_ago = datetime(1, 1, 1, tzinfo=UTC)
        instants = {
            "an hour": wall(runtime) - timedelta(hours=1),
            "before 1970": datetime(1950, 2, 3, tzinfo=UTC),
            "the beginning": long_ago,
        }
        before = wall(runtime)
        for name, at in instants.items():
            if outside:
                await runtime.schedule_alarm(Desk, "a", name, at=at)
            else:
                await runtime.get(Desk, "a").do(script("set", sets_at(name, at)))
        await runtime.schedule_alarm(Desk, "a", "now", after=0)
        await anyio.sleep(0.01)
        due = {firing.alarm.name: firing.alarm.due_at for firing in fired}
        assert due == {**instants, "now": due["now"]}
        assert len(fired) == 4
        assert all(firing.time - before < timedelta(milliseconds=10) for firing in fired)


async def test_alarms_fire_in_the_order_of_their_times() -> None:
    async with opened() as runtime:
        order = [7, 3, 9, 1, 8, 2, 6, 4, 5, 0]
        for number in order:
            await runtime.schedule_alarm(Desk, f"object {number}", "x", after=10 + number * 0.002)
        for number in order:
            await runtime.schedule_alarm(Desk, "one", f"{number}", after=100 + number * 0.002)
        await anyio.sleep(11)
        assert [firing.object_id for firing in fired] == [f"object {n}" for n in range(10)]
        await anyio.sleep(100)
        assert names(fired[10:]) == [f"{number}" for number in range(10)]
        assert all(timedelta(0) <= firing.late < TICK for firing in fired)


async def test_alarms_far_beyond_the_horizon_fire_at_their_time() -> None:
    async with opened(polling_interval=3600, claim_ttl=3600) as runtime:
        days = (1, 30, 100)
        for day in days:
            await runtime.schedule_alarm(Desk, "a", f"day {day}", after=timedelta(days=day))
        assert runtime.statistics().alarms_waiting == 0  # the table has them
        await anyio.sleep(101 * 86400)
        assert names() == [f"day {day}" for day in days]
        assert all(timedelta(0) <= firing.late < TICK for firing in fired)


# --- what the handler sees ------------------------------------------------------------------------


async def test_a_handler_sees_its_alarm_and_other_turns_see_none() -> None:
    def look(self: Desk) -> None:
        seen.append(self.ctx.alarm)

    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("look", look))
        at = wall(runtime) + timedelta(seconds=10)
        await runtime.schedule_alarm(Desk, "a", "x", at=at, payload={"n": [1, None, "ö"]})
        script("x", look)
        await anyio.sleep(11)
        await desk.do("look")
        await desk.do_slowly("look")
        expected = Alarm(ObjectKey("Desk", "a"), "x", at, {"n": [1, None, "ö"]}, 1, None)
        assert seen == [None, expected, None, None]
        assert fired[0].alarm is seen[1]


async def test_an_async_handler_sees_its_alarm_to_its_end_and_calls_behind_it_none() -> None:
    async def look(self: AsyncDesk) -> None:
        seen.append(self.ctx.alarm and self.ctx.alarm.name)
        await anyio.sleep(1)
        await self.ctx.commit()
        seen.append(self.ctx.alarm and self.ctx.alarm.name)

    async with opened() as runtime, calls() as group:
        desk = runtime.get(AsyncDesk, "a")
        await desk.do(script("set", sets("x", 1)))
        script("x", look)
        await anyio.sleep(1.5)
        group.start(desk.do_slowly, "x")
        await anyio.sleep(10)
        assert seen == ["x", "x", None, None]


async def test_alarms_go_to_the_method_of_their_name_or_to_the_catch_all() -> None:
    async with opened() as runtime:
        for name in ("plain", "slow", "log", "set", "something else", "handle_alarm", "ünïcode 🕰"):
            await runtime.schedule_alarm(Named, name, name, after=1)
        await anyio.sleep(10)
        logs = {
            name: (await runtime.get_state(Named, name)).log
            for name in ("plain", "slow", "log", "set", "something else", "handle_alarm")
        }
        assert logs == {
            "plain": ["plain"],
            "slow": ["slow"],
            "log": ["other: log"],
            "set": ["other: set"],
            "something else": ["other: something else"],
            "handle_alarm": ["other: handle_alarm"],
        }
        assert (await runtime.get_state(Named, "ünïcode 🕰")).log == ["other: ünïcode 🕰"]


async def test_an_alarm_that_nobody_handles_goes_without_activating_the_object() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Deaf, "a", "unheard", after=1)
        await anyio.sleep(2)
        assert await alarms_of(runtime, cls=Deaf) == {}
        assert storage.loads == []
        assert runtime.count_objects() == 0
        assert runtime.statistics().alarms_delivered == 1
        # Nor does it trouble one that runs, or its known alarm.
        deaf = runtime.get(Deaf, "b")
        await deaf.increment()
        await runtime.schedule_alarm(Deaf, "b", "unheard", after=1)
        await runtime.schedule_alarm(Deaf, "b", "known", after=1)
        await anyio.sleep(2)
        assert await deaf.increment() == 12
        assert await alarms_of(runtime, "b", Deaf) == {}
        assert runtime.statistics().alarms_failed == 0


@pytest.mark.parametrize("left", ["never started", "stopped", "hibernated", "shut down"])
async def test_an_alarm_activates_its_object(left: str) -> None:
    async with opened() as runtime:
        if left != "never started":
            await runtime.get(Desk, "a").note("before")
        if left == "hibernated":
            await anyio.sleep(400)
        if left in ("stopped", "shut down"):
            await runtime.stop(Desk, "a")
            await settle()
            assert runtime.whereis(Desk, "a") is None
        await runtime.schedule_alarm(Desk, "a", "x", after=1)
        await anyio.sleep(2)
        info = runtime.whereis(Desk, "a")
        assert info is not None
        assert info.status == "active"
        before = [] if left == "never started" else ["before"]
        assert (await runtime.get_state(Desk, "a")).log == [*before, "x"]


async def test_after_load_runs_before_the_alarms_handler() -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(Starter, "a", "ring", after=1)
        await anyio.sleep(2)
        assert (await runtime.get_state(Starter, "a")).log == ["after_load", "ring"]
        assert seen == [None]


async def test_an_alarm_fires_in_a_runtime_opened_later() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Desk, "a", "overdue", after=10)
        await runtime.schedule_alarm(Desk, "a", "to come", after=200)
    await anyio.sleep(100)
    async with opened(storage) as runtime:
        await first_look(runtime)
        assert names() == ["overdue"]
        assert abs(fired[0].late.total_seconds() - 90) < 0.2
        await anyio.sleep(100)
        assert names() == ["overdue", "to come"]
        assert timedelta(0) <= fired[1].late < TICK


# --- payloads -------------------------------------------------------------------------------------


@attrs.frozen
class Order:
    number: int
    lines: list[str]
    placed: datetime


@dataclass
class Point:
    x: int
    y: float = 0.5


PLACED = datetime(2030, 5, 6, 7, 8, 9, 10, tzinfo=UTC)

PLAIN = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    "",
    'text "quoted" \n ö 🕰 \0',
    [],
    {},
    [1, [2, [None, {"a": [True]}]]],
    {"": {"": ""}, "k": [1.25]},
]


@pytest.mark.parametrize("payload", PLAIN, ids=repr)
async def test_a_plain_payload_comes_back_as_it_was(payload: object) -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(Desk, "a", "outside", after=1, payload=payload)
        await runtime.get(Desk, "a").do(script("set", sets("inside", 2, payload)))
        listed = await runtime.list_alarms(Desk, "a")
        await anyio.sleep(3)
        found = [alarm.payload for alarm in (*listed, *(firing.alarm for firing in fired))]
        assert found == [payload] * 4
        assert [repr(each) for each in found] == [repr(payload)] * 4  # 1 is not True, nor 1.0


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Order, Order(7, ["apple"], PLACED)),
        (Point, Point(1, 2.5)),
        (datetime, PLACED),
        (timedelta, timedelta(days=3, microseconds=7)),
        (dict[str, int], {"a": 1}),
        (list[str], ["a", "b"]),
        (tuple[int, str], (1, "a")),
        (str, "text"),
        (int, 7),
    ],
    ids=str,
)
async def test_a_payload_is_read_as_what_it_was_set_with(kind: Any, payload: object) -> None:
    def look(self: Desk) -> None:
        assert self.ctx.alarm is not None
        seen.append(self.ctx.alarm.payload_as(kind))

    async with opened() as runtime:
        await runtime.get(Desk, "a").do(script("set", sets("x", 1, payload)))
        script("x", look)
        (listed,) = await runtime.list_alarms(Desk, "a")
        await anyio.sleep(2)
        assert listed.payload_as(kind) == payload
        assert seen == [payload]
        assert type(seen[0]) is type(payload)


@pytest.mark.parametrize(
    ("kind", "payload", "problem"),
    [
        (Order, {"number": 7}, "Order"),
        (Order, {"number": "7", "lines": [], "placed": PLACED.isoformat()}, "number"),
        (Order, [1], "Order"),
        (Point, {"x": 1.5}, "x"),
        (datetime, "soon", "datetime"),
        (dict[str, int], {"a": "b"}, "a"),
        (int, "7", "int"),
        (str, None, "str"),
        (object.__class__, 1, "type"),
    ],
    ids=str,
)
async def test_a_payload_of_another_kind_is_refused(kind: Any, payload: Any, problem: str) -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=1, payload=payload)
        (listed,) = await runtime.list_alarms(Desk, "a")
        with pytest.raises(InvalidAlarm, match=problem) as raised:
            listed.payload_as(kind)
        assert raised.value.key == ObjectKey("Desk", "a")
        assert raised.value.name == "x"
        assert "Desk('a')" in str(raised.value)


async def test_a_payload_is_taken_by_value_when_the_alarm_is_set() -> None:
    def set_and_change(self: Desk) -> None:
        payload = {"items": [1]}
        self.ctx.schedule_alarm("x", after=1, payload=payload)
        payload["items"].append(2)

    async with opened() as runtime:
        await runtime.get(Desk, "a").do(script("set", set_and_change))
        await anyio.sleep(2)
        assert fired[0].alarm.payload == {"items": [1]}


async def test_each_attempt_and_each_listing_has_a_payload_of_its_own() -> None:
    def spoil(self: Desk) -> None:
        assert self.ctx.alarm is not None
        payload = self.ctx.alarm.payload
        assert isinstance(payload, list)
        seen.append(list(payload))
        payload.append("spoilt")
        if len(seen) == 1:
            raise KeyError("on purpose")

    async with opened() as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=1, payload=["good"])
        (listed,) = await runtime.list_alarms(Desk, "a")
        assert isinstance(listed.payload, list)
        listed.payload.append("spoilt")
        (listed,) = await runtime.list_alarms(Desk, "a")
        assert listed.payload == ["good"]
        script("x", spoil)
        await anyio.sleep(10)
        assert seen == [["good"], ["good"]]


async def test_state_does_not_share_the_payload() -> None:
    def keep(self: Desk) -> None:
        assert self.ctx.alarm is not None
        payload = self.ctx.alarm.payload_as(list[str])
        self.log = payload
        self.log.append("kept")

    async with opened() as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=1, payload=["p"])
        script("x", keep)
        await anyio.sleep(2)
        await runtime.get(Desk, "a").note("more")
        assert fired[0].alarm.payload == ["p"]
