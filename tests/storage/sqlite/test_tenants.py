"""Tenants in an SQLite file: tables of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import attrs
import pytest

from trio_durable import SchemaTooNew, SQLiteStorage, StorageUnavailable
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    AlarmStatus,
    Commit,
    DueAlarm,
    NewAlarm,
    Reader,
    StorageFault,
    StoredObject,
)
from trio_durable.storage.sqlite._migrations import Schema
from trio_durable.storage.sqlite._tables import MAX_CACHED_TENANTS

from .files import NOW, connection_of, execute, executed, key, steps_of, theirs, traced, writing


def names_in(path: Path) -> set[object]:
    """The tables, triggers and indexes that were made by name."""
    return {name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE sql NOT NULL")}


ODD_TENANTS = [
    "a",
    "0",
    "a-b",
    "a_b",
    "a--",
    "a__",
    "sqlite",
    "sqlite_master",
    "pg_catalog",
    "select",
    "durable",
    "durable_objects",
    "tenant_a",
    "0123456789abcdefghijklmnopqrstuvwxyz_-" + 10 * "x",
    48 * "z",
]
"""Every character that a name may have, names of SQL's, and names that are nearly each other's."""


def of_tenant(
    tenant: str,
    object_id: str,
    *names: str,
    state: bytes | None = None,
    revision: int | None = None,
) -> Commit:
    """Save an object of a tenant and set alarms of it."""
    changed: dict[str, NewAlarm | None] = {name: NewAlarm(NOW, None) for name in names}
    if revision is None and state is not None:
        revision = 0
    alarms = AlarmChanges(changed=changed) if names else None
    return Commit(theirs(tenant, object_id), revision, state, alarms=alarms)


def test_any_name_that_a_tenant_may_have_can_have_tables(path: Path) -> None:
    storage = SQLiteStorage(path)
    for opening in range(2):
        with writing(storage) as writer, closing(storage.open_reader()) as reader:
            for n, tenant in enumerate(ODD_TENANTS):
                commit = of_tenant(tenant, "a", "x", state=f"{n}".encode(), revision=opening)
                assert writer.commit([commit], NOW) == (), tenant
            assert reader.list_tenants(None, 100) == sorted(ODD_TENANTS)
            rows = reader.load([theirs(tenant) for tenant in ODD_TENANTS])
            assert rows == [
                StoredObject(opening + 1, f"{n}".encode()) for n, _ in enumerate(ODD_TENANTS)
            ]
            for tenant in ODD_TENANTS:
                alarm = AlarmKey("Counter", "a", "x", tenant)
                due = reader.due_alarms(NOW + 1, None, 10, (), tenant)
                assert due == [DueAlarm(NOW, alarm)]
                assert len(writer.claim([alarm], 1 + opening, NOW, NOW)) == 1


def test_what_the_tables_of_a_tenant_are_called(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        common = names_in(path)
        writer.commit([of_tenant("a-b", "a", state=b"1")], NOW)
        assert names_in(path) - common == {
            "tenant_a-b_durable_objects",
            "tenant_a-b_durable_objects_begin_at_1",
            "tenant_a-b_durable_alarms",
            "tenant_a-b_durable_alarms_by_time",
            "tenant_a-b_durable_alarms_claimed",
            "tenant_a-b_durable_alarms_recurring",
            "tenant_a-b_durable_messages",
            "tenant_a-b_durable_messages_by_lane",
            "tenant_a-b_durable_messages_awake",
            "tenant_a-b_durable_messages_by_time",
            "tenant_a-b_durable_messages_by_sender_key",
            "tenant_a-b_durable_messages_begun",
            "tenant_a-b_durable_dead_messages",
            "tenant_a-b_durable_dead_messages_by_token",
            "tenant_a-b_durable_dead_messages_by_type",
            "tenant_a-b_durable_dead_messages_by_lane",
            "tenant_a-b_durable_once",
            "tenant_a-b_durable_once_by_expiry",
            "tenant_a-b_durable_objects_v1",
        }
        assert writer.drop_tenant("a-b")
        assert names_in(path) == common


def test_the_tables_of_a_tenant_are_as_those_of_the_file(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([of_tenant("a-b", "a", state=b"1")], NOW)
    rows = execute(path, "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL")
    schema = {str(name): str(sql) for name, sql in rows}
    made = [name for name in schema if name.startswith("tenant_a-b_")]
    assert len(made) == 19
    for name in made:
        common = schema[name].replace("tenant_a-b_", "").replace('"', "")
        assert common == schema[name.removeprefix("tenant_a-b_")]


@pytest.mark.usefixtures("unstamped")
def test_tables_are_made_in_the_transaction_that_first_writes_something(path: Path) -> None:
    """Nobody sees them half made: neither a reader, nor who opens the file after a crash."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        seen: list[tuple[StoredObject | None, list[str]]] = []

        def look(_: str) -> None:
            (row,) = reader.load([theirs("acme")])
            seen.append((row, reader.list_tenants(None, 10)))
            storage.open_reader().close()

        connection_of(writer).set_trace_callback(look)
        writer.commit([of_tenant("acme", "a", "x", state=b"1")], NOW)
        connection_of(writer).set_trace_callback(None)
        assert len(seen) > 10
        assert set(map(repr, seen)) == {repr((None, []))}
        assert reader.load([theirs("acme")]) == [StoredObject(1, b"1")]


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
def test_a_batch_that_fails_leaves_no_tables_of_a_new_tenant(path: Path, stale: bool) -> None:
    """Wherever it is interrupted."""
    storage = SQLiteStorage(path)
    batch = [
        Commit(key("a"), 0, b"1"),
        of_tenant("acme", "a", "x", state=b"1"),
        of_tenant("beta", "a", state=b"1"),
    ]
    if stale:
        batch.append(of_tenant("acme", "b", state=b"1", revision=7))
    other = SQLiteStorage(path.with_name("other.db"))
    with writing(other) as writer, closing(other.open_reader()) as reader:
        steps = steps_of(writer, reader, lambda: writer.commit(batch, NOW))
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        before = names_in(path)
        connection = connection_of(writer)
        for place in range(1, 20):
            left = steps * place // 20

            def interrupt() -> int:
                nonlocal left
                left -= 1
                return left == 0

            connection.set_progress_handler(interrupt, 1)
            with pytest.raises(StorageFault, match="interrupted"):
                writer.commit(batch, NOW)
            connection.set_progress_handler(None, 1)
            assert not connection.in_transaction
            assert names_in(path) == before
            assert reader.list_tenants(None, 10) == []
            assert reader.load([c.key for c in batch]) == [None] * len(batch)
        assert sorted(writer.commit(batch, NOW)) == ([3] if stale else [])
        assert reader.list_tenants(None, 10) == ["acme", "beta"]
        assert reader.load([c.key for c in batch[:3]]) == [StoredObject(1, b"1")] * 3


def test_a_tenant_that_is_made_while_a_reader_opens_does_not_keep_it_from_that(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of tenants and that of migrations are of one moment."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        names = (f"n{n}" for n in count())
        applied = Schema._applied

        def made_meanwhile(schema: Schema) -> list[tuple[str, str]]:
            found = list(applied(schema))
            writer.commit([of_tenant(next(names), "a", state=b"1")], NOW)
            return found

        monkeypatch.setattr(Schema, "_applied", made_meanwhile)
        with closing(storage.open_reader()) as reader:
            assert reader.load([theirs("n0")]) == [StoredObject(1, b"1")]
        assert storage.pending_migrations() == []


def test_a_tenant_that_is_dropped_while_it_is_read_is_read_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
        has_tenant = Schema.has_tenant

        def dropped_meanwhile(schema: Schema, tenant: str) -> bool:
            found = has_tenant(schema, tenant)
            monkeypatch.undo()
            assert writer.drop_tenant("acme") is True
            return found

        monkeypatch.setattr(Schema, "has_tenant", dropped_meanwhile)
        assert reader.load([theirs("acme")]) == [StoredObject(1, b"1")]
        assert reader.load([theirs("acme")]) == [None]


@pytest.mark.parametrize("work", ["list tenants", "load", "due", "commit", "claim"])
def test_what_is_done_for_one_tenant_does_not_grow_with_their_number(path: Path, work: str) -> None:
    found = []
    for tenants in (20, 100):
        storage = SQLiteStorage(path.with_name(f"{tenants}.db"))
        with writing(storage) as writer, closing(storage.open_reader()) as reader:
            names = [f"{n:03}" for n in range(tenants)]
            writer.commit([of_tenant(name, "a", "x", state=b"1") for name in names], NOW)
            alarm = AlarmKey("Counter", "a", "x", "010")
            jobs: dict[str, Callable[[], object]] = {
                "list tenants": partial(reader.list_tenants, "009", 5),
                "load": partial(reader.load, [theirs("010")]),
                "due": partial(reader.due_alarms, NOW, None, 10, (), "010"),
                "commit": lambda: writer.commit([of_tenant("010", "b", state=b"1")], NOW),
                "claim": partial(writer.claim, [alarm], 1, NOW, NOW),
            }
            writer.commit([of_tenant("010", "c", state=b"1")], NOW)
            reader.load([theirs("010")])  # the first reads the schema as well
            found.append(steps_of(writer, reader, jobs[work]))
    few, many = found
    assert 0 < many <= few * 1.05 + 5


def undo(path: Path, tenant: str, migration: str, *drops: str) -> None:
    """Let a migration of a tenant not have been applied."""
    for drop in drops:
        execute(path, drop)
    execute(
        path,
        "DELETE FROM _sqlite_migrations WHERE migration_set = ? AND name = ?",
        *(f"trio_durable:{tenant}" if tenant else "trio_durable", migration),
    )


def test_the_migrations_of_a_tenant_are_its_own(path: Path) -> None:
    with writing(SQLiteStorage(path)) as writer:
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
    found = execute(path, "SELECT migration_set, name FROM _sqlite_migrations ORDER BY id")
    of_everybody = [
        "m001_objects",
        "m002_alarms",
        "m004_crashes",
        "m005_messages",
        "m006_recurrences",
        "m007_views",
    ]
    assert found == [
        *(("trio_durable", name) for name in sorted([*of_everybody, "m003_tenants"])),
        *(("trio_durable:acme", name) for name in of_everybody),
    ]


def test_a_tenant_that_lacks_a_migration_is_brought_up_to_date(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        writer.commit([of_tenant(name, "a", state=b"1") for name in ("acme", "beta")], NOW)
    undo(path, "acme", "m006_recurrences")
    undo(path, "acme", "m004_crashes")
    undo(path, "acme", "m002_alarms", 'DROP TABLE "tenant_acme_durable_alarms"')
    assert storage.pending_migrations() == [
        "m002_alarms of tenant acme",
        "m004_crashes of tenant acme",
        "m006_recurrences of tenant acme",
    ]
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert storage.pending_migrations() == []
        assert reader.load([theirs("acme")]) == [StoredObject(1, b"1")]
        assert writer.commit([of_tenant("acme", "a", "x", state=b"2", revision=1)], NOW) == ()
        assert len(reader.list_alarms(theirs("acme"))) == 1


def test_a_tenant_that_was_noted_and_has_no_tables_gets_them(path: Path) -> None:
    storage = SQLiteStorage(path)
    storage.open_writer().close()
    execute(path, "INSERT INTO durable_tenants VALUES ('acme')")
    assert storage.pending_migrations() == [
        "m001_objects of tenant acme",
        "m002_alarms of tenant acme",
        "m004_crashes of tenant acme",
        "m005_messages of tenant acme",
        "m006_recurrences of tenant acme",
        "m007_views of tenant acme",
    ]
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert reader.load([theirs("acme")]) == [None]
        assert writer.commit([of_tenant("acme", "a", "x", state=b"1")], NOW) == ()


def test_a_file_from_before_tenants_is_migrated(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)
    undo(path, "", "m003_tenants", "DROP TABLE durable_tenants")
    assert storage.pending_migrations() == ["m003_tenants"]
    with pytest.raises(StorageUnavailable, match="trio-durable migrate"):
        storage.open_reader()
    assert storage.pending_migrations() == ["m003_tenants"]  # looking changes nothing
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        assert reader.load([key("a")]) == [StoredObject(1, b"1")]
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
        assert reader.list_tenants(None, 10) == ["acme"]


@pytest.mark.parametrize("tenant", ["", "acme", "unheard-of"])
def test_a_newer_migration_of_anybody_is_refused(path: Path, tenant: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer:
        writer.commit([of_tenant("acme", "a", state=b"1")], NOW)
    execute(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        *(f"trio_durable:{tenant}" if tenant else "trio_durable", "m999_from_the_future", "2099"),
    )
    for attempt in (storage.open_writer, storage.open_reader, storage.pending_migrations):
        with pytest.raises(SchemaTooNew) as caught:
            attempt()
        assert caught.value.unknown == ("m999_from_the_future",)


def test_more_tenants_than_are_kept_at_hand(path: Path) -> None:
    storage = SQLiteStorage(path)
    names = [f"t{n:03}" for n in range(MAX_CACHED_TENANTS + 20)]
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        for revision in range(2):
            batch = [of_tenant(one, "a", "x", state=b"1", revision=revision) for one in names]
            assert writer.commit(batch, NOW) == ()
            for one in (*names[:3], *names[-3:]):
                commit = of_tenant(one, f"{revision}", state=b"1")
                assert writer.commit([commit], NOW) == ()
        rows = reader.load([theirs(one) for one in names])
        assert rows == [StoredObject(2, b"1")] * len(names)
        alarms = [AlarmKey("Counter", "a", "x", one) for one in names]
        assert [a.key for a in writer.claim(alarms, 1, NOW, NOW + 9)] == alarms
        assert writer.drop_tenant(names[0]) is True
        assert writer.drop_tenant(names[-1]) is True
        stale = [of_tenant(one, "a", state=b"1", revision=2) for one in (names[0], names[-1])]
        assert sorted(writer.commit(stale, NOW)) == [0, 1]
        assert reader.list_tenants(None, 1000) == names[1:-1]


@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
def test_what_a_batch_of_several_tenants_costs(path: Path, stale: bool) -> None:
    """One transaction, and a statement for each thing that is done in each of them."""
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        counts = []
        for tenants, rows in ((1, 8), (2, 8), (4, 8), (4, 400)):
            names = [f"t{n}" for n in range(tenants)]
            ids = [f"{tenants}/{rows}/{n}" for n in range(rows)]
            batch = [of_tenant(names[n % tenants], one, state=b"1") for n, one in enumerate(ids)]
            writer.commit(batch, NOW)  # makes the tables
            again = [attrs.evolve(commit, revision=1) for commit in batch]
            if stale:
                again[-1].revision = 5
            with traced(writer, reader) as statements:
                assert sorted(writer.commit(again, NOW)) == ([rows - 1] if stale else [])
            made = [text.split()[0] for text in executed(statements)]
            counts.append((made.count("BEGIN"), made.count("COMMIT"), made.count("INSERT")))
        if stale:
            # Tried as a whole first, for all tenants before the one that is refused.
            assert [begun for begun, _, _ in counts] == [1, 2, 2, 2]
            assert [done for _, done, _ in counts] == [1, 1, 1, 1]
            assert counts[2] == counts[3]
        else:
            assert counts == [(0, 0, 1), (1, 1, 2), (1, 1, 4), (1, 1, 4)]


def test_the_first_commit_of_a_tenant_is_one_transaction(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        with traced(writer, reader) as statements:
            writer.commit([of_tenant("acme", "a", "x", state=b"1")], NOW)
        made = [text.split()[0] for text in executed(statements)]
        assert made.count("BEGIN") == made.count("COMMIT") == 1


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_no_page_that_is_looked_through_begins_at_the_beginning(path: Path, tenant: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        ids = [f"{n:04}" for n in range(1000)]
        writer.commit([of_tenant(tenant, one, "x", "y", state=b"1") for one in ids], NOW)
        pages: list[Callable[[str], Sequence[object]]] = [
            lambda one: reader.browse_objects(None, theirs(tenant, one), 10, tenant),
            lambda one: reader.browse_objects("Counter", theirs(tenant, one), 10, tenant),
            lambda one: reader.list_ids("Counter", one, 10, tenant),
            *(
                partial(browsed_alarms, reader, tenant, status, type_name)
                for status in (None, "overdue")
                for type_name in (None, "Counter")
            ),
        ]
        for page in pages:
            with traced(writer, reader) as statements:
                assert len(page("0500")) == 10
            (select,) = [text for text in statements if "ORDER BY" in text]
            plan = connection_of(writer).execute(f"EXPLAIN QUERY PLAN {select}").fetchall()
            details = [step[3] for step in plan if "durable_" in step[3]]
            assert len(details) == 1, details
            assert details[0].startswith("SEARCH"), details
            assert "(type_name" in details[0], details
            assert not any("TEMP B-TREE" in step[3] for step in plan), plan
            steps = [steps_of(writer, reader, partial(page, one)) for one in ("0001", "0980")]
            assert max(steps) <= min(steps) * 1.1


def browsed_alarms(
    reader: Reader, tenant: str, status: AlarmStatus | None, type_name: str | None, after: str
) -> Sequence[object]:
    last = AlarmKey("Counter", after, "y", tenant)
    return reader.browse_alarms(status, NOW, type_name, last, 10, tenant)
