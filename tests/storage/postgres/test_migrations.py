"""Migrations on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import pairwise

import psycopg
import pytest
from support.postgres import wait_until

from trio_durable import SchemaTooNew, StorageUnavailable
from trio_durable.storage import Commit, StoredObject, Writer
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._migrations import _LOCK, names_of_all
from trio_durable.storage.postgres._steps import FILLED, GONE

from .messages import burying, message, recording, sent_by
from .rows import Admin, beside, commit, count, in_thread, key, race, save, waits

CATALOGUE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), l.collname::text,
    a.attnotnull::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = %(schema)s::text::regnamespace AND a.attnum > 0 AND c.relkind = 'r'
    AND NOT a.attisdropped
UNION ALL
SELECT 'index', tablename, indexname, indexdef, null, null FROM pg_indexes
WHERE schemaname = %(schema)s::text
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), null, null
FROM pg_constraint WHERE connamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), null, null
FROM pg_trigger WHERE tgrelid::regclass::text LIKE '%%durable%%'
    AND NOT tgisinternal
    AND (SELECT relnamespace FROM pg_class c WHERE c.oid = tgrelid) = %(schema)s::text::regnamespace
UNION ALL
SELECT 'function', null, proname, pg_get_functiondef(oid), null, null
FROM pg_proc WHERE pronamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT 'view', null, viewname, definition, null, null FROM pg_views
WHERE schemaname = %(schema)s::text
UNION ALL
SELECT 'table', null, relname, reloptions::text, null, null
FROM pg_class WHERE relkind = 'r' AND relnamespace = %(schema)s::text::regnamespace
ORDER BY 1, 2, 3
"""


def schema_of(admin: Admin) -> str:
    row = admin.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return str(row[0])


def catalogue(admin: Admin, schema: str | None = None) -> list[tuple[object, ...]]:
    """Everything there is in a schema, without the schema's own name."""
    schema = schema or schema_of(admin)
    rows = admin.execute(CATALOGUE, {"schema": schema}).fetchall()
    return [
        tuple(
            text.replace(f'"{schema}".', "").replace(f"{schema}.", "")
            if isinstance(text, str)
            else text
            for text in row
        )
        for row in rows
    ]


def test_the_tables(storage: PostgresStorage, admin: Admin) -> None:
    storage.open_writer().close()
    found = catalogue(admin)
    columns = [row[1:] for row in found if row[0] == "column" and row[1] == "durable_objects"]
    assert columns == [
        ("durable_objects", "epoch", "bigint", None, "true"),
        ("durable_objects", "object_id", "text", "C", "true"),
        ("durable_objects", "owner", "uuid", None, "false"),
        ("durable_objects", "revision", "bigint", None, "true"),
        ("durable_objects", "state", "text", "default", "true"),
        ("durable_objects", "type_name", "text", "C", "true"),
        ("durable_objects", "updated_at", "bigint", None, "true"),
    ]
    assert [row[2] for row in found if row[0] == "index"] == [
        "durable_alarms_by_time",
        "durable_alarms_pkey",
        "durable_alarms_recurring",
        "durable_beats_pkey",
        "durable_cluster_pkey",
        "durable_dead_messages_by_lane",
        "durable_dead_messages_by_token",
        "durable_dead_messages_by_type",
        "durable_dead_messages_pkey",
        "durable_messages_awake",
        "durable_messages_begun",
        "durable_messages_by_sender_key",
        "durable_messages_by_time",
        "durable_messages_pkey",
        "durable_migrations_pkey",
        "durable_nodes_pkey",
        "durable_objects_pkey",
        "durable_once_by_expiry",
        "durable_once_pkey",
        "durable_shards_by_owner",
        "durable_shards_pkey",
        "durable_tenants_pkey",
    ]
    assert ("table", None, "durable_objects", "{fillfactor=70}", None, None) in found


def test_migrations_one_by_one_make_the_schema_from_scratch(
    storage: PostgresStorage, admin: Admin
) -> None:
    assert storage.pending_migrations() == names_of_all()
    assert storage.applied_migrations() == []
    storage.open_writer().close()
    scratch = catalogue(admin)
    assert storage.applied_migrations() == names_of_all()
    assert storage.pending_migrations() == []
    # Down step by step and up again, from each of them.
    seen = [scratch]
    for to in [*reversed(names_of_all()[:-1]), None]:
        storage.migrate_down(to)
        assert storage.applied_migrations() == (
            [] if to is None else names_of_all()[: names_of_all().index(to) + 1]
        )
        seen.append(catalogue(admin))
        storage.open_writer().close()
        assert catalogue(admin) == scratch
        storage.migrate_down(to)
        assert catalogue(admin) == seen[-1]
    assert seen[-1] == []
    assert all(len(less) < len(more) for more, less in pairwise(seen))


def test_migrations_down_and_up_with_tenants(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    commit(writer, save("a", 0), Commit(key("a", "acme"), 0, b"1"))
    scratch = catalogue(admin), catalogue(admin, "durable_acme")
    writer.close()
    assert storage.migrate_down("m001_objects") == [
        "m008_views",
        "m007_recurrences",
        "m006_messages",
        "m005_cluster",
        "m004_crashes",
        "m003_tenants",
        "m002_alarms",
    ]
    assert admin.execute("SELECT to_regnamespace('durable_acme')").fetchone() == (None,)
    with closing(storage.open_writer()) as again:
        commit(again, Commit(key("a", "acme"), 0, b"1"))
        assert (catalogue(admin), catalogue(admin, "durable_acme")) == scratch
        with closing(storage.open_reader()) as reader:
            assert reader.load([key("a")]) == [StoredObject(1, b"1")]  # what they had in common


@pytest.mark.parametrize("to", [*names_of_all(), None])
def test_the_sql_of_migrations_down_does_the_same(
    storage: PostgresStorage, admin: Admin, to: str | None
) -> None:
    def fill() -> None:
        with closing(storage.open_writer()) as writer:
            commit(writer, save("a", 0), Commit(key("a", "acme"), 0, b"1"))

    def found() -> list[object]:
        of_tenant = admin.execute("SELECT to_regnamespace('durable_acme')").fetchone()
        return [catalogue(admin), of_tenant, storage.applied_migrations()]

    fill()
    before = found()
    printed = storage.migrate_down_sql(to)
    assert found() == before  # looking changes nothing
    storage.migrate_down(to)
    after = found()
    if after != before:
        admin.execute("DROP SCHEMA IF EXISTS durable_acme CASCADE")
        storage.migrate_down(None)
        fill()
        assert found() == before
    run_script(admin, printed)
    assert found() == after
    assert storage.migrate_down_sql(to) == ""


@pytest.mark.parametrize(
    ("kind", "tenant"), [("waiting", ""), ("dead", "acme"), ("once", "zoo"), ("once", "")]
)
@pytest.mark.parametrize("to", ["m005_cluster", "m002_alarms", None])
def test_no_migration_down_deletes_messages(
    storage: PostgresStorage, admin: Admin, writer: Writer, to: str | None, kind: str, tenant: str
) -> None:
    """Nor does it undo anything else then."""
    commit(writer, save("a", 0), *(Commit(key("a", each), 0, b"1") for each in ("acme", "zoo")))
    new = message(key("b", tenant), key("a", tenant))
    if kind == "once":
        commit(writer, recording("b", tenant=tenant))
    else:
        sent_by(writer, new)
    if kind == "dead":
        commit(writer, burying(new))
    writer.close()
    schemas = [None, "durable_acme", "durable_zoo"]
    before = [catalogue(admin, schema) for schema in schemas]
    said = rf"1 of the (messages|dead messages|once-keys) of tenant \"{tenant}\" would be lost"
    with pytest.raises(StorageUnavailable, match=said):
        storage.migrate_down(to)
    assert [catalogue(admin, schema) for schema in schemas] == before
    assert storage.applied_migrations() == names_of_all()
    with pytest.raises(psycopg.Error) as caught:
        run_script(admin, storage.migrate_down_sql(to))
    assert caught.value.sqlstate == FILLED
    admin.execute("ROLLBACK")
    assert [catalogue(admin, schema) for schema in schemas] == before


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_the_sql_of_a_migration_down_deletes_no_messages_if_it_goes_on_after_an_error(
    storage: PostgresStorage, admin: Admin, writer: Writer, tenant: str
) -> None:
    """As psql does."""
    commit(writer, Commit(key("a", "acme"), 0, b"1"))
    new = message(key("b", tenant), key("a", tenant))
    sent_by(writer, new)
    writer.close()
    for transaction in storage.migrate_down_sql(None).split("BEGIN;")[1:]:
        try:
            run_script(admin, f"BEGIN;{transaction}")
        except psycopg.Error:
            admin.execute("ROLLBACK")
    schema = f"durable_{tenant}" if tenant else schema_of(admin)
    assert count(admin, f'SELECT count(*) FROM "{schema}".durable_messages') == 1


def test_the_tables_of_a_tenant_are_those_of_everybody(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    commit(writer, Commit(key("a", "acme"), 0, b"1"))
    theirs = catalogue(admin, "durable_acme")
    of_everybody = [row for row in catalogue(admin) if row in theirs]
    assert theirs == of_everybody
    assert [row[2] for row in theirs if row[0] == "table"] == [
        "durable_alarms",
        "durable_dead_messages",
        "durable_messages",
        "durable_objects",
        "durable_once",
    ]


def test_a_tenant_is_brought_up_to_date(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    commit(writer, Commit(key("a", "acme"), 0, b"1"))
    scratch = catalogue(admin, "durable_acme")
    writer.close()
    admin.execute("DROP VIEW durable_acme.durable_objects_v1")
    for table in ("alarms", "messages", "dead_messages", "once"):
        admin.execute(f"DROP TABLE durable_acme.durable_{table}".encode())
    admin.execute("DELETE FROM durable_migrations WHERE tenant = 'acme' AND name > 'm002'")
    assert storage.pending_migrations() == [
        "m002_alarms of tenant acme",
        "m004_crashes of tenant acme",
        "m006_messages of tenant acme",
        "m007_recurrences of tenant acme",
        "m008_views of tenant acme",
    ]
    storage.open_writer().close()
    assert catalogue(admin, "durable_acme") == scratch


def test_a_reader_requires_the_migrations_of_the_nameless_tenant(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    writer.close()
    admin.execute("DELETE FROM durable_migrations WHERE name > 'm004'")
    with pytest.raises(StorageUnavailable, match=r"older release.*trio-durable migrate"):
        storage.open_reader()


def test_ten_that_start_at_once_apply_each_migration_once(postgres: str, admin: Admin) -> None:
    """All of them have seen that nothing is there when the first begins."""
    threads = []
    outcomes = []
    with admin.transaction():
        admin.execute(_LOCK.encode())
        for number in range(10):
            outcome, thread = in_thread(partial(opened_and_saved, beside(postgres), f"{number}"))
            outcomes.append(outcome)
            threads.append(thread)
        wait_until(lambda: waits(admin) == 10)
    for thread in threads:
        thread.join()
    assert outcomes == [[[]]] * 10
    found = admin.execute("SELECT name, count(*) FROM durable_migrations GROUP BY 1 ORDER BY 1")
    assert found.fetchall() == [(name, 1) for name in names_of_all()]


def opened_and_saved(storage: PostgresStorage, object_id: str) -> list[int]:
    with closing(storage.open_writer()) as writer:
        return commit(writer, save(object_id, 0))


def test_ten_that_make_the_same_tenant_at_once(postgres: str) -> None:
    storage = beside(postgres)
    storage.open_writer().close()

    def work(number: int, mine: Writer) -> None:
        assert commit(mine, Commit(key(f"{number}", "acme"), 0, b"1")) == []

    race(postgres, 10, work)
    with closing(storage.open_reader()) as reader:
        assert reader.list_tenants(None, 9) == ["acme"]
        assert len(reader.list_ids("Cart", None, 99, "acme")) == 10


def test_a_newer_schema_is_refused(storage: PostgresStorage, admin: Admin) -> None:
    storage.open_writer().close()
    admin.execute("INSERT INTO durable_migrations (tenant, name) VALUES ('', 'm099_future')")
    works: list[Callable[[], object]] = [
        storage.open_writer,
        storage.open_reader,
        storage.pending_migrations,
        storage.migration_sql,
        lambda: storage.migrate_down(None),
        lambda: storage.migrate_down_sql(None),
    ]
    for work in works:
        with pytest.raises(SchemaTooNew) as caught:
            work()
        assert caught.value.unknown == ("m099_future",)
    assert storage.applied_migrations() == [*names_of_all(), "m099_future"]


def test_a_migration_down_to_nowhere_is_refused(storage: PostgresStorage) -> None:
    for work in (storage.migrate_down, storage.migrate_down_sql):
        with pytest.raises(ValueError, match=r"no migration 'm9', only m001_objects, "):
            work("m9")


def test_nothing_to_read_yet(storage: PostgresStorage, admin: Admin) -> None:
    with pytest.raises(StorageUnavailable, match=r"no tables in schema test_.* yet"):
        storage.open_reader()
    assert catalogue(admin) == []


@pytest.mark.parametrize("everything", [True, False])
def test_the_sql_of_migrations_makes_the_same_schema(
    storage: PostgresStorage, admin: Admin, everything: bool
) -> None:
    printed = storage.migration_sql(everything=everything)
    assert catalogue(admin) == []
    run_script(admin, printed)
    made = catalogue(admin)
    assert storage.pending_migrations() == []
    assert storage.migration_sql() == ""
    storage.migrate_down(None)
    storage.open_writer().close()
    assert catalogue(admin) == made


def test_the_sql_of_a_tenant_makes_the_same_schema(
    storage: PostgresStorage, admin: Admin, writer: Writer
) -> None:
    run_script(admin, storage.migration_sql(tenant="acme"))
    made = catalogue(admin, "durable_acme")
    assert commit(writer, Commit(key("a", "acme"), 0, b"1")) == []
    assert writer.drop_tenant("acme") is True
    assert commit(writer, Commit(key("a", "acme"), 0, b"1")) == []
    assert catalogue(admin, "durable_acme") == made


def run_script(admin: Admin, script: str) -> None:
    admin.execute(script.encode(), prepare=False)


def test_the_sql_of_migrations_is_the_same_until_they_are_applied(
    storage: PostgresStorage,
) -> None:
    assert storage.migration_sql() == storage.migration_sql()
    assert "CREATE TABLE" in storage.migration_sql()
    assert GONE in storage.migration_sql()
