"""Connections through poolers, which give each transaction another backend."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from support.pooler import Pooler, pooled
from support.postgres import Server, running

from trio_durable import ObjectKey, StorageUnavailable
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    LeaseOver,
    NewAlarm,
    StorageFault,
    StoredObject,
)
from trio_durable.storage.postgres import PostgresStorage

from .rows import beside

NOW = 1_767_225_600_000_000
SETTINGS = (
    "statement_timeout",
    "synchronous_commit",
    "idle_in_transaction_session_timeout",
    "default_transaction_isolation",
)


@pytest.fixture(scope="module")
def another_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    with pooled(server, server) as pooler:
        yield pooler


def key(object_id: str, tenant: str = "") -> ObjectKey:
    return ObjectKey("Cart", object_id, tenant)


def mixed(object_id: str, revision: int) -> Commit:
    """A commit that is a pipeline of several statements."""
    alarms = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    return Commit(key(object_id), revision, b"2", alarms=alarms)


def settings_of(pooler: Pooler) -> list[tuple[str, ...]]:
    """The settings and the number of prepared statements that another client finds."""
    found = []
    with psycopg.connect(pooler.url(), autocommit=True, prepare_threshold=None) as other:
        for _ in pooler.backends:
            row = other.execute(
                "SELECT (SELECT count(*)::text FROM pg_prepared_statements), "
                + ", ".join(f"current_setting('{name}')" for name in SETTINGS)
            ).fetchone()
            assert row is not None
            found.append(row)
    return found


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_no_setting_and_no_prepared_statement_reaches_other_clients(
    pooler: Pooler, durability: str
) -> None:
    before = settings_of(pooler)
    storage = PostgresStorage(pooler.url(), durability=durability)  # type: ignore[arg-type]
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        for revision in range(0, 16, 2):
            assert not writer.commit([Commit(key("a"), revision, b"1")], NOW)
            assert not writer.commit([mixed("a", revision + 1)], NOW)
            assert reader.load([key("a")]) == [StoredObject(revision + 2, b"2")]
    assert settings_of(pooler) == before
    assert before[0][0] == "0"


def test_clients_do_not_execute_the_statements_of_each_other(server: Server) -> None:
    """Names of prepared statements are the same in all clients."""
    tenants = ("alice", "bob")
    with pooled(server) as pooler, ExitStack() as stack:
        writers = {
            tenant: stack.enter_context(closing(beside(pooler.url()).open_writer()))
            for tenant in tenants
        }
        for revision in range(12):
            for tenant, writer in writers.items():
                commit = Commit(key("a", tenant), revision, tenant.encode())
                assert not writer.commit([commit], NOW)
    for tenant in tenants:
        rows = server.execute(f"SELECT revision, state FROM durable_{tenant}.durable_objects")
        assert rows == [(12, tenant)]
        server.execute(f"DROP SCHEMA durable_{tenant} CASCADE")


@pytest.mark.parametrize(("durability", "expected"), [("full", "on"), ("normal", "off")])
def test_each_transaction_has_the_settings_of_the_library(
    server: Server, durability: str, expected: str
) -> None:
    PostgresStorage(server.url()).open_writer().close()
    server.execute(
        "CREATE TABLE seen (setting text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO seen VALUES (current_setting('synchronous_commit') || ' ' || "
        "current_setting('statement_timeout') || ' ' || current_setting('transaction_isolation')); "
        "RETURN NULL; END $$",
        "CREATE TRIGGER note AFTER INSERT OR UPDATE ON durable_objects "
        "FOR EACH ROW EXECUTE FUNCTION note()",
        "ALTER ROLE postgres SET synchronous_commit = off",
        "ALTER ROLE postgres SET default_transaction_isolation = 'serializable'",
    )
    try:
        with pooled(server, server, server) as pooler:
            storage = PostgresStorage(
                pooler.url(),
                statement_timeout=7,
                durability=durability,  # type: ignore[arg-type]
            )
            with closing(storage.open_writer()) as writer:
                for revision in range(0, 6, 2):
                    writer.commit([Commit(key("a"), revision, b"1")], NOW)
                    writer.commit([mixed("a", revision + 1)], NOW)
    finally:
        server.execute("ALTER ROLE postgres RESET ALL")
    assert server.execute("SELECT * FROM seen") == [(f"{expected} 7s read committed",)] * 6


def test_a_pooler_that_hangs_is_given_up(pooler: Pooler) -> None:
    storage = PostgresStorage(pooler.url(), statement_timeout=0.1)
    with closing(storage.open_writer()) as writer:
        pooler.is_hanging = True
        began = time.monotonic()
        with pytest.raises(StorageFault, match=r"no answer came within 1\.1 s"):
            writer.commit([Commit(key("a"), 0, b"1")], NOW)
        assert time.monotonic() - began < 10


def test_what_fails_in_a_transaction_leaves_the_connection_usable(pooler: Pooler) -> None:
    storage = PostgresStorage(pooler.url())
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        writer.commit([Commit(key("a"), 0, b"1")], NOW)
        connection = writer._reconnecting._connection  # type: ignore[attr-defined]
        assert list(writer.commit([mixed("a", 0), mixed("b", 0)], NOW)) == [0]
        with pytest.raises(StorageFault):
            writer.commit([Commit(key("a"), 1, b"\xff")], NOW)
        assert list(writer.commit([Commit(key("a"), 1, b"2")], NOW)) == []
        assert writer.drop_tenant("nobody") is False
        assert [a.key for a in writer.claim([AlarmKey("Cart", "b", "x")], 1, NOW, NOW + 1)] == [
            AlarmKey("Cart", "b", "x")
        ]
        assert reader.load([key("a"), key("b")]) == [StoredObject(2, b"2"), StoredObject(1, b"2")]
        assert writer._reconnecting._connection is connection  # type: ignore[attr-defined]


def test_a_pooler_of_statements_is_refused(pooler: Pooler) -> None:
    pooler.pools_statements = True
    storage = PostgresStorage(pooler.url())
    for work in (storage.open_writer, storage.open_reader, storage.pending_migrations):
        with pytest.raises(StorageUnavailable, match="transaction blocks not allowed"):
            work()


# --- several servers -----------------------------------------------------------------------------


def test_a_pooler_that_sends_reads_to_another_server_is_refused(
    server: Server, another_server: Server
) -> None:
    with pooled(server, for_reads=another_server) as pooler:
        storage = PostgresStorage(pooler.url())
        for work in (storage.open_writer, storage.open_reader, storage.pending_migrations):
            with pytest.raises(StorageUnavailable, match="sends reads to another server") as caught:
                work()
            assert "connect to the primary directly" in caught.value.problem


def test_a_pooler_that_chooses_a_server_for_each_statement_is_refused(
    server: Server, another_server: Server
) -> None:
    with (
        pooled(server, server, server, server, another_server, announced_pid=None) as pooler,
        pytest.raises(StorageUnavailable, match="sends reads to another server"),
    ):
        PostgresStorage(pooler.url()).open_writer()


def test_a_pooler_that_is_led_to_another_server_is_followed(
    server: Server, another_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    PostgresStorage(another_server.url()).open_writer().close()
    with pooled(server) as pooler, pooled(another_server) as other:
        storage = PostgresStorage(pooler.url())
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            writer.commit([Commit(key("a"), 0, b"here")], NOW)
            pooler.backends, other.backends = other.backends, pooler.backends
            with pytest.raises(LeaseOver):
                reader.load([key("a")])
            with pytest.raises(LeaseOver):
                writer.commit([Commit(key("a"), 1, b"?")], NOW)
            assert writer.membership is not None
            writer.membership.rejoin()
            assert reader.load([key("a")]) == [None]
            assert list(writer.commit([Commit(key("a"), 1, b"?")], NOW)) == [0]
            assert list(writer.commit([Commit(key("a"), 0, b"there")], NOW)) == []
            assert reader.load([key("a")]) == [StoredObject(1, b"there")]
    assert server.execute("SELECT state FROM durable_objects") == [("here",)]
    another_server.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def test_a_pooler_that_is_led_to_a_read_only_server_is_not_read_from(
    server: Server, another_server: Server
) -> None:
    PostgresStorage(another_server.url()).open_writer().close()
    another_server.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
    try:
        with pooled(server) as pooler, pooled(another_server) as other:
            PostgresStorage(server.url()).open_writer().close()
            storage = PostgresStorage(pooler.url(), connect_timeout=0.3)
            with closing(storage.open_reader()) as reader:
                assert reader.load([key("a")]) == [None]
                pooler.backends, other.backends = other.backends, pooler.backends
                with pytest.raises(StorageFault, match=r"read-only.*name the primary"):
                    reader.load([key("a")])
    finally:
        another_server.execute(
            "SET default_transaction_read_only = off",
            "ALTER ROLE postgres RESET ALL",
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
        )


# --- poolers that can't be recognized ------------------------------------------------------------


@pytest.mark.parametrize("code", ["26000", "42P05"])
def test_a_prepared_statement_that_is_gone_ends_their_use(server: Server, code: str) -> None:
    """As behind a pooler that announces the process id of one of its backends."""
    storage = PostgresStorage(server.url())
    with closing(storage.open_writer()) as writer:
        done = 4 if code == "42P05" else 8
        for revision in range(done):
            writer.commit([Commit(key("a"), revision, b"1")], NOW)
        connection = writer._reconnecting._connection  # type: ignore[attr-defined]
        if code == "26000":
            connection.pgconn.exec_(b"DEALLOCATE ALL")
        else:
            for number in range(20):
                connection.pgconn.prepare(f"_pg3_{number}".encode(), b"SELECT 1")
        for revision in range(done, done + 8):
            assert list(writer.commit([Commit(key("a"), revision, b"2")], NOW)) == []
        connection = writer._reconnecting._connection  # type: ignore[attr-defined]
        count = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert count == (0,)
