"""``trio-durable query``: SQL of a user, which can't change anything."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from trio_durable import ObjectKey, PostgresStorage
from trio_durable.storage import Commit, StorageFault
from trio_durable.storage.sqlite._query import run_query

from .stored_data import ADA, NOW, lines_of
from .support import contents, run


def query(where: str, sql: str, *options: str) -> list[dict[str, object]]:
    return list(lines_of("query", where, sql, "-o", "jsonl", *options))


def refusal(where: str, sql: str, *options: str) -> str:
    """The one line on standard error of a query that isn't run."""
    result = run("query", where, sql, *options)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def filled(database: str) -> str:
    with closing(PostgresStorage(database).open_writer()) as writer:
        batch = [
            Commit(ADA, 0, b'{"total":4,"note":"\\u0000"}', epoch=42),
            Commit(ObjectKey("Cart", "ada", "acme"), 0, b'{"total":9}', epoch=43),
        ]
        assert not writer.commit(batch, NOW)
    return database


# --- on SQLite -----------------------------------------------------------------------------------


def test_the_view_has_the_objects(db: Path) -> None:
    rows = query("app.db", "SELECT * FROM durable_objects_v1 ORDER BY id")
    assert [(row["type"], row["id"], row["revision"]) for row in rows] == [
        ("Cart", "ada", 2),
        ("Cart", "bob", 1),
        ("Counter", "hits", 1),
    ]
    assert list(rows[0]) == ["type", "id", "revision", "updated_at", "state"]
    assert json.loads(str(rows[0]["state"])) == {"total": 4, "items": ["é"]}
    total = "SELECT sum(state ->> 'total') AS total FROM durable_objects_v1 WHERE type = 'Cart'"
    assert query("app.db", total) == [{"total": 4}]


def test_each_tenant_has_a_view(db: Path) -> None:
    rows = query("app.db", "SELECT id, state ->> 'total' AS n FROM tenant_acme_durable_objects_v1")
    assert rows == [{"id": "ada", "n": 9}]


def test_values_of_all_kinds(db: Path) -> None:
    sql = "SELECT 1 AS a, 2.5 AS b, NULL AS c, x'00ff' AS d, 'é' AS e, 9e999 AS f, 1 AS a"
    [row] = query("app.db", sql)
    assert row == {"a": 1, "b": 2.5, "c": None, "d": "\\x00ff", "e": "é", "f": "inf", "a_2": 1}
    [row] = query("app.db", "SELECT CAST(x'ff41' AS TEXT) AS text")
    assert row == {"text": "\ufffdA"}


def test_a_table_for_people(db: Path) -> None:
    result = run(
        "query",
        "app.db",
        "SELECT id AS '[red]id', 'a' || char(27) AS esc FROM durable_objects_v1 WHERE id = 'bob'",
    )
    assert result.exit_code == 0
    assert "[red]id" in result.stdout
    assert "a\\x1b" in result.stdout
    nothing = run("query", "app.db", "SELECT 1 WHERE 0")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "No rows match.\n")


def test_the_statement_may_come_from_standard_input(db: Path) -> None:
    result = run("query", "app.db", "-", "--json", stdin="SELECT 1 AS one")
    assert (result.exit_code, result.stdout) == (0, '{"one":1}\n')


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 3",
        "SELECT value FROM json_each('[1,2]')",
        "SELECT o.id, m.key FROM durable_objects_v1 AS o, json_tree(o.state) AS m",
        "SELECT max(id) OVER (ORDER BY revision) FROM durable_objects_v1",
        "SELECT (SELECT count(*) FROM durable_alarms)",
        "SELECT 1 UNION SELECT 2 ORDER BY 1",
        "VALUES (1), (2)",
        "EXPLAIN QUERY PLAN SELECT * FROM durable_objects_v1",
        "  SELECT 1 ;  -- and a comment",
    ],
)
def test_what_reads_is_run(db: Path, sql: str) -> None:
    assert query("app.db", sql)


ATTACKS = [
    "DELETE FROM durable_objects",
    "DELETE FROM durable_objects_v1",
    "DELETE FROM durable_objects RETURNING 1",
    "UPDATE durable_objects SET state = '{}'",
    "INSERT INTO durable_tenants VALUES ('x') RETURNING name",
    "WITH x AS (SELECT 1) INSERT INTO durable_tenants SELECT 'x' FROM x",
    "REPLACE INTO durable_tenants VALUES ('x')",
    "DROP TABLE durable_objects",
    "DROP VIEW durable_objects_v1",
    "CREATE TABLE mine (x)",
    "CREATE TEMP TABLE mine (x)",
    "CREATE VIRTUAL TABLE mine USING fts5(x)",
    "ALTER TABLE durable_objects RENAME TO mine",
    "REINDEX",
    "ANALYZE",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "ATTACH 'other.db' AS other",
    "ATTACH 'app.db' AS again",
    "DETACH main",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "SAVEPOINT s",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA user_version = 7",
    "PRAGMA writable_schema = ON",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "SELECT * FROM pragma_wal_checkpoint",
    "SELECT load_extension('evil.so')",
    "SELECT LOAD_EXTENSION('evil.so')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT writefile('evil', 'x')",
    "SELECT readfile('app.db')",
    "SELECT 1; DELETE FROM durable_objects",
    "SELECT 1; ATTACH 'other.db' AS other",
    "EXPLAIN DELETE FROM durable_objects",
    "",
    "-- nothing",
    "nonsense",
    "SELECT * FROM nowhere",
    "SELECT '\x00'; DROP TABLE durable_objects",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_nothing_else_is(db: Path, sql: str) -> None:
    rows = query("app.db", "SELECT * FROM durable_objects_v1")
    files = contents(db.parent)
    # Through the function as well, since a command line can't hold a NUL.
    with pytest.raises(StorageFault):
        run_query(db, sql, 10, 5)
    if "\x00" not in sql and not sql.startswith("-"):
        assert "trio-durable: the query was refused: " in refusal("app.db", sql)
    assert contents(db.parent).keys() <= files.keys() | {"app.db-wal", "app.db-shm"}
    assert query("app.db", "SELECT * FROM durable_objects_v1") == rows
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_refusal_says_what_to_do(db: Path) -> None:
    assert "it does more than read" in refusal("app.db", "DROP TABLE durable_objects")
    assert "write one SELECT" in refusal("app.db", "SELECT 1; SELECT 2")
    assert "no such table: nowhere" in refusal("app.db", "SELECT * FROM nowhere")


FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)"


def test_a_query_that_takes_too_long_ends(db: Path) -> None:
    said = refusal("app.db", f"{FOR_EVER} SELECT count(*) FROM n", "--timeout", "0.05")
    assert "it ran for longer than 0.05 s; narrow it, or raise --timeout" in said


def test_a_value_that_is_too_long_is_refused(db: Path) -> None:
    assert "too big" in refusal("app.db", "SELECT zeroblob(1000000000)")


def test_rows_are_limited(db: Path) -> None:
    result = run("query", "app.db", f"{FOR_EVER} SELECT i FROM n", "--limit", "3", "--json")
    assert (result.exit_code, result.stdout) == (0, '{"i":1}\n' * 3)
    assert result.stderr == "There are more rows: raise --limit, or narrow the query.\n"
    assert run("query", "app.db", "VALUES (1), (2)", "--limit", "2").stderr == ""


def test_so_are_their_bytes(db: Path) -> None:
    sql = f"{FOR_EVER} SELECT printf('%.*c', 20000000, 'x') FROM n"
    found = run_query(db, sql, 1000, 60)
    assert (len(found.rows), found.is_whole) == (4, False)


def test_a_query_runs_beside_a_writer(db: Path) -> None:
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE durable_objects SET revision = 9")
        [row] = query("app.db", "SELECT max(revision) AS newest FROM durable_objects_v1")
        assert row == {"newest": 2}
        other.execute("ROLLBACK")


def test_a_file_that_is_not_there_is_not_made(folder: Path) -> None:
    assert "there is no such file" in refusal("none.db", "SELECT 1")
    assert not os.listdir(folder)


# --- on PostgreSQL -------------------------------------------------------------------------------


def test_on_postgresql(filled: str) -> None:
    rows = query(filled, "SELECT type, id, state::jsonb ->> 'total' AS n FROM durable_objects_v1")
    assert rows == [{"type": "Cart", "id": "ada", "n": "4"}]
    assert query(filled, "SELECT id FROM durable_acme.durable_objects_v1") == [{"id": "ada"}]
    [row] = query(
        filled,
        "SELECT 12345678901234567890123 AS big, 'NaN'::float8 AS nan, '{1,2}'::int[] AS list, "
        "'{\"a\": 1}'::jsonb AS data, '2026-01-02 03:04:05+00'::timestamptz AS at, 1 AS x, 2 AS x, "
        "decode('00ff', 'hex') AS bytes, 50 % 7 AS rest",
    )
    assert row == {
        "big": 12345678901234567890123,
        "nan": "nan",
        "list": [1, 2],
        "data": {"a": 1},
        "at": "2026-01-02T03:04:05+00:00",
        "x": 1,
        "x_2": 2,
        "bytes": "\\x00ff",
        "rest": 1,
    }


POSTGRES_ATTACKS = [
    "DELETE FROM durable_objects",
    "SELECT 1; COMMIT; DROP TABLE durable_objects",
    "SELECT 1; DROP TABLE durable_objects",
    "COMMIT",
    "COMMIT; DROP TABLE durable_objects",
    "WITH gone AS (DELETE FROM durable_objects RETURNING 1) SELECT * FROM gone",
    "INSERT INTO durable_tenants VALUES ('x') RETURNING name",
    "SELECT 1 INTO mine",
    "SELECT * FROM durable_objects FOR UPDATE",
    "TRUNCATE durable_objects",
    "COPY durable_objects TO PROGRAM 'cat'",
    "SET default_transaction_read_only = off",
    "DO $$ BEGIN DELETE FROM durable_objects; END $$",
    "CALL nothing()",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "EXPLAIN ANALYZE DELETE FROM durable_objects",
    "SELECT query_to_xml('DELETE FROM durable_objects', true, true, '')",
    "",
    "nonsense",
    "SELECT * FROM nowhere",
]


@pytest.mark.parametrize("sql", POSTGRES_ATTACKS)
def test_nothing_else_is_run_on_postgresql(filled: str, sql: str) -> None:
    before = query(filled, "SELECT * FROM durable_objects_v1")
    assert "trio-durable: the query was refused: " in refusal(filled, sql)
    assert query(filled, "SELECT * FROM durable_objects_v1") == before
    with psycopg.connect(filled) as connection:
        assert connection.execute("SELECT count(*) FROM durable_tenants").fetchone() == (1,)


def test_a_query_on_postgresql_that_takes_too_long_ends(filled: str) -> None:
    for sql in ("SELECT pg_sleep(60)", "SELECT pg_sleep(0.4) FROM generate_series(1, 1000)"):
        assert "it ran for longer than 0.5 s" in refusal(filled, sql, "--timeout", "0.5")
    longer = "SELECT set_config('statement_timeout', '0', true), pg_sleep(0.01) FROM "
    longer += "generate_series(1, 10000)"
    said = refusal(filled, longer, "--timeout", "0.5", "--limit", "10000")
    assert "it ran for longer than 0.5 s" in said


def test_rows_are_limited_on_postgresql(filled: str) -> None:
    sql = "SELECT i FROM generate_series(1, 1000) AS i"
    result = run("query", filled, sql, "--limit", "250", "--json")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 250)
    assert result.stderr == "There are more rows: raise --limit, or narrow the query.\n"
    for limit in ("1000", "1001"):
        result = run("query", filled, sql, "--limit", limit, "--json")
        assert (result.stdout.count("\n"), result.stderr) == (1000, "")


def test_a_server_that_is_not_there_is_named_without_its_password(folder: Path) -> None:
    said = refusal("postgresql://app:geheim@127.0.0.1:1/app", "SELECT 1")
    assert "geheim" not in said
