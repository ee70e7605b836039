"""Leaving memory: hibernation, shutdown, and no more objects in memory than needed."""

from __future__ import annotations

import anyio
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import DurableRuntime
from trio_durable._activations.pump import MAX_RESTING

from .counters import Brief, Counter, activations, status

pytestmark = pytest.mark.anyio


class Lasting(Counter, hibernate_after=None):
    pass


class Restless(Counter, hibernate_after=0):
    pass


# --- hibernation and shutdown --------------------------------------------------------------------


async def test_an_idle_object_hibernates_and_a_call_wakes_it() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        assert status(runtime, Counter) == "active"
        await anyio.sleep(8)
        await counter.increment()
        await anyio.sleep(8)
        assert status(runtime, Counter) == "active"
        await anyio.sleep(4)
        assert status(runtime, Counter) == "hibernated"
        assert runtime.count_objects() == 1
        assert (await runtime.get_state(Counter, "a")).count == 2
        assert status(runtime, Counter) == "hibernated"
        assert await counter.increment_slowly() == 3
        assert status(runtime, Counter) == "active"
        await anyio.sleep(12)
        assert status(runtime, Counter) == "hibernated"
        assert len(storage.loads) == 1


async def test_an_object_that_is_told_to_shuts_down() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        brief = runtime.get(Brief, "a")
        await brief.increment()
        await anyio.sleep(12)
        assert status(runtime, Brief) == "hibernated"
        await anyio.sleep(20)
        assert status(runtime, Brief) is None
        assert runtime.count_objects() == 0
        assert await brief.increment() == 2
        assert len(storage.loads) == 2


async def test_an_object_without_an_end_stays() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Lasting, "a").increment()
        await anyio.sleep(100_000)  # noqa: ASYNC116  # in virtual time
        assert status(runtime, Lasting) == "active"


async def test_an_object_hibernates_at_once_if_it_is_told_to() -> None:
    async with DurableRuntime(":memory:") as runtime:
        assert await runtime.get(Restless, "a").increment_slowly() == 1
        await anyio.sleep(2)
        assert status(runtime, Restless) == "hibernated"
        assert await runtime.get(Restless, "a").increment() == 2


async def test_an_object_hibernates_at_once_though_it_is_to_shut_down_later() -> None:
    class Both(Counter, hibernate_after=0, shutdown_after=100):
        pass

    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Both, "a").increment()
        await anyio.sleep(10)
        assert status(runtime, Both) == "hibernated"


async def test_a_busy_object_does_not_retire() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        assert await runtime.get(Brief, "a").increment_slowly(100) == 1
        assert status(runtime, Brief) == "active"


async def test_an_object_does_not_retire_before_its_commit() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage, call_timeout=None) as runtime, calls() as group:
        with storage.held("writer"):
            outcome = group.start(runtime.get(Brief, "a").increment)
            await anyio.sleep(100)
            assert status(runtime, Brief) == "active"
        await outcome.wait()
        assert await runtime.get(Brief, "a").increment() == 2


@pytest.mark.parametrize(
    "cls",
    [
        Counter,
        Lasting,
    ],
)
async def test_idle_objects_make_room_for_others(cls: type[Counter]) -> None:
    async with DurableRuntime(":memory:", max_resident=3) as runtime:
        for name in "abcd":
            await runtime.get(cls, name).increment()
            await anyio.sleep(0.1)
        assert runtime.count_objects() == 3
        assert [name for name in "abcd" if runtime.whereis(cls, name)] == ["b", "c", "d"]
        await runtime.get(cls, "b").increment()
        await runtime.get(cls, "e").increment()
        assert [name for name in "abcde" if runtime.whereis(cls, name)] == ["b", "d", "e"]
        assert await runtime.get(cls, "a").increment() == 2


async def test_busy_objects_do_not_make_room() -> None:
    async with DurableRuntime(":memory:", max_resident=2) as runtime, calls() as group:
        busy = [group.start(runtime.get(Counter, name).increment_slowly) for name in "ab"]
        await settle()
        await runtime.get(Counter, "c").increment()
        await anyio.sleep(2)
        assert [outcome.value for outcome in busy] == [1, 1]
        await runtime.get(Counter, "d").increment()
        assert runtime.count_objects() == 2


async def test_the_object_that_is_idle_for_longest_makes_room() -> None:
    async with DurableRuntime(":memory:", max_resident=2) as runtime:
        await runtime.get(Counter, "old").increment()
        await anyio.sleep(20)
        await runtime.get(Counter, "new").increment()
        await runtime.get(Counter, "newest").increment()
        assert runtime.whereis(Counter, "old") is None
        assert runtime.whereis(Counter, "new") is not None


@pytest.mark.parametrize("busy", [1, 64, 65, 400])
@pytest.mark.parametrize("types", [[Counter], [Lasting, Counter], [Brief, Lasting, Counter]])
async def test_the_bound_holds_for_idle_objects_with_any_number_of_busy_ones(
    busy: int, types: list[type[Counter]]
) -> None:
    bound = busy + 10
    async with DurableRuntime(":memory:", max_resident=bound) as runtime, calls() as group:
        for number in range(busy):
            cls = types[number % len(types)]
            group.start(runtime.get(cls, f"busy {number}", timeout=None).increment_slowly, 3600)
        await settle()
        for number in range(1_000):
            cls = types[number % 7 % len(types)]
            await runtime.get(cls, f"idle {number}").increment()
            assert runtime.count_objects() <= bound
            if number == 500:
                await anyio.sleep(20)  # the idle ones hibernate
        assert runtime.count_objects() == bound


async def test_idle_objects_make_room_that_were_busy_when_it_was_needed() -> None:
    async with DurableRuntime(":memory:", max_resident=20) as runtime, calls() as group:
        for number in range(500):
            group.start(runtime.get(Lasting, str(number)).increment_slowly)
        await settle()
        assert runtime.count_objects() == 500
        await anyio.sleep(3)
        assert runtime.count_objects() == 20


async def test_a_hibernated_object_makes_room_before_an_active_one() -> None:
    async with DurableRuntime(":memory:", max_resident=2) as runtime:
        await runtime.get(Counter, "hibernated").increment()
        await anyio.sleep(11)
        await runtime.get(Counter, "active").increment()
        assert status(runtime, Counter, "hibernated") == "hibernated"
        await runtime.get(Counter, "new").increment()
        assert status(runtime, Counter, "hibernated") is None
        assert status(runtime, Counter, "active") == "active"


# --- no more than needed stays in memory ---------------------------------------------------------


@pytest.mark.parametrize(
    "cls",
    [
        Counter,
        Lasting,
    ],
)
async def test_nothing_is_left_of_an_object_that_left_memory(cls: type[Counter]) -> None:
    before = activations()
    async with DurableRuntime(":memory:") as runtime:
        for number in range(100):
            await runtime.get(cls, str(number)).increment()
            await runtime.stop(cls, str(number))
        assert runtime.count_objects() == 0
        assert activations() - before < 10


async def test_hibernating_again_and_again_leaves_nothing() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Counter, "a").increment_slowly()
        await settle()
        before = len(anyio.get_running_tasks()), activations()
        for _ in range(50):
            await runtime.get(Counter, "a").increment_slowly()
            await anyio.sleep(20)
        assert len(anyio.get_running_tasks()) <= before[0]
        assert activations() <= before[1]


async def test_refused_calls_leave_nothing_in_memory() -> None:
    async with DurableRuntime(":memory:", max_resident=10) as runtime:
        for number in range(100):
            with pytest.raises(TypeError):
                await runtime.call(Counter, str(number), "increment_slowly", (n for n in "abc"))
        assert runtime.count_objects() <= 10


async def test_idle_objects_have_no_task() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await settle()
        before = len(anyio.get_running_tasks())
        for number in range(100):
            await runtime.get(Counter, str(number)).increment()
        assert len(anyio.get_running_tasks()) == before
        for number in range(100):
            await runtime.get(Counter, str(number)).increment_slowly(0.01)
        assert len(anyio.get_running_tasks()) == before + 1  # the worker of all of these turns
        async with anyio.create_task_group() as callers:
            for number in range(100):
                callers.start_soon(runtime.get(Counter, str(number)).increment_slowly, 0.01)
        await settle()
        assert runtime.count_objects() == 100
        assert len(anyio.get_running_tasks()) == before + MAX_RESTING


@pytest.mark.parametrize(
    "name",
    [
        "increment_slowly",
        "nap",
    ],
)
async def test_a_stopped_object_has_no_task(name: str) -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Counter, "other").increment_slowly(0.01)
        await settle()
        before = len(anyio.get_running_tasks())
        for number in range(10):
            async with calls() as group:
                group.start(runtime.call, Counter, str(number), name)
                await settle()
                group.start(runtime.stop, Counter, str(number))
        await settle()
        assert runtime.count_objects() == 1
        assert len(anyio.get_running_tasks()) == before
