"""SQLite files: the connection, and files that can't be opened, with errors that say what to do."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_durable import (
    DurableRuntime,
    InlineRunner,
    SchemaTooNew,
    SQLiteStorage,
    StorageUnavailable,
)
from trio_durable.storage import Commit, Durability

from .files import NOW, connection_of, execute, executed, key, posix_only, writing

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
            connection = connection_of(runtime._open().sides.writer)
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


@pytest.mark.usefixtures("unstamped")
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


@pytest.mark.usefixtures("unstamped")
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
    assert "make the folder writable" in answer


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
