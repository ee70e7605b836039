"""Setting and cancelling alarms: in a turn, from outside, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest
from support.clock import settle
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    Alarm,
    CallCycle,
    Context,
    DurableRuntime,
    MemoryStorage,
    NotInTurn,
    ObjectKey,
    PersistenceError,
    ReadonlyViolation,
)
from trio_durable.storage import StorageFault

from .desk import (
    OBJECTS,
    TICK,
    AsyncDesk,
    Desk,
    Script,
    Starter,
    alarms_of,
    cancels,
    cancels_all,
    fired,
    names,
    opened,
    raises,
    script,
    seen,
    sets,
    then,
    wall,
)

pytestmark = pytest.mark.anyio


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
