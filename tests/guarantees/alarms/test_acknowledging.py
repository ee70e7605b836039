"""Alarms end in the commit of their own handler: recurring work, ctx.commit(), deletion."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from cluster.away import first_look
from support.scripted import ScriptedStorage

from trio_durable import DurableObject
from trio_durable.storage import StorageFault

from .desk import (
    TICK,
    AsyncDesk,
    Desk,
    Script,
    alarms_of,
    cancels,
    cancels_all,
    do_nothing,
    fired,
    names,
    opened,
    raises,
    script,
    sets,
    then,
    wall,
)

pytestmark = pytest.mark.anyio


# --- acknowledged in the handler's own commit -----------------------------------------------------


@pytest.mark.parametrize("cls", [Desk, AsyncDesk])
async def test_state_and_acknowledgement_are_one_commit(cls: type[Desk]) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        storage.batches.clear()
        await anyio.sleep(2)
        ((commit,),) = storage.batches
        assert commit.state == b'{"log":["x"],"$as":{}}'
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
        await first_look(runtime)
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


def commits_then(*after: Script, before: Script = do_nothing) -> Script:
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
        assert commit.state == b'{"log":["x"],"$as":{}}'
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
