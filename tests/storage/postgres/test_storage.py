"""PostgreSQL: big values, odd names, settings of a session, and no psycopg at all."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from trio_durable import DurableRuntime
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    NewAlarm,
    Reader,
    StorageFault,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage

from .rows import NOW, Admin, commit, everything, key, save, setting

# --- big things ----------------------------------------------------------------------------------


def test_a_batch_of_32_mb_of_quotes(writer: Writer, reader: Reader) -> None:
    states = [b'"' + b'\\"' * (512 * 1024 - 1) + b'"' for _ in range(32)]
    ids = [f"{n:02}" for n in range(32)]
    batch = [save(one, 0, state) for one, state in zip(ids, states, strict=True)]
    assert commit(writer, *batch) == []
    rows = reader.load([key(one) for one in ids])
    assert [row.state for row in rows if row] == states


def test_numbers_of_64_bits(writer: Writer, reader: Reader) -> None:
    epoch = 2**63 - 1
    commit(writer, save("a", 0, b'{"n":-9223372036854775808,"m":18446744073709551615}', epoch))
    assert commit(writer, Commit(key("a"), 1, b"1", epoch=epoch - 1)) == [0]
    (row,) = reader.load([key("a")])
    assert row == StoredObject(1, b'{"n":-9223372036854775808,"m":18446744073709551615}', epoch)
    latest = AlarmChanges(changed={"x": NewAlarm(2**63 - 1, None)})
    commit(writer, Commit(key("a"), None, alarms=latest))
    assert reader.list_alarms(key("a"))[0].due_at == 2**63 - 1


@pytest.mark.parametrize("bad", [save("a", 0, epoch=2**63), save("a", 0, b"\xff"), save("a\0", 0)])
def test_what_no_row_can_hold_is_a_fault(writer: Writer, reader: Reader, bad: Commit) -> None:
    with pytest.raises(StorageFault):
        commit(writer, save("b", 0), bad)
    assert reader.browse_objects(None, None, 9) == []
    assert commit(writer, save("b", 0)) == []


def test_the_time_of_a_commit_is_noted(
    writer: Writer, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    writer.commit([save("a", 0)], NOW)
    writer.commit([save("a", 1)], NOW + 7)
    found = admin.execute("SELECT owner, revision, updated_at, state FROM durable_objects")
    assert found.fetchall() == [(None, 2, NOW + 7, "1")]


# --- settings of a connection --------------------------------------------------------------------


def settings_of(side: object, *names: str) -> list[str]:
    connection = side._reconnecting._connection  # type: ignore[attr-defined]
    return [connection.execute(f"SHOW {name}".encode()).fetchone()[0] for name in names]


def test_what_a_connection_is_set_to(postgres: str) -> None:
    parameters = make_conninfo(
        postgres,
        options=f"{conninfo_to_dict(postgres)['options']} -csynchronous_commit=off "
        "-cdefault_transaction_isolation=serializable",
    )
    names = ("synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout")
    with closing(PostgresStorage(parameters, statement_timeout=7).open_writer()) as writer:
        assert settings_of(writer, *names) == ["on", "7s", "7s"]
        names = ("default_transaction_isolation", "client_encoding", "application_name")
        assert settings_of(writer, *names) == ["read committed", "UTF8", "trio_durable writer"]
    with closing(PostgresStorage(postgres, durability="normal").open_writer()) as writer:
        assert settings_of(writer, "synchronous_commit") == ["off"]


def test_what_the_user_sets_stays(postgres: str) -> None:
    options = conninfo_to_dict(postgres)["options"]
    parameters = make_conninfo(
        postgres,
        options=f"{options} -csynchronous_commit=remote_apply -cstatement_timeout=0",
        application_name="shop",
    )
    with closing(PostgresStorage(parameters).open_writer()) as writer:
        names = ("synchronous_commit", "statement_timeout", "application_name")
        assert settings_of(writer, *names) == ["remote_apply", "0", "shop"]
        assert writer._reconnecting._connection.silence_timeout is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("prepared", [True, False])
def test_statements_are_prepared_unless_a_pooler_can_not_have_them(
    postgres: str, prepared: bool
) -> None:
    storage = PostgresStorage(postgres, prepared_statements=prepared)
    with closing(storage.open_writer()) as writer:
        for revision in range(8):
            commit(writer, save("a", revision))
        connection = writer._reconnecting._connection  # type: ignore[attr-defined]
        count = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert (count[0] > 0) is prepared


# --- odd names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['odd "schema" %s %(x)s {y} é', "UPPER", "a.b"])
def test_schemas_of_any_name(postgres: str, admin: Admin, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    admin.execute(f"CREATE SCHEMA {quoted}".encode())
    escaped = quoted.replace("\\", "\\\\").replace(" ", "\\ ")
    storage = PostgresStorage(make_conninfo(postgres, options=f"-csearch_path={escaped}"))
    try:
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            assert commit(writer, save("a", 0), setting("a%s", "x")) == []
            assert commit(writer, save("a", 5)) == [0]
            assert reader.load([key("a")]) == [StoredObject(1, b"1")]
            assert commit(writer, Commit(key("a", "a-b_c"), 0, b"1")) == []
            assert reader.list_tenants(None, 9) == ["a-b_c"]
            assert [each.objects for each in reader.summarize(NOW)] == [1]
            assert [row.alarm.key.name for row in everything(reader)] == ["x"]
            assert writer.drop_tenant("a-b_c")
        assert storage.pending_migrations() == []
        assert storage.migrate_down(None)
    finally:
        admin.execute(f"DROP SCHEMA {quoted} CASCADE".encode())


def test_a_schema_of_somebody_else_is_not_taken_for_a_tenants(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    """Two applications in one database, each with a schema, have no tenant in common."""
    admin.execute("CREATE SCHEMA durable_acme")
    with pytest.raises(StorageFault, match="durable_acme"):
        commit(writer, Commit(key("a", "acme"), 0, b"1"))
    assert reader.list_tenants(None, 9) == []
    assert writer.drop_tenant("acme") is False
    assert admin.execute("SELECT to_regnamespace('durable_acme')").fetchone() != (None,)


# --- without psycopg -----------------------------------------------------------------------------


def test_without_psycopg_all_else_works_and_an_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["psycopg"] = None  # as if it weren't there
import trio_durable
trio_durable.DurableRuntime(":memory:")
for make in (
    lambda: trio_durable.DurableRuntime("postgresql://user:sesame@host/db"),
    lambda: trio_durable.PostgresStorage,
):
    try:
        make()
    except ModuleNotFoundError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    said = "objects in PostgreSQL need psycopg: pip install 'trio-durable[postgres]'"
    assert run.stdout.splitlines() == [said, said]


def test_psycopg_is_imported_when_it_is_needed() -> None:
    code = """
import sys, trio_durable
assert "psycopg" not in sys.modules
assert trio_durable.PostgresStorage.__name__ == "PostgresStorage"
assert "psycopg" in sys.modules
try:
    trio_durable.NoSuchThing
except AttributeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "module 'trio_durable' has no attribute 'NoSuchThing'\n"


def test_urls_name_a_database(postgres: str) -> None:
    for url in ("postgresql://me@db.example:5433/app", "postgres://me@db.example:5433/app"):
        runtime = DurableRuntime(url)
        assert repr(runtime) == "<DurableRuntime on postgresql://me@db.example:5433/app>"
    runtime = DurableRuntime("postgresql:///app", durability="normal")
    assert runtime._storage._settings.durability == "normal"  # type: ignore[attr-defined]
