"""SQLite files under faults: failed batches, faults while serving, corrupt rows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
import trio
import trio.testing

from trio_durable import (
    DurableRuntime,
    InlineRunner,
    PersistenceError,
    SQLiteStorage,
    StaleObject,
    StateDecodeError,
    StorageUnavailable,
)
from trio_durable.storage import Commit, StorageFault, StoredObject

from .files import CORRUPT, NOW, Counter, connection_of, execute, key, serving, writing

# --- a batch that fails leaves nothing -----------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True], ids=["saves only", "taken apart"])
def test_a_failed_batch_applies_nothing(path: Path, stale: bool) -> None:
    """One row of the batch is refused by the file, for a reason that isn't its revision."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        writer.commit([Commit(key("a"), 0, b"1"), Commit(key("z"), 0, b"1")], NOW)
        execute(
            path,
            "CREATE TRIGGER refuse BEFORE INSERT ON durable_objects WHEN NEW.object_id = 'bad' "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        batch = [Commit(key("a"), 1, b"2"), Commit(key("bad"), 0, b"2"), Commit(key("c"), 0, b"2")]
        if stale:
            batch += [Commit(key("stale"), 5, b"2"), Commit(key("z"), 1, delete=True)]
        with pytest.raises(StorageFault, match="refused by a trigger"):
            writer.commit(batch, NOW)
        assert not connection_of(writer).in_transaction
        ids = ["a", "bad", "c", "z"]
        before = [StoredObject(1, b"1"), None, None, StoredObject(1, b"1")]
        assert reader.load([key(one) for one in ids]) == before
        # And the writer goes on.
        execute(path, "DROP TRIGGER refuse")
        writer.commit(batch, NOW)
        assert reader.load([key("bad")]) == [StoredObject(1, b"2")]


def test_a_deletion_that_fails_takes_the_saves_with_it(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        writer.commit([Commit(key("a"), 0, b"1"), Commit(key("b"), 0, b"1")], NOW)
        execute(
            path,
            "CREATE TRIGGER refuse BEFORE DELETE ON durable_objects "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        with pytest.raises(StorageFault, match="refused by a trigger"):
            writer.commit([Commit(key("a"), 1, b"2"), Commit(key("b"), 1, delete=True)], NOW)
        assert reader.load([key("a"), key("b")]) == [StoredObject(1, b"1")] * 2


# --- faults while serving ------------------------------------------------------------------------


def test_disk_full(path: Path) -> None:
    async def scenario(runtime: DurableRuntime, connection: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        other = runtime.get(Counter, "b")
        assert await counter.add() == 1
        assert await other.add() == 1
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(PersistenceError, match="full") as caught:
            await counter.write("x" * 100_000)
        assert caught.value.key == key("a")
        assert caught.value.action == "save"
        assert isinstance(caught.value.__cause__, StorageFault)
        assert runtime.whereis(Counter, "a") is None
        # What is stored counts, for it and for the others; what fits is served on.
        assert await counter.value() == 1
        assert await other.add() == 2
        assert (await runtime.get_state(Counter, "a")).text == ""
        connection.execute("PRAGMA max_page_count = 1000000")
        await counter.write("x" * 100_000)
        assert await counter.add() == 2

    serving(path, scenario)
    ((revision, text),) = execute(
        path, "SELECT revision, state ->> 'text' FROM durable_objects WHERE object_id = 'a'"
    )
    assert revision == 3
    assert text == "x" * 100_000


class HeldRunner(InlineRunner):
    """Runs jobs inline, but while it is held it keeps what is posted."""

    held = False
    kept: ClassVar[list[Callable[[], object]]] = []

    def post(self, job: Callable[[], object]) -> None:
        if HeldRunner.held:
            HeldRunner.kept.append(job)
        else:
            super().post(job)

    @classmethod
    def release(cls) -> None:
        cls.held = False
        for job in cls.kept:
            job()
        cls.kept.clear()


def test_all_callers_behind_a_full_disk_fail(path: Path) -> None:
    async def main() -> None:
        async with DurableRuntime(path, objects=[Counter], runner=HeldRunner) as runtime:
            connection = connection_of(runtime._open().sides.writer)
            counter = runtime.get(Counter, "a")
            await counter.add()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            failed: list[str] = []

            async def attempt(call: Callable[[], Awaitable[object]], name: str) -> None:
                with pytest.raises(PersistenceError, match="full"):
                    await call()
                failed.append(name)

            HeldRunner.held = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt, lambda: counter.write("x" * 100_000), "write")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(attempt, counter.add, "add")
                await trio.testing.wait_all_tasks_blocked()
                # It shows what isn't durable, so it is held back and fails as well.
                nursery.start_soon(attempt, counter.value, "value")
                await trio.testing.wait_all_tasks_blocked()
                assert failed == []
                HeldRunner.release()
            assert sorted(failed) == ["add", "value", "write"]
            connection.execute("PRAGMA max_page_count = 1000000")
            assert await counter.value() == 1
            assert await counter.add() == 2

    trio.run(main)


@pytest.mark.parametrize("deletion", [False, True], ids=["save", "deletion"])
def test_a_locked_file_during_a_commit(path: Path, deletion: bool) -> None:
    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        assert await counter.add() == 1
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(PersistenceError, match="locked"):
                await (counter.clear() if deletion else counter.add())
            # Reading goes on meanwhile.
            assert await counter.value() == 1
            other.execute("COMMIT")
        assert await counter.add() == 2

    serving(SQLiteStorage(path, busy_timeout=0), scenario)


def test_a_locked_file_is_waited_for(path: Path) -> None:
    """Another program's short transaction is no fault. Here it ends in a thread of its own."""
    with writing(SQLiteStorage(path, busy_timeout=60)) as writer:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            thread = threading.Thread(target=other.execute, args=("COMMIT",))
            thread.start()
            writer.commit([Commit(key("a"), 1, b"2")], NOW)
            thread.join()
    assert execute(path, "SELECT revision FROM durable_objects") == [(2,)]


def test_another_program_wrote_the_row(path: Path) -> None:
    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        await counter.add()
        execute(path, """UPDATE durable_objects SET revision = 2, state = '{"n":50,"text":""}'""")
        with pytest.raises(StaleObject) as caught:
            await counter.add()
        assert caught.value.revision == 1
        assert await counter.value() == 50
        assert await counter.add() == 51

    serving(path, scenario)
    assert execute(path, "SELECT revision FROM durable_objects") == [(3,)]


def test_another_program_deleted_the_row(path: Path) -> None:
    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        await counter.add(5)
        execute(path, "DELETE FROM durable_objects")
        with pytest.raises(StaleObject):
            await counter.add()
        assert await counter.add() == 1

    serving(path, scenario)


def test_a_lost_table_while_serving(path: Path) -> None:
    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        await counter.add()
        execute(path, "ALTER TABLE durable_objects RENAME TO gone")
        with pytest.raises(PersistenceError, match="no such table"):
            await counter.add()
        with pytest.raises(PersistenceError, match="could not load") as caught:
            await counter.value()
        assert caught.value.action == "load"
        with pytest.raises(StorageUnavailable, match="no such table"):
            await runtime.list_objects(Counter)
        execute(path, "ALTER TABLE gone RENAME TO durable_objects")
        assert await counter.add() == 2

    serving(path, scenario)


# --- rows that another program has corrupted -----------------------------------------------------


@pytest.mark.parametrize("corrupt", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupt_row_does_not_keep_others_from_loading(path: Path, corrupt: str) -> None:
    with writing(SQLiteStorage(path)) as writer:
        state = b'{"n":1,"text":""}'
        writer.commit([Commit(key(one), 0, state) for one in ("good", "bad", "fine")], NOW)
    execute(path, f"UPDATE durable_objects SET state = {corrupt} WHERE object_id = 'bad'")
    raw = "SELECT typeof(state), hex(state), revision FROM durable_objects WHERE object_id = 'bad'"
    before = execute(path, raw)
    readable = corrupt == CORRUPT["BLOB"]  # its bytes are JSON

    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        answers: dict[str, object] = {}

        async def ask(object_id: str) -> None:
            try:
                answers[object_id] = await runtime.get(Counter, object_id).value()
            except StateDecodeError as error:
                answers[object_id] = error

        # Together, so that one read brings all three.
        async with trio.open_nursery() as nursery:
            for object_id in ("good", "bad", "fine"):
                nursery.start_soon(ask, object_id)
        assert answers["good"] == 1
        assert answers["fine"] == 1
        error = answers["bad"]
        if readable:
            assert error == 1
        else:
            assert isinstance(error, StateDecodeError)
            assert error.key == key("bad")
            assert "Counter('bad')" in str(error)
            with pytest.raises(StateDecodeError):
                await runtime.get(Counter, "bad").add()
        assert await runtime.list_objects(Counter) == ["bad", "fine", "good"]

    serving(path, scenario)
    assert execute(path, raw) == before


def test_a_corrupt_row_can_be_replaced(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"{}"), Commit(key("b"), 0, b"{}")], NOW)
    execute(path, "UPDATE durable_objects SET state = x'ff'")

    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        with pytest.raises(StateDecodeError):
            await runtime.get(Counter, "a").value()
        await runtime.put_state(Counter, "a", Counter(n=7))
        assert await runtime.get(Counter, "a").add() == 8
        await runtime.delete(Counter, "b")
        assert await runtime.get(Counter, "b").add() == 1

    serving(path, scenario)
