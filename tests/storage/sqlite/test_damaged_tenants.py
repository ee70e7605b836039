"""Tenants whose tables can't be used, and all others that go on."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable._keys import AlarmKey
from trio_durable.storage import AlarmChanges, Commit, NewAlarm, PartialFault, StoredObject

from .files import NOW, drop_messages, execute, writing

TENANTS = ["", "acme", "zoo"]
MINUTE = 60_000_000


def key(tenant: str) -> ObjectKey:
    return ObjectKey("Counter", "a", tenant)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with an object and a claimed alarm of each tenant."""
    path = tmp_path / "objects.db"
    changes = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([Commit(key(tenant), 0, b"1", alarms=changes) for tenant in TENANTS], NOW)
        alarms = [AlarmKey("Counter", "a", "x", tenant) for tenant in TENANTS]
        assert len(writer.claim(alarms, 1, NOW, NOW + MINUTE)) == 3
    return path


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_damaged_tenant_is_refused_alone_and_can_be_dropped(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execute(path, 'DROP TABLE "tenant_acme_durable_alarms"')
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        (warning,) = warnings_in(caplog)
        assert warning.startswith("tenant 'acme' can't be used, the others can: no such table: ")
        assert warning.endswith("or drop the tenant")
        due = {
            tenant: [each.available_at for each in reader.due_alarms(NOW + 1, None, 9, (), tenant)]
            for tenant in ("", "zoo")
        }
        assert due == {"": [NOW], "zoo": [NOW]}  # whose claims have ended
        with pytest.raises(PartialFault, match="tenant_acme_durable_alarms"):
            reader.due_alarms(NOW + 1, None, 9, (), "acme")
        assert writer.commit([Commit(key("zoo"), 1, b"2")], NOW) == ()
        assert writer.drop_tenant("acme") is True
        assert reader.load([key("acme"), key("zoo")]) == [None, StoredObject(2, b"2")]
    caplog.clear()
    with writing(storage):
        assert warnings_in(caplog) == []


def test_a_tenant_that_cannot_be_migrated_stays_old_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for tenant in ("acme", "zoo"):
        execute(path, f"DROP VIEW tenant_{tenant}_durable_objects_v1")
        execute(path, f"DROP INDEX tenant_{tenant}_durable_alarms_recurring")
        for column in ("crashes", "marked", "recurrence"):
            execute(path, f'ALTER TABLE "tenant_{tenant}_durable_alarms" DROP {column}')
        drop_messages(path, tenant)
    execute(path, "DELETE FROM _sqlite_migrations WHERE migration_set LIKE '%:%' AND name > 'm004'")
    execute(path, 'ALTER TABLE "tenant_acme_durable_alarms" RENAME TO elsewhere')
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert storage.pending_migrations() == [
            "m004_crashes of tenant acme",
            "m005_messages of tenant acme",
            "m006_recurrences of tenant acme",
            "m007_views of tenant acme",
        ]
        assert "tenant 'acme' can't be used" in warnings_in(caplog)[0]
        assert writer.commit([Commit(key("zoo"), 1, b"2")], NOW) == ()
        assert len(reader.due_alarms(NOW + 1, None, 9, (), "zoo")) == 1
    execute(path, 'ALTER TABLE elsewhere RENAME TO "tenant_acme_durable_alarms"')
    with writing(storage), closing(storage.open_reader()) as reader:
        assert storage.pending_migrations() == []
        assert len(reader.due_alarms(NOW + 1, None, 9, (), "acme")) == 1
