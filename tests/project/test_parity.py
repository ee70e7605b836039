"""Every name of the Elixir library ``durable_object``, and its counterpart here at work.

One short story for each name, for users of that library. Edge cases have their tests elsewhere.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest
from support.scripted import ScriptedStorage

from trio_durable import (
    Alarm,
    CallTimeout,
    DurableObject,
    DurableRuntime,
    MemoryStorage,
    ObjectNotRunning,
    PersistenceError,
    Retry,
    alarm,
    current_runtime,
    definition_of,
    handler,
)
from trio_durable.storage import StorageFault
from trio_durable.testing import (
    all_scheduled_alarms,
    assert_alarm_scheduled,
    assert_eventually,
    assert_persisted,
    drain_alarms,
    fire_alarm,
    get_persisted_state,
    perform_alarm_handler,
    perform_handler,
    refute_alarm_scheduled,
)
from trio_durable.testing.plugin import durable_runtime

# The plugin's fixture, also where the library isn't installed and so not found by pytest.
__all__ = ["durable_runtime"]

pytestmark = pytest.mark.anyio


class Counter(DurableObject, hibernate_after=300, shutdown_after=timedelta(hours=1)):
    count: int = 0
    last: datetime | None = None

    @handler
    def increment(self, amount: int = 1) -> int:  # {:reply, result, state}
        self.count += amount
        self.last = datetime(2026, 1, 2, tzinfo=UTC)
        return self.count

    @handler(readonly=True)
    def get(self) -> int:  # {:reply, result}
        return self.count

    @handler
    def reset(self) -> None:  # {:noreply, state}
        self.count = 0

    @handler
    def refuse(self) -> None:  # {:error, reason}
        self.count = -1
        raise ValueError("no")

    @handler
    async def slow(self) -> int:
        await anyio.sleep(60)
        self.count += 1
        return self.count

    @handler
    def remind(self) -> str:  # {:reply, result, state, {:schedule_alarm, name, ms}}
        self.ctx.schedule_alarm("tick", after=timedelta(minutes=1))
        return self.ctx.object_id  # state.id

    @alarm(retry=Retry(initial=1, attempts=2))
    def tick(self) -> None:
        self.count += 100

    @alarm
    def again(self) -> None:
        self.ctx.schedule_alarm("again", after=60)

    def handle_alarm(self, alarm: Alarm) -> None:
        self.count += 1000


class Bag(DurableObject, name="Elixir.Bag"):
    """An object without a schema."""

    data: dict[str, Any] = attrs.field(factory=dict)

    @handler
    def put(self, key: str, value: object) -> None:
        self.data[key] = value


class Window(DurableObject):
    opened: datetime | None = None

    def after_load(self) -> None:
        if self.opened is None:
            self.opened = datetime(2026, 1, 2, tzinfo=UTC)
            self.ctx.schedule_alarm("close", after=60)

    @handler(readonly=True)
    def since(self) -> datetime | None:
        return self.opened


class Silent(DurableObject):
    n: int = 0


# --- use DurableObject: state, handlers, options, the generated client ---------------------------


async def test_state_field_handlers_options_and_the_dsl_s_introspection() -> None:
    definition = definition_of(Counter)  # __durable_object__/1
    assert [field.name for field in definition.fields.values()] == ["count", "last"]
    assert set(definition.handlers) == {"increment", "get", "reset", "refuse", "slow", "remind"}
    assert set(definition.alarms) == {"tick", "again"}
    assert definition.options.hibernate_after == 300
    assert definition.options.shutdown_after == 3600
    assert definition.default_state() == Counter()


async def test_the_generated_client(durable_runtime: DurableRuntime) -> None:
    assert await Counter.increment("a", 5) == 5
    assert await durable_runtime.get(Counter, "a").increment() == 6


async def test_reply_noreply_and_error(durable_runtime: DurableRuntime) -> None:
    assert await Counter.increment("a") == 1
    assert await Counter.get("a") == 1
    with pytest.raises(ValueError, match="no"):
        await Counter.refuse("a")
    assert await Counter.get("a") == 1
    await Counter.reset("a")
    await assert_persisted(durable_runtime, Counter, "a", count=0)


async def test_a_module_without_the_dsl_is_called_by_name(durable_runtime: DurableRuntime) -> None:
    await durable_runtime.call("Elixir.Bag", "a", "put", "colour", "red")
    await assert_persisted(durable_runtime, "Elixir.Bag", "a", data={"colour": "red"})


# --- the functions of DurableObject --------------------------------------------------------------


async def test_call_with_a_timeout_goes_on_and_commits(durable_runtime: DurableRuntime) -> None:
    with pytest.raises(CallTimeout):  # five seconds
        await durable_runtime.call(Counter, "a", "slow")
    await anyio.sleep(60)
    await assert_persisted(durable_runtime, Counter, "a", count=1)


async def test_sixty_four_first_calls_are_all_served_by_one_load() -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(storage, runner=storage.runner) as runtime:
        async with anyio.create_task_group() as tasks:
            for _ in range(64):
                tasks.start_soon(runtime.call, Counter, "a", "increment")
        assert await runtime.get(Counter, "a").get() == 64
    assert [len(keys) for keys in storage.loads] == [1]


async def test_ensure_started_whereis_count_objects_and_stop(
    durable_runtime: DurableRuntime,
) -> None:
    assert durable_runtime.whereis(Counter, "a") is None
    started = await durable_runtime.ensure_started(Counter, "a")
    assert durable_runtime.whereis(Counter, "a") == started
    assert durable_runtime.count_objects() == 1
    await durable_runtime.stop(Counter, "a")
    await durable_runtime.stop(Counter, "a")
    assert durable_runtime.count_objects() == 0


async def test_get_state_and_put_state(durable_runtime: DurableRuntime) -> None:
    with pytest.raises(ObjectNotRunning):
        await durable_runtime.get_state(Counter, "a")
    await durable_runtime.put_state(Counter, "a", Counter(count=7))
    assert await Counter.increment("a") == 8
    assert (await durable_runtime.get_state(Counter, "a")).count == 8


async def test_the_default_repo_is_the_ambient_runtime(durable_runtime: DurableRuntime) -> None:
    assert current_runtime() is durable_runtime


async def test_persistence_failed_leaves_the_state_as_it_was() -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(storage, runner=storage.runner) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        storage.fail_commits(StorageFault("the disk is full"))
        with pytest.raises(PersistenceError, match="the disk is full"):
            await counter.increment()
        assert await counter.get() == 1


async def test_after_load_s_state_and_alarm_are_one_commit() -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(storage, runner=storage.runner) as runtime:
        assert await runtime.get(Window, "a").since() is not None
        [[commit]] = storage.batches
        assert commit.state is not None
        assert commit.alarms is not None


async def test_what_was_stored_comes_back_as_what_it_was() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage) as runtime:
        await runtime.get(Counter, "a").increment()
        live = await runtime.get_state(Counter, "a")
    async with DurableRuntime(storage) as runtime:  # object_keys aren't needed for it
        await runtime.ensure_started(Counter, "a")
        assert await runtime.get_state(Counter, "a") == live
        assert live.last == datetime(2026, 1, 2, tzinfo=UTC)


# --- alarms --------------------------------------------------------------------------------------


async def test_schedule_cancel_cancel_all_and_list_alarms(durable_runtime: DurableRuntime) -> None:
    assert await Counter.remind("a") == "a"
    await durable_runtime.schedule_alarm(Counter, "a", "again", after=5)
    await durable_runtime.schedule_alarm(Counter, "a", "more", after=6)
    names = [each.name for each in await durable_runtime.list_alarms(Counter, "a")]
    assert names == ["again", "more", "tick"]
    await durable_runtime.cancel_alarm(Counter, "a", "more")
    assert len(await durable_runtime.list_alarms(Counter, "a")) == 2
    await durable_runtime.cancel_all_alarms(Counter, "a")
    assert await durable_runtime.list_alarms(Counter, "a") == []


async def test_handle_alarm_by_name_by_the_catch_all_and_by_nobody(
    durable_runtime: DurableRuntime,
) -> None:
    await durable_runtime.schedule_alarm(Counter, "a", "tick", after=1)
    await durable_runtime.schedule_alarm(Counter, "a", "whatever", after=1)
    await durable_runtime.schedule_alarm(Silent, "a", "nobody", after=1)
    await anyio.sleep(2)
    await assert_persisted(durable_runtime, Counter, "a", count=1100)
    assert await durable_runtime.list_alarms(Silent, "a") == []


async def test_the_scheduler_s_options_and_an_alarm_to_the_second() -> None:
    async with DurableRuntime(":memory:", polling_interval=30, claim_ttl=60) as runtime:
        await runtime.schedule_alarm(Counter, "a", "tick", after=40)
        await anyio.sleep(39.9)
        assert not await runtime.exists(Counter, "a")
        await anyio.sleep(0.2)
        await assert_persisted(runtime, Counter, "a", count=100)


async def test_alarms_of_a_type_nobody_knows_are_kept() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[Counter, Window]) as runtime:
        await runtime.get(Window, "a").since()
    async with DurableRuntime(storage, objects=[Counter]) as runtime:
        await anyio.sleep(100)
    async with DurableRuntime(storage, objects=[Window]) as runtime:
        await assert_alarm_scheduled(runtime, Window, "a", "close")


async def test_the_prefix_of_a_tenant(durable_runtime: DurableRuntime) -> None:
    acme, other = durable_runtime.tenant("acme"), durable_runtime.tenant("other")
    await acme.get(Counter, "a").increment(5)
    assert await other.get(Counter, "a").get() == 0
    await acme.schedule_alarm(Counter, "a", "tick", after=1)
    await anyio.sleep(2)
    await assert_persisted(acme, Counter, "a", count=105)
    assert await get_persisted_state(durable_runtime, Counter, "a") is None


# --- DurableObject.Testing -----------------------------------------------------------------------


async def test_perform_handler_and_perform_alarm_handler() -> None:
    performed = await perform_handler(Counter(count=1), "increment", 2)
    assert performed.result == 3
    rung = await perform_alarm_handler(Counter(count=1), "tick")
    assert rung.state.count == 101


async def test_persisted_state_and_scheduled_alarms(durable_runtime: DurableRuntime) -> None:
    await assert_eventually(lambda: True)
    await Counter.increment("a")
    await Counter.remind("a")
    await assert_persisted(durable_runtime, Counter, "a", count=1)
    stored = await get_persisted_state(durable_runtime, Counter, "a")
    assert stored is not None
    await assert_alarm_scheduled(durable_runtime, Counter, "a", "tick", within=60)
    await refute_alarm_scheduled(durable_runtime, Counter, "a", "again")
    assert len(await all_scheduled_alarms(durable_runtime, Counter, "a")) == 1


async def test_fire_alarm_and_drain_alarms(durable_runtime: DurableRuntime) -> None:
    await Counter.remind("a")
    await fire_alarm(durable_runtime, Counter, "a", "tick")
    await assert_persisted(durable_runtime, Counter, "a", count=100)
    await Counter.remind("a")
    assert await drain_alarms(durable_runtime, Counter, "a", max_iterations=10) == 1
