"""Lifecycle of an object: loading, after_load, location, stop, deletion."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import attrs
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls

from trio_durable import (
    ActivationFailed,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    ObjectKey,
    ObjectNotRunning,
    PersistenceError,
    StateDecodeError,
    handler,
)
from trio_durable.storage import StorageFault

from .counters import Brief, Counter, problems, runs, status

pytestmark = pytest.mark.anyio


class Loaded(DurableObject, hibernate_after=10):
    """Counts its activations, stored and not, and fails on demand."""

    activations: int = 0
    calls: int = 0

    def after_load(self) -> None:
        runs.append(self.ctx.object_id)
        self.activations += 1
        if problems:
            raise problems.pop()

    @handler
    def call(self) -> tuple[int, int]:
        self.calls += 1
        return self.activations, self.calls

    @handler
    def delete(self) -> None:
        self.ctx.delete()


class LoadedSlowly(Loaded):
    async def after_load(self) -> None:  # type: ignore[override]
        runs.append(self.ctx.object_id)
        self.activations += 1
        await anyio.sleep(1)
        if problems:
            raise problems.pop()


# --- one live instance ---------------------------------------------------------------------------


async def test_concurrent_first_calls_load_once() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        with storage.held("reader"):
            outcomes: list[Outcome[int]] = []
            for number in range(64):
                counter = runtime.get(Counter, "a")
                outcomes.append(
                    group.start(counter.increment_slowly, 0.01)
                    if number % 4 == 0
                    else group.start(counter.increment)
                )
            await settle()
            assert status(runtime, Counter) == "loading"
            assert runtime.count_objects() == 1
        await anyio.sleep(1)
        assert sorted(outcome.value for outcome in outcomes) == list(range(1, 65))
        assert storage.loads == [[ObjectKey("Counter", "a")]]


async def test_loads_that_wait_for_one_another_are_one_read() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        with storage.held("reader"):
            for name in "abcdef":
                group.start(runtime.get(Counter, name).increment)
            await settle()
        await settle()
        assert [sorted(key.object_id for key in keys) for keys in storage.loads] == [list("abcdef")]


async def test_calls_during_a_load_run_in_their_order() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        outcomes: list[Outcome[object]] = []
        with storage.held("reader"):
            for name in ("increment", "increment_slowly", "read", "increment"):
                outcomes.append(group.start(runtime.call, Counter, "a", name))
                await settle()
        await anyio.sleep(2)
        assert [outcome.value for outcome in outcomes] == [1, 2, 2, 3]


async def test_a_failed_load_fails_all_who_wait_and_the_next_call_tries_again() -> None:
    storage = ScriptedStorage()
    storage.fail_loads(StorageFault("disk on fire"), OSError("any error"))
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        for problem in ("disk on fire", "any error"):
            with storage.held("reader"):
                outcomes: list[Outcome[object]] = [
                    group.start(counter.increment),
                    group.start(counter.increment_slowly),
                    group.start(runtime.delete, Counter, "a"),
                    group.start(runtime.put_state, Counter, "a", Counter(count=5)),
                ]
                await settle()
            await settle()
            for outcome in outcomes:
                assert isinstance(outcome.error, PersistenceError)
                assert outcome.error.action == "load"
                assert problem in str(outcome.error)
            assert runtime.count_objects() == 0
        assert await counter.increment() == 1


async def test_calls_and_stops_at_once_lose_nothing() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage, call_timeout=None) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        outcomes = []
        for number in range(40):
            call = counter.increment_slowly if number % 7 == 0 else counter.increment
            outcomes.append(group.start(call))
            if number % 3 == 0:
                group.start(runtime.stop, Counter, "a")
            if number % 5 == 0:
                await anyio.sleep(0.5)
        await anyio.sleep(60)
        assert sorted(outcome.value for outcome in outcomes) == list(range(1, 41))
        assert storage.rows() == {"a": b'{"count":40,"$as":{}}'}


async def test_what_happens_to_an_object_happens_in_the_order_of_the_calls() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        first = group.start(counter.increment_slowly)
        await settle()
        outcomes: list[Outcome[object]] = []
        starts: list[Callable[[], Outcome[object]]] = [
            lambda: group.start(counter.increment),
            lambda: group.start(runtime.exists, Counter, "a"),
            lambda: group.start(runtime.put_state, Counter, "a", Counter(count=10)),
            lambda: group.start(counter.increment),
            lambda: group.start(runtime.stop, Counter, "a"),
            lambda: group.start(counter.increment),
            lambda: group.start(runtime.delete, Counter, "a"),
            lambda: group.start(runtime.exists, Counter, "a"),
            lambda: group.start(counter.increment),
        ]
        for start in starts:
            outcomes.append(start())
            await settle()
        await anyio.sleep(2)
        assert first.value == 1
        assert [outcome.value for outcome in outcomes] == [
            2,
            True,
            None,
            11,
            None,
            12,
            None,
            False,
            1,
        ]
        assert storage.rows() == {"a": b'{"count":1,"$as":{}}'}


# --- after_load ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Loaded, LoadedSlowly])
async def test_after_load_runs_once_per_activation_before_any_call(cls: type[Loaded]) -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        outcomes = [group.start(runtime.get(cls, "a").call) for _ in range(5)]
        await anyio.sleep(2)
        assert sorted(outcome.value for outcome in outcomes) == [(1, n) for n in range(1, 6)]
        # Hibernation and a failed turn make a new instance, but no new activation.
        await anyio.sleep(20)
        assert status(runtime, cls) == "hibernated"
        assert await runtime.get(cls, "a").call() == (1, 6)
        assert runs == ["a"]
        await runtime.stop(cls, "a")
        assert await runtime.get(cls, "a").call() == (2, 7)


@pytest.mark.parametrize("cls", [Loaded, LoadedSlowly])
async def test_after_load_runs_anew_after_a_deletion(cls: type[Loaded]) -> None:
    async with DurableRuntime(":memory:") as runtime:
        loaded = runtime.get(cls, "a")
        await loaded.call()
        await loaded.delete()
        assert await loaded.call() == (1, 1)
        await runtime.delete(cls, "a")
        assert await loaded.call() == (1, 1)


@pytest.mark.parametrize("cls", [Loaded, LoadedSlowly])
async def test_an_after_load_that_raises_fails_all_who_wait_and_is_tried_again(
    cls: type[Loaded],
) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        problem = KeyError("no config")
        problems.append(problem)
        with storage.held("reader"):
            outcomes: list[Outcome[object]] = [
                group.start(runtime.get(cls, "a").call) for _ in range(3)
            ]
            outcomes.append(group.start(runtime.ensure_started, cls, "a"))
            await settle()
            stored = group.start(runtime.exists, cls, "a")
            await settle()
        await anyio.sleep(2)
        for outcome in outcomes:
            assert isinstance(outcome.error, ActivationFailed)
            assert outcome.error.__cause__ is problem
            assert "KeyError: 'no config'" in str(outcome.error)
        assert stored.value is False
        assert storage.rows() == {}
        assert await runtime.get(cls, "a").call() == (1, 1)


async def test_an_after_load_whose_error_has_no_text_harms_nobody_else() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    class Speechless(DurableObject):
        async def after_load(self) -> None:
            raise Mute

        @handler
        def call(self) -> None: ...

    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(ActivationFailed, match="raised Mute, so the object could not start"):
            await runtime.get(Speechless, "a").call()
        assert await runtime.get(Counter, "a").increment() == 1


async def test_a_caller_that_gives_up_during_after_load_does_not_stop_it() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        first = group.start(runtime.get(LoadedSlowly, "a").call)
        await anyio.sleep(0.5)
        second = group.start(runtime.get(LoadedSlowly, "a").call)
        await settle()
        first.cancel()
        await anyio.sleep(2)
        assert second.value == (1, 1)
        assert runs == ["a"]


async def test_a_deletion_in_after_load_is_undone_by_nothing_later() -> None:
    class Fickle(DurableObject):
        count: int = 0

        async def after_load(self) -> None:
            if self.count == 1:
                self.ctx.delete()
                await self.ctx.commit()
                raise KeyError
            self.count = 10

        @handler
        def set(self, count: int) -> int:
            self.count = count
            return self.count

        @handler(readonly=True)
        def read(self) -> int:
            return self.count

    async with DurableRuntime(":memory:") as runtime:
        fickle = runtime.get(Fickle, "a")
        await fickle.set(1)
        await runtime.stop(Fickle, "a")
        with pytest.raises(ActivationFailed):
            await fickle.read()
        assert not await runtime.exists(Fickle, "a")
        assert await fickle.read() == 10


# --- where an object is --------------------------------------------------------------------------


async def test_whereis_tells_status_depth_and_revision() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        assert runtime.whereis(Counter, "a") is None
        counter = runtime.get(Counter, "a")
        assert runtime.whereis(Counter, "a") is None
        with storage.held("reader"):
            for _ in range(3):
                group.start(counter.increment_slowly)
            await settle()
            info = runtime.whereis("Counter", "a")
            assert info is not None
            assert (info.key, info.status) == (ObjectKey("Counter", "a"), "loading")
            assert (info.mailbox_depth, info.revision) == (3, 0)
        await anyio.sleep(1.5)
        info = runtime.whereis(Counter, "a")
        assert info is not None
        assert (info.status, info.mailbox_depth, info.revision) == ("active", 1, 1)
        await anyio.sleep(5)
        info = await runtime.ensure_started(Counter, "a")
        assert (info.status, info.mailbox_depth, info.revision) == ("active", 0, 3)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            info.revision = 4  # type: ignore[misc]


async def test_ensure_started_activates() -> None:
    async with DurableRuntime(":memory:") as runtime:
        info = await runtime.ensure_started(Loaded, "a")
        assert (info.status, info.revision) == ("active", 1)
        assert runs == ["a"]
        await runtime.ensure_started(Loaded, "a")
        assert runs == ["a"]
        await anyio.sleep(20)
        assert status(runtime, Loaded) == "hibernated"
        assert (await runtime.ensure_started(Loaded, "a")).status == "active"
        assert runs == ["a"]


async def test_an_object_that_was_dropped_is_not_running() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        storage.fail_commits(StorageFault("disk full"))
        with pytest.raises(PersistenceError):
            await runtime.get(Counter, "a").increment()
        assert status(runtime, Counter) is None
        with pytest.raises(ObjectNotRunning):
            await runtime.get_state(Counter, "a")


async def test_an_object_that_was_never_called_is_not_running() -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(TypeError):
            await runtime.call(Counter, "a", "increment_slowly", (n for n in "abc"))
        assert status(runtime, Counter) is None


# --- stop, delete, put_state, get_state, exists, list --------------------------------------------


async def test_stop_lets_queued_turns_end_and_forgets_the_object() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        turns = [group.start(counter.increment_slowly) for _ in range(2)]
        await settle()
        await runtime.stop(Counter, "a")
        await settle()
        assert [turn.value for turn in turns] in ([1, 2], [2, 1])
        assert storage.rows() == {"a": b'{"count":2,"$as":{}}'}
        assert runtime.whereis(Counter, "a") is None
        assert await counter.read() == 2


async def test_stop_waits_for_what_is_not_durable_yet() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        with storage.held("writer"):
            turn = group.start(counter.increment)
            await settle()
            stop = group.start(runtime.stop, Counter, "a")
            await settle()
            assert not stop.done
            # A new instance meanwhile goes on from there, not from what is stored.
            behind = group.start(counter.increment)
            await settle()
        await settle()
        assert (turn.value, stop.value, behind.value) == (2, None, 3)
        assert storage.rows() == {"a": b'{"count":3,"$as":{}}'}


async def test_stop_of_what_is_not_running_does_nothing() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.stop(Counter, "a")
        assert storage.loads == []
        await runtime.get(Counter, "a").read()
        await runtime.stop(Counter, "a")
        await runtime.stop(Counter, "a")
        assert runtime.count_objects() == 0


async def test_get_state_needs_a_running_object() -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(ObjectNotRunning):
            await runtime.get_state(Counter, "a")
        await runtime.get(Counter, "a").increment()
        state = await runtime.get_state("Counter", "a")
        assert isinstance(state, Counter)
        assert state.count == 1
        await runtime.stop(Counter, "a")
        with pytest.raises(ObjectNotRunning):
            await runtime.get_state(Counter, "a")


async def test_put_state_replaces_the_state_of_running_and_other_objects() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        for name in ("unknown", "stopped", "running", "hibernated", "deleted"):
            if name != "unknown":
                await runtime.get(Counter, name).increment()
            if name == "stopped":
                await runtime.stop(Counter, name)
            if name == "hibernated":
                await anyio.sleep(20)
            if name == "deleted":
                await runtime.delete(Counter, name)
            await runtime.put_state(Counter, name, Counter(count=20))
            assert storage.rows()[name] == b'{"count":20,"$as":{}}'
            assert await runtime.get(Counter, name).increment() == 21


async def test_a_hibernated_object_stays_when_its_state_is_put() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Counter, "a").increment()
        await anyio.sleep(20)
        assert (await runtime.get_state(Counter, "a")).count == 1
        await runtime.put_state(Counter, "a", Counter(count=5))
        assert (await runtime.get_state(Counter, "a")).count == 5


async def test_put_state_takes_an_instance_of_the_class_only() -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(TypeError, match="instance of it, not Brief"):
            await runtime.put_state(Counter, "a", Brief())
        with pytest.raises(TypeError, match="not int"):
            await runtime.put_state("Counter", "a", 3)  # type: ignore[type-var]
        assert not await runtime.exists(Counter, "a")


async def test_exists_and_delete_whether_running_or_not() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        for stopped in (False, True):
            assert not await runtime.exists(Counter, "a")
            await runtime.get(Counter, "a").read()
            assert not await runtime.exists(Counter, "a")
            await runtime.get(Counter, "a").increment()
            if stopped:
                await runtime.stop(Counter, "a")
            assert await runtime.exists(Counter, "a")
            if stopped:
                assert runtime.count_objects() == 0
            await runtime.delete(Counter, "a")
            assert storage.rows() == {}
            await runtime.delete(Counter, "a")
            assert await runtime.get(Counter, "a").read() == 0


async def test_list_objects_gives_pages_of_stored_ids_in_order() -> None:
    async with DurableRuntime(":memory:") as runtime:
        names = ["a", "b", "ä", "z", "😀", "A", "a1"]
        for name in names:
            await runtime.get(Counter, name).increment()
        await runtime.get(Counter, "only read").read()
        await runtime.get(Brief, "another type").increment()
        in_order = sorted(names, key=str.encode)
        assert await runtime.list_objects(Counter) == in_order
        page, pages = await runtime.list_objects("Counter", limit=3), []
        while page:
            pages.append(page)
            page = await runtime.list_objects(Counter, after=page[-1], limit=3)
        assert pages == [in_order[:3], in_order[3:6], in_order[6:]]
        await runtime.delete(Counter, "b")
        assert "b" not in await runtime.list_objects(Counter)
        for limit in (0, -1, True, 1.5):
            with pytest.raises(ValueError, match="limit"):
                await runtime.list_objects(Counter, limit=limit)  # type: ignore[arg-type]


# --- state that does not fit ---------------------------------------------------------------------


@pytest.mark.parametrize("way", ["delete", "put_state"])
async def test_an_unreadable_object_is_left_alone_until_it_is_replaced(way: str) -> None:
    storage = ScriptedStorage()
    storage.overwrite("Counter", "a", b'{"count":"many"}')
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        with storage.held("reader"):
            outcomes: list[Outcome[object]] = [
                group.start(counter.increment),
                group.start(counter.increment_slowly),
                group.start(runtime.ensure_started, Counter, "a"),
            ]
            await settle()
        await settle()
        for outcome in outcomes:
            assert isinstance(outcome.error, StateDecodeError)
            assert outcome.error.field == "count"
        with pytest.raises(StateDecodeError):
            await counter.increment()
        assert storage.rows() == {"a": b'{"count":"many"}'}
        assert storage.batches == []
        assert await runtime.exists(Counter, "a")
        if way == "delete":
            await runtime.delete(Counter, "a")
            assert await counter.increment() == 1
        else:
            await runtime.put_state(Counter, "a", Counter(count=5))
            assert await counter.increment() == 6


async def test_an_object_over_a_lowered_limit_can_be_read_and_shrunk() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage) as runtime:
        await runtime.put_state(V2, "a", V2(added=list(range(1000))))
    async with DurableRuntime(storage, max_state_size=100) as runtime:
        versioned = runtime.get(V2, "a")
        kept, added = await versioned.look()
        assert (kept, len(added)) == (0, 1000)
        await versioned.clear()
        assert await versioned.look() == (0, [])


class V1(DurableObject, name="Versioned"):
    kept: int = 0
    dropped: str = ""

    @handler
    def set(self, kept: int, dropped: str) -> None:
        self.kept, self.dropped = kept, dropped


class V2(DurableObject, name="Versioned"):
    kept: int = 0
    added: list[int] = attrs.field(factory=lambda: [7])

    @handler
    def read(self) -> tuple[int, list[int]]:
        return self.kept, self.added

    @handler(readonly=True)
    def look(self) -> tuple[int, list[int]]:
        return self.kept, self.added

    @handler
    def add(self, number: int) -> None:
        self.added.append(number)

    @handler
    def clear(self) -> None:
        self.added.clear()


class V3(DurableObject, name="Versioned"):
    kept: int = 0
    added: list[int] = attrs.field(factory=list)

    @handler(readonly=True)
    def look(self) -> tuple[int, list[int]]:
        return self.kept, self.added


async def test_new_fields_get_their_defaults_and_unknown_ones_go(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("evolution") / "app.db"
    async with DurableRuntime(path, objects=[V1], runner=InlineRunner) as old:
        await old.get(V1, "a").set(3, "old")
    async with DurableRuntime(path, objects=[V2], runner=InlineRunner) as new:
        versioned = new.get(V2, "a")
        assert await versioned.read() == (3, [7])
        await versioned.add(8)
        assert await versioned.look() == (3, [7, 8])
    async with DurableRuntime(path, objects=[V1], runner=InlineRunner) as old:
        state = await started_state(old)
        assert (state.kept, state.dropped) == (3, "")


async def started_state(runtime: DurableRuntime) -> V1:
    await runtime.ensure_started(V1, "a")
    return await runtime.get_state(V1, "a")


async def test_a_readonly_handler_reads_state_of_an_older_class() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[V1]) as old:
        await old.get(V1, "a").set(3, "old")
    async with DurableRuntime(storage, objects=[V3]) as new:
        assert await new.get(V3, "a").look() == (3, [])
        assert new.statistics().commits == 0


async def test_a_default_that_another_call_might_not_make_is_saved_by_a_readonly_handler() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[V1]) as old:
        await old.get(V1, "a").set(3, "old")
    async with DurableRuntime(storage, objects=[V2]) as new:
        assert await new.get(V2, "a").look() == (3, [7])
        assert new.statistics().commits == 1
        assert await new.get(V2, "a").look() == (3, [7])
        assert new.statistics().commits == 1


async def test_after_control_c_in_after_load_the_next_call_activates_the_object_again() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        loaded = runtime.get(Loaded, "a")
        await loaded.call()
        with storage.held("writer"):
            # While its deletion is on its way, the object is in memory and needs no load. So the
            # next call runs after_load in its caller's task, where Control-C may hit it.
            deleted = group.start(loaded.delete)
            await settle()
            interrupt = KeyboardInterrupt()
            problems.append(interrupt)  # type: ignore[arg-type]
            with pytest.raises(KeyboardInterrupt):
                await loaded.call()
            info = runtime.whereis(Loaded, "a")
            assert info is not None
            assert info.mailbox_depth == 0
            again = group.start(loaded.call)
            await settle()
        await settle()
        assert (deleted.value, again.value) == (None, (1, 1))
        assert storage.rows() == {"a": b'{"activations":1,"calls":1,"$as":{}}'}
        await anyio.sleep(20)  # it falls due for hibernation, which must come to an end
        assert runtime.whereis(Loaded, "a") is not None
