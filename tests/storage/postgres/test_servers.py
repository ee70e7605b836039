"""Several servers: each side of a storage reads and writes on the same primary."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count

import psycopg
import pytest
from support.postgres import Server, running, wait_until
from support.proxy import Proxy, error

from trio_durable import ObjectKey, StorageUnavailable
from trio_durable.storage import Commit, LeaseOver, Reader, StorageFault, StoredObject, Writer
from trio_durable.storage.postgres import PostgresStorage, _reconnecting
from trio_durable.storage.postgres._membership import NodeSettings
from trio_durable.storage.postgres._servers import CurrentServer
from trio_durable.storage.postgres._servers import Server as Identity

from .rows import in_thread

NOW = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def other_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def other(other_server: Server) -> Server:
    """Another primary, without anything in it."""
    other_server.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return other_server


def url_of(*servers: Server, query: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://postgres@{hosts}/postgres{query}"


def key(object_id: str) -> ObjectKey:
    return ObjectKey("Cart", object_id)


def save(writer: Writer, object_id: str, revision: int, state: bytes = b"1") -> list[int]:
    return sorted(writer.commit([Commit(key(object_id), revision, state)], NOW))


def load(reader: Reader, object_id: str) -> StoredObject | None:
    return reader.load([key(object_id)])[0]


def set_read_only(server: Server, value: str) -> None:
    """Let a server take no changes, without ending its connections."""
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        admin.execute("SELECT pg_reload_conf()")
    wait_until(lambda: server.execute("SHOW default_transaction_read_only") == [(value,)])


@pytest.fixture
def read_only(server: Server) -> Iterator[Callable[[], None]]:
    """Lets the server take no changes until the test ends."""
    yield lambda: set_read_only(server, "on")
    set_read_only(server, "off")


def sides_at(server: Server) -> list[str]:
    rows = server.execute(
        "SELECT application_name FROM pg_stat_activity "
        "WHERE application_name LIKE 'trio_durable%' ORDER BY 1"
    )
    return [name.removeprefix("trio_durable ") for (name,) in rows]


def rejoin(writer: Writer) -> None:
    assert writer.membership is not None
    writer.membership.rejoin()


def terminate(server: Server) -> None:
    """End the server's side of all connections of the library."""
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'trio_durable%'"
    )
    wait_until(lambda: sides_at(server) == [])


# --- an old primary ------------------------------------------------------------------------------


def test_reader_and_node_follow_the_writer_to_another_server(
    server: Server, other: Server, read_only: Callable[[], None]
) -> None:
    PostgresStorage(other.url()).open_writer().close()
    storage = PostgresStorage(url_of(server, other))
    with ExitStack() as stack:
        writer = stack.enter_context(closing(storage.open_writer()))
        reader = stack.enter_context(closing(storage.open_reader()))
        save(writer, "a", 0, b"old")
        assert load(reader, "a") == StoredObject(1, b"old")
        assert sides_at(server) == ["node", "reader", "writer"]
        read_only()
        with pytest.raises(LeaseOver):
            save(writer, "a", 1, b"old too")
        rejoin(writer)
        save(writer, "a", 0, b"new")
        assert load(reader, "a") == StoredObject(1, b"new")
        assert sides_at(server) == []
        assert sides_at(other) == ["node", "reader", "writer"]


@pytest.mark.parametrize(
    "work",
    [lambda reader: load(reader, "a"), lambda reader: reader.list_ids("Cart", None, 9)],
    ids=["load", "list"],
)
def test_a_server_that_has_become_read_only_is_not_read_from(
    server: Server, other: Server, read_only: Callable[[], None], work: Callable[[Reader], object]
) -> None:
    """Though its connection stays open, and nothing is written meanwhile."""
    for each in (server, other):
        with closing(PostgresStorage(each.url()).open_writer()) as writer:
            save(writer, "a", 0, b"old")
    with closing(PostgresStorage(other.url()).open_writer()) as writer:
        save(writer, "a", 1, b"new")
        save(writer, "b", 0)
    with closing(PostgresStorage(url_of(server, other)).open_reader()) as reader:
        assert work(reader) in (StoredObject(1, b"old"), ["a"])
        read_only()
        assert work(reader) in (StoredObject(2, b"new"), ["a", "b"])


def test_the_reader_follows_though_its_own_server_still_takes_changes(
    server: Server, other: Server
) -> None:
    """As an old primary that nobody has fenced."""
    PostgresStorage(other.url()).open_writer().close()
    storage = PostgresStorage(url_of(server, other))
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        save(writer, "a", 0, b"old")
        assert load(reader, "a") == StoredObject(1, b"old")
        writer._reconnecting._drop()  # type: ignore[attr-defined]
        storage._settings.current.address = "127.0.0.1", "127.0.0.1", str(other.port)
        with pytest.raises(LeaseOver):
            save(writer, "a", 1, b"old too")
        with pytest.raises(LeaseOver):
            load(reader, "a")
        rejoin(writer)
        save(writer, "a", 0, b"new")
        assert load(reader, "a") == StoredObject(1, b"new")


def test_a_lone_server_that_has_become_read_only_is_an_error(
    server: Server, read_only: Callable[[], None]
) -> None:
    PostgresStorage(server.url()).open_writer().close()
    storage = PostgresStorage(server.url(), connect_timeout=0.2)
    with closing(storage.open_reader()) as reader:
        read_only()
        with pytest.raises(StorageFault, match=r"read-only.*name the primary"):
            load(reader, "a")


def test_a_writer_follows_a_node_that_found_a_new_primary() -> None:
    current = CurrentServer()
    old = Identity(1, False, False, system=7, timeline=1)
    new = Identity(2, False, False, system=7, timeline=2)
    current.move(old)
    assert current.is_(old)
    current.move(new)
    assert not current.is_(old)
    assert current.is_newer_than(old)
    assert not current.is_newer_than(new)
    assert not current.is_newer_than(attrs_of(old, system=8))
    assert not current.is_newer_than(attrs_of(old, timeline=None))


def attrs_of(identity: Identity, **changes: object) -> Identity:
    fields = {
        "started_at": 1,
        "is_standby": False,
        "is_read_only": False,
        "system": 7,
        "timeline": 1,
    }
    return Identity(**{**fields, **changes})  # type: ignore[arg-type]


# --- standbys ------------------------------------------------------------------------------------


def test_standbys() -> None:
    """One test, because a standby takes a second to make."""
    with running() as primary, ExitStack() as stack:
        with closing(PostgresStorage(primary.url()).open_writer()) as writer:
            save(writer, "a", 0)
        standby = stack.enter_context(running(standby_of=primary))
        wait_until(lambda: standby.execute("SELECT count(*) FROM durable_objects") == [(1,)])

        # It is read from only by those who ask for it.
        lone = PostgresStorage(standby.url())
        for work in (lone.open_writer, lone.open_reader, lone.pending_migrations):
            with pytest.raises(StorageUnavailable, match="is a standby; name the primary"):
                work()
        for kind in ("any", "standby", "read-only", "prefer-standby"):
            asked = PostgresStorage(url_of(primary, standby, query=f"?target_session_attrs={kind}"))
            with closing(asked.open_reader()) as reader:
                assert load(reader, "a") == StoredObject(1, b"1")
                assert sides_at(standby) == ([] if kind == "any" else ["reader"])
        asked = PostgresStorage(standby.url() + "?target_session_attrs=any")
        assert asked.pending_migrations() == []
        with pytest.raises(StorageUnavailable, match="is a standby"):
            asked.open_writer()

        # With a writer it isn't, because the reader must see what was committed.
        asked = PostgresStorage(url_of(standby, primary, query="?target_session_attrs=any"))
        with closing(asked.open_writer()):
            asked._settings.current.address = None
            with closing(asked.open_reader()):
                assert sides_at(standby) == []

        # Opening during a failover waits for the promotion; a connection that is lost as well.
        both = PostgresStorage(url_of(primary, standby))
        survivor = stack.enter_context(closing(both.open_writer()))
        primary.stop()
        promotion = threading.Timer(0.3, standby.promote)
        promotion.start()
        opened = PostgresStorage(url_of(primary, standby)).open_reader()
        with closing(opened) as reader:
            promotion.join()
            assert load(reader, "a") == StoredObject(1, b"1")
        with pytest.raises(LeaseOver):
            save(survivor, "a", 1, b"2")
        rejoin(survivor)
        assert save(survivor, "a", 1, b"2") == []
        assert save(survivor, "a", 2, b"3") == []

        # The old primary, if somebody starts it once more, isn't gone back to.
        primary.start()
        terminate(standby)
        both._settings.current.address = None
        assert save(survivor, "a", 3, b"4") == []
        assert sides_at(primary) == []
        assert standby.execute("SELECT state FROM durable_objects") == [("4",)]


# --- connecting ----------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[list[int]]:
    """Ports where connections are accepted, and nothing is said."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(3)
        ]


def test_silent_hosts_leave_time_for_the_others(server: Server, silent: list[int]) -> None:
    PostgresStorage(server.url()).open_writer().close()
    hosts = ",".join(f"127.0.0.1:{port}" for port in (*silent, server.port))
    storage = PostgresStorage(f"postgresql://postgres@{hosts}/postgres", connect_timeout=4)
    began = time.monotonic()
    with closing(storage.open_writer()) as writer:
        assert time.monotonic() - began < 4
        # The next connection begins with the host of the latest one.
        terminate(server)
        began = time.monotonic()
        assert save(writer, "a", 0) == []
        assert time.monotonic() - began < 2


def test_silent_hosts_share_the_timeout(silent: list[int]) -> None:
    hosts = ",".join(f"127.0.0.1:{port}" for port in silent)
    storage = PostgresStorage(f"postgresql://postgres@{hosts}/postgres", connect_timeout=0.3)
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="timeout expired") as caught:
        storage.open_writer()
    assert time.monotonic() - began < 1
    for port in silent:
        assert f"127.0.0.1:{port}: " in caught.value.problem


def test_the_users_own_timeout_bounds_each_host(silent: list[int]) -> None:
    url = f"postgresql://postgres@127.0.0.1:{silent[0]}/postgres?connect_timeout=1"
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="timeout expired"):
        PostgresStorage(url, connect_timeout=60).open_writer()
    assert time.monotonic() - began < 10


def test_a_server_that_starts_is_waited_for_whatever_its_language(proxy: Proxy) -> None:
    proxy.rejection = error("57P03", "das Datenbanksystem startet")

    def let_in() -> None:
        proxy.rejection = None

    timer = threading.Timer(0.3, let_in)
    timer.start()
    PostgresStorage(proxy.url()).open_writer().close()
    timer.join()


def test_another_rejection_is_not_waited_for_when_opening(proxy: Proxy) -> None:
    proxy.rejection = error("28P01", "Passwort-Authentifizierung fehlgeschlagen")
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="Passwort-Authentifizierung"):
        PostgresStorage(proxy.url(), connect_timeout=60).open_writer()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("28000", 'no pg_hba.conf entry for host "127.0.0.1"'),
        ("28P01", 'password authentication failed for user "postgres"'),
        ("3D000", 'database "postgres" does not exist'),
        ("53300", "sorry, too many clients already"),
    ],
)
def test_a_rejection_of_an_open_runtime_may_pass(proxy: Proxy, code: str, text: str) -> None:
    """A failover may fence the old primary, and a restore may still have to make the database."""
    storage = PostgresStorage(proxy.url())
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        proxy.rejection = error(code, text)
        proxy.cut()

        def let_in() -> None:
            proxy.rejection = None

        timer = threading.Timer(0.2, let_in)
        timer.start()
        assert save(writer, "a", 0) == []
        assert load(reader, "a") == StoredObject(1, b"1")
        timer.join()


# --- synchronous standbys ------------------------------------------------------------------------


@pytest.fixture
def missing_standby(server: Server) -> Iterator[Server]:
    """A server whose commits wait for a standby that isn't there, from `lose_standby` on."""
    yield server
    if server.is_running:
        admin = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        server.execute(
            "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()", admin
        )


def lose_standby(server: Server) -> None:
    """Let commits wait for a standby that isn't there.

    Each process of the server reads the setting by itself, and commits wait once the checkpointer
    has read it. So commits are tried until one waits.
    """
    server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    with psycopg.connect(server.conninfo(dbname="postgres"), autocommit=True) as connection:
        pid = connection.info.backend_pid
        cancel = f"SELECT pg_cancel_backend(pid) {_WAITS} AND pid = {pid}"

        def commit() -> bool:
            with suppress(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_logical_emit_message(true, 'test', '')")
            return True

        def a_commit_waits() -> bool:
            cancelled: list[object] = []
            ended, thread = in_thread(commit)
            while not (ended or cancelled):
                cancelled += server.execute(cancel)
            thread.join()
            return bool(cancelled)

        wait_until(a_commit_waits)


_WAITS = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
WAITING = f"{_WAITS} AND application_name LIKE '%writer'"


@pytest.mark.parametrize("level", ["notice", "error"])
def test_a_commit_whose_wait_for_a_standby_was_cancelled_is_not_acknowledged(
    missing_standby: Server, level: str
) -> None:
    """The server reports it by a warning, with the result of the statement."""
    server = missing_standby
    url = server.url() + f"?options=-cclient_min_messages%3D{level}"
    with closing(with_a_long_lease(url).open_writer()) as writer:
        lose_standby(server)
        outcome: list[object] = []

        def commit() -> None:
            try:
                outcome.append(save(writer, "a", 0))
            except StorageFault as fault:
                outcome.append(fault)

        thread = threading.Thread(target=commit)
        thread.start()
        wait_until(lambda: server.execute(f"SELECT count(*) {WAITING}") == [(1,)])
        server.execute(f"SELECT pg_cancel_backend(pid) {WAITING}")
        thread.join()
        (fault,) = outcome
        assert isinstance(fault, StorageFault)
        assert "may lack the change; the outcome is unknown" in str(fault)
        # That was one commit's.
        server.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        wait_until(lambda: server.execute("SHOW synchronous_standby_names") == [("",)])
        assert save(writer, "a", 1) == []


def test_one_backend_at_most_waits_for_a_missing_standby(
    missing_standby: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = missing_standby
    with closing(with_a_long_lease(server.url()).open_writer()) as writer:
        lose_standby(server)
        # As after the statement timeout. The connections that follow have all their time.
        writer._reconnecting._connection.silence_timeout = 0.1  # type: ignore[attr-defined]
        with pytest.raises(StorageFault, match="outcome of the change is unknown"):
            save(writer, "a", 0)
        wait_until(lambda: server.execute(f"SELECT count(*) {WAITING}") == [(1,)])
        with monkeypatch.context() as patch:
            # The time for which a commit waits for that of before is over at the second look.
            patch.setattr(_reconnecting, "monotonic", count(0, 1000).__next__)
            for object_id in "bcd":
                with pytest.raises(
                    StorageFault, match="waits on the server for a synchronous standby"
                ):
                    save(writer, object_id, 0)
        assert server.execute(f"SELECT count(*) {WAITING}") == [(1,)]
        server.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        wait_until(lambda: server.execute(f"SELECT count(*) {WAITING}") == [(0,)])
        assert save(writer, "b", 0) == []
    assert server.execute("SELECT object_id FROM durable_objects ORDER BY 1") == [("a",), ("b",)]


def with_a_long_lease(url: str) -> PostgresStorage:
    """A storage whose writer isn't renewed within a test: its renewals would wait as well."""
    storage = PostgresStorage(url)
    storage._node = NodeSettings(ttl=600)
    return storage


def test_warnings_of_the_server_are_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(PostgresStorage(server.url()).open_writer()) as writer:
        connection = writer._reconnecting._connection  # type: ignore[attr-defined]
        connection.execute("DO $$ BEGIN RAISE WARNING 'the disk is nearly full'; END $$")
        connection.execute("DO $$ BEGIN RAISE NOTICE 'nothing to see'; END $$")
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage() == "the PostgreSQL server warns: the disk is nearly full"
