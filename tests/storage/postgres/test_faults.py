"""PostgreSQL servers that stop, vanish, hang or refuse changes, and the errors that follow.

Each fault is real: in a server that the test starts, or in a proxy in front of it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from support.postgres import Server, wait_until
from support.proxy import Proxy

from trio_durable import ObjectKey, StorageUnavailable
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    LeaseOver,
    NewAlarm,
    Reader,
    StorageFault,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres import _connecting as _postgres_connecting

NOW = 1_767_225_600_000_000


class Sides:
    """A writer and a reader."""

    def __init__(self, storage: PostgresStorage, stack: ExitStack) -> None:
        self.writer: Writer = stack.enter_context(closing(storage.open_writer()))
        self.reader: Reader = stack.enter_context(closing(storage.open_reader()))

    def save(self, object_id: str, revision: int, state: bytes = b"1") -> list[int]:
        return sorted(self.writer.commit([Commit(key(object_id), revision, state)], NOW))

    def rejoin(self) -> None:
        membership = self.writer.membership
        assert membership is not None
        membership.rejoin()

    def load(self, object_id: str) -> StoredObject | None:
        return self.reader.load([key(object_id)])[0]


@pytest.fixture
def opened() -> Iterator[Callable[..., Sides]]:
    with ExitStack() as stack:
        yield lambda conninfo, **options: Sides(PostgresStorage(conninfo, **options), stack)


def key(object_id: str) -> ObjectKey:
    return ObjectKey("Cart", object_id)


def with_alarm(object_id: str, revision: int) -> Commit:
    """A commit that is a pipeline of several statements."""
    return Commit(
        key(object_id), revision, b"2", alarms=AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    )


# --- a server that stops and comes back ----------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_after_a_restart_nothing_is_written_before_there_is_a_new_lease(
    server: Server, opened: Callable[..., Sides], how: signal.Signals
) -> None:
    """What is in memory may be newer than what the server has now."""
    sides = opened(server.conninfo())
    assert sides.save("a", 0) == []
    server.stop(how)
    server.start()
    for work in (lambda: sides.save("a", 1, b"2"), lambda: sides.load("a")):
        with pytest.raises(LeaseOver):
            work()
    sides.rejoin()
    assert sides.load("a") == StoredObject(1, b"1")
    assert sides.save("a", 1, b"2") == []
    assert sides.load("a") == StoredObject(2, b"2")


def test_what_is_under_way_while_the_server_is_away_waits_for_it(
    server: Server, opened: Callable[..., Sides]
) -> None:
    sides = opened(server.conninfo())
    server.stop()
    back = threading.Timer(0.3, server.start)
    back.start()
    with pytest.raises(LeaseOver):  # and not that there is no connection
        sides.save("a", 0)
    back.join()
    sides.rejoin()
    assert sides.save("a", 0) == []
    assert sides.load("a") == StoredObject(1, b"1")


def test_a_server_that_stays_away_is_a_fault_that_says_so(
    server: Server, opened: Callable[..., Sides]
) -> None:
    sides = opened(server.conninfo(), connect_timeout=0.2)
    sides.save("a", 0)
    server.stop()
    for work in (lambda: sides.save("a", 1), lambda: sides.load("a")):
        with pytest.raises(StorageFault, match=r"no connection: .*check host and port"):
            work()
    server.start()
    sides.rejoin()
    assert sides.save("a", 1, b"2") == []
    assert sides.load("a") == StoredObject(2, b"2")


def test_a_backend_that_is_terminated_while_idle_costs_nothing(
    server: Server, opened: Callable[..., Sides]
) -> None:
    sides = opened(server.conninfo())
    sides.save("a", 0)
    terminate(server)
    assert sides.save("a", 1, b"2") == []
    assert sides.load("a") == StoredObject(2, b"2")


def test_a_server_that_has_said_that_it_ends_is_left_before_it_closes_its_side(
    proxy: Proxy, opened: Callable[..., Sides]
) -> None:
    """Both come one after the other, and between them a statement would be lost."""
    sides = opened(proxy.url())
    sides.save("a", 0)
    fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"
    proxy.say(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
    wait_until(lambda: sides.writer._reconnecting._connection.socket_selector.select(0))  # type: ignore[attr-defined]
    before = proxy.connections
    assert sides.save("a", 1, b"2") == []
    assert proxy.connections == before + 1


def terminate(server: Server) -> None:
    """End the server's side of all connections of the library."""
    of_library = "FROM pg_stat_activity WHERE application_name LIKE 'trio_durable%'"
    server.execute(f"SELECT pg_terminate_backend(pid) {of_library}")
    wait_until(lambda: server.execute(f"SELECT count(*) {of_library}") == [(0,)])


# --- a connection that is cut off ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["saves", "mixed"])
@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_commit_that_is_cut_off_has_an_unknown_outcome(
    proxy: Proxy, server: Server, opened: Callable[..., Sides], kind: str, lost: str
) -> None:
    sides = opened(proxy.url())
    sides.save("a", 0)
    commit = Commit(key("a"), 1, b"2") if kind == "saves" else with_alarm("a", 1)
    proxy.lose_next(lost)
    with pytest.raises(StorageFault, match=r"connection was lost .* is unknown"):
        sides.writer.commit([commit], NOW)
    assert proxy.lost.is_set()
    # It was applied or not; what is stored tells, and is gone on with.
    row = sides.load("a")
    applied = lost == "reply"
    assert row == StoredObject(2 if applied else 1, b"2" if applied else b"1")
    assert len(sides.reader.list_alarms(key("a"))) == (applied and kind == "mixed")
    assert sides.save("a", row.revision, b"3") == []


def test_nothing_is_written_twice_for_a_lost_reply(
    proxy: Proxy, opened: Callable[..., Sides]
) -> None:
    """To repeat a commit would find it stale, or set an alarm anew that was claimed since."""
    sides = opened(proxy.url())
    proxy.lose_next("reply")
    with pytest.raises(StorageFault):
        sides.save("a", 0)
    assert sides.save("a", 0) == [0]
    assert sides.load("a") == StoredObject(1, b"1")


def test_a_read_that_is_cut_off_is_repeated(proxy: Proxy, opened: Callable[..., Sides]) -> None:
    sides = opened(proxy.url())
    sides.save("a", 0)
    for lost in ("request", "reply"):
        proxy.lose_next(lost)
        assert sides.load("a") == StoredObject(1, b"1")
        assert proxy.lost.is_set()


def test_a_claim_that_is_cut_off_is_a_fault(
    proxy: Proxy, server: Server, opened: Callable[..., Sides]
) -> None:
    sides = opened(proxy.url())
    sides.writer.commit([with_alarm("a", 0)], NOW)
    x = AlarmKey("Cart", "a", "x")
    proxy.lose_next("reply")
    with pytest.raises(StorageFault, match="is unknown"):
        sides.writer.claim([x], 1, NOW, NOW + 10)
    # It was claimed by nobody who knows, and is free again when that has run out.
    assert sides.writer.claim([x], 2, NOW, NOW + 10) == []
    assert [a.key for a in sides.writer.claim([x], 3, NOW + 10, NOW + 20)] == [x]


def test_a_network_that_comes_back_is_gone_on_with(
    proxy: Proxy, opened: Callable[..., Sides]
) -> None:
    sides = opened(proxy.url(), connect_timeout=0.2)
    sides.save("a", 0)
    proxy.refuse()
    proxy.cut()
    with pytest.raises(StorageFault, match="no connection"):
        sides.save("a", 1, b"2")
    proxy.refuse(False)
    assert sides.save("a", 1, b"2") == []
    assert sides.load("a") == StoredObject(2, b"2")


def test_attempts_to_connect_become_rarer(
    proxy: Proxy, opened: Callable[..., Sides], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(_postgres_connecting, "sleep", pauses.append)
    sides = opened(proxy.url(), connect_timeout=0.5)
    proxy.refuse()
    proxy.cut()
    before = proxy.connections
    with pytest.raises(StorageFault):
        sides.save("a", 0)
    assert 2 <= len(pauses) == proxy.connections - before - 1
    for n, pause in enumerate(pauses):
        assert 0.025 * 2**n <= pause <= 0.05 * 2**n
    assert len({pause / 2**n for n, pause in enumerate(pauses)}) > 1  # not all at once


@pytest.mark.parametrize("kind", ["saves", "mixed"])
def test_a_silent_network_is_given_up(
    proxy: Proxy, opened: Callable[..., Sides], kind: str
) -> None:
    sides = opened(proxy.url(), statement_timeout=0.1)
    sides.save("a", 0)
    proxy.freeze()
    commit = Commit(key("a"), 1, b"2") if kind == "saves" else with_alarm("a", 1)
    began = time.monotonic()
    with pytest.raises(StorageFault, match=r"no answer came within 1\.1 s"):
        sides.writer.commit([commit], NOW)
    assert time.monotonic() - began < 10
    proxy.cut()
    proxy.thaw()
    row = sides.load("a")
    assert row is not None
    assert sides.save("a", row.revision, b"3") == []


def test_a_server_that_accepts_and_says_nothing_is_given_up(
    proxy: Proxy, opened: Callable[..., Sides]
) -> None:
    sides = opened(proxy.url(), connect_timeout=0.1)
    proxy.freeze()
    proxy.cut()
    with pytest.raises(StorageFault, match=r"no connection: .*timeout expired"):
        sides.load("a")


# --- a server that won't ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["saves", "mixed"])
def test_a_server_that_takes_no_changes_is_left_for_one_that_does(
    server: Server, opened: Callable[..., Sides], kind: str
) -> None:
    sides = opened(server.conninfo(), connect_timeout=0.3)
    sides.save("a", 0)
    commit = Commit(key("a"), 1, b"2") if kind == "saves" else with_alarm("a", 1)
    set_read_only(server, True)
    try:
        with pytest.raises(StorageFault, match=r"read-only.*name the primary"):
            sides.writer.commit([commit], NOW)
        with pytest.raises(StorageUnavailable, match=r"read-only.*name the primary"):
            PostgresStorage(server.conninfo()).open_writer()
    finally:
        set_read_only(server, False)
    assert sides.load("a") == StoredObject(1, b"1")
    assert sorted(sides.writer.commit([commit], NOW)) == []
    assert sides.load("a") == StoredObject(2, b"2")


def test_a_server_that_is_read_only_for_a_moment_costs_nobody_an_error(
    server: Server, opened: Callable[..., Sides]
) -> None:
    sides = opened(server.conninfo())
    set_read_only(server, True)
    back = threading.Timer(0.2, set_read_only, (server, False))
    back.start()
    assert sides.save("a", 0) == []
    back.join()


def set_read_only(server: Server, value: bool) -> None:
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute("SET transaction_read_only = off")
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        admin.execute("SELECT pg_reload_conf()")
    expected = "on" if value else "off"
    wait_until(lambda: server.execute("SHOW default_transaction_read_only") == [(expected,)])


@pytest.mark.parametrize("kind", ["saves", "mixed"])
def test_a_statement_that_takes_too_long_changes_nothing(
    server: Server, opened: Callable[..., Sides], kind: str
) -> None:
    sides = opened(server.conninfo(), statement_timeout=0.2)
    sides.save("a", 0)
    commit = Commit(key("a"), 1, b"2") if kind == "saves" else with_alarm("a", 1)
    with psycopg.connect(server.conninfo()) as other:
        other.execute("SELECT FROM durable_objects FOR UPDATE")
        with pytest.raises(StorageFault, match=r"statement timeout \(57014\); see statement_timeo"):
            sides.writer.commit([commit], NOW)
    assert sides.load("a") == StoredObject(1, b"1")
    assert sorted(sides.writer.commit([commit], NOW)) == []


@pytest.mark.parametrize("kind", ["role", "options"])
def test_the_users_own_statement_timeout_counts(
    server: Server, opened: Callable[..., Sides], kind: str
) -> None:
    own = {"options": "-c statement_timeout=150ms"} if kind == "options" else {}
    if kind == "role":
        server.execute("ALTER ROLE postgres SET statement_timeout = '150ms'")
    try:
        sides = opened(server.conninfo(**own), statement_timeout=60)
    finally:
        server.execute("ALTER ROLE postgres RESET statement_timeout")
    sides.save("a", 0)
    with psycopg.connect(server.conninfo()) as other:
        other.execute("SELECT FROM durable_objects FOR UPDATE")
        with pytest.raises(StorageFault, match="57014"):
            sides.save("a", 1)


def test_too_many_clients(server: Server, opened: Callable[..., Sides]) -> None:
    sides = opened(server.conninfo(), connect_timeout=0.3)
    with ExitStack() as stack:

        def one_more() -> bool:
            try:
                stack.enter_context(psycopg.connect(server.conninfo()))
            except psycopg.OperationalError:
                return False
            return True

        while one_more():
            pass
        with pytest.raises(StorageUnavailable, match=r"too many clients.*three connections"):
            PostgresStorage(server.conninfo()).open_writer()
        # Those that are open go on.
        assert sides.save("a", 0) == []
        sides.writer._reconnecting._drop()  # type: ignore[attr-defined]
        wait_until(one_more)  # its place is free when its backend has ended
        with pytest.raises(StorageFault, match="too many clients"):
            sides.save("a", 1, b"2")
    assert sides.save("a", 1, b"2") == []


# --- locks ---------------------------------------------------------------------------------------


def test_after_a_deadlock_with_another_program_it_is_tried_again(
    server: Server, opened: Callable[..., Sides]
) -> None:
    sides = opened(server.conninfo())
    sides.save("a", 0)
    sides.save("b", 0)
    with psycopg.connect(server.conninfo()) as other:
        other.execute("SET deadlock_timeout = '1h'")  # so that the other side is the victim
        other.execute("SELECT FROM durable_objects WHERE object_id = 'b' FOR UPDATE")
        done: list[object] = []
        batch = [Commit(key(one), 1, b"2") for one in "ba"]
        thread = threading.Thread(target=lambda: done.append(sides.writer.commit(batch, NOW)))
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: server.execute(waiting) == [(1,)])
        other.execute("SELECT FROM durable_objects WHERE object_id = 'a' FOR UPDATE")
        other.execute("SELECT 1")
    thread.join()
    assert done == [()]
    assert [sides.load(one) for one in "ab"] == [StoredObject(2, b"2")] * 2


def test_the_folder_of_a_server_that_was_removed_is_named(tmp_path: Path) -> None:
    storage = PostgresStorage(f"host={tmp_path} dbname=app")
    with pytest.raises(StorageUnavailable, match="check host and port") as caught:
        storage.open_reader()
    assert caught.value.location == storage.location
