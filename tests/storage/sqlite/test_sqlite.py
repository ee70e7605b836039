"""What is particular to SQLite files: opening, locking, faults, and what is in the file."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import ClassVar

import attrs
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
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    AlarmStatus,
    Commit,
    DueAlarm,
    Durability,
    NewAlarm,
    Postponement,
    Reader,
    StorageFault,
    StoredAlarm,
    StoredObject,
    Writer,
)
from trio_durable.storage.sqlite._alarms import MAX_ROWS, AlarmTable
from trio_durable.storage.sqlite._lock import FileLock
from trio_durable.storage.sqlite._migrations import Schema, TableNames, migrations_of
from trio_durable.storage.sqlite._tables import _MAX_KNOWN
from trio_durable.storage.sqlite._writer import SQLiteWriter

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
    assert isinstance(writer, SQLiteWriter)
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


@pytest.mark.parametrize(
    "use",
    [SQLiteStorage.open_writer, SQLiteStorage.open_reader, SQLiteStorage.pending_migrations],
)
def test_an_sqlite_that_is_too_old(
    path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[SQLiteStorage], object]
) -> None:
    """Where the file comes from a newer one, whoever only reads would meet it first."""
    SQLiteStorage(path).open_writer().close()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    with pytest.raises(StorageUnavailable, match=r"3\.38 or newer is needed"):
        use(SQLiteStorage(path))


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
        assert isinstance(writer, SQLiteWriter)
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
            "durable_tenants",
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
    assert first["applied"] == [m.name for m in migrations_of("")._migrations]
    SQLiteStorage(path).open_writer().close()
    assert schema(path) == first
    assert execute(path, "SELECT count(*) FROM durable_objects") == [(1,)]


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    SQLiteStorage(path).open_writer().close()
    assert schema(path)["applied"] == [m.name for m in migrations_of("")._migrations]


# --- tenants -------------------------------------------------------------------------------------


ODD_TENANTS = [
    "a",
    "0",
    "a-b",
    "a_b",
    "a--",
    "a__",
    "sqlite",
    "sqlite_master",
    "pg_catalog",
    "select",
    "durable",
    "durable_objects",
    "tenant_a",
    "0123456789abcdefghijklmnopqrstuvwxyz_-" + 10 * "x",
    48 * "z",
]
"""Every character that a name may have, names of SQL's, and names that are nearly each other's."""


def theirs(tenant: str, object_id: str = "a") -> ObjectKey:
    return ObjectKey("Counter", object_id, tenant)


def of_tenant(
    tenant: str,
    object_id: str,
    *names: str,
    state: bytes | None = None,
    revision: int | None = None,
) -> Commit:
    """Save an object of a tenant and set alarms of it."""
    changed: dict[str, NewAlarm | None] = {name: NewAlarm(NOW, None) for name in names}
    if revision is None and state is not None:
        revision = 0
    alarms = AlarmChanges(changed=changed) if names else None
    return Commit(theirs(tenant, object_id), revision, state, alarms=alarms)


def test_any_name_that_a_tenant_may_have_can_have_tables(path: Path) -> None:
    storage = SQLiteStorage(path)
    for opening in range(2):
        with writing(storage) as writer, closing(storage.open_reader()) as reader:
            for n, tenant in enumerate(ODD_TENANTS):
                commit = of_tenant(tenant, "a", "x", state=f"{n}".encode(), revision=opening)
                assert writer.commit([commit], NOW) == (), tenant
            assert reader.list_tenants(None, 100) == sorted(ODD_TENANTS)
            rows = reader.load([theirs(tenant) for tenant in ODD_TENANTS])
            assert rows == [
                StoredObject(opening + 1, f"{n}".encode()) for n, _ in enumerate(ODD_TENANTS)
            ]
            for tenant in ODD_TENANTS:
                alarm = AlarmKey("Counter", "a", "x", tenant)
                due = reader.due_alarms(NOW + 1, None, 10, (), tenant)
                assert due == [DueAlarm(NOW, alarm)]
                assert len(writer.claim([alarm], 1 + opening, NOW, NOW)) == 1


def test_what_the_tables_of_a_tenant_are_called(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        common = names_in(path)
        writer.commit([of_tenant("a-b", "a", state=b"1")], NOW)
        assert names_in(path) - common == {
            "tenant_a-b_durable_objects",
            "tenant_a-b_durable_objects_begin_at_1",
            "tenant_a-b_durable_alarms",
            "tenant_a-b_durable_alarms_by_time",
            "tenant_a-b_durable_alarms_claimed",
        }
        assert writer.drop_tenant("a-b")
        assert names_in(path) == common


def test_the_tables_of_a_tenant_are_as_those_of_the_file(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([of_tenant("a-b", "a", state=b"1")], NOW)
    rows = execute(path, "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL")
    schema = {str(name): str(sql) for name, sql in rows}
    made = [name for name in schema if name.startswith("tenant_a-b_")]
    assert len(made) == 5
    for name in made:
        common = schema[name].replace("tenant_a-b_", "").replace('"', "")
        assert common == schema[name.removeprefix("tenant_a-b_")]


def test_tables_are_made_in_the_transaction_that_first_writes_something(path: Path) -> None:
    """Nobody sees them half made: neither a reader, nor who opens the file after a crash."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        seen: list[tuple[StoredObject | None, list[str]]] = []

        def look(_: str) -> None:
            (row,) = reader.load([theirs("acme")])
            seen.append((row, reader.list_tenants(None, 10)))
            storage.open_reader().close()

        connection_of(writer).set_trace_callback(look)
        writer.commit([of_tenant("acme", "a", "x", state=b"1")], NOW)
        connection_of(writer).set_trace_callback(None)
        assert len(seen) > 10
        assert set(map(repr, seen)) == {repr((None, []))}
        assert reader.load([theirs("acme")]) == [StoredObject(1, b"1")]


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
def test_a_batch_that_fails_leaves_no_tables_of_a_new_tenant(path: Path, stale: bool) -> None:
    """Wherever it is interrupted."""
    storage = SQLiteStorage(path)
    batch = [
        Commit(key("a"), 0, b"1"),
        of_tenant("acme", "a", "x", state=b"1"),
        of_tenant("beta", "a", state=b"1"),
    ]
    if stale:
        batch.append(of_tenant("acme", "b", state=b"1", revision=7))
    other = SQLiteStorage(path.with_name("other.db"))
    with writing(other) as writer, closing(other.open_reader()) as reader:
        steps = steps_of(writer, reader, lambda: writer.commit(batch, NOW))
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        before = names_in(path)
        connection = connection_of(writer)
        for place in range(1, 20):
            left = steps * place // 20

            def interrupt() -> int:
                nonlocal left
                left -= 1
                return left == 0

            connection.set_progress_handler(interrupt, 1)
            with pytest.raises(StorageFault, match="interrupted"):
                writer.commit(batch, NOW)
            connection.set_progress_handler(None, 1)
            assert not connection.in_transaction
            assert names_in(path) == before
            assert reader.list_tenants(None, 10) == []
            assert reader.load([c.key for c in batch]) == [None] * len(batch)
        assert sorted(writer.commit(batch, NOW)) == ([3] if stale else [])
        assert reader.list_tenants(None, 10) == ["acme", "beta"]
        assert reader.load([c.key for c in batch[:3]]) == [StoredObject(1, b"1")] * 3


def test_a_tenant_that_is_made_while_a_reader_opens_does_not_keep_it_from_that(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of tenants and that of migrations are of one moment."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        names = (f"n{n}" for n in count())
        applied = Schema._applied

        def made_meanwhile(schema: Schema) -> list[tuple[str, str]]:
            found = list(applied(schema))
            writer.commit([of_tenant(next(names), "a", state=b"1")], NOW)
            return found

        monkeypatch.setattr(Schema, "_applied", made_meanwhile)
        with closing(storage.open_reader()) as reader:
            assert reader.load([theirs("n0")]) == [StoredObject(1, b"1")]
        assert storage.pending_migrations() == []


def test_a_tenant_that_is_dropped_while_it_is_read_is_read_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
        has_tenant = Schema.has_tenant

        def dropped_meanwhile(schema: Schema, tenant: str) -> bool:
            found = has_tenant(schema, tenant)
            monkeypatch.undo()
            assert writer.drop_tenant("acme") is True
            return found

        monkeypatch.setattr(Schema, "has_tenant", dropped_meanwhile)
        assert reader.load([theirs("acme")]) == [StoredObject(1, b"1")]
        assert reader.load([theirs("acme")]) == [None]


@pytest.mark.parametrize("work", ["list tenants", "load", "due", "commit", "claim"])
def test_what_is_done_for_one_tenant_does_not_grow_with_their_number(path: Path, work: str) -> None:
    found = []
    for tenants in (20, 100):
        storage = SQLiteStorage(path.with_name(f"{tenants}.db"))
        with writing(storage) as writer, closing(storage.open_reader()) as reader:
            names = [f"{n:03}" for n in range(tenants)]
            writer.commit([of_tenant(name, "a", "x", state=b"1") for name in names], NOW)
            alarm = AlarmKey("Counter", "a", "x", "010")
            jobs: dict[str, Callable[[], object]] = {
                "list tenants": partial(reader.list_tenants, "009", 5),
                "load": partial(reader.load, [theirs("010")]),
                "due": partial(reader.due_alarms, NOW, None, 10, (), "010"),
                "commit": lambda: writer.commit([of_tenant("010", "b", state=b"1")], NOW),
                "claim": partial(writer.claim, [alarm], 1, NOW, NOW),
            }
            writer.commit([of_tenant("010", "c", state=b"1")], NOW)
            reader.load([theirs("010")])  # the first reads the schema as well
            found.append(steps_of(writer, reader, jobs[work]))
    few, many = found
    assert 0 < many <= few * 1.05 + 5


def undo(path: Path, tenant: str, migration: str, *drops: str) -> None:
    """Let a migration of a tenant not have been applied."""
    for drop in drops:
        execute(path, drop)
    execute(
        path,
        "DELETE FROM _sqlite_migrations WHERE migration_set = ? AND name = ?",
        *(f"trio_durable:{tenant}" if tenant else "trio_durable", migration),
    )


def test_the_migrations_of_a_tenant_are_its_own(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
    found = execute(path, "SELECT migration_set, name FROM _sqlite_migrations ORDER BY id")
    of_everybody = ["m001_objects", "m002_alarms"]
    assert found == [
        *(("trio_durable", name) for name in [*of_everybody, "m003_tenants"]),
        *(("trio_durable:acme", name) for name in of_everybody),
    ]


def test_a_tenant_that_lacks_a_migration_is_brought_up_to_date(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        writer.commit([of_tenant(name, "a", state=b"1") for name in ("acme", "beta")], NOW)
    undo(path, "acme", "m002_alarms", 'DROP TABLE "tenant_acme_durable_alarms"')
    assert storage.pending_migrations() == ["m002_alarms of tenant acme"]
    with pytest.raises(StorageUnavailable, match="bring them up to date"):
        storage.open_reader()
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert storage.pending_migrations() == []
        assert reader.load([theirs("acme")]) == [StoredObject(1, b"1")]
        assert writer.commit([of_tenant("acme", "a", "x", state=b"2", revision=1)], NOW) == ()
        assert len(reader.list_alarms(theirs("acme"))) == 1


def test_a_tenant_that_was_noted_and_has_no_tables_gets_them(path: Path) -> None:
    storage = SQLiteStorage(path)
    storage.open_writer().close()
    execute(path, "INSERT INTO durable_tenants VALUES ('acme')")
    assert storage.pending_migrations() == [
        "m001_objects of tenant acme",
        "m002_alarms of tenant acme",
    ]
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert reader.load([theirs("acme")]) == [None]
        assert writer.commit([of_tenant("acme", "a", "x", state=b"1")], NOW) == ()


def test_a_file_from_before_tenants_is_migrated(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)
    undo(path, "", "m003_tenants", "DROP TABLE durable_tenants")
    assert storage.pending_migrations() == ["m003_tenants"]
    with pytest.raises(StorageUnavailable, match="trio-durable migrate"):
        storage.open_reader()
    assert storage.pending_migrations() == ["m003_tenants"]  # looking changes nothing
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert reader.load([key("a")]) == [StoredObject(1, b"1")]
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
        assert reader.list_tenants(None, 10) == ["acme"]


@pytest.mark.parametrize("tenant", ["", "acme", "unheard-of"])
def test_a_newer_migration_of_anybody_is_refused(path: Path, tenant: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
    execute(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        *(f"trio_durable:{tenant}" if tenant else "trio_durable", "m999_from_the_future", "2099"),
    )
    for attempt in (storage.open_writer, storage.open_reader, storage.pending_migrations):
        with pytest.raises(SchemaTooNew) as caught:
            attempt()
        assert caught.value.unknown == ("m999_from_the_future",)


def test_more_tenants_than_are_kept_at_hand(path: Path) -> None:
    storage = SQLiteStorage(path)
    names = [f"t{n:03}" for n in range(_MAX_KNOWN + 20)]
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        for revision in range(2):
            batch = [of_tenant(one, "a", "x", state=b"1", revision=revision) for one in names]
            assert writer.commit(batch, NOW) == ()
            for one in (*names[:3], *names[-3:]):
                commit = of_tenant(one, f"{revision}", state=b"1")
                assert writer.commit([commit], NOW) == ()
        rows = reader.load([theirs(one) for one in names])
        assert rows == [StoredObject(2, b"1")] * len(names)
        alarms = [AlarmKey("Counter", "a", "x", one) for one in names]
        assert [a.key for a in writer.claim(alarms, 1, NOW, NOW + 9)] == alarms
        assert writer.drop_tenant(names[0]) is True
        assert writer.drop_tenant(names[-1]) is True
        stale = [of_tenant(one, "a", state=b"1", revision=2) for one in (names[0], names[-1])]
        assert sorted(writer.commit(stale, NOW)) == [0, 1]
        assert reader.list_tenants(None, 1000) == names[1:-1]


@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
def test_what_a_batch_of_several_tenants_costs(path: Path, stale: bool) -> None:
    """One transaction, and a statement for each thing that is done in each of them."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        counts = []
        for tenants, rows in ((1, 8), (2, 8), (4, 8), (4, 400)):
            names = [f"t{n}" for n in range(tenants)]
            ids = [f"{tenants}/{rows}/{n}" for n in range(rows)]
            batch = [of_tenant(names[n % tenants], one, state=b"1") for n, one in enumerate(ids)]
            writer.commit(batch, NOW)  # makes the tables
            again = [attrs.evolve(commit, revision=1) for commit in batch]
            if stale:
                again[-1].revision = 5
            with traced(writer, reader) as statements:
                assert sorted(writer.commit(again, NOW)) == ([rows - 1] if stale else [])
            made = [text.split()[0] for text in executed(statements)]
            counts.append((made.count("BEGIN"), made.count("COMMIT"), made.count("INSERT")))
        if stale:
            # Tried as a whole first, for all tenants before the one that is refused.
            assert [begun for begun, _, _ in counts] == [1, 2, 2, 2]
            assert [done for _, done, _ in counts] == [1, 1, 1, 1]
            assert counts[2] == counts[3]
        else:
            assert counts == [(0, 0, 1), (1, 1, 2), (1, 1, 4), (1, 1, 4)]


def test_the_first_commit_of_a_tenant_is_one_transaction(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        with traced(writer, reader) as statements:
            writer.commit([of_tenant("acme", "a", "x", state=b"1")], NOW)
        made = [text.split()[0] for text in executed(statements)]
        assert made.count("BEGIN") == made.count("COMMIT") == 1


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_no_page_that_is_looked_through_begins_at_the_beginning(path: Path, tenant: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        ids = [f"{n:04}" for n in range(1000)]
        writer.commit([of_tenant(tenant, one, "x", "y", state=b"1") for one in ids], NOW)
        pages: list[Callable[[str], Sequence[object]]] = [
            lambda one: reader.browse_objects(None, theirs(tenant, one), 10, tenant),
            lambda one: reader.browse_objects("Counter", theirs(tenant, one), 10, tenant),
            lambda one: reader.list_ids("Counter", one, 10, tenant),
            *(
                partial(browsed_alarms, reader, tenant, status, type_name)
                for status in (None, "overdue")
                for type_name in (None, "Counter")
            ),
        ]
        for page in pages:
            with traced(writer, reader) as statements:
                assert len(page("0500")) == 10
            (select,) = [text for text in statements if "ORDER BY" in text]
            plan = connection_of(writer).execute(f"EXPLAIN QUERY PLAN {select}").fetchall()
            details = [step[3] for step in plan if "durable_" in step[3]]
            assert len(details) == 1, details
            assert details[0].startswith("SEARCH"), details
            assert "(type_name" in details[0], details
            assert not any("TEMP B-TREE" in step[3] for step in plan), plan
            steps = [steps_of(writer, reader, partial(page, one)) for one in ("0001", "0980")]
            assert max(steps) <= min(steps) * 1.1


def browsed_alarms(
    reader: Reader, tenant: str, status: AlarmStatus | None, type_name: str | None, after: str
) -> Sequence[object]:
    last = AlarmKey("Counter", after, "y", tenant)
    return reader.browse_alarms(status, NOW, type_name, last, 10, tenant)


# --- a reader by itself --------------------------------------------------------------------------


def test_a_reader_without_a_file_makes_none(path: Path) -> None:
    for attempt in (SQLiteStorage(path).open_reader, SQLiteStorage(path).pending_migrations):
        with pytest.raises(StorageUnavailable, match="there is no such file"):
            attempt()
    nowhere = SQLiteStorage(path.parent / "nowhere" / "objects.db")
    with pytest.raises(StorageUnavailable, match="there is no such file"):
        nowhere.open_reader()
    assert list(path.parent.iterdir()) == []


def test_a_reader_of_what_is_no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)
    for attempt in (SQLiteStorage(path).open_reader, SQLiteStorage(path).pending_migrations):
        with pytest.raises(StorageUnavailable, match="it is not an SQLite file"):
            attempt()
    assert path.read_bytes() == b"Dear diary, " * 100
    with pytest.raises(StorageUnavailable):
        SQLiteStorage(path.parent).open_reader()


def test_a_reader_of_a_file_that_nobody_has_opened_to_write(path: Path) -> None:
    path.touch()
    storage = SQLiteStorage(path)
    with pytest.raises(StorageUnavailable, match="it holds no durable objects; check the path"):
        storage.open_reader()
    assert storage.pending_migrations() == ["m001_objects", "m002_alarms", "m003_tenants"]
    assert path.read_bytes() == b""


@pytest.mark.parametrize("migrated", [False, True], ids=["plain", "migrated"])
def test_a_file_that_others_have_made_is_taken_by_writers_only(path: Path, migrated: bool) -> None:
    execute(path, "CREATE TABLE theirs (x)")
    if migrated:
        execute(path, "CREATE TABLE _sqlite_migrations (migration_set, name, applied_at)")
        execute(path, "INSERT INTO _sqlite_migrations VALUES ('others', 'm001_objects', '')")
    before = path.read_bytes()
    storage = SQLiteStorage(path)
    with pytest.raises(StorageUnavailable, match="it holds no durable objects; check the path"):
        storage.open_reader()
    with pytest.raises(StorageUnavailable, match="no durable objects; check the path"):
        storage.pending_migrations()
    assert path.read_bytes() == before
    path.unlink()
    execute(path, "CREATE TABLE theirs (x)")
    storage.open_writer().close()
    assert storage.pending_migrations() == []
    storage.open_reader().close()


def test_a_reader_that_is_refused_leaves_nothing_open(path: Path) -> None:
    path.touch()
    storage = SQLiteStorage(path)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            storage.open_reader()
    storage.open_writer().close()
    assert sorted(f.name for f in path.parent.iterdir()) == ["objects.db", "objects.db-lock"]


BESIDE = """
import sys
from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import Commit

writer = SQLiteStorage(sys.argv[1]).open_writer()
print("open", flush=True)
for n, line in enumerate(sys.stdin):
    tenant, _, done = line.strip().partition(" ")
    if done:
        writer.drop_tenant(tenant)
    else:
        writer.commit([Commit(ObjectKey("Counter", f"{n}", tenant), 0, b"1")], n)
    print(n, flush=True)
"""


def test_a_reader_beside_a_writer_in_another_process(path: Path) -> None:
    storage = SQLiteStorage(path)
    with subprocess.Popen(
        [sys.executable, "-c", BESIDE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"

        def tell(line: str) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline()

        with closing(storage.open_reader()) as reader:
            with pytest.raises(StorageInUse) as caught:
                storage.open_writer()
            assert caught.value.pid == process.pid
            assert storage.pending_migrations() == []
            tell("")
            assert [row.key for row in reader.browse_objects(None, None, 10)] == [key("0")]
            assert reader.list_tenants(None, 10) == []
            assert reader.browse_objects(None, None, 10, "acme") == []
            # Seen though this reader has known that it wasn't there.
            tell("acme")
            assert reader.list_tenants(None, 10) == ["acme"]
            assert reader.load([theirs("acme", "1")]) == [StoredObject(1, b"1")]
            assert [row.key for row in reader.browse_objects(None, None, 10, "acme")] == [
                theirs("acme", "1")
            ]
            tell("acme gone")
            assert reader.list_tenants(None, 10) == []
            assert reader.load([theirs("acme", "1")]) == [None]
            assert reader.summarize(NOW, "acme") == []
            tell("acme")
            assert reader.list_ids("Counter", None, 10, "acme") == ["3"]
        process.stdin.close()


def names_in(path: Path) -> set[object]:
    """The tables, triggers and indexes that were made by name."""
    return {name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE sql NOT NULL")}


# --- alarms: statements and their plans ----------------------------------------------------------


def alarm_key(name: str, object_id: str = "a") -> AlarmKey:
    return AlarmKey("Counter", object_id, name)


def setting(object_id: str, *names: str, due_at: int = NOW, payload: bytes | None = None) -> Commit:
    """Set alarms from outside."""
    changed: dict[str, NewAlarm | None] = {name: NewAlarm(due_at, payload) for name in names}
    return Commit(key(object_id), None, alarms=AlarmChanges(changed=changed))


def fill(writer: Writer, objects: int, *, due_at: int = NOW) -> list[AlarmKey]:
    """Set two alarms for each of many objects."""
    ids = [f"{n:05}" for n in range(objects)]
    for start in range(0, objects, 1000):
        batch = [setting(one, "x", "y", due_at=due_at) for one in ids[start : start + 1000]]
        assert writer.commit(batch, NOW) == ()
    return [alarm_key(name, one) for one in ids for name in "xy"]


def rows_of_alarms(path: Path) -> list[tuple[object, ...]]:
    return execute(path, "SELECT * FROM durable_alarms ORDER BY type_name, object_id, name")


def test_the_table_of_alarms(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        table = sqlite_utils.Database(connection).table("durable_alarms")
        assert [(c.name, c.type, c.notnull) for c in table.columns] == [
            ("type_name", "TEXT", 1),
            ("object_id", "TEXT", 1),
            ("name", "TEXT", 1),
            ("due_at", "INTEGER", 1),
            ("available_at", "INTEGER", 0),
            ("claim", "INTEGER", 0),
            ("failures", "INTEGER", 1),
            ("last_error", "TEXT", 0),
            ("payload", "TEXT", 0),
        ]
        assert table.pks == ["type_name", "object_id", "name"]
        assert "WITHOUT ROWID" in table.schema
        assert {i.name: i.columns for i in table.indexes if i.origin == "c"} == {
            "durable_alarms_by_time": ["available_at"],
            "durable_alarms_claimed": ["claim"],
        }
        # Partial, so that alarms that nobody claims cost nothing there.
        (sql,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'durable_alarms_claimed'"
        ).fetchone()
        assert sql.endswith("WHERE claim IS NOT NULL")


def test_an_alarm_as_another_program_sees_it(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([setting("a", "x", payload=b'{"n":"\\u00e9"}'), setting("a", "y")], NOW)
    columns = "name, due_at, available_at, claim, failures, last_error, payload ->> 'n'"
    assert execute(path, f"SELECT {columns} FROM durable_alarms ORDER BY name") == [
        ("x", NOW, NOW, None, 0, None, "é"),
        ("y", NOW, NOW, None, 0, None, None),
    ]
    types = execute(path, "SELECT typeof(due_at), typeof(payload) FROM durable_alarms")
    assert types == [("integer", "text"), ("integer", "null")]


def test_a_file_from_before_alarms_is_migrated(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)
    after = schema(path)
    execute(path, "DROP TABLE durable_alarms")
    execute(path, "DROP TABLE durable_tenants")
    execute(path, "DELETE FROM _sqlite_migrations WHERE name <> 'm001_objects'")
    with writing(SQLiteStorage(path)) as writer:
        assert schema(path) == after
        both = Commit(key("a"), 1, b"2", alarms=AlarmChanges(changed={"x": NewAlarm(NOW, None)}))
        assert writer.commit([both], NOW) == ()
    assert execute(path, "SELECT revision FROM durable_objects") == [(2,)]


BY_KEY = "PRIMARY KEY (type_name=? AND object_id=? AND name=?)"
BY_OBJECT = "PRIMARY KEY (type_name=? AND object_id=?)"

# What is done, and how each of its statements must find its alarms.
Work = Callable[[Writer, Reader, list[AlarmKey]], object]
PLANS: dict[str, tuple[Work, list[str]]] = {
    "acknowledge": (
        lambda writer, _, keys: writer.commit(acknowledging(keys, 1), NOW),
        [BY_KEY],
    ),
    "acknowledge what is lost": (
        lambda writer, _, keys: writer.commit(acknowledging(keys, 2), NOW),
        [BY_KEY, BY_KEY],
    ),
    "set": (
        lambda writer, _, keys: writer.commit([setting(k.object_id, k.name) for k in keys], NOW),
        [],
    ),
    "cancel": (lambda writer, _, keys: writer.commit(cancelling(keys), NOW), [BY_KEY]),
    "clear": (lambda writer, _, keys: writer.commit(clearing(keys), NOW), [BY_OBJECT]),
    "claim": (
        lambda writer, _, keys: writer.claim(keys, 3, NOW + 60, NOW + 90),
        [BY_KEY, "INDEX durable_alarms_claimed (claim=?)"],
    ),
    "renew": (
        lambda writer, _, keys: writer.renew([(one, 1) for one in keys], NOW + 90),
        [BY_KEY],
    ),
    "postpone": (
        lambda writer, _, keys: writer.postpone(
            [Postponement(one, 1, NOW + 90, 1, "no") for one in keys]
        ),
        [BY_KEY],
    ),
    "revive": (lambda writer, _, keys: writer.revive(keys[0], NOW), [BY_KEY]),
    "give back": (
        lambda writer, _, __: AlarmTable(connection_of(writer), TableNames()).give_back(),
        ["durable_alarms_claimed"],
    ),
    "due": (
        lambda _, reader, __: reader.due_alarms(NOW + 90, None, 10, ["Other"]),
        ["COVERING INDEX durable_alarms_by_time ("],
    ),
    "due behind one": (
        lambda _, reader, keys: reader.due_alarms(NOW + 90, DueAlarm(NOW, keys[9]), 10, ()),
        ["COVERING INDEX durable_alarms_by_time ("],
    ),
    "list": (lambda _, reader, keys: reader.list_alarms(keys[0].object_key), [BY_OBJECT]),
    "dead": (
        lambda _, reader, __: reader.list_dead_letters("Counter", None, 10),
        ["INDEX durable_alarms_by_time (available_at=? AND type_name=?"],
    ),
    "dead behind one": (
        lambda _, reader, keys: reader.list_dead_letters("Counter", keys[9], 10),
        ["INDEX durable_alarms_by_time (available_at=? AND type_name=?"],
    ),
}


def acknowledging(keys: list[AlarmKey], claim: int) -> list[Commit]:
    return [
        Commit(one, None, alarms=AlarmChanges(acknowledged=dict.fromkeys(names, claim)))
        for one, names in by_object(keys).items()
    ]


def cancelling(keys: list[AlarmKey]) -> list[Commit]:
    return [
        Commit(one, None, alarms=AlarmChanges(changed=dict.fromkeys(names)))
        for one, names in by_object(keys).items()
    ]


def clearing(keys: list[AlarmKey]) -> list[Commit]:
    return [Commit(one, None, alarms=AlarmChanges(clear=True)) for one in by_object(keys)]


def by_object(keys: list[AlarmKey]) -> dict[ObjectKey, list[str]]:
    names: dict[ObjectKey, list[str]] = {}
    for one in keys:
        names.setdefault(one.object_key, []).append(one.name)
    return names


@contextmanager
def table_of_alarms(path: Path, objects: int) -> Iterator[tuple[Writer, Reader, list[AlarmKey]]]:
    """Some are claimed and some dead; those that are given out are all claimed, by claim 1."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = fill(writer, objects)
        dead, claimed = keys[-20:], keys[:400]
        writer.claim(dead, 999, NOW, NOW)
        writer.postpone([Postponement(one, 999, None, 1, "no") for one in dead])
        assert len(writer.claim(claimed, 1, NOW, NOW + 50)) == 400
        yield writer, reader, claimed


@contextmanager
def traced(writer: Writer, reader: Reader) -> Iterator[list[str]]:
    """The statements that run inside the block."""
    statements: list[str] = []
    connections = (connection_of(writer), reader_connection(reader))
    for connection in connections:
        connection.set_trace_callback(statements.append)
    yield statements
    for connection in connections:
        connection.set_trace_callback(None)


def reader_connection(reader: Reader) -> sqlite3.Connection:
    connection: sqlite3.Connection = reader._connection  # type: ignore[attr-defined]
    return connection


@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
@pytest.mark.parametrize(("work", "expected"), PLANS.values(), ids=PLANS.keys())
def test_no_statement_looks_at_all_alarms(
    path: Path, work: Work, expected: list[str], analyzed: bool
) -> None:
    """However the planner sees the table."""
    with table_of_alarms(path, 500) as (writer, reader, keys):
        if analyzed:
            connection_of(writer).execute("ANALYZE")
        with traced(writer, reader) as statements:
            work(writer, reader, keys[:64])
        found: list[str] = []
        for statement in dict.fromkeys(statements):
            if "durable_alarms" not in statement:
                continue
            plan = connection_of(writer).execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            details = [step[3] for step in plan]
            # An alias of the table stands for it in the plan.
            names = ("durable_alarms", "a")
            for detail in details:
                verb, name, *_ = detail.split()
                assert not (verb == "SCAN" and name in names), (statement[:200], details)
            found += [d for d in details if d.split()[0] == "SEARCH" and d.split()[1] in names]
        assert len(found) == len(expected), found
        for detail, fragment in zip(found, expected, strict=True):
            # From statistics by which an object has few alarms, the planner concludes that their
            # names needn't be looked up.
            assert fragment in detail or (analyzed and fragment == BY_KEY and BY_OBJECT in detail)


def steps_of(writer: Writer, reader: Reader, work: Callable[[], object]) -> int:
    """How many instructions SQLite's machine needs: its work, with no clock in it."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connections = (connection_of(writer), reader_connection(reader))
    for connection in connections:
        connection.set_progress_handler(count, 1)
    work()
    for connection in connections:
        connection.set_progress_handler(None, 1)
    return steps


@pytest.mark.parametrize("work", [work for work, _ in PLANS.values()], ids=PLANS.keys())
def test_the_work_does_not_grow_with_the_table(path: Path, work: Work) -> None:
    found = []
    for objects in (400, 2000):
        with table_of_alarms(path.with_name(f"{objects}.db"), objects) as (writer, reader, keys):
            found.append(steps_of(writer, reader, partial(work, writer, reader, keys[:64])))
    small, large = found
    assert large <= small * 1.05 + 10


@pytest.mark.parametrize(
    "work",
    [PLANS[name][0] for name in PLANS if name.split()[0] not in ("due", "dead", "list", "give")],
    ids=[name for name in PLANS if name.split()[0] not in ("due", "dead", "list", "give")],
)
def test_the_work_is_proportional_to_the_alarms_asked_for(path: Path, work: Work) -> None:
    """Not to their square, though all of them have one claim."""
    found = []
    for rows in (32, 256):
        with table_of_alarms(path.with_name(f"{rows}.db"), 500) as (writer, reader, keys):
            some = keys[:rows]
            found.append(steps_of(writer, reader, partial(work, writer, reader, some)))
    few, many = found
    assert many <= few * 8 * 1.2


@pytest.mark.parametrize("dead", [False, True], ids=["due", "dead"])
def test_each_page_takes_the_same_work(path: Path, dead: bool) -> None:
    """All alarms have one time, so that only their keys tell them apart."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = fill(writer, 1000)
        if dead:
            for claim, start in enumerate(range(0, len(keys), 500), 1):
                some = keys[start : start + 500]
                writer.claim(some, claim, NOW, NOW)
                writer.postpone([Postponement(one, claim, None, 1, "no") for one in some])

        def page(after: AlarmKey) -> None:
            found: Sequence[DueAlarm | StoredAlarm]
            if dead:
                found = reader.list_dead_letters("Counter", after, 10)
            else:
                found = reader.due_alarms(NOW + 1, DueAlarm(NOW, after), 10, ())
            assert len(found) == 10

        page(keys[0])  # the first reads the schema as well
        places = (0, 1000, 1980)
        steps = [steps_of(writer, reader, partial(page, keys[place])) for place in places]
        assert max(steps) <= min(steps) * 1.05


@pytest.mark.parametrize("rows", [1, 2, 64, 500])
def test_a_batch_that_only_sets_alarms_from_outside_is_one_statement(path: Path, rows: int) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        for attempt in range(2):  # new ones, and then in their place
            batch = [setting(f"{n}", "x", "y", due_at=NOW + attempt) for n in range(rows)]
            with traced(writer, reader) as statements:
                assert writer.commit(batch, NOW) == ()
            assert len(executed(statements)) == 1, [s[:80] for s in statements]
            assert statements[0].lstrip().startswith("INSERT INTO durable_alarms")
        assert len(reader.due_alarms(NOW + 2, None, 9999, ())) == 2 * rows


def test_more_alarms_than_one_statement_takes_are_one_transaction(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        ids = [f"{n}" for n in range(MAX_ROWS)]
        for batch in (
            [setting(one, "x", "y", "z") for one in ids],
            [setting("one", *ids, "one more")],
        ):
            with traced(writer, reader) as statements:
                assert writer.commit(batch, NOW) == ()
            words = [text.split()[0] for text in executed(statements)]
            assert (words[0], words[-1]) == ("BEGIN", "COMMIT")
            assert set(words[1:-1]) == {"INSERT"}


def test_one_claim_of_more_alarms_than_one_statement_takes_is_one_transaction(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        keys = fill(writer, MAX_ROWS)
        before = rows_of_alarms(path)
        execute(
            path,
            "CREATE TRIGGER refuse BEFORE UPDATE ON durable_alarms "
            f"WHEN NEW.object_id = '{keys[-1].object_id}' "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        with pytest.raises(StorageFault, match="refused by a trigger"):
            writer.claim(keys, 1, NOW, NOW + 60)
        assert rows_of_alarms(path) == before
        execute(path, "DROP TRIGGER refuse")
        assert len(writer.claim(keys, 2, NOW, NOW + 60)) == len(keys)


def mixed(rows: int) -> list[Commit]:
    """One of each kind, again and again; after `prepare_mixed`."""
    batch: list[Commit] = []
    for n in range(0, rows, 7):
        batch += [
            Commit(key(f"{n}"), 1, b"2"),
            Commit(key(f"{n + 1}"), 1, delete=True, alarms=AlarmChanges(clear=True)),
            Commit(key(f"{n + 2}"), 1, b"2", alarms=AlarmChanges(acknowledged={"claimed": 1})),
            Commit(key(f"{n + 3}"), 1, alarms=AlarmChanges(changed={"old": None})),
            Commit(key(f"{n + 4}"), 1, alarms=AlarmChanges(changed={"new": NewAlarm(NOW, None)})),
            setting(f"{n + 5}", "old", "new", due_at=NOW + 1),
            Commit(key(f"{n + 6}"), None, alarms=AlarmChanges(clear=True)),
        ]
    return batch


def prepare_mixed(writer: Writer, rows: int) -> None:
    ids = [f"{n}" for n in range(rows)]
    writer.commit([Commit(key(one), 0, b"1") for one in ids], NOW)
    writer.commit([setting(one, "old", "claimed") for one in ids], NOW)
    writer.claim([alarm_key("claimed", one) for one in ids], 1, NOW, NOW + 60)


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
def test_a_mixed_batch_is_one_transaction(path: Path, stale: bool) -> None:
    counts = []
    for rows in (7, 700):
        storage = SQLiteStorage(path.with_name(f"{rows}.db"))
        with writing(storage) as writer, closing(storage.open_reader()) as reader:
            prepare_mixed(writer, rows)
            batch = mixed(rows)
            if stale:
                batch.append(Commit(key("stale"), 0, alarms=AlarmChanges(acknowledged={"x": 1})))
            with traced(writer, reader) as statements:
                assert list(writer.commit(batch, NOW)) == ([rows] if stale else [])
            words = [text.split()[0] for text in executed(statements)]
            assert words.count("COMMIT") == 1
            assert words.count("BEGIN") == 1 + stale
            assert words.count("ROLLBACK") == stale
            assert words[0] == "BEGIN"
            assert words[-1] == "COMMIT"
            assert not connection_of(writer).in_transaction
            counts.append(len(words))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("kind", ["cancel", "clear"])
def test_to_cancel_from_outside_is_one_statement(path: Path, kind: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = fill(writer, 50)
        batch = cancelling(keys[:40]) if kind == "cancel" else clearing(keys[:40])
        with traced(writer, reader) as statements:
            assert writer.commit(batch, NOW) == ()
        assert len(statements) == 1
        assert len(reader.due_alarms(NOW + 1, None, 999, ())) == 60


# --- alarms: two writers on one file -------------------------------------------------------------


@contextmanager
def another_writer(path: Path) -> Iterator[Writer]:
    """One that got past the lock, as on a file system that has none."""
    storage = SQLiteStorage(path, busy_timeout=60)
    lock = FileLock(path.with_name(f"another-{threading.get_ident()}-lock"), storage.location)
    connection = storage._connect()
    schema = Schema(sqlite_utils.Database(connection))
    with closing(SQLiteWriter(connection, schema, lock)) as writer:
        yield writer


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Begin together; raise what any of them raises."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_of_writers_that_race_for_alarms_each_gets_its_own(path: Path) -> None:
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        keys = fill(writer, 150)
        claimed: list[list[tuple[AlarmKey, int]]] = [[], [], []]

        def race(number: int) -> None:
            order = [*keys]
            random.Random(number).shuffle(order)
            with another_writer(path) as racer:
                for n, start in enumerate(range(0, len(order), 20)):
                    claim = 1 + 3 * n + number
                    found = racer.claim(order[start : start + 20], claim, NOW, NOW + 60)
                    claimed[number] += [(alarm.key, claim) for alarm in found]

        in_threads(3, race)
        won = [one for mine in claimed for one in mine]
        assert len(won) == len(keys)
        assert {one for one, _ in won} == set(keys)
        # And what each believes to hold it holds.
        commits = [
            Commit(one.object_key, None, alarms=AlarmChanges(acknowledged={one.name: claim}))
            for one, claim in won
        ]
        assert [list(writer.commit([commit], NOW)) for commit in commits] == [[]] * len(keys)


def test_of_writers_that_race_to_acknowledge_one_applies(path: Path) -> None:
    """Each has claimed every alarm once; the claims of all but the last are lost."""
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        keys = fill(writer, 30)
        applied: list[int] = []
        effects: list[AlarmKey] = []

        def race(number: int) -> None:
            with another_writer(path) as racer:
                claim = number + 1
                mine = racer.claim(keys, claim, NOW, NOW)  # which runs out at once
                assert len(mine) == len(keys)
                ready.wait()
                for one in keys:
                    done = AlarmChanges(acknowledged={one.name: claim})
                    if not racer.commit([Commit(one.object_key, None, alarms=done)], NOW):
                        applied.append(number)
                        effects.append(one)

        ready = threading.Barrier(3)
        in_threads(3, race)
        assert sorted(effects) == sorted(keys)
        assert len(set(applied)) == 1
    assert rows_of_alarms(path) == []


def test_writers_that_race_with_whole_commits_apply_each_effect_once(path: Path) -> None:
    """Claims run out at once and are taken over all the time, before, between and after."""
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        ids = [f"{n}" for n in range(20)]
        writer.commit([setting(one, "x") for one in ids], NOW)
        effects: list[str] = []

        def race(number: int) -> None:
            storage = SQLiteStorage(path, busy_timeout=60)
            with another_writer(path) as racer, closing(storage.open_reader()) as reader:
                claim = number + 1
                while reader.due_alarms(NOW + 1, None, 1, ()):
                    claim += 2
                    for alarm in racer.claim([alarm_key("x", o) for o in ids], claim, NOW, NOW):
                        (row,) = reader.load([alarm.key.object_key])
                        # An effect for which its own claim is the only fence.
                        revision = row.revision if row else 0
                        done = AlarmChanges(acknowledged={"x": claim})
                        commit = Commit(alarm.key.object_key, revision, b"1", alarms=done)
                        if not racer.commit([commit], NOW):
                            effects.append(alarm.key.object_id)

        in_threads(2, race)
        assert sorted(effects) == sorted(ids)
    assert execute(path, "SELECT DISTINCT revision FROM durable_objects") == [(1,)]


# --- alarms: what fails leaves nothing -----------------------------------------------------------

REFUSALS = {
    "set": "BEFORE INSERT ON durable_alarms WHEN NEW.name = 'new'",
    "set anew": "BEFORE UPDATE ON durable_alarms WHEN NEW.name = 'old'",
    "acknowledge": "BEFORE DELETE ON durable_alarms WHEN OLD.name = 'claimed'",
    "cancel": "BEFORE DELETE ON durable_alarms WHEN OLD.object_id = '3'",
    "clear": "BEFORE DELETE ON durable_alarms WHEN OLD.object_id = '6'",
    "save": "BEFORE UPDATE ON durable_objects WHEN NEW.object_id = '2'",
    "delete": "BEFORE DELETE ON durable_objects",
}


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_mixed_batch_that_fails_applies_nothing(path: Path, refusal: str, stale: bool) -> None:
    with writing(SQLiteStorage(path)) as writer:
        prepare_mixed(writer, 14)
        batch = mixed(14)
        if stale:
            batch.insert(5, Commit(key("stale"), 0, alarms=AlarmChanges(acknowledged={"x": 1})))
        objects = "SELECT * FROM durable_objects ORDER BY object_id"
        before = execute(path, objects), rows_of_alarms(path)
        execute(
            path,
            f"CREATE TRIGGER refuse {refusal} "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        with pytest.raises(StorageFault, match="refused by a trigger"):
            writer.commit(batch, NOW)
        assert not connection_of(writer).in_transaction
        assert (execute(path, objects), rows_of_alarms(path)) == before
        # And the writer goes on.
        execute(path, "DROP TRIGGER refuse")
        assert list(writer.commit(batch, NOW)) == ([5] if stale else [])


@pytest.mark.parametrize("name", ["x", "z"])
def test_sets_from_outside_that_fail_apply_nothing(path: Path, name: str) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([setting("a", "x", "y")], NOW)
        before = rows_of_alarms(path)
        for event in ("INSERT", "UPDATE"):
            execute(
                path,
                f"CREATE TRIGGER refuse_{event} BEFORE {event} ON durable_alarms "
                f"WHEN NEW.name = '{name}' "
                "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
            )
        last = [setting("a", "y", "x", due_at=NOW + 1), setting("b", "y", "z")]
        many = [setting(f"{n}", "y") for n in range(MAX_ROWS)]
        for batch in (last, [*many, *last]):
            with pytest.raises(StorageFault, match="refused by a trigger"):
                writer.commit(batch, NOW)
            assert rows_of_alarms(path) == before


def test_a_full_disk_in_the_middle_of_a_batch(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        prepare_mixed(writer, 14)
        before = rows_of_alarms(path)
        connection = connection_of(writer)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        large = b'"' + b"x" * 100_000 + b'"'
        for batch in (
            [*mixed(14), setting("large", "x", payload=large)],
            [setting("a", "x"), setting("large", "x", payload=large)],
        ):
            with pytest.raises(StorageFault, match="full"):
                writer.commit(batch, NOW)
            assert not connection.in_transaction
            assert rows_of_alarms(path) == before
        one, two = alarm_key("claimed", "0"), alarm_key("claimed", "1")
        with pytest.raises(StorageFault, match="full"):
            writer.postpone(
                [
                    Postponement(one, 1, NOW, 1, "small"),
                    Postponement(two, 1, None, 1, "x" * 100_000),
                ]
            )
        assert rows_of_alarms(path) == before
        # What fits goes on, and with space so does the rest.
        assert writer.commit([Commit(key("0"), 1, b"2")], NOW) == ()
        connection.execute("PRAGMA max_page_count = 1000000")
        assert writer.commit([setting("large", "x", payload=large)], NOW) == ()
        assert reader.list_alarms(key("large"))[0].payload == large


def test_a_locked_file_is_a_fault_of_whatever_is_done(path: Path) -> None:
    x = alarm_key("x")
    works: list[Callable[[Writer], object]] = [
        lambda writer: writer.commit([setting("a", "y")], NOW),
        lambda writer: writer.commit(acknowledging([x], 1), NOW),
        lambda writer: writer.claim([x], 2, NOW + 60, NOW + 90),
        lambda writer: writer.renew([(x, 1)], NOW + 90),
        lambda writer: writer.postpone([Postponement(x, 1, NOW, 1, "no")]),
        lambda writer: writer.revive(x, NOW),
    ]
    with writing(SQLiteStorage(path, busy_timeout=0)) as writer:
        writer.commit([setting("a", "x")], NOW)
        writer.claim([x], 1, NOW, NOW + 60)
        before = rows_of_alarms(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for work in works:
                with pytest.raises(StorageFault, match="locked"):
                    work(writer)
                assert not connection_of(writer).in_transaction
            other.execute("COMMIT")
        assert rows_of_alarms(path) == before
        for work in works:
            work(writer)


def test_a_lost_table_is_a_fault_of_whatever_is_read(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage), closing(storage.open_reader()) as reader:
        execute(path, "DROP TABLE durable_alarms")
        reads: list[Callable[[], object]] = [
            lambda: reader.due_alarms(NOW, None, 10, ()),
            lambda: reader.list_alarms(key("a")),
            lambda: reader.list_dead_letters("Counter", None, 10),
        ]
        for read in reads:
            with pytest.raises(StorageFault, match="no such table"):
                read()


@pytest.mark.parametrize("due_at", [2**63, -(2**63) - 1])
def test_a_time_that_no_row_can_hold_is_a_fault(path: Path, due_at: int) -> None:
    with writing(SQLiteStorage(path)) as writer:
        with pytest.raises(StorageFault):
            writer.commit([setting("a", "x"), setting("b", "x", due_at=due_at)], NOW)
        assert rows_of_alarms(path) == []
        assert writer.commit([setting("a", "x")], NOW) == ()


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_payload_does_not_keep_others_from_being_read(path: Path, spoilt: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        keys = [alarm_key(name) for name in ("bad", "good", "none")]
        writer.commit([setting("a", "bad", "good", payload=b"[1]"), setting("b", "x")], NOW)
        writer.commit([setting("a", "none")], NOW)
        execute(path, f"UPDATE durable_alarms SET payload = {spoilt} WHERE name = 'bad'")
        listed = reader.list_alarms(key("a"))
        claimed = sorted(writer.claim(keys, 1, NOW, NOW + 60), key=lambda alarm: alarm.key)
        writer.postpone([Postponement(one, 1, None, 1, "no") for one in keys])
        dead = reader.list_dead_letters("Counter", None, 10)
        for alarms in (listed, claimed, dead):
            assert [alarm.key for alarm in alarms] == keys
            assert type(alarms[0].payload) is bytes
            assert [alarm.payload for alarm in alarms[1:]] == [b"[1]", None]
