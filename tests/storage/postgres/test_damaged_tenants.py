"""Tenants whose tables can't be used, and all others that go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing
from unittest.mock import Mock

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    PartialFault,
    Reader,
    StorageFault,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage, _migrations
from trio_durable.storage.postgres._shard_function import ShardSet
from trio_durable.storage.postgres._writer import PostgresWriter

from .rows import ALARM, NOW, SECOND, Admin, commit, key
from .test_isolation import committed, of_tenant

TENANTS = ["", "acme", "zoo"]

DAMAGES = {
    "trigger": (
        "ALTER TABLE durable_acme.durable_objects DISABLE TRIGGER ALL",
        "durable_acme.durable_objects lacks the trigger durable_objects_begin_at_1",
    ),
    "table": ("DROP TABLE durable_acme.durable_alarms", "durable_acme.durable_alarms is missing"),
    "messages": (
        "DROP TABLE durable_acme.durable_messages",
        "durable_acme.durable_messages is missing",
    ),
    "once-keys": ("DROP TABLE durable_acme.durable_once", "durable_acme.durable_once is missing"),
    "schema": ("DROP SCHEMA durable_acme CASCADE", "durable_acme.durable_objects is missing"),
    "key": (
        "ALTER TABLE durable_acme.durable_objects DROP CONSTRAINT durable_objects_pkey",
        "durable_acme.durable_objects has no primary key",
    ),
}


@pytest.fixture
def filled(storage: PostgresStorage) -> PostgresStorage:
    """A storage with an object and an alarm of each tenant."""
    with closing(storage.open_writer()) as writer:
        batch = [
            Commit(key("a", tenant), 0, b"1", alarms=AlarmChanges(changed={**ALARM}))
            for tenant in TENANTS
        ]
        assert commit(writer, *batch) == []
    return storage


@pytest.fixture
def sides() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(storage: PostgresStorage, sides: ExitStack) -> tuple[Writer, Reader]:
    writer = sides.enter_context(closing(storage.open_writer()))
    return writer, sides.enter_context(closing(storage.open_reader()))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "trio_durable.storage"
    ]


@pytest.mark.parametrize(("damage", "problem"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_tenant_is_refused_alone_and_can_be_dropped(
    filled: PostgresStorage,
    admin: Admin,
    sides: ExitStack,
    caplog: pytest.LogCaptureFixture,
    damage: str,
    problem: str,
) -> None:
    admin.execute(damage.encode())
    writer, reader = opened(filled, sides)
    batch = [of_tenant(tenant, revision=1, state=b"2") for tenant in TENANTS]
    with pytest.raises(PartialFault, match="tenant 'acme' can't be used") as refused:
        writer.commit(batch, NOW)
    assert refused.value.positions == [1]
    assert problem in str(refused.value)
    applied, left, _ = committed(writer, batch)
    assert [each.key.tenant for each in applied] == ["", "zoo"]
    assert [each.key.tenant for each in left] == ["acme"]
    alarms = [AlarmKey("Cart", "a", "x", tenant) for tenant in TENANTS]
    with pytest.raises(PartialFault) as refused:
        writer.claim(alarms, 1, NOW, NOW)
    assert refused.value.positions == [1]
    assert len(writer.claim([alarms[0], alarms[2]], 1, NOW, NOW)) == 2

    assert reader.list_tenants(None, 9) == ["acme", "zoo"]
    with pytest.raises(PartialFault, match="tenant 'acme' can't be used") as refused:
        reader.load([key("a", tenant) for tenant in TENANTS])
    assert refused.value.positions == [1]
    with pytest.raises(PartialFault, match="tenant 'acme' can't be used"):
        reader.due_alarms(NOW + SECOND, None, 9, (), "acme")
    assert reader.load([key("a", "zoo"), key("a")]) == [StoredObject(2, b"2")] * 2

    (warning,) = warnings_in(caplog)
    assert warning.startswith("tenant 'acme' can't be used, the others can: ")
    assert problem in warning
    assert 'migration_sql(tenant="acme")' in warning

    assert writer.drop_tenant("acme") is True
    assert reader.load([key("a", "acme")]) == [None]
    assert commit(writer, of_tenant("acme")) == []
    assert reader.load([key("a", "acme")]) == [StoredObject(1, b"1")]


def test_a_repaired_tenant_is_used_at_once(
    filled: PostgresStorage,
    admin: Admin,
    sides: ExitStack,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_durable.storage")
    admin.execute("ALTER TABLE durable_acme.durable_objects DISABLE TRIGGER ALL")
    writer, reader = opened(filled, sides)
    for _ in range(2):
        with pytest.raises(PartialFault):
            reader.load([key("a", "acme")])
    admin.execute("ALTER TABLE durable_acme.durable_objects ENABLE TRIGGER ALL")
    assert commit(writer, of_tenant("acme", revision=1, state=b"2")) == []
    assert reader.load([key("a", "acme")]) == [StoredObject(2, b"2")]
    assert len(warnings_in(caplog)) == 1
    assert [record.getMessage() for record in caplog.records].count(
        "tenant 'acme' can be used again"
    ) == 1


def test_a_table_that_disappears_while_a_storage_is_open(
    filled: PostgresStorage, admin: Admin, sides: ExitStack
) -> None:
    """Its rows are not taken for missing."""
    writer, reader = opened(filled, sides)
    assert reader.load([key("a", "acme")]) == [StoredObject(1, b"1")]
    admin.execute("ALTER TABLE durable_acme.durable_objects RENAME TO gone")
    with pytest.raises(PartialFault, match=r"durable_acme\.durable_objects is missing"):
        reader.load([key("a", "acme")])
    with pytest.raises(PartialFault, match=r"durable_acme\.durable_objects is missing"):
        commit(writer, of_tenant("acme", revision=1))
    admin.execute("ALTER TABLE durable_acme.gone RENAME TO durable_objects")
    assert reader.load([key("a", "acme")]) == [StoredObject(1, b"1")]


def test_damage_between_two_openings_is_found(
    filled: PostgresStorage, admin: Admin, sides: ExitStack
) -> None:
    _, reader = opened(filled, sides)
    reader.load([key("a", "acme")])
    sides.close()
    admin.execute("ALTER TABLE durable_acme.durable_objects DISABLE TRIGGER ALL")
    writer, _ = opened(filled, sides)
    with pytest.raises(PartialFault, match="lacks the trigger"):
        commit(writer, of_tenant("acme", revision=1))


# --- migrations ----------------------------------------------------------------------------------


def make_old(admin: Admin) -> None:
    """The tenants as an older release has made them."""
    for tenant in ("acme", "zoo"):
        admin.execute(
            f"ALTER TABLE durable_{tenant}.durable_alarms DROP crashes, DROP marked".encode()
        )
    admin.execute("DELETE FROM durable_migrations WHERE tenant <> '' AND name = 'm004_crashes'")


def test_a_tenant_that_cannot_be_migrated_stays_old_alone(
    filled: PostgresStorage,
    admin: Admin,
    sides: ExitStack,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_old(admin)
    admin.execute("ALTER SCHEMA durable_acme RENAME TO elsewhere")
    writer, reader = opened(filled, sides)
    assert filled.pending_migrations() == ["m004_crashes of tenant acme"]
    assert "migrations can't be applied to its tables" in warnings_in(caplog)[0]
    assert reader.list_tenants(None, 9) == ["acme", "zoo"]
    assert commit(writer, of_tenant("zoo", revision=1)) == []
    with pytest.raises(StorageFault, match="migrations can't be applied to its tables"):
        commit(writer, of_tenant("acme", revision=1))
    admin.execute("ALTER SCHEMA elsewhere RENAME TO durable_acme")
    assert commit(writer, of_tenant("acme", revision=1)) == []
    assert filled.pending_migrations() == []


def test_migrations_wait_for_one_lock_only(
    filled: PostgresStorage,
    admin: Admin,
    sides: ExitStack,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dump locks the tables of all tenants."""
    monkeypatch.setattr(_migrations, "_MAKING_WAIT", "50ms")
    monkeypatch.setattr(_migrations, "_CATCHING_UP_WAIT", "50ms")
    tried = Mock(wraps=_migrations.Schema._apply_one, autospec=True)
    monkeypatch.setattr(_migrations.Schema, "_apply_one", lambda *each: tried(*each))
    make_old(admin)
    with admin.transaction():
        admin.execute("LOCK TABLE durable_acme.durable_alarms IN ACCESS SHARE MODE")
        admin.execute("LOCK TABLE durable_zoo.durable_alarms IN ACCESS SHARE MODE")
        writer, _ = opened(filled, sides)
        assert tried.call_count == 1
        assert len(filled.pending_migrations()) == 2
        assert len(warnings_in(caplog)) == 2
        assert commit(writer, of_tenant("", revision=1)) == []
        for tenant in ("acme", "zoo"):
            with pytest.raises(PartialFault, match="another session holds the lock"):
                commit(writer, of_tenant(tenant, revision=1))
    for tenant in ("acme", "zoo"):
        assert commit(writer, of_tenant(tenant, revision=1)) == []
    assert filled.pending_migrations() == []


# --- claims of a process that has died -----------------------------------------------------------


@pytest.mark.parametrize("shards", [None, ShardSet.of(range(1024), 1024)], ids=["all", "shards"])
def test_claims_are_released_though_a_tenant_cannot_be_written(
    postgres: str,
    filled: PostgresStorage,
    admin: Admin,
    sides: ExitStack,
    caplog: pytest.LogCaptureFixture,
    shards: ShardSet | None,
) -> None:
    options = conninfo_to_dict(postgres)["options"]
    hasty = PostgresStorage(make_conninfo(postgres, options=f"{options} -clock_timeout=50ms"))
    writer, reader = opened(hasty, sides)
    alarms = [AlarmKey("Cart", "a", "x", tenant) for tenant in TENANTS]
    assert len(writer.claim(alarms, 1, NOW, NOW + 60 * SECOND)) == 3
    assert isinstance(writer, PostgresWriter)
    with admin.transaction():
        admin.execute("LOCK TABLE durable_acme.durable_alarms")
        writer.release_claims(shards, are_crashes=False)
    due = {
        tenant: [
            each.available_at for each in reader.due_alarms(NOW + 99 * SECOND, None, 9, (), tenant)
        ]
        for tenant in TENANTS
    }
    assert due == {"": [NOW], "acme": [NOW + 60 * SECOND], "zoo": [NOW]}
    (warning,) = warnings_in(caplog)
    assert "of tenant 'acme' that a dead process was handling wait" in warning
