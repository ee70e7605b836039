"""SQLite files that are reopened, and their migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlite_utils

from trio_durable import DurableRuntime, SQLiteStorage
from trio_durable.storage import Commit
from trio_durable.storage.sqlite._migrations import migrations_of

from .files import NOW, Counter, execute, key, schema, serving, writing


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


def test_migrations_make_the_schema(path: Path) -> None:
    SQLiteStorage(path).open_writer().close()
    with closing(sqlite3.connect(path)) as connection:
        db = sqlite_utils.Database(connection)
        assert set(db.table_names()) == {
            "durable_objects",
            "durable_alarms",
            "durable_messages",
            "durable_dead_messages",
            "durable_once",
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
