"""Copies between storages: complete and verified, or an error."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.postgres import Database, url_of

from trio_durable import ObjectKey, PostgresStorage, SQLiteStorage
from trio_durable.cli.commands import copy as copying
from trio_durable.cli.storage import batches
from trio_durable.cli.storage.restore import restore_objects
from trio_durable.storage import Commit, ObjectRow

from .stored_data import ADA, NOW, everything, save, writer_of
from .support import assert_refused, contents, run


def copied(source: object, target: object, *args: str) -> str:
    result = run("copy", str(source), str(target), *args)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def without_revisions(rows: list[ObjectRow]) -> list[tuple[ObjectKey, bytes, int]]:
    return [(row.key, row.state, row.updated_at) for row in rows]


def same(one: Path, other: Path) -> bool:
    (objects, alarms), (others, other_alarms) = everything(one), everything(other)
    return alarms == other_alarms and without_revisions(objects) == without_revisions(others)


def test_everything_arrives(db: Path) -> None:
    said = copied("app.db", "sqlite:///new.db")
    assert said == "Copied 4 objects and 4 alarms, and found both storages equal, row by row.\n"
    assert same(db, Path("new.db"))


def test_there_and_back_again_through_postgres(db: Path, database: str) -> None:
    assert "Copied 4 objects and 4 alarms" in copied("app.db", database)
    assert "Copied 4 objects and 4 alarms" in copied(database, "back.db")
    assert same(db, Path("back.db"))


def test_between_two_schemas_of_a_database(
    db: Path, database: str, postgres_database: Database
) -> None:
    copied("app.db", database, "-t", "acme")
    other = url_of(postgres_database.new_schema())
    # The other one doesn't see its tenant, and can't have one of the same name.
    assert_refused(Path.cwd(), "already exists", "copy", database, other, "--resume")
    third = url_of(postgres_database.new_schema())
    assert "Copied 0 objects" in copied(other, third, "--resume")
    assert_refused(Path.cwd(), "are the same", "copy", database, database)


def test_a_role_that_may_only_read_can_copy_from_postgres(
    db: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied("app.db", database)

    def refuse(self: object) -> None:
        raise AssertionError("it was opened for writing")

    monkeypatch.setattr(PostgresStorage, "open_writer", refuse)
    assert "Copied 4 objects and 4 alarms" in copied(database, "back.db")


def test_of_one_tenant_only(db: Path) -> None:
    assert "Copied 1 object and 1 alarm" in copied("app.db", "new.db", "-t", "acme")
    objects, _ = everything(Path("new.db"))
    assert {row.key.tenant for row in objects} == {"acme"}


def test_much_arrives_in_batches(folder: Path) -> None:
    with writer_of(folder / "app.db") as writer:
        for n in range(1234):
            alarms = {"x": (NOW, None)} if n % 2 else {}
            save(writer, ObjectKey("Cart", str(n)), {"n": n}, alarms, now=n)
        save(writer, ObjectKey("Cart", "large"), {"text": 5_000_000 * "x"})
    assert "Copied 1,235 objects and 617 alarms" in copied("app.db", "new.db")
    assert same(Path("app.db"), Path("new.db"))


class Interrupted(Exception):
    pass


def test_an_interrupted_copy_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, db: Path
) -> None:
    monkeypatch.setattr(batches, "MAX_ROWS", 1)
    left = 3

    def restore(*args: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Interrupted
        real(*args)  # type: ignore[arg-type]

    real = restore_objects
    monkeypatch.setattr(copying, "restore_objects", restore)
    with pytest.raises(Interrupted):
        run("copy", "app.db", "new.db")
    objects, _ = everything(Path("new.db"))
    assert len(objects) == 2
    assert_refused(
        folder, "isn't empty; name an empty storage, or continue", "copy", "app.db", "new.db"
    )
    assert "Copied 2 objects and 4 alarms" in copied("app.db", "new.db", "--resume")
    assert same(db, Path("new.db"))
    assert "Copied 0 objects and 0 alarms" in copied("app.db", "new.db", "--resume")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (Commit(ADA, 1, b"{}"), "Cart('ada') differs between the storages"),
        (Commit(ADA, 1, None, delete=True), "Cart('ada') differs between the storages"),
        (Commit(ObjectKey("A", "a"), 0, b"{}"), "A('a') differs between the storages"),
        (Commit(ObjectKey("Z", "z", "acme"), 0, b"{}"), "Z('z') of tenant acme differs"),
    ],
    ids=["changed", "gone", "first", "last"],
)
def test_what_differs_is_told(
    db: Path, monkeypatch: pytest.MonkeyPatch, change: Commit, what: str
) -> None:
    def compare(self: object, tenants: object, to: object) -> object:
        with closing(SQLiteStorage("new.db").open_writer()) as writer:
            assert not writer.commit([change], NOW)
        return real(self, tenants, to)  # type: ignore[arg-type]

    real = copying.StorageCopy.differences
    monkeypatch.setattr(copying.StorageCopy, "differences", compare)
    result = run("copy", "app.db", "new.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"trio-durable copy: {what}")


def test_what_was_left_there_otherwise_is_told(db: Path) -> None:
    copied("app.db", "new.db")
    with writer_of(Path("new.db")) as writer:
        save(writer, ADA, {"total": 1000}, revision=1)
    result = run("copy", "app.db", "new.db", "--resume")
    assert result.exit_code == 1
    assert "Cart('ada') differs between the storages" in result.stderr


def test_a_source_that_a_runtime_has_open_is_refused(db: Path, folder: Path) -> None:
    with writer_of(db):
        before = contents(folder)
        result = run("copy", "app.db", "new.db")
        assert result.exit_code == 2
        assert "is in use by a runtime" in result.stderr
        assert contents(folder) == before


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_an_alarm_that_cannot_be_carried_is_refused_before_the_target_is_made(
    folder: Path, db: Path, tenant: str
) -> None:
    key = ObjectKey("Cart", "eve", tenant)
    with writer_of(db) as writer:
        save(writer, key, None, {"never": (2**63 - 1, None)})
    with closing(sqlite3.connect(db)) as connection, connection:  # as a hand would
        table = '"tenant_acme_durable_alarms"' if tenant else "durable_alarms"
        connection.execute(f"UPDATE {table} SET failures = 3 WHERE name = 'never'")
    before = set(contents(folder)) - {"app.db-shm", "app.db-wal"}
    result = run("copy", "app.db", "new.db")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has a time outside the years 1 to 9999; set or save it again" in result.stderr
    assert set(contents(folder)) == before


def test_an_alarm_that_is_due_after_all_calendars_is_carried_if_it_has_not_failed(db: Path) -> None:
    with writer_of(db) as writer:
        save(writer, ADA, None, {"never": (2**63 - 1, None)})
    assert "Copied 4 objects and 5 alarms" in copied("app.db", "new.db")
    assert same(db, Path("new.db"))


def test_a_password_is_not_told(db: Path) -> None:
    result = run("copy", "app.db", "postgresql://me:open-sesame@127.0.0.1:1/x?connect_timeout=1")
    assert result.exit_code == 2
    assert "open-sesame" not in result.output
