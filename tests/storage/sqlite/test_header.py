"""The header of an SQLite file says what it is, and its log gives its space back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trio_durable import DurableRuntime, SQLiteStorage
from trio_durable.storage import Commit
from trio_durable.storage.sqlite import _watch
from trio_durable.storage.sqlite._migrations import APPLICATION_ID, SCHEMA_VERSION, migrations_of
from trio_durable.storage.sqlite._storage import LOG_LIMIT

from .files import NOW, Counter, connection_of, execute, key, serving, theirs, writing


def header(path: Path) -> tuple[object, object]:
    ((application_id,),) = execute(path, "PRAGMA application_id")
    ((user_version,),) = execute(path, "PRAGMA user_version")
    return application_id, user_version


def reopened(path: Path) -> tuple[object, object]:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)  # with a stamp
    return header(path)


def test_the_constants() -> None:
    """They are in files, so they don't change."""
    assert APPLICATION_ID.to_bytes(4, "big") == b"TRDU"
    assert len(migrations_of("")._migrations) == SCHEMA_VERSION


def test_a_new_file_says_what_it_is(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    assert header(path) == (APPLICATION_ID, SCHEMA_VERSION)


@pytest.fixture
def old(path: Path) -> Path:
    """A file of a release that wrote neither."""
    SQLiteStorage(path).open_writer().close()
    execute(path, "PRAGMA application_id = 0")
    execute(path, "PRAGMA user_version = 0")
    return path


def test_an_old_file_says_so_once_it_is_opened(old: Path) -> None:
    SQLiteStorage(old).open_reader().close()
    assert header(old) == (0, 0)
    assert reopened(old) == (APPLICATION_ID, SCHEMA_VERSION)


def test_a_file_with_tenants_and_litestream_is_ours(old: Path) -> None:
    with writing(SQLiteStorage(old)) as writer:
        writer.commit([Commit(theirs("acme"), 0, b"1")], NOW)
    execute(old, "PRAGMA application_id = 0")
    execute(old, "PRAGMA user_version = 0")
    execute(old, "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    assert reopened(old) == (APPLICATION_ID, SCHEMA_VERSION)


def test_the_version_follows_the_schema(old: Path) -> None:
    execute(old, f"PRAGMA application_id = {APPLICATION_ID}")
    execute(old, f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    assert reopened(old) == (APPLICATION_ID, SCHEMA_VERSION)


@pytest.mark.parametrize(
    ("application_id", "user_version"),
    [(252006673, 0), (252006673, 14), (0, 14), (APPLICATION_ID, SCHEMA_VERSION + 1)],
)
def test_the_header_of_another_program_stays(
    old: Path, application_id: int, user_version: int
) -> None:
    execute(old, f"PRAGMA application_id = {application_id}")
    execute(old, f"PRAGMA user_version = {user_version}")
    assert reopened(old) == (application_id, user_version)


def test_a_file_with_tables_of_another_program_stays_theirs(old: Path) -> None:
    """They may set both later, or count on the version that they find."""
    execute(old, "CREATE TABLE theirs (x)")
    assert reopened(old) == (0, 0)


# --- the log -------------------------------------------------------------------------------------


def test_the_log_shrinks_after_a_long_reader(path: Path) -> None:
    log = path.with_name("objects.db-wal")
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        revision = 0

        def write(times: int) -> None:
            nonlocal revision
            for _ in range(times):
                writer.commit(
                    [Commit(key("a"), revision, b"%d" % (revision % 10) * 1_000_000)], NOW
                )
                revision += 1

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM durable_objects").fetchone()
            write(40)
            assert log.stat().st_size > 2 * LOG_LIMIT
        write(2)
        assert log.stat().st_size <= LOG_LIMIT + 2_000_000


def test_statistics_have_the_size_of_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(_watch, "PATH_CHECK_SECONDS", 0.0)

    async def scenario(runtime: DurableRuntime, connection: sqlite3.Connection) -> None:
        log = path.with_name("objects.db-wal")
        await runtime.get(Counter, "a").write("x" * 1_000_000)
        size = runtime.statistics().log_bytes
        assert size is not None
        assert size > 1_000_000
        assert size == log.stat().st_size
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert log.stat().st_size == 0
        assert runtime.statistics().log_bytes == size  # as of a second ago, without a look

    serving(SQLiteStorage(path, durability="normal"), scenario)  # it fills no log


def test_the_limit_is_set(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        ((limit,),) = connection_of(writer).execute("PRAGMA journal_size_limit").fetchall()
    assert limit == LOG_LIMIT
