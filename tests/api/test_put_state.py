"""`put_state` with ``expected``: a state is replaced only if it still is that of a snapshot."""

from __future__ import annotations

import json
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import attrs
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime, threaded_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    DurableObject,
    DurableRuntime,
    MemoryStorage,
    ObjectKey,
    Objects,
    Snapshot,
    StaleObject,
    StateConflict,
    handler,
)
from trio_durable._eventloop.runner import InlineRunner
from trio_durable.storage import PartialFault, SQLiteStorage, Storage
from trio_durable.storage.postgres import PostgresStorage

pytestmark = pytest.mark.anyio


class Note(DurableObject, name="put.Note", hibernate_after=10, shutdown_after=20):
    text: str = ""

    @handler
    def write(self, text: str) -> None:
        self.text = text

    @handler(readonly=True)
    def read(self) -> str:
        return self.text

    @handler
    async def write_slowly(self, text: str) -> None:
        await anyio.sleep(3)
        self.text = text

    @handler
    def tear_up(self) -> None:
        self.ctx.delete()


class NoteOfTwoReleases(DurableObject, name="put.Note"):
    """`Note`, as a later release has it: its rows are written in another way."""

    text: str = ""
    length: int = 0

    @handler(readonly=True)
    def read(self) -> str:
        return self.text


class NoteWithToken(DurableObject, name="put.Note"):
    """`Note`, with a field whose default can't be made again."""

    text: str = ""
    token: UUID = attrs.field(factory=uuid4)

    @handler(readonly=True)
    def read(self) -> str:
        return self.text


async def shown(runtime: Objects, cls: type[Any] = Note, object_id: str = "a") -> Snapshot[Any]:
    """The snapshot of an object that a page shows; of one that isn't stored, if it isn't."""
    for snapshot in await runtime.list_states(cls):
        if snapshot.key.object_id == object_id:
            return snapshot
    return await watched(runtime, cls, object_id)


async def watched(runtime: Objects, cls: type[Any] = Note, object_id: str = "a") -> Snapshot[Any]:
    async with runtime.watch(cls, object_id) as snapshots:
        return await anext(snapshots)


def version(snapshot: Snapshot[Any]) -> tuple[int, str | None]:
    return snapshot.revision, snapshot.digest


async def refused(
    runtime: Objects, expected: tuple[int, str | None], cls: type[Any] = Note
) -> StateConflict:
    """The error of a state that expects another one than is stored."""
    with pytest.raises(StateConflict) as caught:
        await runtime.put_state(cls, "a", cls(text="refused"), expected=expected)
    return caught.value


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "postgres":
        return PostgresStorage(request.getfixturevalue("postgres"))
    return MemoryStorage() if request.param == "memory" else SQLiteStorage(tmp_path / "app.db")


# --- what is expected ----------------------------------------------------------------------------


@pytest.mark.parametrize("look", [shown, watched])
@pytest.mark.parametrize("tenant", ["", "acme"])
async def test_a_state_that_is_still_there_is_replaced(
    storage: Storage, look: Callable[[Objects], Awaitable[Snapshot[Any]]], tenant: str
) -> None:
    async with DurableRuntime(storage, objects=[Note], runner=InlineRunner) as root:
        runtime = root.tenant(tenant) if tenant else root
        await runtime.get(Note, "a").write("one")
        snapshot = await look(runtime)
        await runtime.put_state(Note, "a", Note(text="two"), expected=version(snapshot))
        assert await runtime.get(Note, "a").read() == "two"
        assert (await look(runtime)).revision == 2

        conflict = await refused(runtime, version(snapshot))
        now = await look(runtime)
        assert (conflict.key, conflict.expected) == (now.key, 1)
        assert (conflict.revision, conflict.digest) == version(now)
        assert conflict.json == now.json
        assert await runtime.get(Note, "a").read() == "two"


async def test_a_change_since_the_snapshot_is_not_lost(storage: Storage) -> None:
    async with DurableRuntime(storage, objects=[Note], runner=InlineRunner) as runtime:
        note = runtime.get(Note, "a")
        await note.write("one")
        snapshot = await shown(runtime)
        await note.write("two")
        conflict = await refused(runtime, version(snapshot))
        assert json.loads(conflict.json or "")["text"] == "two"
        assert await note.read() == "two"
        expected = conflict.revision, conflict.digest
        await runtime.put_state(Note, "a", Note(text="three"), expected=expected)
        assert await note.read() == "three"


async def test_nothing_may_be_stored() -> None:
    async with DurableRuntime(":memory:") as runtime:
        assert version(await watched(runtime)) == (0, None)
        await runtime.get(Note, "a").read()  # which doesn't store it
        await runtime.put_state(Note, "a", Note(text="new"), expected=(0, None))
        conflict = await refused(runtime, (0, None))
        assert (conflict.expected, conflict.revision) == (0, 1)
        assert "expected no stored state, but revision 1 is stored" in str(conflict)


async def test_a_deleted_object_is_another_one() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Note, "a").write("one")
        snapshot = await shown(runtime)
        await runtime.delete(Note, "a")
        conflict = await refused(runtime, version(snapshot))
        assert (conflict.revision, conflict.digest, conflict.json) == (0, None, None)
        assert not await runtime.exists(Note, "a")

        await runtime.get(Note, "a").write("another one")
        conflict = await refused(runtime, version(snapshot))
        assert (conflict.expected, conflict.revision) == (1, 1)
        assert "another state is stored under that revision" in str(conflict)


async def test_the_same_state_is_no_change() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Note, "a").write("one")
        snapshot = await shown(runtime)
        await runtime.put_state(Note, "a", snapshot.state, expected=version(snapshot))
        assert (await shown(runtime)).revision == 1


@pytest.mark.parametrize(
    "expected",
    [(1, None), (0, "x"), (-1, "x"), (True, "x"), (False, None), ("1", "x"), (1.0, "x"), 1, (1,)],
)
async def test_what_is_no_pair_is_refused(expected: Any) -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(TypeError, match=r"\(snapshot\.revision, snapshot\.digest\)"):
            await runtime.put_state(Note, "a", Note(), expected=expected)


def test_the_error_can_be_pickled() -> None:
    error = StateConflict(ObjectKey("Note", "a"), "put_state", 1, 2, "d", "{}")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.json, copy.digest) == (str(error), "{}", "d")


# --- the object's turn ---------------------------------------------------------------------------


async def test_calls_that_are_queued_come_first() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        note = runtime.get(Note, "a")
        await note.write("one")
        snapshot = await shown(runtime)
        group.start(note.write_slowly, "two")
        await settle()
        putting = group.start(
            lambda: runtime.put_state(Note, "a", Note(text="three"), expected=version(snapshot))
        )
        await settle()
        assert not putting.done
        await putting.wait()
        assert isinstance(putting.error, StateConflict)
        assert putting.error.revision == 2
        assert await note.read() == "two"


async def test_a_deletion_and_another_first_state_in_the_mailbox_are_noticed() -> None:
    """SQLite keeps no epochs, so revision 1 looks the same."""
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        note = runtime.get(Note, "a")
        await note.write("one")
        snapshot = await shown(runtime)
        group.start(note.write_slowly, "one more")
        await settle()
        group.start(note.tear_up)
        await settle()
        group.start(note.write, "anew")
        await settle()
        putting = group.start(
            lambda: runtime.put_state(Note, "a", Note(text="put"), expected=version(snapshot))
        )
        await putting.wait()
        assert isinstance(putting.error, StateConflict)
        assert (putting.error.revision, await note.read()) == (1, "anew")


async def test_of_two_that_expect_the_same_one_is_refused() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        await runtime.get(Note, "a").write("one")
        expected = version(await shown(runtime))

        def put(text: str) -> Any:
            return group.start(
                lambda: runtime.put_state(Note, "a", Note(text=text), expected=expected)
            )

        outcomes = {text: put(text) for text in ("first", "second", "third")}
        for outcome in outcomes.values():
            await outcome.wait()
        [written] = [text for text, outcome in outcomes.items() if outcome.error is None]
        assert await runtime.get(Note, "a").read() == written


async def test_a_conflict_is_told_once_the_other_change_is_durable() -> None:
    storage = ScriptedStorage()
    async with threaded_runtime(storage) as runtime, calls() as group:
        await runtime.get(Note, "a").write("one")
        expected = version(await shown(runtime))
        with storage.blocked_writer():
            group.start(runtime.get(Note, "a").write, "two")
            await anyio.to_thread.run_sync(storage.writer_busy.wait)
            putting = group.start(
                lambda: runtime.put_state(Note, "a", Note(text="put"), expected=expected)
            )
            await settle()
            assert not putting.done
        await putting.wait()
        assert isinstance(putting.error, StateConflict)
        assert (putting.error.revision, storage.states()["a"]) == (2, {"text": "two"})


async def test_a_change_by_another_owner_is_a_conflict() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Note, "a").write("one")
        expected = version(await shown(runtime))
        storage.overwrite("put.Note", "a", b'{"text":"theirs"}')
        conflict = await refused(runtime, expected)
        assert (conflict.revision, conflict.json) == (2, '{"text":"theirs"}')


async def test_a_refusal_for_another_reason_is_raised() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Note, "a").write("one")
        expected = version(await shown(runtime))
        writer = storage._inner
        assert writer is not None
        commit = writer.commit
        writer.commit = lambda batch, now: set(range(len(batch)))  # type: ignore[method-assign]
        with pytest.raises(StaleObject):
            await runtime.put_state(Note, "a", Note(text="put"), expected=expected)
        writer.commit = commit  # type: ignore[method-assign]
        await runtime.put_state(Note, "a", Note(text="put"), expected=expected)
        assert storage.states()["a"] == {"text": "put"}


# --- where the object is -------------------------------------------------------------------------


async def test_objects_on_disk_in_memory_and_hibernated() -> None:
    async with DurableRuntime(":memory:") as runtime:
        note = runtime.get(Note, "a")
        await note.write("0")
        for number, away in enumerate((0, 15, 60), 1):
            await note.write(f"{number}")
            await anyio.sleep(away)
            info = runtime.whereis(Note, "a")
            assert (info and info.status) == {0: "active", 15: "hibernated", 60: None}[away]
            snapshot = await shown(runtime)
            await refused(runtime, (snapshot.revision - 1, snapshot.digest))
            await refused(runtime, (snapshot.revision, "0" * 32))
            await runtime.put_state(Note, "a", Note(text="put"), expected=version(snapshot))
            assert await note.read() == "put"


@pytest.mark.parametrize("later", [NoteOfTwoReleases, NoteWithToken])
@pytest.mark.parametrize("is_in_memory", [False, True])
async def test_a_row_that_this_release_would_write_in_another_way(
    later: type[Any], is_in_memory: bool
) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Note, "a").write("one")
    async with scripted_runtime(storage) as runtime:
        expected = version(await shown(runtime, later))
        if is_in_memory:
            assert await runtime.get(later, "a").read() == "one"
            expected = version(await shown(runtime, later))
        await refused(runtime, (expected[0], "0" * 32), later)
        await runtime.put_state(later, "a", later(text="two"), expected=expected)
        assert await runtime.get(later, "a").read() == "two"
        assert await runtime.get(later, "b").read() == ""
        await refused(runtime, expected, later)


async def test_a_row_that_can_not_be_read_is_replaced() -> None:
    storage = ScriptedStorage()
    storage.overwrite("put.Note", "a", b'{"text":7, "\xff')
    async with scripted_runtime(storage) as runtime:
        conflict = await refused(runtime, (2, "0"))
        assert (conflict.revision, conflict.json) == (1, '{"text":7, "\ufffd')
        expected = version(await shown(runtime))
        assert expected == (conflict.revision, conflict.digest)
        await runtime.put_state(Note, "a", Note(text="whole"), expected=expected)
        assert await runtime.get(Note, "a").read() == "whole"


async def test_a_state_that_could_not_be_stored_leaves_the_old_one() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Note, "a").write("one")
        expected = version(await shown(runtime))
        storage.fail_commits(PartialFault("the disk is full"))
        with pytest.raises(Exception, match="the disk is full"):
            await runtime.put_state(Note, "a", Note(text="lost"), expected=expected)
        await runtime.put_state(Note, "a", Note(text="two"), expected=expected)
        assert storage.states()["a"] == {"text": "two"}
