"""Setting and cancelling alarms, what they carry, and how they go with their turn's commit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import attrs
import pytest
from support.clock import settle
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    Alarm,
    CallCycle,
    Context,
    DurableObject,
    DurableRuntime,
    InvalidAlarm,
    MemoryStorage,
    NotInTurn,
    ObjectKey,
    Objects,
    PersistenceError,
    ReadonlyViolation,
    alarm,
    handler,
)
from trio_durable.storage import StorageFault

pytestmark = pytest.mark.anyio

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TICK = timedelta(milliseconds=1, microseconds=5)
"""How late an alarm may be: ticks are rounded up, and loops round as well."""


@attrs.frozen
class Firing:
    """What an alarm's handler saw when it began."""

    object_id: str
    alarm: Alarm
    time: datetime

    @property
    def late(self) -> timedelta:
        return self.time - self.alarm.due_at


Script = Callable[[Any], Any]

scripts: dict[str, Script] = {}
"""What handlers do, by the name that they are given."""
fired: list[Firing] = []
seen: list[object] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    scripts.clear()
    fired.clear()
    seen.clear()


def script(name: str, what: Script) -> str:
    scripts[name] = what
    return name


def _nothing(_self: object) -> None:
    pass


class Desk(DurableObject):
    """Notes the alarms that go off, and does what the script says for their names."""

    log: list[str] = attrs.field(factory=list)

    @handler
    def do(self, what: str) -> None:
        scripts[what](self)

    @handler
    async def do_slowly(self, what: str) -> None:
        result = scripts[what](self)
        if inspect.isawaitable(result):
            await result

    @handler
    def note(self, what: str) -> None:
        self.log.append(what)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.log

    @handler(readonly=True)
    def do_readonly(self, what: str) -> None:
        scripts[what](self)

    @handler(readonly=True)
    async def do_readonly_slowly(self, what: str) -> None:
        await scripts[what](self)

    def handle_alarm(self, alarm: Alarm) -> None:
        begin(self)
        self.log.append(alarm.name)
        scripts.get(alarm.name, _nothing)(self)


class AsyncDesk(Desk):
    async def handle_alarm(self, alarm: Alarm) -> None:  # type: ignore[override]
        begin(self)
        self.log.append(alarm.name)
        result = scripts.get(alarm.name, _nothing)(self)
        if inspect.isawaitable(result):
            await result


class Named(DurableObject):
    """Has methods for some alarms, and a catch-all for the others."""

    log: list[str] = attrs.field(factory=list)

    @handler
    def set(self, name: str, payload: object = None) -> None:
        self.ctx.schedule_alarm(name, after=1, payload=payload)

    @alarm
    def plain(self) -> None:
        self.log.append("plain")

    @alarm
    async def slow(self) -> None:
        await anyio.sleep(1)
        self.log.append("slow")

    def handle_alarm(self, alarm: Alarm) -> None:
        self.log.append(f"other: {alarm.name}")


class Deaf(DurableObject):
    """Handles one alarm only."""

    count: int = 0

    @handler
    def increment(self) -> int:
        self.count += 1
        return self.count

    @alarm
    def known(self) -> None:
        self.count += 10


class Starter(DurableObject):
    """Does what the script says when it is activated."""

    log: list[str] = attrs.field(factory=list)

    def after_load(self) -> None:
        self.log.append("after_load")
        seen.append(self.ctx.alarm)
        scripts.get("after_load", _nothing)(self)

    @handler
    def note(self, what: str) -> None:
        self.log.append(what)

    @alarm
    def ring(self) -> None:
        begin(self)
        self.log.append("ring")


OBJECTS = (Desk, AsyncDesk, Named, Deaf, Starter)


def begin(self: DurableObject) -> None:
    current = self.ctx.alarm
    assert current is not None
    fired.append(Firing(self.ctx.object_id, current, wall(self.ctx.runtime)))


def wall(runtime: Objects) -> datetime:
    """The time, as the runtime has it."""
    return _EPOCH + timedelta(microseconds=runtime._open().clock.now())


def opened(storage: ScriptedStorage | None = None, **options: Any) -> DurableRuntime:
    storage = storage or ScriptedStorage()
    return DurableRuntime(storage, objects=OBJECTS, runner=storage.runner, **options)


def names(firings: Sequence[Firing] | None = None) -> list[str]:
    return [firing.alarm.name for firing in (fired if firings is None else firings)]


async def alarms_of(
    runtime: DurableRuntime, object_id: str = "a", cls: type[DurableObject] = Desk
) -> dict[str, float]:
    """In how many seconds each alarm is due."""
    now = wall(runtime)
    return {
        alarm.name: round((alarm.due_at - now).total_seconds(), 3)
        for alarm in await runtime.list_alarms(cls, object_id)
    }


def sets(name: str, after: float = 10, payload: object = None) -> Script:
    return lambda self: self.ctx.schedule_alarm(name, after=after, payload=payload)


def sets_at(name: str, at: datetime) -> Script:
    return lambda self: self.ctx.schedule_alarm(name, at=at)


def cancels(name: str) -> Script:
    return lambda self: self.ctx.cancel_alarm(name)


def cancels_all(self: DurableObject) -> None:
    self.ctx.cancel_all_alarms()


def then(*scripts: Script) -> Script:
    def all_of_them(self: object) -> None:
        for each in scripts:
            each(self)

    return all_of_them


def raises(_self: object) -> None:
    raise KeyError("on purpose")


# --- setting in a turn ----------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Desk, AsyncDesk])
@pytest.mark.parametrize("how", ["do", "do_slowly"])
async def test_an_alarm_set_in_a_handler_fires_once_at_its_time(cls: type[Desk], how: str) -> None:
    async with opened() as runtime:
        await runtime.call(cls, "a", how, script("set", sets("x", 10)))
        assert await alarms_of(runtime, cls=cls) == {"x": 10}
        await anyio.sleep(9.99)
        assert fired == []
        await anyio.sleep(100)
        assert names() == ["x"]
        assert timedelta(0) <= fired[0].late < TICK
        assert await runtime.get(cls, "a").read() == ["x"]
        assert await alarms_of(runtime, cls=cls) == {}


async def test_after_load_sets_an_alarm_with_its_own_commit() -> None:
    storage = ScriptedStorage()
    script("after_load", sets("ring", 10))
    async with opened(storage) as runtime:
        await runtime.ensure_started(Starter, "a")
        (commit,) = storage.batches[-1]
        assert commit.state is not None
        assert commit.alarms is not None
        assert list(commit.alarms.changed) == ["ring"]
        await anyio.sleep(11)
        assert names() == ["ring"]
        assert seen == [None]  # after_load handles no alarm


async def test_after_load_cancels_an_alarm() -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(Starter, "a", "ring", after=10)
        script("after_load", cancels("ring"))
        await runtime.ensure_started(Starter, "a")
        await anyio.sleep(20)
        assert fired == []


async def test_an_after_load_that_raises_sets_nothing() -> None:
    async with opened() as runtime:
        script("after_load", then(sets("ring", 1), raises))
        with pytest.raises(Exception, match="on purpose"):
            await runtime.ensure_started(Starter, "a")
        assert await alarms_of(runtime, cls=Starter) == {}


@pytest.mark.parametrize("cls", [Desk, AsyncDesk])
async def test_an_alarms_handler_sets_another_and_cancels_a_third(cls: type[Desk]) -> None:
    async with opened() as runtime:
        desk = runtime.get(cls, "a")
        await desk.do(script("set", then(sets("first", 1), sets("third", 3))))
        script("first", then(sets("second", 1), cancels("third")))
        await anyio.sleep(20)
        assert names() == ["first", "second"]
        assert await desk.read() == ["first", "second"]


async def test_an_alarms_handler_cancels_all_and_itself_is_acknowledged() -> None:
    async with opened() as runtime:
        await runtime.get(Desk, "a").do(script("set", then(sets("x", 1), sets("y", 2))))
        script("x", cancels_all)
        await anyio.sleep(20)
        assert names() == ["x"]
        assert await alarms_of(runtime) == {}


async def test_setting_an_alarm_again_replaces_it() -> None:
    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", sets("x", 10, "old")))
        await anyio.sleep(5)
        await desk.do(script("set", sets("x", 10, "new")))
        assert await alarms_of(runtime) == {"x": 10}
        await anyio.sleep(9.9)
        assert fired == []
        await anyio.sleep(30)
        assert [firing.alarm.payload for firing in fired] == ["new"]


async def test_an_alarm_can_be_set_to_an_earlier_time() -> None:
    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", sets("x", 1000)))
        await desk.do(script("set", sets("x", 2)))
        await anyio.sleep(2.1)
        assert names() == ["x"]
        await anyio.sleep(2000)
        assert names() == ["x"]


async def test_one_alarm_can_be_cancelled() -> None:
    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", then(sets("x"), sets("y"))))
        await desk.do(script("cancel", cancels("x")))
        assert await alarms_of(runtime) == {"y": 10}
        await anyio.sleep(20)
        assert names() == ["y"]


async def test_all_alarms_of_an_object_can_be_cancelled() -> None:
    async with opened() as runtime:
        for object_id in "ab":
            await runtime.get(Desk, object_id).do(script("set", then(sets("x"), sets("y"))))
        await runtime.get(Desk, "a").do(script("cancel", cancels_all))
        assert await alarms_of(runtime, "a") == {}
        await anyio.sleep(20)
        assert {firing.object_id for firing in fired} == {"b"}
        assert len(fired) == 2


async def test_cancelling_what_is_not_set_is_fine() -> None:
    async with opened() as runtime:
        await runtime.get(Desk, "a").do(script("cancel", then(cancels("x"), cancels_all)))
        await runtime.cancel_alarm(Desk, "a", "x")
        await runtime.cancel_all_alarms(Desk, "a")


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ((sets("x"), cancels("x")), {"old": 10}),
        ((cancels("x"), sets("x", 7)), {"x": 7, "old": 10}),
        ((sets("x"), cancels_all), {}),
        ((cancels_all, sets("x", 7)), {"x": 7}),
        ((sets("x", 7), sets("x", 8)), {"x": 8, "old": 10}),
        ((cancels("old"), sets("x", 7), cancels_all, sets("y", 3)), {"y": 3}),
    ],
)
async def test_within_a_turn_the_last_word_counts(
    steps: tuple[Script, ...], left: dict[str, float]
) -> None:
    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("old", sets("old")))
        await desk.do(script("steps", then(*steps)))
        assert await alarms_of(runtime) == left


async def test_the_last_word_of_several_turns_in_one_commit_counts() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime, calls() as group:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set old", sets("old")))
        before = storage.commits
        with storage.held("writer"):
            script("set x", sets("x", 7))
            script("cancel x", cancels("x"))
            script("cancel all", cancels_all)
            script("set y", sets("y", 3))
            for step in ("set x", "cancel all", "set x", "cancel x", "set y"):
                group.start(desk.do, step)
                await settle()
        await settle()
        assert await alarms_of(runtime) == {"y": 3}
        # The first commit was in the writer's queue already, the others went into the next.
        assert storage.commits - before <= 2


# --- all or nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["do", "do_slowly"])
async def test_a_handler_that_raises_sets_and_cancels_nothing(how: str) -> None:
    async with opened() as runtime:
        await runtime.get(Desk, "a").do(script("set", sets("kept", 10)))
        script("fail", then(sets("x", 1), sets("kept", 1), cancels("kept"), cancels_all, raises))
        with pytest.raises(KeyError, match="on purpose"):
            await runtime.call(Desk, "a", how, "fail")
        # Nor does the next turn carry it.
        await runtime.get(Desk, "a").note("later")
        assert await alarms_of(runtime) == {"kept": 10}
        await anyio.sleep(20)
        assert names() == ["kept"]


async def test_a_failing_commit_sets_nothing_and_fires_nothing() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        desk = runtime.get(Desk, "a")
        await desk.note("begin")
        storage.fail_commits(StorageFault("disk full"))
        with pytest.raises(PersistenceError, match="disk full"):
            await desk.do(script("set", sets("x", 1)))
        assert await alarms_of(runtime) == {}
        assert runtime.statistics().alarms_waiting == 0
        await anyio.sleep(100)
        assert fired == []


async def test_a_failing_commit_cancels_nothing() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", sets("x", 10)))
        storage.fail_commits(StorageFault("disk full"))
        with pytest.raises(PersistenceError):
            await desk.do(script("cancel", cancels("x")))
        await anyio.sleep(20)
        assert names() == ["x"]


async def test_an_alarm_does_not_fire_before_its_commit_is_durable() -> None:
    storage = ScriptedStorage()
    async with opened(storage, call_timeout=None) as runtime, calls() as group:
        desk = runtime.get(Desk, "a")
        await desk.note("begin")
        with storage.held("writer"):
            group.start(desk.do, script("set", sets("x", 1)))
            await anyio.sleep(10)
            assert fired == []
        await anyio.sleep(0.1)
        assert names() == ["x"]


async def test_a_turn_whose_caller_was_cancelled_sets_its_alarm_all_the_same() -> None:
    async def set_slowly(self: Desk) -> None:
        await anyio.sleep(1)
        self.ctx.schedule_alarm("x", after=1)

    async with opened() as runtime, calls() as group:
        call = group.start(runtime.get(Desk, "a").do_slowly, script("set", set_slowly))
        await anyio.sleep(0.5)
        call.cancel()
        await anyio.sleep(5)
        assert names() == ["x"]


async def test_a_call_that_was_cancelled_in_the_queue_sets_nothing() -> None:
    async def sleeps(self: Desk) -> None:
        await anyio.sleep(2)

    async with opened() as runtime, calls() as group:
        desk = runtime.get(Desk, "a")
        group.start(desk.do_slowly, script("sleep", sleeps))
        await anyio.sleep(0.5)
        call = group.start(desk.do, script("set", sets("x", 1)))
        await anyio.sleep(0.5)
        call.cancel()
        await anyio.sleep(10)
        assert fired == []


# --- from outside ---------------------------------------------------------------------------------


async def test_setting_an_alarm_from_outside_does_not_activate_the_object() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=10)
        assert await alarms_of(runtime) == {"x": 10}
        assert runtime.whereis(Desk, "a") is None
        await runtime.cancel_alarm(Desk, "a", "x")
        await runtime.cancel_all_alarms(Desk, "a")
        assert runtime.count_objects() == 0
        assert storage.loads == []
        assert await runtime.exists(Desk, "a") is False


@pytest.mark.parametrize("state", ["not running", "running", "hibernated", "in a turn"])
async def test_alarms_are_set_replaced_and_cancelled_from_outside(state: str) -> None:
    async def sleeps(self: Desk) -> None:
        self.log.append("slept")
        await anyio.sleep(1)

    async with opened(call_timeout=None) as runtime, calls() as group:
        desk = runtime.get(Desk, "a")
        if state != "not running":
            await desk.note("begin")
        if state == "hibernated":
            await anyio.sleep(301)
            info = runtime.whereis(Desk, "a")
            assert info is not None
            assert info.status == "hibernated"
        if state == "in a turn":
            group.start(desk.do_slowly, script("sleep", sleeps))
            await anyio.sleep(0.1)
        await runtime.schedule_alarm(Desk, "a", "x", after=1, payload="old")
        await runtime.schedule_alarm(Desk, "a", "x", after=20, payload="new")
        await runtime.schedule_alarm(Desk, "a", "y", after=5)
        await runtime.schedule_alarm(Desk, "a", "z", after=7)
        await runtime.cancel_alarm(Desk, "a", "y")
        assert await alarms_of(runtime) == {"z": 7, "x": 20}
        await anyio.sleep(10)
        assert names() == ["z"]
        await runtime.schedule_alarm(Desk, "a", "y", after=5)
        await runtime.cancel_all_alarms(Desk, "a")
        assert await alarms_of(runtime) == {}
        await anyio.sleep(100)
        assert names() == ["z"]
        slept = ["slept"] if state == "in a turn" else []
        begun = [] if state == "not running" else ["begin"]
        assert await desk.read() == [*begun, *slept, "z"]


async def test_a_type_can_be_given_by_its_name() -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm("Desk", "a", "x", after=1)
        await runtime.schedule_alarm("Desk", "a", "y", after=5)
        await runtime.cancel_alarm("Desk", "a", "y")
        assert [alarm.name for alarm in await runtime.list_alarms("Desk", "a")] == ["x"]
        await anyio.sleep(10)
        assert names() == ["x"]


async def test_an_alarm_set_from_outside_during_a_turn_survives_the_turns_failure() -> None:
    async def fails(self: Desk) -> None:
        self.ctx.schedule_alarm("own", after=1)
        await anyio.sleep(1)
        raise KeyError("on purpose")

    async with opened() as runtime, calls() as group:
        desk = runtime.get(Desk, "a")
        call = group.start(desk.do_slowly, script("fail", fails))
        await anyio.sleep(0.5)
        await runtime.schedule_alarm(Desk, "a", "x", after=10)
        await anyio.sleep(20)
        assert isinstance(call.error, KeyError)
        assert names() == ["x"]


async def test_a_failing_commit_from_outside_sets_nothing() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        storage.fail_commits(StorageFault("disk full"), StorageFault("disk full"))
        with pytest.raises(PersistenceError, match="disk full"):
            await runtime.schedule_alarm(Desk, "a", "x", after=1)
        await anyio.sleep(10)
        await runtime.get(Desk, "a").read()
        with pytest.raises(PersistenceError, match="disk full"):
            await runtime.schedule_alarm(Desk, "a", "x", after=1)
        assert await alarms_of(runtime) == {}
        await anyio.sleep(100)
        assert fired == []
        assert await runtime.get(Desk, "a").read() == []


async def test_listed_alarms_come_by_due_time_and_then_name() -> None:
    async with opened() as runtime:
        at = wall(runtime) + timedelta(seconds=50)
        await runtime.schedule_alarm(Desk, "a", "late", after=60)
        for name in ("b", "c", "a"):
            await runtime.schedule_alarm(Desk, "a", name, at=at)
        await runtime.schedule_alarm(Desk, "a", "early", after=1, payload=[1])
        await runtime.schedule_alarm(Desk, "b", "other", after=1)
        listed = await runtime.list_alarms(Desk, "a")
        assert [alarm.name for alarm in listed] == ["early", "a", "b", "c", "late"]
        assert listed[0] == Alarm(
            ObjectKey("Desk", "a"), "early", listed[0].due_at, [1], attempt=1, last_error=None
        )
        assert listed[1].due_at == at
        assert await runtime.list_alarms(Desk, "nobody") == []


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
        await anyio.sleep(0.01)
        assert names() == ["overdue"]
        assert abs(fired[0].late.total_seconds() - 90) < 0.1
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


# --- acknowledged in the handler's own commit -----------------------------------------------------


@pytest.mark.parametrize("cls", [Desk, AsyncDesk])
async def test_state_and_acknowledgement_are_one_commit(cls: type[Desk]) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        storage.batches.clear()
        await anyio.sleep(2)
        ((commit,),) = storage.batches
        assert commit.state == b'{"log":["x"]}'
        assert commit.revision == 0
        assert commit.alarms is not None
        assert list(commit.alarms.acknowledged) == ["x"]
        assert not commit.alarms.changed
        assert not commit.alarms.clear


@pytest.mark.parametrize("cls", [Desk, AsyncDesk])
async def test_a_handler_that_changes_nothing_acknowledges_all_the_same(cls: type[Desk]) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        script("x", lambda self: self.log.clear())
        storage.batches.clear()
        await anyio.sleep(200)
        ((commit,),) = storage.batches
        assert commit.state is None
        assert commit.alarms is not None
        assert list(commit.alarms.acknowledged) == ["x"]
        assert names() == ["x"]
        assert await alarms_of(runtime, cls=cls) == {}


async def test_a_failing_acknowledgement_changes_nothing_and_the_alarm_comes_again() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=1)
        script("x", sets("y", 0))
        storage.fail_commits(StorageFault("disk full"))
        await anyio.sleep(1.1)
        assert names() == ["x"]
        assert storage.rows() == {}
        assert set(await alarms_of(runtime)) == {"x"}
        await anyio.sleep(100)
        assert names() == ["x", "x", "y"]
        assert await runtime.get(Desk, "a").read() == ["x", "y"]
        # The storage failed, not the handler.
        assert fired[1].alarm.attempt == 1
        assert fired[1].alarm.last_error is None


# --- recurring work -------------------------------------------------------------------------------


def every(interval: timedelta) -> Script:
    def again(self: DurableObject) -> None:
        current = self.ctx.alarm
        assert current is not None
        self.ctx.schedule_alarm(current.name, at=current.due_at + interval)

    return again


@pytest.mark.parametrize("cls", [Desk, AsyncDesk])
async def test_a_recurring_alarm_has_one_row_and_does_not_drift(cls: type[Desk]) -> None:
    storage = ScriptedStorage()
    minute = timedelta(minutes=1)
    async with opened(storage) as runtime:
        first = wall(runtime) + minute
        await runtime.schedule_alarm(cls, "a", "x", at=first)
        script("x", every(minute))
        await anyio.sleep(30)
        for number in range(1, 20):
            await anyio.sleep(60)
            assert len(fired) == number
            assert set(await alarms_of(runtime, cls=cls)) == {"x"}
        assert [firing.alarm.due_at for firing in fired] == [first + minute * n for n in range(19)]
        assert all(timedelta(0) <= firing.late < TICK for firing in fired)
        # Its old time goes and its new one comes in the one commit that has the state.
        (commit,) = storage.batches[-1]
        assert commit.state is not None
        assert commit.alarms is not None
        assert list(commit.alarms.acknowledged) == list(commit.alarms.changed) == ["x"]


async def test_a_recurring_alarm_catches_up_after_a_downtime() -> None:
    storage = ScriptedStorage()
    hour = timedelta(hours=1)
    script("x", every(hour))
    async with opened(storage) as runtime:
        first = wall(runtime) + hour
        await runtime.schedule_alarm(Desk, "a", "x", at=first)
        await anyio.sleep(2.5 * 3600)
        assert len(fired) == 2
    await anyio.sleep(5 * 3600)
    async with opened(storage) as runtime:
        await anyio.sleep(0.1)
        assert len(fired) == 7
        await anyio.sleep(3600)
        assert [firing.alarm.due_at for firing in fired] == [first + hour * n for n in range(8)]
        assert timedelta(0) <= fired[-1].late < TICK
        assert set(await alarms_of(runtime)) == {"x"}


async def test_an_alarm_may_set_itself_for_the_past_without_holding_others_up() -> None:
    def forty_times(self: Desk) -> None:
        if len(self.log) < 40:
            self.ctx.schedule_alarm("x", after=0)

    async with opened() as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=1)
        await runtime.schedule_alarm(Desk, "b", "y", after=1)
        script("x", forty_times)
        await anyio.sleep(1.5)
        assert names().count("x") == 40
        assert "y" in names()[:40]


# --- ctx.commit() in an alarm's handler -----------------------------------------------------------


def commits_then(*after: Script, before: Script = _nothing) -> Script:
    async def act(self: AsyncDesk) -> None:
        before(self)
        await self.ctx.commit()
        for each in after:
            each(self)

    return act


async def test_a_commit_within_the_handler_does_not_acknowledge() -> None:
    def fail_once(self: AsyncDesk) -> None:
        if len(fired) == 1:
            raise KeyError("on purpose")

    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(AsyncDesk, "a", "x", after=1)
        script("x", commits_then(fail_once, before=sets("y", 0.5)))
        storage.batches.clear()
        await anyio.sleep(1.1)
        ((commit,),) = storage.batches
        assert commit.state == b'{"log":["x"]}'
        assert commit.alarms is not None
        assert not commit.alarms.acknowledged
        assert set(await alarms_of(runtime, cls=AsyncDesk)) == {"x", "y"}
        await anyio.sleep(50)
        assert sorted(names()) == ["x", "x", "y", "y"]
        assert await alarms_of(runtime, cls=AsyncDesk) == {}
        # What was committed stays, so the handler did it twice.
        assert (await runtime.get(AsyncDesk, "a").read()).count("x") == 2
        second = [firing for firing in fired if firing.alarm.name == "x"][1]
        assert second.alarm.attempt == 2


async def test_the_turns_end_acknowledges_after_a_commit_within() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(AsyncDesk, "a", "x", after=1)
        script("x", commits_then())
        storage.batches.clear()
        await anyio.sleep(200)
        first, last = (batch[0] for batch in storage.batches)
        assert first.alarms is None
        assert last.state is None
        assert last.alarms is not None
        assert list(last.alarms.acknowledged) == ["x"]
        assert names() == ["x"]


async def test_a_commit_within_that_sets_the_alarm_anew_acknowledges_it() -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(AsyncDesk, "a", "x", after=1)
        script(
            "x",
            lambda self: (
                commits_then(raises, before=sets("x", 100))(self) if len(fired) == 1 else None
            ),
        )
        await anyio.sleep(1.1)
        assert round((await alarms_of(runtime, cls=AsyncDesk))["x"]) == 100
        await anyio.sleep(98)
        assert names() == ["x"]
        await anyio.sleep(100)
        assert names() == ["x", "x"]
        assert [firing.alarm.attempt for firing in fired] == [1, 1]
        assert await runtime.get(AsyncDesk, "a").read() == ["x", "x"]


@pytest.mark.parametrize("cancel", [cancels("x"), cancels_all])
async def test_a_commit_within_that_cancels_the_alarm_acknowledges_it(cancel: Script) -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(AsyncDesk, "a", "x", after=1)
        script("x", commits_then(raises, before=cancel))
        await anyio.sleep(500)
        assert names() == ["x"]
        assert await alarms_of(runtime, cls=AsyncDesk) == {}
        assert await runtime.get(AsyncDesk, "a").read() == ["x"]


async def test_what_a_handler_has_set_anew_and_committed_comes_when_the_handler_has_ended() -> None:
    async def set_commit_and_sleep(self: AsyncDesk) -> None:
        if len(fired) == 1:
            self.ctx.schedule_alarm("x", after=1)
            await self.ctx.commit()
            await anyio.sleep(5)

    async with opened() as runtime:
        await runtime.schedule_alarm(AsyncDesk, "a", "x", after=1)
        script("x", set_commit_and_sleep)
        await anyio.sleep(6.5)
        assert names() == ["x", "x"]
        await anyio.sleep(100)
        assert names() == ["x", "x"]


async def test_what_a_handler_sets_after_its_commit_is_rolled_back_with_it() -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(AsyncDesk, "a", "x", after=1)
        script(
            "x",
            lambda self: (
                commits_then(sets("y", 0), cancels("x"), raises)(self) if len(fired) == 1 else None
            ),
        )
        await anyio.sleep(100)
        assert names() == ["x", "x"]


# --- deletion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["handler", "alarm", "runtime", "commit"])
async def test_deleting_an_object_deletes_its_alarms(how: str) -> None:
    async def delete_commit_fail(self: Desk) -> None:
        self.ctx.delete()
        await self.ctx.commit()
        raise KeyError("on purpose")

    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", then(sets("x", 10), sets("y", 2000))))
        await runtime.schedule_alarm(Desk, "b", "x", after=10)
        if how == "handler":
            await desk.do(script("delete", lambda self: self.ctx.delete()))
        elif how == "runtime":
            await runtime.delete(Desk, "a")
        elif how == "commit":
            with pytest.raises(KeyError):
                await desk.do_slowly(script("delete", delete_commit_fail))
        else:
            await runtime.schedule_alarm(Desk, "a", "delete", after=1)
            script("delete", lambda self: self.ctx.delete())
            await anyio.sleep(2)
            assert names() == ["delete"]
        assert await alarms_of(runtime) == {}
        await anyio.sleep(3000)
        deleted = [("a", "delete")] if how == "alarm" else []
        assert [(firing.object_id, firing.alarm.name) for firing in fired] == [
            *deleted,
            ("b", "x"),
        ]
        assert not await runtime.exists(Desk, "a")
        assert runtime.statistics().alarms_failed == 0


async def test_an_alarm_set_after_the_deletion_in_one_turn_stays() -> None:
    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", then(sets("x", 10), sets("y", 20))))
        await desk.do(
            script("delete", then(sets("z", 1), lambda self: self.ctx.delete(), sets("y", 5)))
        )
        assert await alarms_of(runtime) == {"y": 5}
        await anyio.sleep(30)
        assert names() == ["y"]
        assert await desk.read() == ["y"]  # of a new object


async def test_an_alarms_handler_deletes_and_sets_itself_anew() -> None:
    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", then(sets("x", 1), lambda self: self.log.append("old"))))
        script(
            "x",
            lambda self: (
                then(lambda self: self.ctx.delete(), sets("x", 5))(self)
                if len(fired) == 1
                else None
            ),
        )
        await anyio.sleep(30)
        assert names() == ["x", "x"]
        assert await desk.read() == ["x"]


# --- where alarms can't be set --------------------------------------------------------------------


@pytest.mark.parametrize("stage", [sets("x", 1), cancels("old"), cancels_all])
async def test_a_readonly_handler_that_stages_alarms_is_refused(stage: Script) -> None:
    async def slowly(self: Desk) -> None:
        stage(self)
        await anyio.sleep(1)

    async def commits(self: Desk) -> None:
        stage(self)
        await self.ctx.commit()

    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", sets("old", 100)))
        with pytest.raises(ReadonlyViolation, match="staged"):
            await desk.do_readonly(script("stage", stage))
        for name, what in (("slowly", slowly), ("commits", commits)):
            with pytest.raises(ReadonlyViolation, match="staged"):
                await desk.do_readonly_slowly(script(name, what))
        assert set(await alarms_of(runtime)) == {"old"}
        await desk.note("after")
        await anyio.sleep(10)
        assert fired == []


async def test_an_objects_own_turn_is_refused_to_set_its_alarms_from_outside() -> None:
    async def outside(self: Desk) -> None:
        runtime = self.ctx.runtime
        for refused in (
            runtime.schedule_alarm(Desk, "a", "x", after=1),
            runtime.cancel_alarm(Desk, "a", "old"),
            runtime.cancel_all_alarms(Desk, "a"),
        ):
            with pytest.raises(CallCycle) as raised:
                await refused
            assert raised.value.key == ObjectKey("Desk", "a")
            assert "Desk('a')" in str(raised.value)
        await runtime.schedule_alarm(Desk, "other", "x", after=1)

    async with opened() as runtime:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", sets("old", 100)))
        await desk.do_slowly(script("outside", outside))
        assert set(await alarms_of(runtime)) == {"old"}
        assert set(await alarms_of(runtime, "other")) == {"x"}


async def test_alarms_are_staged_in_the_objects_own_turn_only() -> None:
    kept: list[Context] = []
    steps = anyio.Event()

    async def keep(self: Desk) -> None:
        kept.append(self.ctx)
        await steps.wait()

    def refused(ctx: Context) -> None:
        uses: dict[str, Callable[[], None]] = {
            "schedule_alarm": lambda: ctx.schedule_alarm("x", after=1),
            "cancel_alarm": lambda: ctx.cancel_alarm("old"),
            "cancel_all_alarms": ctx.cancel_all_alarms,
        }
        for name, use in uses.items():
            with pytest.raises(NotInTurn, match=name) as raised:
                use()
            assert "Desk('a')" in str(raised.value)

    async with opened() as runtime, calls() as group:
        desk = runtime.get(Desk, "a")
        await desk.do(script("set", sets("old", 100)))
        group.start(desk.do_slowly, script("keep", keep))
        await settle()
        refused(kept[0])  # a turn runs, but not this task's
        steps.set()
        await settle()
        refused(kept[0])
        await desk.note("after")
        assert set(await alarms_of(runtime)) == {"old"}


async def test_memory_in_the_loop_serves_alarms_as_well() -> None:
    async with DurableRuntime(MemoryStorage(), objects=OBJECTS) as runtime:
        await runtime.schedule_alarm(Desk, "a", "x", after=3600)
        await anyio.sleep(3600.01)
        assert names() == ["x"]
