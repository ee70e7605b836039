"""Assertions on alarms, and firing them before their time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import anyio
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    AlarmSuperseded,
    DurableRuntime,
    InvalidAlarm,
    PersistenceError,
    RuntimeClosed,
    StorageUnavailable,
)
from trio_durable.storage import StorageFault
from trio_durable.testing import (
    all_scheduled_alarms,
    assert_alarm_scheduled,
    assert_persisted,
    drain_alarms,
    fire_alarm,
    refute_alarm_scheduled,
)

from .objects import Tally, scripts

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture
def storage() -> ScriptedStorage:
    return ScriptedStorage()


@pytest.fixture
async def runtime(anyio_backend: object, storage: ScriptedStorage) -> AsyncIterator[DurableRuntime]:
    async with scripted_runtime(storage, call_timeout=None) as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def _no_scripts() -> Iterator[None]:
    yield
    scripts.clear()


async def schedule(runtime: DurableRuntime, name: str, after: float = HOUR) -> None:
    await runtime.schedule_alarm(Tally, "a", name, after=after)


async def names(runtime: DurableRuntime) -> list[str]:
    return [alarm.name for alarm in await all_scheduled_alarms(runtime, Tally, "a")]


# --- what is scheduled ---------------------------------------------------------------------------


async def test_all_are_listed_by_time(runtime: DurableRuntime) -> None:
    assert await names(runtime) == []
    for name, after in (("b", 20), ("a", 30), ("c", 10)):
        await schedule(runtime, name, after)
    assert await names(runtime) == ["c", "b", "a"]


async def test_assert_alarm_scheduled_says_what_there_is(runtime: DurableRuntime) -> None:
    with pytest.raises(AssertionError) as caught:
        await assert_alarm_scheduled(runtime, Tally, "a", "ring")
    assert str(caught.value) == (
        "expected alarm 'ring' of testing.Tally('a') to be scheduled; no alarm is scheduled"
    )
    await schedule(runtime, "ring", 60)
    alarm = await assert_alarm_scheduled(runtime, "testing.Tally", "a", "ring")
    assert alarm.name == "ring"
    await assert_alarm_scheduled(runtime, Tally, "a", "ring", within=timedelta(minutes=1))
    with pytest.raises(
        AssertionError, match=r"^expected .* and due within 59 s; it is due in 60 s, at \d{4}-"
    ):
        await assert_alarm_scheduled(runtime, Tally, "a", "ring", within=59)
    with pytest.raises(AssertionError, match=r"; scheduled alarms: 'ring' \(due in 60 s, at "):
        await assert_alarm_scheduled(runtime, Tally, "a", "other")
    await anyio.sleep(1.5)
    await assert_alarm_scheduled(runtime, Tally, "a", "ring", within=59)
    with pytest.raises(InvalidAlarm):
        await assert_alarm_scheduled(runtime, Tally, "a", "")
    with pytest.raises(ValueError, match="within must be"):
        await assert_alarm_scheduled(runtime, Tally, "a", "ring", within=-1)


async def test_refute_alarm_scheduled_says_what_there_is(runtime: DurableRuntime) -> None:
    await refute_alarm_scheduled(runtime, Tally, "a", "ring")
    await schedule(runtime, "ring", 60)
    await refute_alarm_scheduled(runtime, Tally, "a", "other")
    await refute_alarm_scheduled(runtime, Tally, "a", "ring", within=59)
    with pytest.raises(
        AssertionError,
        match=r"^expected no alarm 'ring' of testing.Tally\('a'\), but there is one, due in 60 s,",
    ):
        await refute_alarm_scheduled(runtime, Tally, "a", "ring")
    with pytest.raises(AssertionError, match=r"\('a'\) due within 60 s, but there is one, due in"):
        await refute_alarm_scheduled(runtime, Tally, "a", "ring", within=60)


# --- firing --------------------------------------------------------------------------------------


async def test_a_fired_alarm_is_handled_before_its_time_and_only_then(
    runtime: DurableRuntime,
) -> None:
    for name, after in (("ring", 10), ("far", 40 * 24 * HOUR)):
        await schedule(runtime, name, after)
        began = anyio.current_time()
        await fire_alarm(runtime, Tally, "a", name)
        assert anyio.current_time() - began < 0.1
    await assert_persisted(runtime, Tally, "a", log=["ring", "far"])
    assert await names(runtime) == []
    await anyio.sleep(20)
    await assert_persisted(runtime, Tally, "a", log=["ring", "far"])
    assert runtime.statistics().alarms_delivered == 2
    assert runtime.statistics().alarms_in_flight == 0


async def test_what_a_fired_alarm_sets_again_fires_at_its_time(runtime: DurableRuntime) -> None:
    await schedule(runtime, "repeat")
    await fire_alarm(runtime, Tally, "a", "repeat")
    await assert_persisted(runtime, Tally, "a", count=1)
    await anyio.sleep(HOUR - 1)
    await assert_persisted(runtime, Tally, "a", count=1)
    await anyio.sleep(2)
    await assert_persisted(runtime, Tally, "a", count=2)


async def test_an_alarm_that_isnt_there_cant_fire(runtime: DurableRuntime) -> None:
    await schedule(runtime, "ring", 60)
    with pytest.raises(AssertionError) as caught:
        await fire_alarm(runtime, Tally, "a", "rong")
    assert str(caught.value).startswith(
        "expected alarm 'rong' of testing.Tally('a') to be scheduled before firing it; "
        "scheduled alarms: 'ring' (due in 60 s"
    )
    assert runtime.statistics().alarms_in_flight == 0


@pytest.mark.parametrize("after", [50, HOUR], ids=["known in memory", "far"])
async def test_a_fired_alarm_that_fails_raises_and_is_tried_again(
    runtime: DurableRuntime, after: float
) -> None:
    await settle()  # until it has looked for what is due soon
    await schedule(runtime, "fail", after)
    with pytest.raises(KeyError, match="on purpose"):
        await fire_alarm(runtime, Tally, "a", "fail")
    alarm = await assert_alarm_scheduled(runtime, Tally, "a", "fail")
    assert (alarm.attempt, alarm.last_error) == (2, "KeyError: 'on purpose'")
    # By its Retry, after ten seconds at most, and not when it was due at first.
    await anyio.sleep(11)
    assert await names(runtime) == []
    [dead] = await runtime.list_dead_letters(Tally)
    assert dead.attempt == 2
    with pytest.raises(AssertionError, match="no alarm is scheduled"):
        await fire_alarm(runtime, Tally, "a", "fail")


async def test_firing_joins_a_delivery_that_is_under_way(runtime: DurableRuntime) -> None:
    scripts["slow"] = lambda self: anyio.sleep(5)
    await schedule(runtime, "slow", 1)
    await anyio.sleep(2)
    await fire_alarm(runtime, Tally, "a", "slow")
    assert await names(runtime) == []
    await assert_persisted(runtime, Tally, "a", log=["slow"])


async def test_an_alarm_fired_by_several_as_it_comes_due_is_handled_once(
    runtime: DurableRuntime, storage: ScriptedStorage
) -> None:
    await schedule(runtime, "ring", 1)
    with storage.held("writer"):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(fire_alarm, runtime, Tally, "a", "ring")
            await anyio.sleep(3)
            storage.release("writer")
            await anyio.sleep(1)
            storage.release("writer")
            await settle()
    await anyio.sleep(5)
    await assert_persisted(runtime, Tally, "a", log=["ring"])


async def test_firing_takes_what_is_set_anew_meanwhile_as_it_is_now(
    runtime: DurableRuntime,
) -> None:
    scripts["slow"] = lambda self: anyio.sleep(5)
    await schedule(runtime, "slow")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_expect_superseded, runtime)
        await anyio.sleep(1)
        await schedule(runtime, "slow", 2 * HOUR)
    await assert_alarm_scheduled(runtime, Tally, "a", "slow")
    await fire_alarm(runtime, Tally, "a", "slow")
    await assert_persisted(runtime, Tally, "a", log=["slow"])
    assert await names(runtime) == []


async def _expect_superseded(runtime: DurableRuntime) -> None:
    with pytest.raises(AlarmSuperseded):
        await fire_alarm(runtime, Tally, "a", "slow")


async def test_one_set_anew_while_it_is_claimed_still_comes_at_its_new_time(
    runtime: DurableRuntime, storage: ScriptedStorage
) -> None:
    await schedule(runtime, "slow")
    scripts["slow"] = lambda self: None
    with storage.held("writer"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_expect_superseded, runtime)
            await settle()
            tasks.start_soon(schedule, runtime, "slow", 5)
            await settle()
            for _ in range(6):
                storage.release("writer")
                await settle()
    await anyio.sleep(10)
    await assert_persisted(runtime, Tally, "a", log=["slow"])


async def test_a_claim_that_is_refused_leaves_the_alarm_for_its_time(
    runtime: DurableRuntime, storage: ScriptedStorage
) -> None:
    await schedule(runtime, "ring", 60)
    storage.fail_alarm_work(StorageFault("disk full"))
    with pytest.raises(StorageUnavailable, match="disk full"):
        await fire_alarm(runtime, Tally, "a", "ring")
    await anyio.sleep(61)
    await assert_persisted(runtime, Tally, "a", log=["ring"])


async def test_a_commit_that_fails_is_raised_and_leaves_the_alarm_for_its_time(
    runtime: DurableRuntime, storage: ScriptedStorage
) -> None:
    await schedule(runtime, "ring", 60)
    storage.fail_commits(StorageFault("disk full"))
    with pytest.raises(PersistenceError, match="disk full"):
        await fire_alarm(runtime, Tally, "a", "ring")
    alarm = await assert_alarm_scheduled(runtime, Tally, "a", "ring")
    assert (alarm.attempt, alarm.last_error) == (1, None)
    await anyio.sleep(61)
    await assert_persisted(runtime, Tally, "a", log=["ring"])


async def test_a_cancelled_firing_goes_on_by_itself(runtime: DurableRuntime) -> None:
    scripts["slow"] = lambda self: anyio.sleep(5)
    await schedule(runtime, "slow")
    with anyio.move_on_after(1):
        await fire_alarm(runtime, Tally, "a", "slow")
    await anyio.sleep(5)
    await assert_persisted(runtime, Tally, "a", log=["slow"])
    assert await names(runtime) == []


async def test_a_firing_ends_with_its_runtime(storage: ScriptedStorage) -> None:
    scripts["slow"] = lambda self: anyio.sleep(HOUR)
    async with calls() as started:
        async with scripted_runtime(storage) as runtime:
            await schedule(runtime, "slow")
            firing = started.start(fire_alarm, runtime, Tally, "a", "slow")
            await anyio.sleep(1)
        await firing.wait()
        assert isinstance(firing.error, RuntimeClosed)
    async with scripted_runtime(storage) as runtime:
        assert await names(runtime) == ["slow"]


# --- draining ------------------------------------------------------------------------------------


async def test_draining_fires_the_earliest_first_with_what_they_set(
    runtime: DurableRuntime,
) -> None:
    scripts["b"] = lambda self: self.ctx.schedule_alarm("d", after=5)
    for name, after in (("c", 3 * HOUR), ("b", HOUR)):
        await schedule(runtime, name, after)
    assert await drain_alarms(runtime, Tally, "a") == 3
    await assert_persisted(runtime, Tally, "a", log=["b", "d", "c"])
    assert await names(runtime) == []
    assert await drain_alarms(runtime, Tally, "a") == 0


async def test_draining_what_sets_itself_again_fails(runtime: DurableRuntime) -> None:
    await schedule(runtime, "repeat")
    with pytest.raises(
        AssertionError,
        match=r"no alarm of testing.Tally\('a'\) to be left after firing 7; "
        r"scheduled alarms: 'repeat' \(due in 3600 s, at ",
    ):
        await drain_alarms(runtime, Tally, "a", max_iterations=7)
    await assert_persisted(runtime, Tally, "a", count=7)
    await schedule(runtime, "ring", 1)
    await runtime.cancel_alarm(Tally, "a", "repeat")
    assert await drain_alarms(runtime, Tally, "a", max_iterations=1) == 1
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="max_iterations must be an int"):
            await drain_alarms(runtime, Tally, "a", max_iterations=wrong)  # type: ignore[arg-type]


async def test_draining_stops_at_a_handler_that_raises(runtime: DurableRuntime) -> None:
    await schedule(runtime, "fail", 1)
    await schedule(runtime, "ring", 2)
    with pytest.raises(KeyError, match="on purpose"):
        await drain_alarms(runtime, Tally, "a")
    assert await names(runtime) == ["fail", "ring"]
