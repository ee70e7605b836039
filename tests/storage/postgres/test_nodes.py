"""Nodes of a PostgreSQL database: joining, leases, the removal of dead nodes, and the fence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from support.postgres import Server, url_of, wait_until
from support.proxy import Proxy

from trio_durable import StorageInUse
from trio_durable._clock import boot_time
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    LeaseOver,
    Postponement,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage, _membership, _presence
from trio_durable.storage.postgres._connection import Connection
from trio_durable.storage.postgres._leases import NodeLease
from trio_durable.storage.postgres._membership import NodeSettings, PostgresMembership
from trio_durable.storage.postgres._nodes import NodeTable
from trio_durable.storage.postgres._presence import Presence, is_gone

from .rows import (
    NOW,
    SECOND,
    Admin,
    alarm_key,
    beside,
    commit,
    count,
    in_thread,
    key,
    save,
    setting,
    waits,
)

CHILD = Path(__file__).with_name("node_child.py")
NODES = "SELECT count(*) FROM durable_nodes"


def with_ttl(conninfo: str, ttl: float, unresponsive_after: float = 30) -> PostgresStorage:
    storage = PostgresStorage(conninfo)
    storage._node = NodeSettings(ttl=ttl, unresponsive_after=unresponsive_after)
    return storage


def membership_of(writer: Writer) -> PostgresMembership:
    membership = writer.membership
    assert isinstance(membership, PostgresMembership)
    return membership


def table_of(admin: Admin) -> NodeTable:
    row = admin.execute("SELECT current_schema()").fetchone()
    assert row is not None
    return NodeTable(str(row[0]))


def add_node(admin: Admin, ttl: float, renewals: int = 7, host: str = "elsewhere") -> str:
    """A node of another machine, which nothing renews."""
    node_id = str(uuid4())
    admin.execute(
        "INSERT INTO durable_nodes (node_id, name, host, pid, release, server, status, ttl) "
        "VALUES (%s, 'it', %s, 4711, '1', 'a server', 'up', %s)",
        (node_id, host, ttl),
    )
    admin.execute("INSERT INTO durable_beats VALUES (%s, %s)", (node_id, renewals))
    return node_id


# --- joining -------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_at_once(storage: PostgresStorage, writer: Writer) -> None:
    began = time.monotonic()
    with pytest.raises(StorageInUse, match=r"by a runtime of this process") as caught:
        storage.open_writer()
    assert time.monotonic() - began < 1.2  # without waiting for a renewal
    assert (caught.value.pid, caught.value.host) == (os.getpid(), "")
    assert commit(writer, save("a", 0)) == []
    writer.close()
    storage.open_writer().close()


def test_the_refusal_names_the_holder_and_the_remedy(
    storage: PostgresStorage, writer: Writer, admin: Admin
) -> None:
    writer.close()
    node_id = add_node(admin, ttl=60)
    outcome: list[str] = []

    def open_writer() -> None:
        with pytest.raises(StorageInUse) as caught:
            storage.open_writer()
        outcome.append(str(caught.value))

    thread = threading.Thread(target=open_writer)
    thread.start()
    while thread.is_alive():  # it lives
        admin.execute("UPDATE durable_beats SET renewals = renewals + 1")
        thread.join(0.05)
    (text,) = outcome
    assert "in use by a runtime of process 4711 on elsewhere (its last renewal was " in text
    assert text.endswith("stop its process first, or open both with cluster=True")
    assert count(admin, f"{NODES} WHERE node_id = '{node_id}'") == 1


def test_a_silent_node_is_waited_for_and_then_removed(
    postgres: str, writer: Writer, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    writer.close()
    node_id = add_node(admin, ttl=0.4)
    began = time.monotonic()
    with closing(PostgresStorage(postgres).open_writer()) as later:
        assert time.monotonic() - began >= 0.4
        assert commit(later, save("a", 0)) == []
        assert count(admin, f"{NODES} WHERE node_id = '{node_id}'") == 0
    waiting, removed = (each.getMessage() for each in caplog.records)
    assert "belongs to process 4711 on elsewhere" in waiting
    assert "waiting up to 0.4 s for the next one, or for the end of its lease" in waiting
    assert "process 4711 on elsewhere has died" in removed


def test_a_look_after_a_long_gap_begins_the_silence_again(postgres: str, writer: Writer) -> None:
    """Else the first one back after an outage of the server would remove all others."""
    membership = membership_of(writer)
    with membership._in_use:  # or its thread uses the connection
        connection = membership._connected(5)
        node_id = add_node(connection, ttl=0.2)
        (other,) = [each for each in membership._table.list(connection) if each.host == "elsewhere"]
        assert membership._examine(connection, other) is False
        silence = membership._deaths._silences[other.node_id]
        silence.since -= 100
        silence.looked_at -= 100
        assert membership._examine(connection, other) is False
        assert silence is not membership._deaths._silences[other.node_id]
    assert str(other.node_id) == node_id


def test_of_two_that_join_at_once_one_is_refused(postgres: str, writer: Writer) -> None:
    writer.close()
    outcomes: list[object] = []
    start = threading.Barrier(4)

    def join() -> None:
        storage = PostgresStorage(postgres)
        start.wait()
        try:
            outcomes.append(storage.open_writer())
        except StorageInUse as error:
            outcomes.append(error)

    threads = [threading.Thread(target=join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (opened,) = [each for each in outcomes if isinstance(each, Writer)]
    opened.close()


def test_a_node_alone_and_nodes_of_a_group_exclude_each_other(
    postgres: str, storage: PostgresStorage, writer: Writer
) -> None:
    with pytest.raises(StorageInUse):
        beside(postgres).open_writer()
    writer.close()
    with (
        closing(beside(postgres).open_writer()),
        closing(beside(postgres).open_writer()),
        pytest.raises(StorageInUse),
    ):
        storage.open_writer()


def test_leaving_removes_the_row(storage: PostgresStorage, writer: Writer, admin: Admin) -> None:
    assert count(admin, NODES) == count(admin, "SELECT count(*) FROM durable_beats") == 1
    membership_of(writer).rejoin()
    writer.close()
    assert count(admin, NODES) == count(admin, "SELECT count(*) FROM durable_beats") == 0


# --- death on the same machine -------------------------------------------------------------------


@contextmanager
def child(conninfo: str, ttl: float, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(CHILD), url_of(conninfo), str(ttl), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_a_killed_process_is_replaced_without_waiting(postgres: str, writer: Writer) -> None:
    writer.close()
    with child(postgres, 600) as process:
        with pytest.raises(StorageInUse) as caught:
            PostgresStorage(postgres).open_writer()
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        began = time.monotonic()
        with closing(PostgresStorage(postgres).open_writer()) as later:
            assert commit(later, save("a", 0)) == []
        assert time.monotonic() - began < 60


def test_a_stopped_process_is_replaced_after_its_ttl_and_can_not_write_then(
    postgres: str, writer: Writer, admin: Admin
) -> None:
    writer.close()
    with child(postgres, 2) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGSTOP)
        age = "SELECT (extract(epoch FROM now() - beaten_at) * 1000)::int FROM durable_beats"
        wait_until(lambda: count(admin, age) > 1200)
        with closing(PostgresStorage(postgres).open_writer()) as later:
            assert commit(later, save("a", 0)) == []
            process.stdin.write("b\n")
            process.stdin.flush()
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "LeaseOver\n"
            assert count(admin, "SELECT count(*) FROM durable_objects") == 1


def test_only_the_same_locked_file_of_the_same_kernel_is_a_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presence = Presence()
    proof = presence.proof
    assert proof is not None
    assert is_gone(proof) is False
    for no_proof in (None, "", "[]", "[1, 2, 3]", '["", "/nowhere", ""]'):
        assert is_gone(no_proof) is None
    copied = Path(presence._path).read_bytes()
    presence.drop()  # as its process' end does
    assert is_gone(proof) is True
    monkeypatch.setattr(_presence, "_boot_id", lambda: "another start of the kernel")
    assert is_gone(proof) is None
    monkeypatch.undo()
    Path(presence._path).rename(f"{presence._path}-old")
    Path(presence._path).write_bytes(copied)
    assert is_gone(proof) is None
    Path(presence._path).unlink()
    assert is_gone(proof) is None
    Path(f"{presence._path}-old").unlink()


def test_a_forked_child_does_not_keep_the_lock(postgres: str) -> None:
    presence = Presence()
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        wait_until(
            lambda: (
                not any(
                    os.readlink(f"/proc/{pid}/fd/{fd}") == presence._path
                    for fd in os.listdir(f"/proc/{pid}/fd")
                )
            )
        )
        assert is_gone(presence.proof) is False
        presence.drop()
        assert is_gone(presence.proof) is True
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.unlink(presence._path)


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_that_is_over_stays_over() -> None:
    lease = NodeLease(uuid4(), "a server", boot_time() + 60)
    assert lease.is_valid()
    assert lease.extend(boot_time() - 1) is False
    assert lease.extend(boot_time() + 60) is False
    assert not lease.is_valid()
    other = NodeLease(uuid4(), "a server", boot_time() + 60)
    other.end()
    assert other.extend(boot_time() + 60) is False


def lost_of(writer: Writer, post: Callable[[Callable[[], object]], object]) -> list[str]:
    """The reasons for which leases end from now on."""
    lost: list[str] = []
    membership_of(writer).follow(post, lambda lease, problem: lost.append(problem))
    return lost


def call(function: Callable[[], object]) -> None:
    function()


def test_a_lease_is_renewed_for_as_long_as_the_loop_runs(postgres: str, admin: Admin) -> None:
    with closing(with_ttl(postgres, 0.4, unresponsive_after=0.3).open_writer()) as writer:
        lost = lost_of(writer, call)
        wait_until(lambda: count(admin, "SELECT renewals::int FROM durable_beats") > 8)
        assert (lost, membership_of(writer).lease.is_valid()) == ([], True)


def test_a_loop_that_hangs_costs_the_lease(postgres: str) -> None:
    with closing(with_ttl(postgres, 0.4, unresponsive_after=0.3).open_writer()) as writer:
        lost = lost_of(writer, lambda _: None)
        wait_until(lambda: lost)
        assert lost[0].startswith("the event loop hasn't run for")
        assert not membership_of(writer).lease.is_valid()


def test_a_silent_server_costs_the_lease_in_time(proxy: Proxy) -> None:
    with closing(with_ttl(proxy.url(), 1.0).open_writer()) as writer:
        lost = lost_of(writer, call)
        lease = membership_of(writer).lease
        proxy.freeze()
        began = boot_time()
        wait_until(lambda: not lease.is_valid())
        assert boot_time() - began <= 0.8 + 0.1
        wait_until(lambda: lost)
        proxy.cut()
        proxy.thaw()
        membership_of(writer).rejoin()
        assert commit(writer, save("a", 0)) == []
        assert len(lost) == 1


@pytest.mark.parametrize("how", ["removed", "another server"])
def test_a_beat_that_finds_no_row_ends_the_lease(postgres: str, admin: Admin, how: str) -> None:
    with closing(with_ttl(postgres, 0.4).open_writer()) as writer:
        lost = lost_of(writer, call)
        if how == "removed":
            admin.execute("DELETE FROM durable_beats")
        else:
            admin.execute("UPDATE durable_nodes SET server = 'another'")
        wait_until(lambda: lost)
        assert "another node has removed it, or the server has lost its row" in lost[0]
        before = membership_of(writer).lease
        membership_of(writer).rejoin()
        after = membership_of(writer).lease
        assert after.is_valid()
        assert after.holder != before.holder
        assert commit(writer, save("a", 0)) == []
        assert count(admin, NODES) == 1


def test_any_lost_connection_ends_the_lease_if_commits_may_be_lost(
    postgres: str, admin: Admin
) -> None:
    storage = PostgresStorage(postgres, durability="normal")
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        lost = lost_of(writer, call)
        for side, work in (
            ("writer", lambda: commit(writer, save("a", 0))),
            ("reader", lambda: reader.load([key("a")])),
        ):
            work()
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                f"WHERE application_name = 'trio_durable {side}'".encode()
            )
            if side == "writer":
                with pytest.raises(LeaseOver):
                    commit(writer, save("a", 1))
            else:
                reader.load([key("a")])
            assert 'durability="normal" may have lost commits' in lost.pop()
            assert not membership_of(writer).lease.is_valid()
            with pytest.raises(LeaseOver):
                commit(writer, save("a", 1))
            membership_of(writer).rejoin()
    assert lost == []


# --- the fence -----------------------------------------------------------------------------------


@pytest.fixture
def fenced(postgres: str) -> Iterator[Writer]:
    """A writer that notices nothing by itself, with rows and alarms."""
    with closing(with_ttl(postgres, 600).open_writer()) as writer:
        membership_of(writer)._is_closing = True  # no renewals
        membership_of(writer)._woken.set()
        commit(writer, save("a", 0), setting("b", "x"), setting("c", "x", "y"), of_tenant("acme"))
        assert writer.claim([alarm_key("b")], 1, NOW, NOW + SECOND)
        yield writer


def of_tenant(tenant: str) -> Commit:
    return Commit(key("a", tenant), 0, b"1")


CHANGES = AlarmChanges(changed={"z": None})

PATHS: dict[str, Callable[[Writer], object]] = {
    "insert": lambda w: commit(w, save("new", 0)),
    "conflict": lambda w: commit(w, save("a", 1, b"2")),
    "stale": lambda w: commit(w, save("a", 7, b"2")),
    "several statements": lambda w: commit(w, save("new", 0), setting("a", "x", revision=1)),
    "delete": lambda w: commit(w, Commit(key("a"), 1, delete=True)),
    "acknowledge": lambda w: commit(w, Commit(key("b"), None, alarms=AlarmChanges({"x": 1}))),
    "several tenants": lambda w: commit(w, save("a", 1, b"2"), Commit(key("a", "acme"), 1, b"2")),
    "new tenant": lambda w: commit(w, of_tenant("zoo")),
    "claim": lambda w: w.claim([alarm_key("c")], 2, NOW, NOW + SECOND),
    "renew": lambda w: w.renew([(alarm_key("b"), 1)], NOW + 9 * SECOND),
    "postpone": lambda w: w.postpone([Postponement(alarm_key("b"), 1, NOW, 1, None)]),
    "mark": lambda w: w.mark(alarm_key("b"), 1),
    "acquit": lambda w: w.acquit(alarm_key("b"), 1),
    "drop tenant": lambda w: w.drop_tenant("acme"),
}


def contents(admin: Admin) -> list[object]:
    rows: list[object] = []
    for table in ("durable_objects", "durable_alarms", "durable_tenants"):
        rows += admin.execute(
            f"SELECT * FROM {table} ORDER BY 1, 2, 3".encode()
            if table != "durable_tenants"
            else b"SELECT * FROM durable_tenants"
        )
    rows += admin.execute("SELECT * FROM durable_acme.durable_objects")
    return rows


@pytest.mark.parametrize("is_wary", [False, True], ids=["", "wary"])
@pytest.mark.parametrize("path", PATHS)
def test_a_removed_node_writes_nothing(
    fenced: Writer, admin: Admin, path: str, is_wary: bool
) -> None:
    if is_wary:
        fenced._locks.timed_out()  # type: ignore[attr-defined]
    before = contents(admin)
    admin.execute("DELETE FROM durable_nodes")
    with pytest.raises(LeaseOver, match=r"isn't in the database any more"):
        PATHS[path](fenced)
    assert contents(admin) == before
    assert not membership_of(fenced).lease.is_valid()


@pytest.mark.parametrize("path", PATHS)
def test_a_node_of_another_incarnation_writes_nothing(
    fenced: Writer, admin: Admin, path: str
) -> None:
    before = contents(admin)
    admin.execute("UPDATE durable_nodes SET server = 'another'")
    with pytest.raises(LeaseOver):
        PATHS[path](fenced)
    assert contents(admin) == before


@pytest.mark.parametrize("path", PATHS)
def test_a_statement_with_an_older_snapshot_waits_for_a_removal_and_writes_nothing(
    fenced: Writer, admin: Admin, path: str
) -> None:
    """It has begun before the removal was committed, so its snapshot has the row still."""
    before = contents(admin)
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(PATHS[path](fenced))
        except LeaseOver as error:
            outcome.append(error)

    with admin.transaction():
        admin.execute("DELETE FROM durable_nodes")
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: waits(admin) == 1)
    thread.join()
    assert isinstance(outcome[0], LeaseOver)
    assert contents(admin) == before


@pytest.mark.parametrize("kind", ["one statement", "pipeline"])
def test_a_removal_waits_for_a_transaction_of_the_node(
    fenced: Writer, admin: Admin, postgres: str, kind: str
) -> None:
    """And the transaction that has the lock is applied."""
    batch = {
        "one statement": [save("a", 1, b"2")],
        "pipeline": [save("a", 1, b"2"), setting("c", "z")],
    }[kind]
    with admin.transaction():
        admin.execute("SELECT FROM durable_objects WHERE object_id = 'a' FOR UPDATE")
        saving, one = in_thread(lambda: commit(fenced, *batch))
        wait_until(lambda: waits(admin) == 1)  # with the lock on its node
        with closing(PostgresStorage(postgres)._connect("admin")) as other:
            assert isinstance(other, Connection)
            removing, two = in_thread(lambda: other.execute("DELETE FROM durable_nodes").rowcount)
            wait_until(lambda: waits(admin) == 2 or removing)
            assert removing == []
            admin.execute("COMMIT")
            one.join()
            two.join()
            admin.execute("BEGIN")
    assert (saving, removing) == ([[]], [1])
    with closing(PostgresStorage(postgres).open_reader()) as reader:
        assert reader.load([key("a")]) == [StoredObject(2, b"2")]


def test_a_removal_is_void_if_the_node_was_renewed_since(
    writer: Writer, admin: Admin, postgres: str
) -> None:
    table = table_of(admin)
    with closing(PostgresStorage(postgres)._connect("admin")) as other:
        node_id = add_node(admin, 1, renewals=7)
        (node,) = [each for each in table.list(other) if str(each.node_id) == node_id]
        admin.execute("UPDATE durable_beats SET renewals = 8 WHERE renewals = 7")
        assert table.remove(other, node.node_id, 7) is False
        assert count(admin, f"{NODES} WHERE node_id = '{node_id}'") == 1
        assert table.remove(other, node.node_id, 8) is True
        assert count(admin, f"{NODES} WHERE node_id = '{node_id}'") == 0


def test_a_transaction_that_freezes_lets_its_node_go(fenced: Writer, admin: Admin) -> None:
    """A stopped process may not hold up its own removal."""
    connection = fenced._reconnecting._usable()  # type: ignore[attr-defined]
    connection.fence = fenced._reconnecting._enter_lease(connection) and connection.fence  # type: ignore[attr-defined]
    with connection.transaction():
        table_of(admin).begin(connection)
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("5s",)


# --- claims of the dead --------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_alarms_of_a_dead_node_are_due_at_once(postgres: str, writer: Writer, tenant: str) -> None:
    """Without waiting for the end of its claims; and they are suspects, as after any death."""
    writer.close()
    x = key("a", tenant).alarm("x")
    with closing(with_ttl(postgres, 600).open_writer()) as dead:
        commit(dead, Commit(key("a", tenant), 0, b"1", alarms=setting("a", "x").alarms))
        assert dead.claim([x], 1, NOW, NOW + 3600 * SECOND)
        membership = membership_of(dead)
        membership._presence.drop()
        membership._is_closing = True
        membership._woken.set()
        with closing(PostgresStorage(postgres).open_writer()) as later:
            (found,) = later.claim([x], 2, NOW, NOW + SECOND)
            assert (found.due_at, found.crashes) == (NOW, 0)


def test_claims_of_a_former_lease_are_released_without_suspicion(
    storage: PostgresStorage, writer: Writer
) -> None:
    commit(writer, setting("a", "x"))
    assert writer.claim([alarm_key("a")], 1, NOW, NOW + 3600 * SECOND)
    membership_of(writer).rejoin()
    (found,) = writer.claim([alarm_key("a")], 2, NOW, NOW + SECOND)
    assert (found.due_at, found.crashes) == (NOW, None)


def test_a_failover_that_lost_the_claims_is_no_problem(server: Server) -> None:
    with closing(PostgresStorage(server.conninfo()).open_writer()) as writer:
        commit(writer, setting("a", "x"))
        server.stop(signal.SIGQUIT)
        server.start()
        with pytest.raises(LeaseOver):
            commit(writer, save("a", 0))
        membership_of(writer).rejoin()
        assert commit(writer, save("a", 0)) == []


def test_a_connection_that_comes_after_the_end_is_closed(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread was connecting when the writer was closed, which doesn't wait for it for long."""
    membership = membership_of(writer)
    begun, may_go_on = threading.Event(), threading.Event()
    made: list[Connection] = []
    connected = membership._connected

    def connect_late(timeout: float) -> Connection:
        begun.set()
        may_go_on.wait()
        made.append(connected(5))
        return made[0]

    monkeypatch.setattr(_membership, "_LEAVE_SECONDS", 0.01)
    with membership._in_use:
        membership._drop()
        monkeypatch.setattr(membership, "_connected", connect_late)
        membership._renew_at = 0
    membership._woken.set()
    begun.wait()
    writer.close()
    may_go_on.set()
    membership._thread.join()
    assert made[0].closed
