"""What is particular to SQLite files: opening, locking, faults, and what is in the file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import pytest
import sqlite_utils
import trio
import trio.testing

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectKey,
    PersistenceError,
    SchemaTooNew,
    SQLiteStorage,
    StaleObject,
    StateDecodeError,
    StorageInUse,
    StorageUnavailable,
    handler,
)
from trio_durable.storage import Commit, Durability, StorageFault, StoredObject, Writer
from trio_durable.storage.migrations import known_names
from trio_durable.storage.sqlite import _SQLiteWriter

NOW = 1_767_225_600_000_000

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes and permissions")


class Counter(DurableObject):
    n: int = 0
    text: str = ""

    @handler
    def add(self, amount: int = 1) -> int:
        self.n += amount
        return self.n

    @handler
    def write(self, text: str) -> None:
        self.text = text

    @handler
    def clear(self) -> None:
        self.ctx.delete()

    @handler(readonly=True)
    def value(self) -> int:
        return self.n


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"


def key(object_id: str) -> ObjectKey:
    return ObjectKey("Counter", object_id)


def connection_of(writer: Writer) -> sqlite3.Connection:
    assert isinstance(writer, _SQLiteWriter)
    return writer._connection


@contextmanager
def writing(storage: SQLiteStorage) -> Iterator[Writer]:
    with closing(storage.open_writer()) as writer:
        yield writer


def execute(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """Run a statement as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


def serving(
    storage: Path | SQLiteStorage,
    scenario: Callable[[DurableRuntime, sqlite3.Connection], Awaitable[None]],
) -> None:
    """Run ``scenario`` with a runtime whose writer's connection is at hand.

    Storage work runs inline, so that the connection may be used here.
    """

    async def main() -> None:
        async with DurableRuntime(storage, objects=[Counter], runner=InlineRunner) as runtime:
            await scenario(runtime, connection_of(runtime._writer))

    trio.run(main)


# --- the connection ------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_wal_and_synchronous_are_set(path: Path, durability: Durability, level: int) -> None:
    with writing(SQLiteStorage(path, durability=durability)) as writer:
        connection = connection_of(writer)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_full_is_the_default(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        assert connection_of(writer).execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_the_runtime_passes_durability_on(path: Path, durability: Durability, level: int) -> None:
    async def main() -> None:
        async with DurableRuntime(path, durability=durability, runner=InlineRunner) as runtime:
            connection = connection_of(runtime._writer)
            assert connection.execute("PRAGMA synchronous").fetchone() == (level,)

    trio.run(main)


def test_durability_is_checked(path: Path) -> None:
    with pytest.raises(ValueError, match="durability must be"):
        SQLiteStorage(path, durability="off")  # type: ignore[arg-type]


def test_the_reader_cannot_write(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage), closing(storage.open_reader()) as reader:
        connection: sqlite3.Connection = reader._connection  # type: ignore[attr-defined]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM durable_objects")


def executed(traced: list[str]) -> list[str]:
    """The statements that were executed; SQLite traces each start of a trigger as one more."""
    return [text for text, _ in groupby(traced)]


@pytest.mark.parametrize("rows", [1, 2, 64, 1000])
def test_a_batch_of_saves_is_one_statement(path: Path, rows: int) -> None:
    with writing(SQLiteStorage(path)) as writer:
        statements: list[str] = []
        connection_of(writer).set_trace_callback(statements.append)
        for revision in range(2):
            statements.clear()
            writer.commit([Commit(key(f"{n}"), revision, b"{}") for n in range(rows)], NOW)
            assert len(executed(statements)) == 1, [s[:80] for s in statements]
            assert statements[0].lstrip().startswith("INSERT INTO")
        connection_of(writer).set_trace_callback(None)


def test_statements_with_stale_rows_do_not_grow_with_the_batch(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        counts = []
        for rows in (4, 400):
            batch = [Commit(key(f"{rows}/{n}"), n % 2, b"{}") for n in range(rows)]
            statements: list[str] = []
            connection_of(writer).set_trace_callback(statements.append)
            assert sorted(writer.commit(batch, NOW)) == list(range(1, rows, 2))
            connection_of(writer).set_trace_callback(None)
            counts.append(len(executed(statements)))
        assert counts[0] == counts[1]


def test_the_time_of_a_commit_is_noted(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"1"), Commit(key("b"), 0, b"1")], NOW)
        # Once on its own and once with a stale commit in the batch.
        writer.commit([Commit(key("a"), 1, b"2")], NOW + 1)
        writer.commit([Commit(key("b"), 1, b"2"), Commit(key("c"), 9, b"2")], NOW + 2)
    rows = execute(path, "SELECT object_id, revision, updated_at FROM durable_objects ORDER BY 1")
    assert rows == [("a", 2, NOW + 1), ("b", 2, NOW + 2)]


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


# --- files that can't be opened ------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(StorageUnavailable) as caught:
        SQLiteStorage(path).open_writer()
    assert caught.value.location == os.path.realpath(path)
    return str(caught.value)


def test_not_a_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)
    assert "it is not an SQLite file" in refused(path)
    assert path.read_bytes() == b"Dear diary, " * 100
    # The lock was let go: the same again, not StorageInUse.
    assert "it is not an SQLite file" in refused(path)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "make it first" in refused(tmp_path / "nowhere" / "objects.db")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "objects.db").mkdir()
    assert "it is a folder" in refused(tmp_path / "objects.db")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "there is no folder" in refused(tmp_path / "file" / "objects.db")


def test_a_newer_schema(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    execute(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        *("trio_durable", "m999_from_the_future", "2099-01-01"),
    )
    for _ in range(2):  # the lock is let go each time
        with pytest.raises(SchemaTooNew) as caught:
            SQLiteStorage(path).open_writer()
        assert caught.value.unknown == ("m999_from_the_future",)
        assert "upgrade" in str(caught.value)


def test_migrations_of_others_do_not_matter(path: Path) -> None:
    """The file may be shared with an application that keeps its own tables there."""
    SQLiteStorage(path).open_writer().close()
    execute(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        *("somebody_else", "m999_from_the_future", "2099-01-01"),
    )
    execute(path, "CREATE TABLE theirs (x)")
    SQLiteStorage(path).open_writer().close()
    assert execute(path, "SELECT count(*) FROM theirs") == [(0,)]


def test_locked_by_another_program(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="another program has it locked"):
            SQLiteStorage(path, busy_timeout=0).open_writer()
        other.execute("COMMIT")
        SQLiteStorage(path, busy_timeout=0).open_writer().close()


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from trio_durable import SQLiteStorage, StorageUnavailable

folder, target = map(Path, sys.argv[1:])
# Whatever is imported late is imported now, since it may not be readable later.
SQLiteStorage(folder / "warm-up.db").open_writer().close()
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    SQLiteStorage(target).open_writer().close()
except StorageUnavailable as error:
    print(type(error).__name__, error)
else:
    print("opened")
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def opened_unprivileged(folder: Path, target: Path) -> str:
    """What opening ``target`` says to a user who isn't root."""
    scratch = folder / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(scratch), str(target)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@posix_only
def test_an_unprivileged_user_can_open(open_folder: Path) -> None:
    """The counterproof for those below: it's the permission bits that they fail on."""
    mine = open_folder / "mine"
    mine.mkdir()
    mine.chmod(0o777)
    assert opened_unprivileged(open_folder, mine / "objects.db") == "opened\n"


@posix_only
def test_a_folder_that_cannot_be_written(open_folder: Path) -> None:
    folder = open_folder / "readonly"
    folder.mkdir()
    folder.chmod(0o555)
    answer = opened_unprivileged(open_folder, folder / "objects.db")
    assert answer.startswith("StorageUnavailable can't use")
    assert "is the folder writable?" in answer


@posix_only
def test_a_file_that_cannot_be_written(open_folder: Path) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    path = folder / "objects.db"
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"{}")], NOW)
    for file in folder.iterdir():
        file.chmod(0o666)
    path.chmod(0o444)
    folder.chmod(0o777)
    answer = opened_unprivileged(open_folder, path)
    assert answer.startswith("StorageUnavailable can't use")
    assert "make the file and its folder writable" in answer


@posix_only
def test_a_file_that_cannot_be_read(open_folder: Path) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    path = folder / "objects.db"
    SQLiteStorage(path).open_writer().close()
    (folder / "objects.db-lock").chmod(0o666)
    path.chmod(0o000)
    folder.chmod(0o777)
    answer = opened_unprivileged(open_folder, path)
    assert answer.startswith("StorageUnavailable can't use")
    assert "check the path and its permissions" in answer


# --- one runtime per file ------------------------------------------------------------------------


def test_in_use_names_this_process(path: Path) -> None:
    with writing(SQLiteStorage(path)), pytest.raises(StorageInUse) as caught:
        SQLiteStorage(path).open_writer()
    assert caught.value.pid == os.getpid()
    assert "of this process" in str(caught.value)
    SQLiteStorage(path).open_writer().close()


def test_a_second_runtime_is_refused_and_the_first_goes_on(path: Path) -> None:
    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        counter = runtime.get(Counter, "a")
        assert await counter.add() == 1
        with pytest.raises(StorageInUse):
            async with DurableRuntime(path):
                pytest.fail("two runtimes on one file")
        assert await counter.add() == 2

    serving(path, scenario)


def test_two_spellings_of_one_path_meet_at_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "objects.db"
    (tmp_path / "folder-link").symlink_to(folder)
    (tmp_path / "link.db").symlink_to(path)
    monkeypatch.chdir(folder)
    spellings = [
        SQLiteStorage("objects.db"),
        SQLiteStorage("../folder/./objects.db"),
        SQLiteStorage(tmp_path / "folder-link" / "objects.db"),
        SQLiteStorage(tmp_path / "link.db"),
        SQLiteStorage(path),
    ]
    # A relative path means the folder that was current when it was given.
    monkeypatch.chdir(tmp_path)
    for holder in spellings:
        with writing(holder):
            for other in spellings:
                with pytest.raises(StorageInUse):
                    other.open_writer()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["folder", "folder-link", "link.db"]


HOLDER = """
import os, sys
from trio_durable import SQLiteStorage

writer = SQLiteStorage(sys.argv[1]).open_writer()
if "fork" not in sys.argv or os.fork() == 0:
    # Said by the child itself, so that it is known to have come out of its fork.
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the file until it's killed, and the pid it was told."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_in_use_names_the_other_process_and_ends_with_its_kill(path: Path) -> None:
    with holding(path) as (process, _):
        with pytest.raises(StorageInUse) as caught:
            SQLiteStorage(path).open_writer()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        SQLiteStorage(path).open_writer().close()


@posix_only
def test_a_forked_child_does_not_keep_the_lock(path: Path) -> None:
    with holding(path, "fork") as (process, child):
        with pytest.raises(StorageInUse) as caught:
            SQLiteStorage(path).open_writer()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        SQLiteStorage(path).open_writer().close()
        # Its end of the pipe is the last one now, so it ends by itself when that closes.


@posix_only
def test_a_forked_child_that_ends_does_not_release_the_lock(path: Path) -> None:
    code = """
import os, sys
from trio_durable import SQLiteStorage, StorageInUse

writer = SQLiteStorage(sys.argv[1]).open_writer()
if (child := os.fork()) == 0:
    os._exit(0)
os.waitpid(child, 0)
try:
    SQLiteStorage(sys.argv[1]).open_writer()
except StorageInUse as error:
    print(error.pid == os.getpid())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@posix_only
def test_a_lock_that_cannot_be_noted_is_let_go(path: Path) -> None:
    """The disk is full while opening; once there is space the same process can open."""
    code = """
import resource, sys
from trio_durable import SQLiteStorage, StorageUnavailable

resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    SQLiteStorage(sys.argv[1]).open_writer()
except StorageUnavailable as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
SQLiteStorage(sys.argv[1]).open_writer().close()
print("opened")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "StorageUnavailable\nopened\n", done.stderr


def test_the_lock_file_stays(path: Path) -> None:
    """Removing it would race with the next holder."""
    SQLiteStorage(path).open_writer().close()
    assert path.with_name("objects.db-lock").exists()


def test_the_lock_outlives_the_connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next holder finds the file closed, and its log checkpointed."""
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"{}")], NOW)
        order: list[str] = []
        assert isinstance(writer, _SQLiteWriter)
        release = writer._lock.release

        def released() -> None:
            order.append("wal" if path.with_name("objects.db-wal").exists() else "closed")
            release()

        monkeypatch.setattr(writer._lock, "release", released)
    assert order == ["closed"]


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
            connection = connection_of(runtime._writer)
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


# --- rows that others have spoilt ----------------------------------------------------------------

SPOILT = {
    "BLOB": 'CAST(\'{"n":1,"text":""}\' AS BLOB)',
    "BLOB that isn't text": "x'ff00ff'",
    "large BLOB": "zeroblob(100000)",
    "invalid UTF-8": "CAST(x'22ff22' AS TEXT)",
    "large invalid UTF-8": "CAST(zeroblob(100000) || x'ff' AS TEXT)",
    "empty": "''",
    "NUL in front": "char(0) || '{}'",
    "NUL behind": '\'{"n":1,"text":""}\' || char(0)',
    "no JSON": "'hello'",
    "cut off": "'{\"n\":1'",
    "another shape": "'[1,2]'",
    "another type": '\'{"n":"one","text":""}\'',
    "JSON null": "'null'",
    "number": "17",
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_row_does_not_keep_others_from_loading(path: Path, spoilt: str) -> None:
    with writing(SQLiteStorage(path)) as writer:
        state = b'{"n":1,"text":""}'
        writer.commit([Commit(key(one), 0, state) for one in ("good", "bad", "fine")], NOW)
    execute(path, f"UPDATE durable_objects SET state = {spoilt} WHERE object_id = 'bad'")
    raw = "SELECT typeof(state), hex(state), revision FROM durable_objects WHERE object_id = 'bad'"
    before = execute(path, raw)
    readable = spoilt == SPOILT["BLOB"]  # its bytes are JSON

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


def test_a_spoilt_row_can_be_replaced(path: Path) -> None:
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


# --- reopening and migrations --------------------------------------------------------------------


def test_reopened_by_a_new_runtime(path: Path) -> None:
    for expected in (1, 2, 3):

        async def scenario(
            runtime: DurableRuntime, _: sqlite3.Connection, expected: int = expected
        ) -> None:
            assert await runtime.get(Counter, "a").add() == expected
            info = runtime.whereis(Counter, "a")
            assert info is not None
            assert info.revision == expected

        serving(path, scenario)


def test_closed_means_one_file(path: Path) -> None:
    """The log is checkpointed and gone, so that the file can be copied."""

    async def scenario(runtime: DurableRuntime, _: sqlite3.Connection) -> None:
        await runtime.get(Counter, "a").add()

    serving(path, scenario)
    assert sorted(f.name for f in path.parent.iterdir()) == ["objects.db", "objects.db-lock"]


def schema(path: Path) -> dict[str, object]:
    with closing(sqlite3.connect(path)) as connection:
        db = sqlite_utils.Database(connection)
        return {
            "schema": db.schema,
            "applied": [
                row["name"] for row in db.query("SELECT name FROM _sqlite_migrations ORDER BY id")
            ],
        }


def test_migrations_make_the_schema(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        db = sqlite_utils.Database(connection)
        assert set(db.table_names()) == {
            "durable_objects",
            "durable_alarms",
            "_sqlite_migrations",
        }
        table = db.table("durable_objects")
        assert [(c.name, c.type, c.notnull) for c in table.columns] == [
            ("type_name", "TEXT", 1),
            ("object_id", "TEXT", 1),
            ("revision", "INTEGER", 1),
            ("updated_at", "INTEGER", 1),
            ("state", "TEXT", 1),
        ]
        assert table.pks == ["type_name", "object_id"]
        assert table.count == 0


def test_migrations_are_applied_once(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"{}")], NOW)
    first = schema(path)
    assert first["applied"] == sorted(known_names())
    SQLiteStorage(path).open_writer().close()
    assert schema(path) == first
    assert execute(path, "SELECT count(*) FROM durable_objects") == [(1,)]


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    SQLiteStorage(path).open_writer().close()
    assert schema(path)["applied"] == sorted(known_names())
