"""Commands that change data in PostgreSQL, where saves are conditional on the epoch, too."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from support.job_storage import schema_of
from support.oban_tables import install_tables

from trio_durable import DurableObject, ObjectKey, PostgresStorage, upgrade
from trio_durable.storage import AlarmChanges, Commit, NewAlarm, StoredObject

from .stored_data import ADA, NOW, fail, save, writer_of
from .support import run


class Cart(DurableObject, name="cli.postgres.Cart", schema=2):
    cents: int = 0

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: dict[str, object]) -> dict[str, object]:
        return {"cents": state["total"]}


OLD = ObjectKey("cli.postgres.Cart", "old")


@pytest.fixture(autouse=True)
def fill(database: str) -> None:
    """Store two objects, as a runtime does."""
    with closing(PostgresStorage(database).open_writer()) as writer:
        batch = [Commit(key, 0, b'{"total":3}', epoch=42) for key in (ADA, OLD)]
        assert not writer.commit(batch, NOW)


def stored(database: str, key: ObjectKey) -> StoredObject | None:
    with closing(PostgresStorage(database).open_reader()) as reader:
        return reader.load([key])[0]


def succeeds(*args: str) -> None:
    result = run(*args)
    assert result.exit_code == 0, result.output


def test_edit(database: str) -> None:
    succeeds("edit", "-s", database, "Cart", "ada", "--set", "total=5")
    assert stored(database, ADA) == StoredObject(2, b'{"total":5}', 42)


def test_commands_that_write_are_refused_while_a_runtime_is_open(database: str) -> None:
    """Each opens a node, as a runtime does; commands that only read work beside one."""
    with closing(PostgresStorage(database).open_writer()):
        for args in (
            ("edit", "-s", database, "Cart", "ada", "--set", "total=5"),
            ("rm", "-s", database, "Cart", "ada", "--yes"),
        ):
            result = run(*args)
            assert result.exit_code != 0
            assert "is in use by a runtime of this process" in result.output
        succeeds("show", "-s", database, "Cart", "ada")
    assert stored(database, ADA) == StoredObject(1, b'{"total":3}', 42)
    succeeds("edit", "-s", database, "Cart", "ada", "--set", "total=5")


def test_rm(database: str) -> None:
    succeeds("rm", "-s", database, "Cart", "ada", "--yes")
    assert stored(database, ADA) is None


def test_export_and_import(database: str, folder: Path) -> None:
    succeeds("export", "-s", database, "all.jsonl")
    succeeds("import", "-s", database, "all.jsonl", "--replace")
    assert stored(database, ADA) == StoredObject(2, b'{"total":3}', 42)
    succeeds("rm", "-s", database, "Cart", "ada", "--yes")
    succeeds("import", "-s", database, "all.jsonl", "--skip")
    row = stored(database, ADA)
    assert row is not None
    assert row.revision == 1
    assert row.epoch not in (0, 42)  # a new one


def test_rows_of_very_many_tenants_are_imported(database: str, folder: Path) -> None:
    """More than the storage takes in one transaction."""
    with writer_of(folder / "many.db") as writer:
        for n in range(100):
            key = ObjectKey("Cart", "a", f"tenant{n}")
            save(writer, key, {"n": n}, {"x": (NOW, None)})
            fail(writer, key.alarm("x"), NOW + 7, 1, "failed")
    succeeds("export", "-s", "many.db", "many.jsonl")
    result = run("import", "-s", database, "many.jsonl")
    assert "Imported 100 objects and 100 alarms" in result.output
    key = ObjectKey("Cart", "a", "tenant77")
    assert stored(database, key) is not None
    with closing(PostgresStorage(database).open_reader()) as reader:
        (alarm,) = reader.list_alarms(key)
        assert (alarm.failures, alarm.last_error) == (1, "failed")


def test_migrate_states(database: str, folder: Path) -> None:
    succeeds("migrate-states", "-s", database, "--app", f"{__name__}:Cart")
    assert stored(database, OLD) == StoredObject(2, b'{"cents":3,"$as":{},"$schema":2}', 42)


def test_alarms_move_to_oban_and_back(database: str) -> None:
    """Commands on alarms find them where they are."""
    schema = schema_of(database)
    install_tables(database)
    with closing(PostgresStorage(database).open_writer()) as writer:
        changes = AlarmChanges(changed={"remind": NewAlarm(NOW, None)})
        assert not writer.commit([Commit(ADA, None, alarms=changes)], NOW)
    moved = run("alarms", "move", "-s", database, "--to", "oban", "--prefix", schema)
    assert moved.output == "Moved 1 alarm to jobs of Oban in queue durable_alarms.\n"
    assert "remind" in run("alarms", "-s", database).output
    succeeds("alarms", "cancel", "-s", database, "Cart", "ada", "remind")
    assert run("alarms", "-s", database, "--json").output == ""
    moved = run("alarms", "move", "-s", database, "--to", "wheel")
    assert moved.output == "Moved 0 alarms to the wheel.\n"
