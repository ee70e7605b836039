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
from trio_durable.storage import Commit, StorageFault
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
    (section,) = re.findall(r"^## Roles and rights\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize("text", [f"host=db password={SECRET}", f"postgresql:/me:{SECRET}@db/app"])
def test_what_is_meant_for_postgres_is_not_taken_for_the_path_of_a_file(text: str) -> None:
    with pytest.raises(ValueError, match="looks like a PostgreSQL connection string") as caught:
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
