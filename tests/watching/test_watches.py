"""Watches: durable states, the latest of each object, in an order that never leads back."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls, cancelled_at

from trio_durable import (
    DurableRuntime,
    InlineRunner,
    InvalidObjectId,
    MemoryStorage,
    PersistenceError,
    SQLiteStorage,
    StateDecodeError,
    TenantDropped,
    UsageError,
    WatchInTurn,
)
from trio_durable._watching.hub import Hub
from trio_durable.storage import StorageFault

from .rooms import Room, Seat, row_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage() -> ScriptedStorage:
    return ScriptedStorage()


# --- the first snapshot --------------------------------------------------------------------------


async def test_an_object_that_is_not_stored_has_revision_0_and_its_defaults(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        assert await seat.next() == (0, [])
        assert seat.snapshots[0].json is None


async def test_a_watch_opened_after_a_reply_begins_with_that_change(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Room, "lobby").say("hello")
        async with Seat(runtime) as seat:
            assert await seat.next() == (1, ["hello"])
            assert seat.snapshots[0].json == storage.rows()["lobby"].decode()


async def test_a_commit_after_the_watch_has_begun_wins_over_its_read(
    storage: ScriptedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted_runtime(storage) as runtime, calls() as started:
        room, opened = runtime.get(Room, "lobby"), runtime._usable()
        await room.say("one")
        with monkeypatch.context() as patch:
            patch.setattr(opened.pump, "_deliver", lambda: None)
            async with Seat(runtime) as seat:
                await settle()  # the row is read, but not handed over
                await room.say("two")
                assert await seat.next() == (2, ["one", "two"])
                nothing = started.start(seat.next)
                patch.undo()
                opened.batched_load.deliver()
                await settle()
                assert not nothing.done
                nothing.cancel()


async def test_a_read_that_ends_during_a_commit_waits_for_its_outcome(
    storage: ScriptedStorage,
) -> None:
    # The read may have seen the commit, and the one after it, before they are reported.
    async with scripted_runtime(storage) as runtime, calls() as started:
        room = runtime.get(Room, "lobby")
        await room.say("one")
        with storage.held("reader"):
            async with Seat(runtime) as seat:
                first = started.start(seat.next)
                hub = runtime._usable().hub
                assert isinstance(hub, Hub)
                hub._is_in_writer = lambda key: True
                storage.release("reader")
                await settle()
                assert not first.done
                await room.say("two")
                await first.wait()
                assert first.value == (2, ["one", "two"])


async def test_watches_that_begin_together_take_one_read(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        storage.loads.clear()
        with storage.held("reader"):
            seats = [Seat(runtime, f"room-{number}") for number in range(10)]
            for seat in seats:
                await seat.watch.__aenter__()
        for seat in seats:
            assert await seat.next() == (0, [])
            await seat.watch.__aexit__(None, None, None)
        assert [len(keys) for keys in storage.loads] == [10]


async def test_a_second_watcher_takes_no_read(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        await seat.next()
        loads = len(storage.loads)
        async with Seat(runtime) as other:
            assert await other.next() == (0, [])
        assert len(storage.loads) == loads


# --- changes -------------------------------------------------------------------------------------


async def test_each_change_is_seen_by_a_watcher_that_waits(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        room = runtime.get(Room, "lobby")
        for number in range(3):
            await seat.next()
            await room.say(str(number))
        await seat.next()
        assert seat.seen == [(n, [str(i) for i in range(n)]) for n in range(4)]


async def test_a_slow_watcher_gets_the_latest_alone(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        room = runtime.get(Room, "lobby")
        await seat.next()
        for number in range(5):
            await room.say(str(number))
        assert await seat.next() == (5, list("01234"))


async def test_no_change_is_seen_before_it_is_durable(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat, calls() as started:
        await seat.next()
        with storage.held("writer"):
            said = started.start(runtime.get(Room, "lobby").say, "hello")
            seen = started.start(seat.next)
            await settle()
            assert not seen.done
        await said.wait()
        await seen.wait()
        assert seen.value == (1, ["hello"])


async def test_a_turn_that_changes_nothing_is_no_news(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat, calls() as started:
        await seat.next()
        nothing = started.start(seat.next)
        await runtime.get(Room, "lobby").read()
        await settle()
        assert not nothing.done
        nothing.cancel()


async def test_a_deletion_is_a_snapshot_and_the_watch_goes_on(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        room = runtime.get(Room, "lobby")
        await room.say("old")
        assert await seat.next() == (1, ["old"])
        await room.clear()
        assert await seat.next() == (0, [])
        await room.say("new")
        assert await seat.next() == (1, ["new"])


@pytest.mark.parametrize("waits", [True, False])
async def test_a_watcher_cancelled_at_any_await_loses_nothing(
    storage: ScriptedStorage, waits: bool
) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat, calls() as started:
        room = runtime.get(Room, "lobby")
        await seat.next()
        cancelled = 0
        for number in range(6):
            if not waits:
                await room.say("hello")
            cut = started.start(cancelled_at, number, seat.next)
            if waits:
                await settle()
                await room.say("hello")
            await cut.wait()
            if cut.value.scope.cancelled_caught:
                cancelled += 1
                await seat.next()
        assert cancelled >= (3 if waits else 2)  # before the call, at its checkpoint, in its wait
        assert [revision for revision, _ in seat.seen] == [*range(7)]


async def test_a_watch_that_is_entered_and_left_in_cancelled_scopes_leaves_nothing(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        for entering in range(4):
            for leaving in range(4):
                watch = runtime.watch(Room, "lobby")
                if (await cancelled_at(entering, watch.__aenter__)).error is None:
                    await cancelled_at(leaving, partial(watch.__aexit__, None, None, None))
                assert runtime._usable().hub.count == 0


async def test_a_watcher_cancelled_after_it_was_woken_loses_nothing(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat, calls() as started:
        await seat.next()
        waiting = started.start(seat.next)
        await settle()
        said = started.start(runtime.get(Room, "lobby").say, "hello")
        await said.wait()
        waiting.cancel()  # it is woken, but may not have run
        await waiting.wait()
        if waiting.error is not None:
            assert await seat.next() == (1, ["hello"])
        assert seat.seen == [(0, []), (1, ["hello"])]


async def test_watchers_share_no_instance(storage: ScriptedStorage) -> None:
    async with (
        scripted_runtime(storage) as runtime,
        Seat(runtime) as seat,
        Seat(runtime) as other,
    ):
        await runtime.get(Room, "lobby").say("hello")
        await seat.next()
        seat.snapshots[0].state.lines.append("mine")
        assert await other.next() == (1, ["hello"])
        assert await runtime.get(Room, "lobby").read() == ["hello"]


async def test_a_state_that_can_not_be_read_does_not_end_the_watch(
    storage: ScriptedStorage,
) -> None:
    storage.overwrite("Room", "lobby", b'{"lines":7}')
    async with scripted_runtime(storage) as runtime, runtime.watch(Room, "lobby") as snapshots:
        broken = await anext(snapshots)
        with pytest.raises(StateDecodeError):
            _ = broken.state
        assert broken.json == '{"lines":7}'
        await runtime.put_state(Room, "lobby", Room(lines=["repaired"]))
        assert (await anext(snapshots)).state.lines == ["repaired"]


async def test_one_watch_has_several_objects(storage: ScriptedStorage) -> None:
    rooms = [(Room, "a"), (Room, "b"), (Room, "a")]
    async with scripted_runtime(storage) as runtime, runtime.watch_many(rooms) as snapshots:
        first = [(await anext(snapshots)).key.object_id for _ in range(2)]
        assert sorted(first) == ["a", "b"]
        for object_id in ("b", "a"):
            await runtime.get(Room, object_id).say("hello")
            snapshot = await anext(snapshots)
            assert (snapshot.key.object_id, snapshot.revision) == (object_id, 1)


# --- handles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Room, "Room"])
async def test_an_object_is_watched_by_its_handle(
    storage: ScriptedStorage, kind: type[Room] | str
) -> None:
    async with scripted_runtime(storage) as runtime:
        room = runtime.get(kind, "lobby", timeout=1)
        async with runtime.watch(room) as snapshots:
            assert (await anext(snapshots)).revision == 0
            await runtime.get(Room, "lobby").say("hello")
            snapshot = await anext(snapshots)
            assert (snapshot.key.object_id, snapshot.revision) == ("lobby", 1)


async def test_several_objects_are_watched_by_handles_and_by_ids(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        a, b = runtime.get(Room, "a"), runtime.get(Room, "b")
        async with runtime.watch_many([a, (Room, "b"), b]) as snapshots:
            found = [(await anext(snapshots)).key.object_id for _ in range(2)]
            assert sorted(found) == ["a", "b"]


async def test_a_handle_leads_to_the_object_of_its_own_tenant(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        room = runtime.tenant("acme").get(Room, "lobby")
        for objects in (runtime, runtime.tenant("acme"), runtime.tenant("globex")):
            assert [key.tenant for key in objects.watch(room).keys] == ["acme"]


async def test_a_handle_that_can_not_be_watched_is_refused(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, scripted_runtime(ScriptedStorage()) as other:
        with pytest.raises(UsageError, match="another runtime; give the type and the id"):
            runtime.watch(other.get(Room, "lobby"))
        with pytest.raises(UsageError, match="for one call; give the object's id"):
            runtime.watch(runtime.get(Room, "lobby", once="order-7"))
        for wrong in (Room(), Room, 7):
            with pytest.raises(TypeError, match=r"takes a type and an id, or a handle, not"):
                runtime.watch(wrong)  # type: ignore[type-var]
        with pytest.raises(InvalidObjectId):
            runtime.watch(Room, "")


# --- failed commits ------------------------------------------------------------------------------


async def test_nothing_of_a_failed_commit_is_seen(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat, calls() as started:
        room = runtime.get(Room, "lobby")
        await seat.next()
        storage.fail_commits(StorageFault("the disk is full"))
        seen = started.start(seat.next)
        with pytest.raises(PersistenceError):
            await room.say("lost")
        await settle()
        assert not seen.done
        await room.say("kept")
        await seen.wait()
        assert seen.value == (1, ["kept"])


async def test_a_failed_commit_that_is_durable_all_the_same_is_seen(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        await seat.next()
        await runtime.get(Room, "lobby").read()  # so that it is in memory
        storage.fail_commits(StorageFault("the server is gone"))
        with storage.held("reader"):  # of the look that the failure begins
            with pytest.raises(PersistenceError):
                await runtime.get(Room, "lobby").say("lost")
            storage.overwrite("Room", "lobby", row_of(["lost"]))
        assert await seat.next() == (1, ["lost"])


async def test_a_commit_in_doubt_that_lands_late_is_seen_with_the_next_load(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat, calls() as started:
        room = runtime.get(Room, "lobby")
        await seat.next()
        storage.fail_commits(StorageFault("the server is gone"))
        with pytest.raises(PersistenceError):
            await room.say("late")
        seen = started.start(seat.next)
        await settle()
        assert not seen.done
        storage.overwrite("Room", "lobby", row_of(["late"]))
        assert await room.read() == ["late"]
        await settle()
        assert seen.value == (1, ["late"])


async def test_a_read_that_was_under_way_at_a_failure_is_repeated(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime:
        room = runtime.get(Room, "lobby")
        await room.say("one")
        with storage.held("reader"):
            async with Seat(runtime) as seat:
                storage.loads.clear()
                storage.fail_commits(StorageFault("the server is gone"))
                with pytest.raises(PersistenceError):
                    await room.say("two")
                storage.release("reader")
                await settle()
                storage.release("reader")
                await settle()
                assert len(storage.loads) == 2
                assert await seat.next() == (1, ["one"])


async def test_a_read_that_fails_raises_and_the_watch_can_go_on(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        storage.fail_loads(StorageFault("unreadable"))
        with pytest.raises(PersistenceError, match="unreadable"):
            await seat.next()
        assert await seat.next() == (0, [])


# --- a watch changes nothing ---------------------------------------------------------------------


async def test_a_watched_object_is_not_loaded_and_may_leave(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, Seat(runtime) as seat:
        await seat.next()
        assert runtime.whereis(Room, "lobby") is None
        await runtime.get(Room, "lobby").say("hello")
        await seat.next()
        await anyio.sleep(15)
        info = runtime.whereis(Room, "lobby")
        assert info is not None
        assert info.status == "hibernated"
        async with Seat(runtime) as other:
            assert await other.next() == (1, ["hello"])
        assert runtime.whereis(Room, "lobby") == info
        await anyio.sleep(15)
        assert runtime.whereis(Room, "lobby") is None
        assert storage.commits == 1


async def test_the_hub_listens_while_there_are_watches_alone(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        opened = runtime._usable()
        for _ in range(2):
            async with Seat(runtime) as seat, Seat(runtime, "other"):
                await seat.next()
                assert opened.hub.count == 2
                assert opened.group_commit.listeners.states is opened.hub
            assert opened.hub.count == 0
            assert opened.group_commit.listeners.states is None
            assert opened.batched_load.listener is None


async def test_a_watch_is_refused_in_a_turn(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        with pytest.raises(WatchInTurn, match="Room\\('kitchen'\\)"):
            await runtime.get(Room, "lobby").look_at("kitchen")


async def test_a_watch_is_entered_once(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        watch = runtime.watch(Room, "lobby")
        async with watch:
            pass
        with pytest.raises(UsageError, match="entered before"):
            await watch.__aenter__()


async def test_a_watch_of_nothing_is_refused(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        with pytest.raises(ValueError, match="at least"):
            runtime.watch_many([])


# --- tenants -------------------------------------------------------------------------------------


async def test_a_tenant_sees_its_own_objects(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime:
        acme, globex = runtime.tenant("acme"), runtime.tenant("globex")
        async with Seat(acme) as seat, Seat(globex) as other:
            await other.next()
            await acme.get(Room, "lobby").say("hello")
            assert await seat.next() == (1, ["hello"])
            assert seat.snapshots[0].key.tenant == "acme"
            assert other.seen == [(0, [])]


async def test_a_dropped_tenant_is_absent_and_its_watches_end(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, calls() as started:
        acme, other = runtime.tenant("acme"), Seat(runtime)
        seat = Seat(acme)
        await acme.get(Room, "lobby").say("hello")
        sitting, staying = started.start(seat.sit), started.start(other.sit)
        await settle()
        await runtime.drop_tenant("acme")
        await sitting.wait()
        assert sitting.error is None
        assert seat.seen == [(1, ["hello"]), (0, [])]
        assert not staying.done
        staying.cancel()


async def test_a_tenant_that_is_being_dropped_can_not_be_watched(
    storage: ScriptedStorage,
) -> None:
    async with scripted_runtime(storage) as runtime, calls() as started:
        acme = runtime.tenant("acme")
        with storage.held("writer"):
            started.start(runtime.drop_tenant, "acme")
            await settle()
            with pytest.raises(TenantDropped):
                await Seat(acme).watch.__aenter__()


# --- the end -------------------------------------------------------------------------------------


async def test_watches_end_with_the_runtime_after_its_last_commits(
    storage: ScriptedStorage,
) -> None:
    async with calls() as started:
        async with scripted_runtime(storage) as runtime:
            seat = Seat(runtime)
            sitting = started.start(seat.sit)
            await settle()
            with storage.held("writer"):
                started.start(runtime.get(Room, "lobby").say, "last words")
                await settle()
        await sitting.wait()
        assert sitting.error is None
        assert seat.seen == [(0, []), (1, ["last words"])]


async def test_all_watches_end_at_end_watches(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, calls() as started:
        seats = [Seat(runtime) for _ in range(3)]
        sitting = [started.start(seat.sit) for seat in seats]
        await settle()
        runtime.end_watches()
        for each in sitting:
            await each.wait()
            assert each.error is None
        late = Seat(runtime)
        await late.sit()
        assert late.seen == []
        assert await runtime.get(Room, "lobby").say("hello") == 1


# --- many watchers -------------------------------------------------------------------------------


async def test_watchers_are_woken_in_groups(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, calls() as started:
        seats = [Seat(runtime) for _ in range(200)]
        sitting = [started.start(seat.sit) for seat in seats]
        await settle()
        pacing = runtime._usable().hub._pacing
        groups: list[int] = []
        wake_group = pacing.wake_group

        def noted() -> None:
            before = sum(len(cell.parked) for cell in pacing._cells.values())
            wake_group()
            groups.append(before - sum(len(cell.parked) for cell in pacing._cells.values()))

        pacing.wake_group = noted  # type: ignore[method-assign]
        await runtime.get(Room, "lobby").say("hello")
        await settle()
        assert all(seat.seen == [(0, []), (1, ["hello"])] for seat in seats)
        assert max(groups) <= 64
        for each in sitting:
            each.cancel()


async def test_at_rest_all_watchers_have_what_is_stored(storage: ScriptedStorage) -> None:
    async with scripted_runtime(storage) as runtime, calls() as started:
        seats = [Seat(runtime) for _ in range(100)]
        sitting = [started.start(seat.sit) for seat in seats]
        for number in range(20):
            await runtime.get(Room, "lobby").say(str(number))
        await settle()
        for seat in seats:
            revisions = [revision for revision, _ in seat.seen]
            assert all(before < after for before, after in pairwise(revisions))
            assert revisions[-1] == 20
        for each in sitting:
            each.cancel()


@pytest.mark.parametrize("place", ["memory", "file"])
async def test_it_is_the_same_in_memory_and_on_a_file(tmp_path: Path, place: str) -> None:
    storage = SQLiteStorage(tmp_path / "app.db") if place == "file" else MemoryStorage()
    async with DurableRuntime(storage, runner=InlineRunner) as runtime, Seat(runtime) as seat:
        assert await seat.next() == (0, [])
        await runtime.get(Room, "lobby").say("hello")
        assert await seat.next() == (1, ["hello"])
        async with Seat(runtime) as other:
            assert await other.next() == (1, ["hello"])
            assert other.snapshots == seat.snapshots[1:]
