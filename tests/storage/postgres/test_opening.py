"""PostgreSQL databases that can't be opened: each error names the remedy.

Passwords appear in none of them, nor in logs or reprs.
"""

from __future__ import annotations

import copy
import logging
import os
import pickle
import re
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from support.postgres import Server, wait_until

from trio_durable import DurableRuntime, ObjectKey, StorageUnavailable
from trio_durable.storage import Commit, SQLiteStorage, StorageFault, StoredObject
from trio_durable.storage._urls import storage_at
from trio_durable.storage.postgres import PostgresStorage

NOW = 1_767_225_600_000_000
SECRET = "opensesame"


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """With roles that each have something in their way."""
    own_server.execute(
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        f"CREATE ROLE strong LOGIN PASSWORD '{SECRET}'",
        "CREATE ROLE encrypted LOGIN",
        "CREATE ROLE limited LOGIN CONNECTION LIMIT 0",
        "CREATE ROLE frozen LOGIN",
        "ALTER ROLE frozen SET default_transaction_read_only = on",
        "CREATE ROLE guest LOGIN",
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
        "CREATE DATABASE closed",
        "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
    )
    return own_server


def refused(storage: PostgresStorage) -> str:
    """What each way to open a storage says."""
    said = set()
    for work in (storage.open_writer, storage.open_reader, storage.pending_migrations):
        with pytest.raises(StorageUnavailable) as caught:
            work()
        assert caught.value.location == storage.location
        said.add(caught.value.problem)
    (problem,) = said
    assert "\n" not in problem
    return problem


def test_a_wrong_password(server: Server) -> None:
    problem = refused(PostgresStorage(server.url("strong", "wrong-password")))
    assert 'password authentication failed for user "strong"' in problem
    assert "check user and password" in problem


def test_no_password(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    problem = refused(PostgresStorage(server.url("strong")))
    assert "no password supplied" in problem
    assert "PGPASSWORD" in problem


def test_a_missing_role(server: Server) -> None:
    problem = refused(PostgresStorage(server.url("nobody")))
    assert 'role "nobody" does not exist; check the user\'s name' in problem


def test_a_missing_database(server: Server) -> None:
    problem = refused(PostgresStorage(server.url(database="nothing")))
    assert 'database "nothing" does not exist; check' in problem
    assert "CREATE DATABASE" in problem


def test_a_database_that_the_role_may_not_use(server: Server) -> None:
    problem = refused(PostgresStorage(server.url("guest", database="closed")))
    assert "permission denied for database" in problem
    assert "CONNECT" in problem


def test_an_unknown_host() -> None:
    problem = refused(PostgresStorage("postgresql://me@no-such-host.invalid/app"))
    assert "no-such-host.invalid" in problem
    assert "check the host's name" in problem


def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound and not listening, so that nobody else has the port
        taken.bind(("127.0.0.1", 0))
        problem = refused(PostgresStorage(f"host=127.0.0.1 port={taken.getsockname()[1]}"))
    assert "refused" in problem
    assert problem.endswith("check host and port, and that the server runs")


def test_tls_that_the_server_does_not_have(server: Server) -> None:
    problem = refused(PostgresStorage(server.url() + "?sslmode=require"))
    assert "server does not support SSL" in problem
    assert "sslmode=prefer" in problem


def test_tls_that_the_server_asks_for(server: Server) -> None:
    problem = refused(PostgresStorage(server.url("encrypted") + "?sslmode=disable"))
    assert "sslmode=require" in problem


def test_too_many_connections_of_a_role(server: Server) -> None:
    problem = refused(PostgresStorage(server.url("limited")))
    assert 'too many connections for role "limited"; a runtime takes three' in problem


def test_a_server_that_takes_no_changes(server: Server) -> None:
    problem = refused(PostgresStorage(server.url("frozen")))
    assert "session is read-only" in problem
    assert "name the primary" in problem


def test_another_encoding(server: Server) -> None:
    problem = refused(PostgresStorage(server.url(database="latin")))
    assert problem.startswith("the database has the encoding LATIN1; create one with UTF8")


def test_no_schema(server: Server) -> None:
    problem = refused(PostgresStorage(server.url() + "?options=-csearch_path%3Dnowhere"))
    assert problem.startswith("no schema of the search path exists")


def test_an_old_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda self: 130011))
    problem = refused(PostgresStorage(server.conninfo()))
    assert problem == "the server is PostgreSQL 13; 14 or newer is needed"


# --- rights --------------------------------------------------------------------------------------


@pytest.fixture
def schema(server: Server) -> Iterator[str]:
    """A schema that guests can look into."""
    server.execute("CREATE SCHEMA app", "GRANT USAGE ON SCHEMA app TO guest")
    yield "?options=-csearch_path%3Dapp"
    server.execute("DROP SCHEMA app CASCADE")


def test_a_role_that_may_not_make_tables(server: Server, schema: str) -> None:
    storage = PostgresStorage(server.url("guest") + schema)
    with pytest.raises(StorageUnavailable, match="permission denied for schema app") as caught:
        storage.open_writer()
    assert "grant it CREATE on schema app" in caught.value.problem
    assert "trio-durable migrate --sql" in caught.value.problem


def test_a_role_that_may_not_write_tables(server: Server, schema: str) -> None:
    PostgresStorage(server.url() + schema).open_writer().close()
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA app TO guest")
    storage = PostgresStorage(server.url("guest") + schema)
    with pytest.raises(StorageUnavailable, match="may not read and write the tables in schema app"):
        storage.open_writer()
    # Reading is what it may do.
    with closing(storage.open_reader()) as reader:
        assert reader.list_ids("Cart", None, 9) == []
    assert storage.pending_migrations() == []


def test_a_role_without_the_right_to_make_tables_serves_where_somebody_else_made_them(
    server: Server, schema: str
) -> None:
    storage = PostgresStorage(server.url() + schema)
    server.execute(
        storage.migration_sql(),  # one message to the server may hold several statements
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO guest",
    )
    storage = PostgresStorage(server.url("guest") + schema)
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        assert list(writer.commit([Commit(ObjectKey("Cart", "a"), 0, b"1")], NOW)) == []
        assert reader.list_ids("Cart", None, 9) == ["a"]
        theirs = Commit(ObjectKey("Cart", "a", "acme"), 0, b"1")
        with pytest.raises(StorageFault, match=r"permission denied .*42501.*docs/postgres.md"):
            writer.commit([theirs], NOW)
        server.execute(
            storage.migration_sql(tenant="acme"),
            "GRANT USAGE ON SCHEMA durable_acme TO guest",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA durable_acme TO guest",
        )
        assert list(writer.commit([theirs], NOW)) == []
        assert reader.list_ids("Cart", None, 9, "acme") == ["a"]
    server.execute("DROP SCHEMA durable_acme CASCADE")


def test_the_rights_that_the_documentation_asks_for_are_enough(server: Server) -> None:
    text = (Path(__file__).parents[3] / "docs" / "postgres.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Roles and privileges\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    owning, granting = re.findall(r"^```sql\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    server.execute("CREATE DATABASE shop")
    server.execute(owning, database="shop")
    query = "?options=-csearch_path%3Dapp"
    storage = PostgresStorage(server.url("app", database="shop") + query)
    keys = ObjectKey("Cart", "a"), ObjectKey("Cart", "a", "acme")
    with closing(storage.open_writer()) as writer:
        assert list(writer.commit([Commit(key, 0, b"1") for key in keys], NOW)) == []
    # The same for one that may not make tables.
    server.execute("DROP SCHEMA app, durable_acme CASCADE", "CREATE SCHEMA app", database="shop")
    admin = PostgresStorage(server.url(database="shop") + query)
    of_tenant = granting.replace("SCHEMA app", "SCHEMA durable_acme")
    for script in (admin.migration_sql(), admin.migration_sql(tenant="acme"), granting, of_tenant):
        server.execute(script, database="shop")
    with closing(storage.open_writer()) as writer:
        assert list(writer.commit([Commit(key, 0, b"1") for key in keys], NOW)) == []


# --- the schema ----------------------------------------------------------------------------------


@pytest.fixture
def made(server: Server) -> Iterator[PostgresStorage]:
    """A storage with tables in a schema of its own, and with a tenant."""
    server.execute("CREATE SCHEMA made")
    storage = PostgresStorage(server.url() + "?options=-csearch_path%3Dmade")
    with closing(storage.open_writer()) as writer:
        writer.commit([Commit(ObjectKey("Cart", "a", "acme"), 0, b"1")], NOW)
    yield storage
    server.execute("DROP SCHEMA made, durable_acme CASCADE")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "DROP TRIGGER durable_objects_begin_at_1 ON made.durable_objects",
            "made.durable_objects lacks the trigger durable_objects_begin_at_1",
        ),
        (
            "ALTER TABLE made.durable_objects DISABLE TRIGGER durable_objects_begin_at_1",
            "made.durable_objects lacks the trigger durable_objects_begin_at_1",
        ),
        (
            "ALTER TABLE made.durable_alarms DROP CONSTRAINT durable_alarms_pkey",
            "made.durable_alarms has no primary key",
        ),
        (
            "ALTER TABLE made.durable_messages DROP CONSTRAINT durable_messages_pkey",
            "made.durable_messages has no primary key",
        ),
        (
            "ALTER TABLE made.durable_once DROP COLUMN token",
            "durable_once.token is missing or of another type or collation",
        ),
        (
            "ALTER TABLE made.durable_dead_messages DROP COLUMN is_overtaken",
            "durable_dead_messages.is_overtaken is missing or of another type or collation",
        ),
        (
            "ALTER TABLE made.durable_alarms DROP COLUMN failures",
            "durable_alarms.failures is missing or of another type or collation",
        ),
        (
            'ALTER TABLE made.durable_objects ALTER object_id TYPE text COLLATE "POSIX"',
            "durable_objects.object_id is missing or of another type or collation",
        ),
    ],
)
def test_tables_that_are_not_as_they_were_made(
    server: Server, made: PostgresStorage, change: str, problem: str
) -> None:
    server.execute(change)
    for work in (made.open_writer, made.open_reader):
        with pytest.raises(StorageUnavailable, match="as the migrations have made them") as caught:
            work()
        assert problem in caught.value.problem
        assert "pg_dump -n" in caught.value.problem


def test_a_dump_of_the_tables_alone_is_refused(server: Server, made: PostgresStorage) -> None:
    """It lacks the trigger's function, and so the trigger."""
    dump = [str(server.programs / "pg_dump"), "-d", server.conninfo(dbname="postgres")]
    text = subprocess.run([*dump, "-t", "made.durable_*"], check=True, capture_output=True).stdout
    server.execute("CREATE DATABASE restored")
    server.execute("CREATE SCHEMA made", database="restored")
    psql = [str(server.programs / "psql"), "-d", server.conninfo(dbname="restored")]
    subprocess.run(psql, input=text, check=True, capture_output=True)
    server.execute(
        "DELETE FROM made.durable_tenants",
        "DELETE FROM made.durable_migrations WHERE tenant <> ''",
        database="restored",
    )
    restored = server.url(database="restored") + "?options=-csearch_path%3Dmade"
    with pytest.raises(StorageUnavailable, match="lacks the trigger"):
        PostgresStorage(restored).open_writer()
    server.execute("DROP DATABASE restored WITH (FORCE)")


def test_row_level_security_is_refused(server: Server, made: PostgresStorage) -> None:
    server.execute(
        "GRANT USAGE ON SCHEMA made TO guest",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA made TO guest",
        "ALTER TABLE made.durable_objects ENABLE ROW LEVEL SECURITY",
    )
    storage = PostgresStorage(server.url("guest") + "?options=-csearch_path%3Dmade")
    with pytest.raises(StorageUnavailable, match="hides rows from this role"):
        storage.open_writer()


def test_a_role_whose_triggers_do_not_run_is_refused(server: Server, made: PostgresStorage) -> None:
    server.execute("ALTER ROLE postgres SET session_replication_role = replica")
    try:
        with pytest.raises(StorageUnavailable, match="session_replication_role is replica"):
            made.open_writer()
    finally:
        server.execute("ALTER ROLE postgres RESET session_replication_role")


def test_privileges_are_checked_one_by_one(server: Server, made: PostgresStorage) -> None:
    server.execute(
        "GRANT USAGE ON SCHEMA made TO guest",
        "GRANT SELECT ON made.durable_objects, made.durable_tenants, made.durable_migrations "
        "TO guest",
        "GRANT INSERT, UPDATE ON made.durable_objects TO guest",
    )
    storage = PostgresStorage(server.url("guest") + "?options=-csearch_path%3Dmade")
    with pytest.raises(StorageUnavailable, match="may not read and write") as caught:
        storage.open_writer()
    assert 'made"."durable_objects" (DELETE)' in caught.value.problem
    with pytest.raises(StorageUnavailable, match="may not read the tables") as caught:
        storage.open_reader()
    tables = ("alarms", "dead_messages", "messages", "once")
    lacking = ", ".join(f'"made"."durable_{table}" (SELECT)' for table in tables)
    assert f"made: {lacking}; grant" in caught.value.problem


# --- the schema that is asked for ----------------------------------------------------------------


@pytest.fixture
def role(server: Server) -> Iterator[str]:
    """A role that may make tables in the schema public."""
    server.execute("CREATE ROLE shop LOGIN", "GRANT CREATE ON SCHEMA public TO shop")
    yield "shop"
    server.execute(
        "DROP TABLE IF EXISTS durable_objects, durable_alarms, durable_tenants, durable_migrations",
        "DROP TABLE IF EXISTS durable_shards, durable_beats, durable_nodes, durable_cluster",
        "DROP TABLE IF EXISTS durable_messages, durable_dead_messages, durable_once",
        "DROP SCHEMA IF EXISTS shop CASCADE",
        "DROP FUNCTION IF EXISTS durable_begin_at_1",
        "DROP OWNED BY shop CASCADE",
        "DROP ROLE shop",
    )


def save(storage: PostgresStorage, revision: int) -> None:
    with closing(storage.open_writer()) as writer:
        commit = Commit(ObjectKey("Cart", "a"), revision, b"1")
        assert list(writer.commit([commit], NOW)) == []


def test_tables_stay_in_use_when_a_schema_of_the_roles_name_is_made(
    server: Server, role: str
) -> None:
    storage = PostgresStorage(server.url(role))
    save(storage, 0)
    server.execute("CREATE SCHEMA shop AUTHORIZATION shop")
    save(storage, 1)
    assert server.execute("SELECT revision FROM public.durable_objects") == [(2,)]


def test_the_schema_of_the_roles_name_is_used_if_there_are_no_tables_yet(
    server: Server, role: str
) -> None:
    server.execute("CREATE SCHEMA shop AUTHORIZATION shop")
    storage = PostgresStorage(server.url(role))
    save(storage, 0)
    assert server.execute("SELECT revision FROM shop.durable_objects") == [(1,)]
    server.execute("REVOKE USAGE ON SCHEMA shop FROM shop", "ALTER SCHEMA shop OWNER TO postgres")
    with pytest.raises(
        StorageUnavailable, match="asks for schema shop, which the role may not use"
    ):
        storage.open_writer()


def test_an_empty_schema_and_tables_of_others_are_ambiguous(server: Server, role: str) -> None:
    PostgresStorage(server.url()).open_writer().close()
    server.execute("CREATE SCHEMA shop AUTHORIZATION shop")
    with pytest.raises(StorageUnavailable, match="shop is empty, and the tables in schema public"):
        PostgresStorage(server.url(role)).open_writer()
    save(PostgresStorage(server.url(role) + "?options=-csearch_path%3Dshop"), 0)


def test_a_schema_that_is_missing_is_not_replaced_by_the_next_one(
    server: Server, role: str
) -> None:
    save(PostgresStorage(server.url(role)), 0)
    url = server.url(role) + "?options=-csearch_path%3Dstore,public"
    with pytest.raises(StorageUnavailable, match="exists up to store; create it"):
        PostgresStorage(url).open_writer()
    server.execute("CREATE SCHEMA store", "GRANT ALL ON SCHEMA store TO shop")
    save(PostgresStorage(url), 0)  # asked for by name, so the tables in public don't matter
    server.execute("REVOKE USAGE ON SCHEMA store FROM shop")
    for work in (PostgresStorage(url).open_writer, PostgresStorage(url).open_reader):
        with pytest.raises(StorageUnavailable, match='GRANT USAGE ON SCHEMA "store"'):
            work()
    server.execute("DROP SCHEMA store CASCADE")


# --- the server's log ----------------------------------------------------------------------------


def test_what_is_normal_is_no_error_in_the_servers_log(server: Server) -> None:
    server.execute("CREATE SCHEMA quiet")
    (server.folder / "log").write_text("")
    storage = PostgresStorage(server.url() + "?options=-csearch_path%3Dquiet")
    assert storage.pending_migrations()
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        key = ObjectKey("Cart", "a", "newcomer")
        assert reader.load([key]) == [None]
        assert reader.list_ids("Cart", None, 9, "newcomer") == []
        writer.commit([Commit(key, 0, b"1")], NOW)
        assert reader.load([key]) == [StoredObject(1, b"1")]
        assert writer.drop_tenant("newcomer")
    assert "ERROR" not in server.log
    server.execute("DROP SCHEMA quiet CASCADE")


# --- connection strings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conninfo", "location"),
    [
        ("postgresql://me@db:5433/app", "postgresql://me@db:5433/app"),
        (f"postgresql://me:{SECRET}@db/app", "postgresql://me@db/app"),
        (f"postgres://me:{SECRET}@db,standby:5433/app", "postgresql://me@db,standby:,5433/app"),
        (f"host=db user=me dbname=app password={SECRET}", "postgresql://me@db/app"),
        (f"host=db user=me password='{SECRET}'", "postgresql://me@db/me"),
        ("host=/run/pg user='a b' dbname=x/y", "postgresql://a%20b@%2Frun%2Fpg/x%2Fy"),
        (f"postgresql://db/app?user=me&password={SECRET}", "postgresql://me@db/app"),
        (f"postgresql://me:{SECRET}%40%2F%3F@[::1]:1/app", "postgresql://me@::1:1/app"),
        (
            f"host=db user=me options='-cmy.secret={SECRET} -c search_path=shop'",
            "postgresql://me@db/me?options=-csearch_path%3Dshop",
        ),
        ("service=shop user=me", "postgresql://me@/me?service=shop"),
    ],
)
def test_where_it_is(conninfo: str, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    storage = PostgresStorage(conninfo)
    assert storage.location.replace(":5432", "") == location
    assert storage.location in repr(storage)


def test_what_is_missing_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOST": "db", "PGUSER": "me", "PGDATABASE": "app", "PGPORT": "9"}.items():
        monkeypatch.setenv(name, value)
    assert PostgresStorage("").location == "postgresql://me@db:9/app"


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("host=db dbname=app", "postgresql://db/app"),
        ("dbname=app", "postgresql:///app"),
        (
            f"  host = db\npassword = '{SECRET} \\\\' user='a b' dbname=app",
            "postgresql://a%20b@db/app",
        ),
        ("service=shop", "postgresql://?service=shop"),
        ("host=''", "postgresql:///"),
    ],
)
def test_pairs_of_key_and_value_name_a_database(
    text: str, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGUSER", "me")
    storage = storage_at(text, "full")
    assert isinstance(storage, PostgresStorage)
    assert SECRET not in storage.location
    for part in location.removeprefix("postgresql://").replace("/", " ").split():
        assert part in storage.location


@pytest.mark.parametrize(
    "path", ["app.db", "a=b.db", "data/host=1.db", "notes on host=x", Path("host=db")]
)
def test_other_texts_with_an_equals_sign_are_paths(path: str | Path) -> None:
    assert isinstance(storage_at(path, "full"), SQLiteStorage)


def test_a_service_file_names_hosts_and_more(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "services"
    file.write_text(
        "[other]\nhost=nowhere.invalid\n"
        "# for tests\n[shop]\n"
        f"host=nowhere.invalid,127.0.0.1\nport={server.port}\n"
        f"user=postgres\ndbname=postgres\npassword={SECRET}\napplication_name=shop\n"
        "options=-csearch_path=served\n"
    )
    server.execute("CREATE SCHEMA served")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    storage = PostgresStorage("service=shop")
    port = server.port
    assert storage.location == (
        f"postgresql://postgres@nowhere.invalid,127.0.0.1:{port}/postgres"
        "?service=shop&options=-csearch_path%3Dserved"
    )
    assert SECRET not in repr(vars(storage))
    with closing(storage.open_writer()):
        names = server.execute("SELECT application_name FROM pg_stat_activity WHERE datname <> ''")
        assert ("shop",) in names
    monkeypatch.setenv("PGSERVICE", "shop")
    with closing(storage_at("dbname=postgres", "full").open_writer()):
        pass
    with pytest.raises(StorageUnavailable, match='definition of service "missing" not found'):
        PostgresStorage("service=missing").open_writer()
    server.execute("DROP SCHEMA served CASCADE")


@pytest.mark.parametrize(
    "conninfo",
    [
        # Special characters that aren't escaped.
        f"postgresql://me:p@{SECRET}@db/app",
        f"postgresql://me:p/{SECRET}@db/app",
        f"postgresql://me:{SECRET}/p@db/app",
        f"postgresql://me:12/{SECRET}@db/app",
        f"postgresql://me:{SECRET}%zz@db/app",
        f"postgresql://me:{SECRET}@[db/app",
        f"postgresql://me:{SECRET}@db:port/app",
        f"postgresql://me:{SECRET}@db/app?nonsense=1",
        f"postgresql://me:{SECRET}@db/app?{SECRET}",
        f"host=db password=p {SECRET}",
        f"host=db password='{SECRET}",
        f"host=db {SECRET}=1",
        f"host=db port={SECRET}",
        f"host=x@{SECRET} user=me",
    ],
)
def test_a_string_that_cannot_be_read_is_refused_without_a_word_of_it(conninfo: str) -> None:
    for make in (PostgresStorage, DurableRuntime):
        if make is DurableRuntime and "://" not in conninfo:
            continue  # it would be a path
        with pytest.raises(ValueError, match="connection string can't be read; check") as caught:
            make(conninfo)
        assert_secret(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"db password={SECRET}",
        f"hots=db password = {SECRET}",
        f"postgresql:/me:{SECRET}@db/app",
    ],
)
def test_what_is_meant_for_postgres_is_not_taken_for_the_path_of_a_file(text: str) -> None:
    with pytest.raises(ValueError, match="PostgreSQL connection string") as caught:
        DurableRuntime(text)
    assert_secret(caught.value)


@pytest.mark.parametrize("bad", [None, 7, b"postgresql://"])
def test_what_is_no_string_is_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="a connection string is a str, not "):
        PostgresStorage(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["connect_timeout", "statement_timeout"])
@pytest.mark.parametrize("bad", [0, -1, float("inf"), 1e12, "3", None])
def test_timeouts_are_checked(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=name):
        PostgresStorage("", **{name: bad})  # type: ignore[arg-type]


def test_durability_is_checked() -> None:
    with pytest.raises(ValueError, match='"full" or "normal"'):
        PostgresStorage("", durability="fast")  # type: ignore[arg-type]


# --- passwords -----------------------------------------------------------------------------------


def assert_secret(error: BaseException) -> None:
    """The secret is in nothing that a log of an error would show, nor in what hangs on it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        left += [each.__cause__, each.__context__]
        shown = [str(each), repr(each), repr(each.args), *map(repr, vars(each).values())]
        shown += [repr(getattr(each, name, None)) for name in ("pgconn", "diag", "pgresult")]
        shown.append(repr(parameters_of(getattr(each, "pgconn", None))))
        shown += traceback.format_exception(each)
        for text in shown:
            # Lines of source code in a traceback name the variable, never the value.
            assert SECRET not in text


def test_the_search_for_passwords_finds_what_psycopg_keeps() -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(f"host=/nowhere password={SECRET}")
    with pytest.raises(AssertionError):
        assert_secret(caught.value)


OF_STRONG = "FROM pg_stat_activity WHERE usename = 'strong'"


def parameters_of(connection: Any) -> object:
    """What a connection that hangs on an error was made with."""
    try:
        return connection.info
    except (AttributeError, psycopg.Error):  # there is none, or it is closed
        return None


SPELLINGS: dict[str, Callable[[Server, pytest.MonkeyPatch, Path], str]] = {
    "URL": lambda server, env, folder: server.url("strong", SECRET),
    "query": lambda server, env, folder: server.url("strong") + f"?password={SECRET}",
    "pairs": lambda server, env, folder: (
        f"host=127.0.0.1 port={server.port} user=strong password={SECRET} dbname=postgres"
    ),
    "environment": lambda server, env, folder: (
        env.setenv("PGPASSWORD", SECRET) or server.url("strong")  # type: ignore[func-returns-value]
    ),
    "password file": lambda server, env, folder: make_conninfo(
        server.url("strong"), passfile=str(password_file(folder))
    ),
}


def password_file(folder: Path) -> Path:
    path = folder / "pgpass"
    path.write_text(f"*:*:*:*:{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_passwords_are_nowhere_to_be_seen(
    server: Server,
    spelling: Callable[[Server, pytest.MonkeyPatch, Path], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.execute("CREATE SCHEMA IF NOT EXISTS strong AUTHORIZATION strong")
    conninfo = spelling(server, monkeypatch, tmp_path)
    storage = PostgresStorage(conninfo, connect_timeout=0.2)
    shown = [storage.location, repr(storage), repr(storage._settings), repr(vars(storage))]
    faults: list[BaseException] = []
    # It works; then it doesn't, in every way there is.
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        key = ObjectKey("Cart", "a")
        writer.commit([Commit(key, 0, b"1")], NOW)
        shown += [repr(vars(writer)), repr(vars(reader)), storage.migration_sql()]
        shown.append(repr(writer._reconnecting._connection))  # type: ignore[attr-defined]
        with pytest.raises(StorageFault) as caught:
            writer.commit([Commit(key, 1, b"\xff")], NOW)
        faults.append(caught.value)
        server.execute(f"ALTER ROLE strong PASSWORD '{SECRET}2'")
        server.execute(f"SELECT pg_terminate_backend(pid) {OF_STRONG}")
        wait_until(lambda: server.execute(f"SELECT count(*) {OF_STRONG}") == [(0,)])
        try:
            for work in (
                lambda: writer.commit([Commit(key, 1, b"1")], NOW),
                lambda: reader.load([key]),
                lambda: writer.commit([Commit(key, 1, b"1")], NOW),
            ):
                with pytest.raises(StorageFault, match="password authentication failed") as caught:
                    work()
                faults.append(caught.value)
            with pytest.raises(StorageUnavailable) as unavailable:
                storage.open_writer()
            faults.append(unavailable.value)
            faults += [pickle.loads(pickle.dumps(unavailable.value)), copy.copy(unavailable.value)]
        finally:
            server.execute(f"ALTER ROLE strong PASSWORD '{SECRET}'", "DROP SCHEMA strong CASCADE")
    for fault in faults:
        assert_secret(fault)
    shown += [record.getMessage() for record in caplog.records]
    for text in shown:
        assert SECRET not in text
