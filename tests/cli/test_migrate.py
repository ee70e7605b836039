"""Tables are brought up to date; those of PostgreSQL also back."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from trio_durable import ObjectKey, PostgresStorage
from trio_durable.storage import Commit, ForwardingStorage, MemoryStorage

from .stored_data import ADA, NOW, json_of
from .support import assert_refused, contents, run


def test_migrate_brings_tables_up_to_date(folder: Path) -> None:
    path = folder / "app.db"
    path.touch()  # as empty a storage as can be
    before = contents(folder)
    check = run("migrate", "-s", "app.db", "--check")
    assert (check.exit_code, check.stderr) == (1, "")
    assert check.stdout.splitlines()[0] == "m001_objects is pending"
    assert contents(folder) == before
    pending = run("migrate", "-s", "app.db", "--check", "--json")
    assert pending.exit_code == 1
    names = json.loads(pending.stdout)["pending"]
    lines = run("migrate", "-s", "app.db", "--check", "-o", "csv").stdout.splitlines()
    assert lines == ["migration,status", *(f"{name},pending" for name in names)]
    assert json_of("migrate", "-s", "app.db", "--json") == {"applied": names}
    assert json_of("migrate", "-s", "app.db", "--json") == {"applied": []}
    check = run("migrate", "-s", "app.db", "--check")
    assert (check.exit_code, check.stdout) == (0, "The tables are up to date.\n")
    assert run("ls", "-s", "app.db").exit_code == 0


def test_migrate_prints_sql_for_whoever_may_apply_it(database: str) -> None:
    result = run("migrate", "-s", database, "--sql")
    assert result.exit_code == 0
    assert "CREATE TABLE" in result.stdout


def test_migrations_of_a_tenant_that_cannot_be_applied_are_left(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(PostgresStorage(database).open_writer()) as writer:
        writer.commit([Commit(ObjectKey("Cart", "ada", t), 0, b"{}") for t in ("acme", "zoo")], NOW)
    with psycopg.connect(database, autocommit=True) as admin:
        for tenant in ("acme", "zoo"):
            admin.execute(
                f"ALTER TABLE durable_{tenant}.durable_alarms DROP crashes, DROP marked".encode()
            )
        admin.execute("DELETE FROM durable_migrations WHERE tenant <> '' AND name LIKE 'm004%'")
        admin.execute("ALTER TABLE durable_acme.durable_alarms RENAME TO elsewhere")
    result = run("migrate", "-s", database)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "applied m004_crashes of tenant zoo",
        "m004_crashes of tenant acme is pending",
    ]
    assert "tenant 'acme' can't be used" in caplog.text
    result = run("migrate", "-s", database, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "applied": [],
        "pending": ["m004_crashes of tenant acme"],
    }


# --- down ----------------------------------------------------------------------------------------

ALL = [
    "m008_views",
    "m007_recurrences",
    "m006_messages",
    "m005_cluster",
    "m004_crashes",
    "m003_tenants",
    "m002_alarms",
    "m001_objects",
]


@pytest.fixture
def filled(database: str) -> str:
    """The URL of a database with an object, and one of a tenant."""
    with closing(PostgresStorage(database).open_writer()) as writer:
        batch = [Commit(key, 0, b"{}") for key in (ADA, ObjectKey("Cart", "ada", "acme"))]
        assert not writer.commit(batch, NOW)
    return database


def applied(database: str) -> list[str]:
    return PostgresStorage(database).applied_migrations()


@pytest.mark.parametrize("last", [*ALL, "none"])
def test_down_undoes_what_was_applied_later(filled: str, last: str) -> None:
    undone = ALL[: (*ALL, "none").index(last)]
    args = ("migrate", "-s", filled, "--down", last, "--yes")
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, "")
    says = [f"undid {name}" for name in undone] or ["There is nothing to undo."]
    assert result.stdout.splitlines() == says
    assert applied(filled) == [*reversed(ALL[len(undone) :])]
    assert run(*args).stdout == "There is nothing to undo.\n"
    assert run("migrate", "-s", filled).exit_code == 0
    if last != "none":
        assert json_of("ls", "-s", filled, "--json")["objects"] == 1


def test_down_in_json(filled: str) -> None:
    args = ("migrate", "-s", filled, "--down", "m002_alarms", "--yes", "--json")
    assert json_of(*args) == {"undone": ALL[: ALL.index("m002_alarms")]}
    assert json_of(*args) == {"undone": []}


@pytest.mark.parametrize("last", ALL[1:])
def test_down_prints_sql_for_whoever_may_apply_it(filled: str, last: str) -> None:
    result = run("migrate", "-s", filled, "--down", last, "--sql")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "DROP VIEW" in result.stdout
    assert ("DROP COLUMN" in result.stdout) is (last != "m007_recurrences")
    assert ("DROP TABLE" in result.stdout) is (last < "m006")
    assert applied(filled) == [*reversed(ALL)]
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute(result.stdout.encode(), prepare=False)
    assert applied(filled) == [*reversed(ALL[ALL.index(last) :])]
    again = run("migrate", "-s", filled, "--down", last, "--sql")
    assert (again.exit_code, again.stdout) == (0, "")


def test_down_asks_first(filled: str) -> None:
    result = run("migrate", "-s", filled, "--down", "none", stdin="n\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("Undo all migrations in postgresql://")
    assert result.stderr.endswith("Nothing was undone.\n")
    result = run("migrate", "-s", filled, "--down", "m001_objects")
    assert result.exit_code == 2
    assert "no answer on standard input; confirm with --yes" in result.stderr
    assert applied(filled) == [*reversed(ALL)]


def test_down_to_nowhere_is_refused(filled: str, folder: Path) -> None:
    says = (
        "--down: there is no migration 'm9', only m001_objects, m002_alarms, m003_tenants, "
        "m004_crashes, m005_cluster, m006_messages, m007_recurrences, m008_views; name one of "
        "these, or none"
    )
    assert_refused(folder, says, "migrate", "-s", filled, "--down", "m9", "--yes")
    assert applied(filled) == [*reversed(ALL)]


@pytest.mark.parametrize("options", [[], ["--sql"], ["--yes", "--json"]], ids=" ".join)
def test_down_is_refused_by_a_storage_that_can_not_undo_migrations(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    class OtherStorage(ForwardingStorage):
        @property
        def location(self) -> str:
            return "other://app"

    # No path or URL stands for it, so it comes in place of the one that the path stands for. It
    # needs no psycopg, either.
    module = sys.modules["trio_durable.cli.commands.migrate"]
    monkeypatch.setattr(module, "resolve_storage", lambda name: OtherStorage(MemoryStorage()))
    monkeypatch.setitem(sys.modules, "trio_durable.storage.postgres", None)
    says = "other://app: this storage has no migrations to undo; leave out --down"
    assert_refused(folder, says, "migrate", "-s", "app.db", "--down", "none", *options)
