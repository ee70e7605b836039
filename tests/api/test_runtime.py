"""Runtimes: opening, closing, and the types that a runtime serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import attrs
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls

from trio_durable import (
    BusyObject,
    DefinitionError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    InvalidObjectId,
    MemoryStorage,
    ObjectKey,
    RuntimeClosed,
    RuntimeStatistics,
    SQLiteStorage,
    StateEncodeError,
    StorageInUse,
    StorageUnavailable,
    ThreadRunner,
    UnknownObjectType,
    WrongEventLoop,
    handler,
)

pytestmark = pytest.mark.anyio


class Counter(DurableObject):
    count: int = 0

    @handler
    def increment(self) -> int:
        """Count one more."""
        self.count += 1
        return self.count

    @handler
    async def increment_slowly(self, seconds: float = 1) -> int:
        await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler
    async def increment_shielded(self, seconds: float) -> int:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler
    async def increment_other_after(self, seconds: float, other: str) -> int:
        await anyio.sleep(seconds)
        return await self.ctx.runtime.get(Counter, other).increment()

    @handler
    async def increment_by_client_after(self, seconds: float, other: str) -> int:
        await anyio.sleep(seconds)
        return await Counter.increment(other)


class Other(DurableObject):
    pass


# --- a clean end ---------------------------------------------------------------------------------


async def test_leaving_finishes_the_queued_turns() -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        async with scripted_runtime(storage) as runtime:
            counter = runtime.get(Counter, "a")
            outcomes: list[Outcome[int]] = []
            for call in (counter.increment_slowly, counter.increment, counter.increment_slowly):
                outcomes.append(group.start(call))
                await settle()
            with storage.held("reader"):
                outcomes.append(group.start(runtime.get(Counter, "b").increment))
                await settle()
        assert storage.rows() == {"a": b'{"count":3,"$as":{}}', "b": b'{"count":1,"$as":{}}'}
        await settle()
        assert [outcome.value for outcome in outcomes] == [1, 2, 3, 1]


async def test_turns_that_take_longer_than_the_grace_period_are_cancelled() -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        async with DurableRuntime(
            storage, runner=storage.runner, call_timeout=None, grace_period=2
        ) as runtime:
            for name in ("a", "b"):
                await runtime.get(Counter, name).increment()
            running = group.start(runtime.get(Counter, "a").increment_slowly, 1000)
            in_time = group.start(runtime.get(Counter, "b").increment_slowly, 1)
            await settle()
            queued = group.start(runtime.get(Counter, "a").increment)
            await settle()
            left_at = anyio.current_time()
        assert anyio.current_time() - left_at == pytest.approx(2, abs=0.2)
        await settle()
        assert in_time.value == 2
        assert isinstance(running.error, RuntimeClosed)
        assert isinstance(queued.error, RuntimeClosed)
        assert storage.rows() == {"a": b'{"count":1,"$as":{}}', "b": b'{"count":2,"$as":{}}'}


async def test_a_turn_that_resists_its_cancellation_ends_before_the_storage_closes() -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        async with DurableRuntime(
            storage, runner=storage.runner, call_timeout=None, grace_period=1, close_timeout=20
        ) as runtime:
            outcome = group.start(runtime.get(Counter, "a").increment_shielded, 10)
            await settle()
        await settle()
        assert outcome.value == 1
        assert storage.rows() == {"a": b'{"count":1,"$as":{}}'}


async def test_leaving_waits_for_commits_under_way() -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        left = anyio.Event()
        outcomes: list[Outcome[int]] = []

        async def serve() -> None:
            async with scripted_runtime(storage) as runtime:
                outcomes.append(group.start(runtime.get(Counter, "a").increment))
                await settle()
            left.set()

        with storage.held("writer"):
            group.start(serve)
            await settle()
            storage.release("writer")  # which is to open the storage
            await settle()
            assert not left.is_set()
            assert not outcomes[0].done
        await settle()
        assert left.is_set()
        assert outcomes[0].value == 1
        assert storage.rows() == {"a": b'{"count":1,"$as":{}}'}


@pytest.mark.parametrize("how", ["cancelled", "raised", "left"])
async def test_what_is_on_its_way_is_written_however_the_block_is_left(how: str) -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        with anyio.CancelScope() as scope:
            try:
                async with scripted_runtime(storage) as runtime:
                    await runtime.get(Counter, "a").increment()
                    with storage.held("writer"):
                        outcome = group.start(runtime.get(Counter, "a").increment)
                        await settle()
                        if how == "cancelled":
                            scope.cancel()
                            await anyio.sleep_forever()
                        elif how == "raised":
                            raise KeyError("body")
                        assert not outcome.done
            except KeyError:
                assert how == "raised"
        await settle()
        assert outcome.value == 2
        assert storage.rows() == {"a": b'{"count":2,"$as":{}}'}
        assert scope.cancelled_caught == (how == "cancelled")


async def test_cancelling_around_the_runtime_ends_turns_and_calls() -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        with anyio.move_on_after(1) as scope:
            async with scripted_runtime(storage, call_timeout=None) as runtime:
                counter = runtime.get(Counter, "a")
                await counter.increment()
                outcomes: list[Outcome[int]] = []
                for patience in (1000, 2000):
                    outcomes.append(group.start(counter.increment_slowly, patience))
                    await settle()
                    outcomes.append(group.start(counter.increment))
                    await settle()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await settle()
        assert all(isinstance(outcome.error, RuntimeClosed) for outcome in outcomes)
        assert storage.rows() == {"a": b'{"count":1,"$as":{}}'}


async def test_a_cancellation_during_the_grace_period_ends_it() -> None:
    async with calls() as group:
        with anyio.move_on_after(3) as scope:
            async with DurableRuntime(
                MemoryStorage(), grace_period=100, call_timeout=None
            ) as runtime:
                outcome = group.start(runtime.get(Counter, "a").increment_slowly, 1000)
                await anyio.sleep(1)
        assert scope.cancelled_caught
        await settle()
        assert isinstance(outcome.error, RuntimeClosed)
        await anyio.sleep(1)  # the scopes around are in order


async def test_a_call_in_a_shielded_cleanup_does_not_wait_for_ever() -> None:
    with anyio.move_on_after(1):
        async with DurableRuntime(":memory:", call_timeout=5) as runtime:
            try:
                await anyio.sleep_forever()
            finally:
                with (
                    anyio.CancelScope(shield=True),
                    anyio.move_on_after(100) as in_vain,
                    contextlib.suppress(RuntimeClosed, TimeoutError),
                ):
                    await runtime.get(Counter, "a").increment()
    assert not in_vain.cancelled_caught


async def test_the_bodys_exception_leaves_as_it_is() -> None:
    error = KeyError("body")

    async def body() -> None:
        async with DurableRuntime(":memory:") as runtime:
            await runtime.get(Counter, "a").increment()
            raise error

    with pytest.raises(KeyError) as caught:
        await body()
    assert caught.value is error


async def test_turns_under_way_may_call_while_the_runtime_closes() -> None:
    storage = ScriptedStorage()
    async with calls() as group:
        async with scripted_runtime(storage) as runtime:
            by_handle = group.start(runtime.get(Counter, "a").increment_other_after, 1, "x")
            by_client = group.start(runtime.get(Counter, "b").increment_by_client_after, 2, "y")
            await settle()
        await settle()
        assert (by_handle.value, by_client.value) == (1, 1)
        assert storage.rows() == {"x": b'{"count":1,"$as":{}}', "y": b'{"count":1,"$as":{}}'}


async def test_new_calls_are_refused_while_the_runtime_closes_and_after() -> None:
    async with calls() as group:
        async with DurableRuntime(":memory:") as runtime:
            counter = runtime.get(Counter, "a")
            await counter.increment()
            group.start(counter.increment_slowly, 2)
            await settle()

            async def call_while_closing() -> None:
                await anyio.sleep(1)
                with pytest.raises(RuntimeClosed, match="closing"):
                    await counter.increment()
                with pytest.raises(RuntimeClosed, match="closing"):
                    await runtime.get(Counter, "new").increment()
                with pytest.raises(RuntimeClosed, match="closing"):
                    await runtime.put_state(Counter, "a", Counter())

            late = group.start(call_while_closing)
        await settle()
        assert late.value is None
        await refuses_all(runtime, "closed")
        with pytest.raises(RuntimeClosed, match="closed"):
            await counter.increment()


async def refuses_all(runtime: DurableRuntime, problem: str) -> None:
    """Check that nothing can be done with ``runtime``."""
    attempts: list[Callable[[], Any]] = [
        lambda: runtime.call(Counter, "a", "increment"),
        lambda: runtime.ensure_started(Counter, "a"),
        lambda: runtime.get_state(Counter, "a"),
        lambda: runtime.put_state(Counter, "a", Counter()),
        lambda: runtime.exists(Counter, "a"),
        lambda: runtime.delete(Counter, "a"),
        lambda: runtime.list_objects(Counter),
    ]
    for attempt in attempts:
        with pytest.raises(RuntimeClosed, match=problem):
            await attempt()
    with pytest.raises(RuntimeClosed, match=problem):
        runtime.count_objects()
    with pytest.raises(RuntimeClosed, match=problem):
        runtime.statistics()


async def test_a_runtime_serves_nobody_before_it_is_entered() -> None:
    runtime = DurableRuntime(":memory:")
    await refuses_all(runtime, "not entered")
    with pytest.raises(RuntimeClosed, match="not entered"):
        runtime.get(Counter, "a")


async def test_a_runtime_is_entered_once() -> None:
    runtime = DurableRuntime(":memory:")
    async with runtime:
        with pytest.raises(RuntimeClosed, match="once"):
            await runtime.__aenter__()
        assert await runtime.get(Counter, "a").increment() == 1
    with pytest.raises(RuntimeClosed, match="once"):
        await runtime.__aenter__()


# --- one runtime a file --------------------------------------------------------------------------


async def test_a_second_runtime_on_the_same_storage_is_told(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("shared") / "app.db"
    async with DurableRuntime(path, call_timeout=None) as runtime:
        await runtime.get(Counter, "a").increment()
        with pytest.raises(StorageInUse) as caught:
            await DurableRuntime(path.parent / "." / path.name).__aenter__()
        assert caught.value.pid == os.getpid()
        assert str(path) in str(caught.value)
        assert await runtime.get(Counter, "a").increment() == 2
    async with DurableRuntime(path, call_timeout=None) as runtime:
        assert await runtime.get(Counter, "a").increment() == 3


async def test_what_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(StorageUnavailable):
        await DurableRuntime(tmp_path / "no" / "folder" / "app.db").__aenter__()
    storage = MemoryStorage()

    class Abstract(DurableObject):
        field: undefined_name = 0  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DefinitionError):
        await DurableRuntime(storage, objects=[Abstract]).__aenter__()
    # The storage was let go of again.
    async with DurableRuntime(storage) as runtime:
        assert await runtime.get(Counter, "a").increment() == 1
    for thread in set(threading.enumerate()) - threads:
        if "trio_durable" in thread.name:
            thread.join(10)
            assert not thread.is_alive()


# --- other threads, other loops ------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", [("trio", {}), ("asyncio", {})])
async def test_calls_from_another_thread_or_loop_are_refused() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        attempts: list[Callable[[], Any]] = [
            counter.increment,
            lambda: runtime.call(Counter, "new", "increment_slowly"),
            lambda: runtime.get_state(Counter, "a"),
            lambda: runtime.exists(Counter, "new"),
            lambda: runtime.list_objects(Counter),
        ]

        async def attempt_all() -> None:
            for attempt in attempts:
                with pytest.raises(WrongEventLoop):
                    await attempt()

        for backend in ("trio", "asyncio"):
            await anyio.to_thread.run_sync(partial(anyio.run, attempt_all, backend=backend))

        def by_hand() -> None:
            for attempt in attempts:
                with pytest.raises(WrongEventLoop):
                    attempt().send(None)

        thread = threading.Thread(target=by_hand)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        # As the message says.
        assert await anyio.to_thread.run_sync(anyio.from_thread.run, counter.increment) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_native_cancellation_passes_through() -> None:
    storage = ScriptedStorage()

    async def serve() -> None:
        async with scripted_runtime(storage) as runtime:
            await runtime.get(Counter, "a").increment()
            await asyncio.sleep(1000)

    task = asyncio.create_task(serve())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert storage.rows() == {"a": b'{"count":1,"$as":{}}'}


# --- types and ids -------------------------------------------------------------------------------


async def test_types_go_by_class_or_name() -> None:
    async with DurableRuntime(":memory:", objects=[Counter]) as runtime:
        assert await runtime.get(Counter, "a").increment() == 1
        assert await runtime.get("Counter", "a").increment() == 2
        assert await runtime.call("Counter", "a", "increment") == 3
        for unknown in (Other, "Other", "Nothing"):
            with pytest.raises(UnknownObjectType) as caught:
                runtime.get(unknown, "a")
            assert caught.value.known == ("Counter",)
        with pytest.raises(DefinitionError):
            runtime.get(DurableObject, "a")


async def test_ids_must_be_ids() -> None:
    async with DurableRuntime(":memory:") as runtime:
        for bad in ("", "a\0b", "x" * 513, "\ud800", 3, None, b"a", ["a"]):
            with pytest.raises(InvalidObjectId):
                runtime.get(Counter, bad)  # type: ignore[arg-type]
            with pytest.raises(InvalidObjectId):
                await runtime.call(Counter, bad, "increment")  # type: ignore[arg-type]
            with pytest.raises(InvalidObjectId):
                await runtime.delete(Counter, bad)  # type: ignore[arg-type]
        assert runtime.count_objects() == 0
        for good in ("x" * 512, "ä" * 256, "😀", " ", "a/b:c\n"):
            assert await runtime.get(Counter, good).increment() == 1
        assert len(await runtime.list_objects(Counter)) == 5


async def test_arguments_of_the_runtime_are_checked(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {"max_resident": 0},
        {"max_resident": True},
        {"max_state_size": -1},
        {"max_state_size": 1.5},
        {"call_timeout": -1},
        {"call_timeout": "5"},
        {"call_timeout": float("inf")},
        {"grace_period": None},
        {"grace_period": float("nan")},
        {"durability": "some"},
        {"objects": Counter},
        {"objects": 3},
        {"instruments": None},
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            DurableRuntime(tmp_path / "app.db", **arguments)
    for storage in ("", "mysql://host/db", "sqlite://app.db"):
        with pytest.raises(ValueError):  # noqa: PT011
            DurableRuntime(storage)
    with pytest.raises(TypeError):
        DurableRuntime(3)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  # nothing else runs


@pytest.mark.parametrize("kind", ["path", "str", "url", "bytes", "storage"])
async def test_a_storage_is_named_in_many_ways(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("names") / "app.db"
    storage: Any = {
        "path": path,
        "str": str(path),
        "url": f"sqlite:///{path}",
        "bytes": os.fsencode(path),
        "storage": SQLiteStorage(path),
    }[kind]
    if kind == "bytes":
        with pytest.raises(TypeError, match="bytes"):
            DurableRuntime(storage)
        return
    async with DurableRuntime(storage, call_timeout=None) as runtime:
        await runtime.get(Counter, "a").increment()
    assert path.exists()


def statistics(objects: int, busy: int, transactions: int, commits: int) -> RuntimeStatistics:
    """Of a runtime without alarms."""
    return RuntimeStatistics(
        objects=objects,
        busy=busy,
        transactions=transactions,
        commits=commits,
        alarms_waiting=0,
        alarms_in_flight=0,
        alarms_delivered=0,
        alarms_failed=0,
        messages_waiting=0,
        messages_in_flight=0,
        messages_delivered=0,
        messages_failed=0,
        messages_dead=0,
        busiest=(),
        slowest=(),
        shards=1,
        calls_forwarded=0,
        log_bytes=None,
        control_problem="commands reach runtimes on SQLite files, and those of a cluster",
    )


async def test_statistics_count() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        assert runtime.statistics() == statistics(0, 0, 0, 0)
        await runtime.get(Counter, "a").increment()
        assert runtime.statistics() == statistics(1, 0, 1, 1)
        with storage.held("writer"):
            for name in "ab":
                group.start(runtime.get(Counter, name).increment)
            group.start(runtime.get(Counter, "c").increment_slowly)
            await settle()
            expected = attrs.evolve(
                statistics(3, 1, 1, 1),
                slowest=(BusyObject(ObjectKey("Counter", "c"), "increment_slowly", 0, 0),),
            )
            assert runtime.statistics() == expected
        await settle()
        expected = attrs.evolve(expected, transactions=2, commits=3)
        assert runtime.statistics() == expected


async def test_statistics_name_the_busiest_and_the_slowest_objects() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        for number in range(8):
            counter = runtime.get(Counter, str(number))
            for _ in range(1 + number % 4):
                group.start(counter.increment_slowly)
            await anyio.sleep(0.1)
        named = runtime.statistics()
        assert [(each.key.object_id, each.waiting) for each in named.busiest] == [
            *(("3", 3), ("7", 3), ("2", 2), ("6", 2), ("1", 1))
        ]
        assert [each.key.object_id for each in named.slowest] == ["0", "1", "2", "3", "4"]
        assert named.slowest[0].seconds == pytest.approx(0.8)
        assert str(named.busiest[0]) == "Counter('3'): increment_slowly for 0.5 s, 3 waiting"


async def test_statistics_name_an_object_that_loads() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        with storage.held("reader"):
            group.start(runtime.get(Counter, "a").increment)
            await settle()
            (slowest,) = runtime.statistics().slowest
            assert (slowest.key.object_id, slowest.doing) == ("a", "loading")


# --- the whole thing, with real threads and the real clock ---------------------------------------


def test_it_works_for_real(real_backend: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """Many tasks, many objects, an SQLite file, the writer's and reader's own threads."""
    name, options = real_backend

    async def main() -> None:
        async with (
            DurableRuntime(tmp_path / "app.db", runner=ThreadRunner) as runtime,
            anyio.create_task_group() as tasks,
        ):
            for number in range(50):
                tasks.start_soon(client, runtime, number)
        async with DurableRuntime(tmp_path / "app.db") as runtime:
            total = 0
            for object_id in await runtime.list_objects(Counter):
                await runtime.ensure_started(Counter, object_id)
                total += (await runtime.get_state(Counter, object_id)).count
            assert total == 50 * 20

    async def client(runtime: DurableRuntime, number: int) -> None:
        for turn in range(20):
            counter = runtime.get(Counter, str((number * turn) % 7))
            if turn % 3:
                await counter.increment()
            else:
                await counter.increment_slowly(0)
            if turn % 10 == 9:
                await runtime.stop(Counter, str(number % 7))

    anyio.run(main, backend=name, backend_options=options)


# --- objects without a schema --------------------------------------------------------------------


class Document(DurableObject):
    data: dict[str, Any] = attrs.field(factory=dict)

    @handler
    def put(self, key: str, value: Any) -> None:
        self.data[key] = value

    @handler(readonly=True)
    def all(self) -> dict[str, Any]:
        return self.data


async def test_a_state_that_is_just_a_dictionary(tmp_path: Path) -> None:
    nested = {"n": 1, "list": [1.5, None, {"deep": "é\0"}]}
    async with DurableRuntime(tmp_path / "objects.db", runner=InlineRunner) as runtime:
        await runtime.call("Document", "a", "put", "nested", nested)
        nested["n"] = 2
        with pytest.raises(StateEncodeError, match=r"data\['bad'\]"):
            await runtime.call("Document", "a", "put", "bad", {1, 2})
    async with DurableRuntime(tmp_path / "objects.db", runner=InlineRunner) as runtime:
        assert await runtime.call("Document", "a", "all") == {"nested": {**nested, "n": 1}}
