"""The documented views: the objects for the SQL of users."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import Commit, Storage
from trio_durable.storage.postgres import PostgresStorage

COLUMNS = ["type", "id", "revision", "updated_at", "state"]
NOW = 1_767_225_600_000_000


def of(object_id: str, tenant: str = "", state: bytes = b'{"total":3}') -> Commit:
    return Commit(ObjectKey("Cart", object_id, tenant), 0, state, epoch=42)


def store(storage: Storage, *batch: Commit) -> None:
    with closing(storage.open_writer()) as writer:
        assert not writer.commit(batch, NOW)


# --- SQLite --------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    store(SQLiteStorage(path), of("ada"), of("ada", "acme", b'{"total":9}'))
    return path


@pytest.fixture
def file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        yield file


def test_of_a_file(file: sqlite3.Connection) -> None:
    found = file.execute("SELECT * FROM durable_objects_v1")
    assert [column[0] for column in found.description] == COLUMNS
    assert found.fetchall() == [("Cart", "ada", 1, NOW, '{"total":3}')]
    theirs = file.execute('SELECT * FROM "tenant_acme_durable_objects_v1"').fetchall()
    assert theirs == [("Cart", "ada", 1, NOW, '{"total":9}')]


def test_the_view_of_a_file_finds_an_object_by_its_key(file: sqlite3.Connection) -> None:
    plan = "EXPLAIN QUERY PLAN SELECT state FROM durable_objects_v1 WHERE type = 'a' AND id = 'b'"
    [(*_, step)] = file.execute(plan)
    assert "SEARCH durable_objects USING INDEX" in step
    assert "(type_name=? AND object_id=?)" in step


WRITES = [
    "INSERT INTO durable_objects_v1 VALUES ('Cart', 'bob', 1, 0, '{}')",
    "UPDATE durable_objects_v1 SET state = '{}'",
    "DELETE FROM durable_objects_v1",
]


@pytest.mark.parametrize("sql", WRITES)
def test_the_view_of_a_file_is_read_only(file: sqlite3.Connection, sql: str) -> None:
    with pytest.raises(sqlite3.OperationalError, match="because it is a view"):
        file.execute(sql)


def test_a_tenant_leaves_with_its_view(path: Path, file: sqlite3.Connection) -> None:
    with closing(SQLiteStorage(path).open_writer()) as writer:
        assert writer.drop_tenant("acme")
    views = file.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall()
    assert views == [("durable_objects_v1",)]
    store(SQLiteStorage(path), of("bob", "acme"))
    assert file.execute("SELECT id FROM tenant_acme_durable_objects_v1").fetchall() == [("bob",)]


def test_a_file_of_an_older_release_gets_the_views(path: Path, file: sqlite3.Connection) -> None:
    file.execute("DROP VIEW durable_objects_v1")
    file.execute("DROP VIEW tenant_acme_durable_objects_v1")
    file.execute("DELETE FROM _sqlite_migrations WHERE name = 'm007_views'")
    storage = SQLiteStorage(path)
    assert storage.pending_migrations() == ["m007_views", "m007_views of tenant acme"]
    store(storage, of("bob"))
    assert file.execute("SELECT id FROM durable_objects_v1 ORDER BY 1").fetchall() == [
        ("ada",),
        ("bob",),
    ]
    assert file.execute("SELECT id FROM tenant_acme_durable_objects_v1").fetchall() == [("ada",)]


# --- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture
def database(postgres: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    store(PostgresStorage(postgres), of("ada"), of("ada", "acme", b'{"total":9}'))
    with closing(psycopg.connect(postgres, autocommit=True)) as connection:
        yield connection


def test_of_a_database(database: psycopg.Connection[tuple[object, ...]]) -> None:
    found = database.execute("SELECT * FROM durable_objects_v1")
    assert [column.name for column in found.description or ()] == COLUMNS
    assert found.fetchall() == [("Cart", "ada", 1, NOW, '{"total":3}')]
    theirs = database.execute("SELECT * FROM durable_acme.durable_objects_v1").fetchall()
    assert theirs == [("Cart", "ada", 1, NOW, '{"total":9}')]


def test_the_view_of_a_database_finds_an_object_by_its_key(
    database: psycopg.Connection[tuple[object, ...]],
) -> None:
    database.execute("SET enable_seqscan = off")
    select = "SELECT state FROM durable_objects_v1 WHERE type = 'a' AND id = 'b'"
    [(plan,)] = database.execute(f"EXPLAIN (FORMAT JSON) {select}".encode())
    [found] = plan if isinstance(plan, list) else json.loads(str(plan))
    assert found["Plan"]["Index Name"] == "durable_objects_pkey"
    assert "type_name" in found["Plan"]["Index Cond"]
    assert "object_id" in found["Plan"]["Index Cond"]
    assert "Plans" not in found["Plan"]  # the second source costs nothing


@pytest.mark.parametrize("sql", WRITES)
def test_the_view_of_a_database_is_read_only(
    database: psycopg.Connection[tuple[object, ...]], sql: str
) -> None:
    """Also for its owner."""
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot"):
        database.execute(sql.encode())


def test_a_role_may_read_the_view_and_not_the_tables(
    postgres: str, database: psycopg.Connection[tuple[object, ...]]
) -> None:
    [(schema,)] = database.execute("SELECT current_schema()")
    try:
        database.execute("CREATE ROLE analyst")
        database.execute(f"GRANT USAGE ON SCHEMA {schema} TO analyst".encode())
        database.execute("GRANT SELECT ON durable_objects_v1 TO analyst")
        database.execute("SET ROLE analyst")
        assert database.execute("SELECT id FROM durable_objects_v1").fetchall() == [("ada",)]
        for refused in (
            "SELECT * FROM durable_objects",
            "SELECT * FROM durable_alarms",
            "SELECT * FROM durable_acme.durable_objects_v1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.execute(refused.encode())
    finally:
        database.execute("RESET ROLE")
        database.execute("DROP OWNED BY analyst")
        database.execute("DROP ROLE analyst")
