"""Messages on PostgreSQL: the fence, races of several writers, locks, faults, poolers, marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from support.pooler import pooled
from support.postgres import Server, wait_until

from trio_durable import ObjectKey
from trio_durable.storage import (
    Commit,
    Deferral,
    LeaseOver,
    MessageChanges,
    NewMessage,
    OnceKey,
    OnceReply,
    PartialFault,
    Reader,
    StorageFault,
    StoredObject,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage, _reconnecting
from trio_durable.storage.postgres._message_rows import shard_of_key

from .members import followers, new_member
from .messages import burying, dead, handling, message, recording, sending, sent_by, waiting
from .rows import NOW, SECOND, Admin, beside, commit, count, in_thread, key, save, waits


@pytest.fixture
def storage(postgres: str) -> PostgresStorage:
    """A node beside others, whose lock timeout is short: some waits end with it."""
    options = conninfo_to_dict(postgres)["options"]
    return beside(make_conninfo(postgres, options=f"{options} -clock_timeout=10s"))


@pytest.fixture
def other(storage: PostgresStorage, writer: Writer) -> Iterator[Writer]:
    """The writer of another node."""
    with closing(storage.open_writer()) as writer:
        yield writer


@pytest.fixture
def hasty(postgres: str, writer: Writer) -> Iterator[Writer]:
    """A writer that waits for locks no longer than a moment."""
    options = conninfo_to_dict(postgres)["options"]
    short = beside(make_conninfo(postgres, options=f"{options} -clock_timeout=50ms"))
    with closing(short.open_writer()) as hasty:
        yield hasty


# --- tables --------------------------------------------------------------------------------------


def test_the_shard_of_a_message_is_that_of_its_receiver(writer: Writer, admin: Admin) -> None:
    ids = ["a", "é", "👾", "\\", "\\\\000", "a\\b'\"", "\uffff", "x" * 300]
    sent_by(writer, *(message(key(one), key("s")) for one in ids))
    found = admin.execute("SELECT to_id, shard FROM durable_messages").fetchall()
    assert sorted(found) == sorted((one, shard_of_key(key(one))) for one in ids)


# --- the fence -----------------------------------------------------------------------------------


def promise(new: NewMessage) -> OnceReply:
    return OnceReply(OnceKey(new.to, "k"), "f", "d", "s", None, NOW + SECOND, new.token)


WRITES: dict[str, Callable[[Writer, NewMessage, NewMessage], object]] = {
    "send": lambda w, new, dead: w.commit([sending(message(key("b"), key("a")))], NOW),
    "send and save": lambda w, new, dead: w.commit(
        [Commit(key("a"), 0, b"1", messages=MessageChanges(sent=[message(key("b"))]))], NOW
    ),
    "acknowledge": lambda w, new, dead: w.commit([handling(new)], NOW),
    "acknowledge alone": lambda w, new, dead: w.commit([handling(new, None, None)], NOW),
    "bury": lambda w, new, dead: w.commit([burying(new)], NOW),
    "delete": lambda w, new, dead: w.commit([Commit(new.to, 0, delete=True)], NOW),
    "record": lambda w, new, dead: w.commit([recording("a")], NOW),
    "new tenant": lambda w, new, dead: w.commit([sending(message(key("a", "acme")))], NOW),
    "defer": lambda w, new, dead: w.defer_messages([Deferral(new.key, NOW, 1, None)]),
    "mark": lambda w, new, dead: w.mark_message(new.key),
    "retry": lambda w, new, dead: w.retry_messages([dead.token]),
    "drop": lambda w, new, dead: w.drop_messages([dead.token]),
    "clean": lambda w, new, dead: w.clean_once(NOW + 9 * SECOND, 5),
    "rename": lambda w, new, dead: w.rename_messages("Cart", "Other"),
    "restore": lambda w, new, dead: w.restore_messages([], [], [promise(dead)], NOW),
}


def contents(admin: Admin) -> list[list[tuple[object, ...]]]:
    tables = ("objects", "messages", "dead_messages", "once", "tenants")
    return [
        admin.execute(f"SELECT t::text FROM durable_{table} AS t ORDER BY 1".encode()).fetchall()
        for table in tables
    ]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_removed_node_changes_no_message(
    writer: Writer, other: Writer, admin: Admin, write: Callable[..., object]
) -> None:
    new, letter = message(key("b"), key("a")), message(key("b"), key("a"))
    sent_by(writer, new, letter)
    commit(writer, burying(letter), recording("z"))
    before = contents(admin)
    holder = other.membership
    assert holder is not None
    admin.execute("DELETE FROM durable_nodes WHERE node_id = %s", (holder.lease.holder,))
    with pytest.raises(LeaseOver):
        write(other, new, letter)
    assert contents(admin) == before
    write(writer, new, letter)
    assert contents(admin) != before


# --- races ---------------------------------------------------------------------------------------


def test_a_message_is_acknowledged_by_one_of_two_at_once(
    writer: Writer, other: Writer, reader: Reader, admin: Admin
) -> None:
    """Both have seen that it waits when the first one locks it."""
    new = message(key("b"), key("a"))
    sent_by(writer, new)
    with admin.transaction():
        admin.execute("SELECT FROM durable_messages FOR UPDATE")
        one, first = in_thread(lambda: commit(writer, handling(new)))
        wait_until(lambda: waits(admin) == 1)
        done = handling(new)
        done.key = key("c")
        two, second = in_thread(lambda: commit(other, done))
        wait_until(lambda: waits(admin) == 2)
    first.join()
    second.join()
    assert sorted([one, two]) == [[[]], [[0]]]
    states = reader.load([key("b"), key("c")])
    assert sorted(state is not None for state in states) == [False, True]
    assert waiting(reader) == set()


@pytest.mark.parametrize("change", ["acknowledged", "renumbered"])
def test_a_message_that_is_lost_between_the_look_and_the_removal_makes_its_commit_stale(
    writer: Writer, reader: Reader, admin: Admin, change: str
) -> None:
    new, kept = message(key("b"), key("a")), message(key("c"), key("a"))
    sent_by(writer, new, kept)
    with admin.transaction():
        admin.execute("SELECT FROM durable_messages WHERE to_id = 'b' FOR UPDATE")
        batch = [handling(new), handling(kept)]
        outcome, thread = in_thread(lambda: commit(writer, *batch))
        wait_until(lambda: waits(admin) == 1)
        if change == "acknowledged":
            admin.execute("DELETE FROM durable_messages WHERE to_id = 'b'")
        else:
            admin.execute("UPDATE durable_messages SET token = 1 WHERE to_id = 'b'")
    thread.join()
    assert outcome == [[0]]
    assert reader.load([key("b"), key("c")]) == [None, StoredObject(1, b"1")]
    assert waiting(reader) == ({1} if change == "renumbered" else set())


def test_a_once_key_is_taken_by_one_of_two_at_once(
    writer: Writer, other: Writer, reader: Reader, admin: Admin
) -> None:
    def turn(object_id: str) -> Commit:
        changes = recording("x").messages
        return Commit(key(object_id), 0, b"1", messages=changes)

    with admin.transaction():
        admin.execute("LOCK TABLE durable_once IN EXCLUSIVE MODE")
        one, first = in_thread(lambda: commit(writer, turn("a")))
        two, second = in_thread(lambda: commit(other, turn("b")))
        wait_until(lambda: waits(admin) == 2)
    first.join()
    second.join()
    assert sorted([one, two]) == [[[]], [[0]]]
    assert sorted(each is not None for each in reader.load([key("a"), key("b")])) == [False, True]


def test_batches_that_use_up_the_same_messages_do_not_deadlock(
    writer: Writer, other: Writer, admin: Admin
) -> None:
    """Both wait for the message with the lowest key, whatever the order of their commits."""
    sent = [message(key(one), key("a"), NOW, sender_key=one) for one in "bcdefgh"]
    sent += [message(key(one), key("z")) for one in "bcdefgh"]
    sent_by(writer, *sent)
    lowest = min(sent, key=lambda new: (shard_of_key(new.to), new.lane, new.seq))
    cancel = Commit(key("a"), None, messages=MessageChanges(cancelled=list("hgfedcb")))
    deletions = [Commit(key(one), 0, delete=True) for one in "hgfedcb"]
    with admin.transaction():
        admin.execute("SELECT FROM durable_messages WHERE token = %s FOR UPDATE", (lowest.token,))
        one, first = in_thread(lambda: commit(writer, *deletions, cancel))
        wait_until(lambda: waits(admin) == 1)
        two, second = in_thread(lambda: commit(other, cancel, burying(*reversed(sent[7:]))))
        wait_until(lambda: waits(admin) == 2)
    first.join()
    second.join()
    assert one == [[]]
    assert two in ([[1]], [[]])
    assert count(admin, "SELECT count(*) FROM durable_messages") == 0


def test_a_batch_locks_all_its_messages_before_it_removes_any(
    writer: Writer, other: Writer, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of the two would hold the message that the other one wants next."""
    retries: list[int] = []
    monkeypatch.setattr(_reconnecting, "_pause", retries.append)
    ids = sorted("bcdefgh", key=lambda one: shard_of_key(key(one)))[:3]
    sent = [message(key(one), key("a"), NOW, sender_key=one) for one in ids]
    sent_by(writer, *sent)
    lowest, middle, highest = sent

    def cancelling(*some: NewMessage) -> Commit:
        names = [new.sender_key or "" for new in some]
        return Commit(key("a"), None, messages=MessageChanges(cancelled=names))

    with admin.transaction():
        admin.execute("SELECT FROM durable_messages WHERE token = %s FOR UPDATE", (lowest.token,))
        one, first = in_thread(
            lambda: commit(writer, handling(highest), cancelling(lowest, middle))
        )
        wait_until(lambda: waits(admin) == 1)
        two, second = in_thread(lambda: commit(other, handling(middle), cancelling(highest)))
        wait_until(lambda: waits(admin) == 2 or two)
    first.join()
    second.join()
    assert retries == []
    assert (one, two) == ([[0]], [[]])


# --- faults --------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[NewMessage], Commit]] = {
    "acknowledge": handling,
    "bury": burying,
    "withdraw": lambda new: Commit(
        sender_of(new), 0, b"1", messages=MessageChanges(withdrawn=[new.key])
    ),
    "cancel": lambda new: Commit(
        sender_of(new), 0, messages=MessageChanges(cancelled=[new.sender_key or ""])
    ),
    "delete": lambda new: Commit(new.to, 0, delete=True),
}


def sender_of(new: NewMessage) -> ObjectKey:
    assert new.sender is not None
    return new.sender


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_message_that_another_session_has_locked_is_named(
    hasty: Writer, reader: Reader, admin: Admin, kind: Callable[[NewMessage], Commit]
) -> None:
    sent = [message(key(one), key(f"s{one}"), NOW, sender_key="k") for one in "abc"]
    sent_by(hasty, *sent)
    with admin.transaction():
        admin.execute("SELECT FROM durable_messages WHERE to_id = 'b' FOR UPDATE")
        for _ in range(2):
            with pytest.raises(PartialFault, match="locked") as caught:
                hasty.commit([kind(new) for new in sent], NOW)
            assert caught.value.positions == [1]
        assert commit(hasty, kind(sent[0]), kind(sent[2])) == []
        sent_by(hasty, message(key("b"), key("sb")))  # sending needs no lock
    assert commit(hasty, kind(sent[1])) == []


def test_a_once_key_that_another_session_has_locked_is_named(
    hasty: Writer, reader: Reader, admin: Admin
) -> None:
    commit(hasty, *(recording(one, expires_at=NOW) for one in "abc"))
    with admin.transaction():
        admin.execute("SELECT FROM durable_once WHERE object_id = 'b' FOR UPDATE")
        with pytest.raises(PartialFault, match="locked") as caught:
            hasty.commit([recording(one) for one in "abc"], NOW)
        assert caught.value.positions == [1]
        assert commit(hasty, recording("a"), recording("c")) == []
        assert hasty.clean_once(NOW, 9) == 0  # passes over what is locked
    assert commit(hasty, recording("b")) == []


def test_a_deferral_of_a_locked_message_holds_up_no_other(
    hasty: Writer, reader: Reader, admin: Admin
) -> None:
    sent = [message(key(one), key("s")) for one in "ab"]
    sent_by(hasty, *sent)
    deferrals = [Deferral(new.key, NOW, 1, "no") for new in sent]
    with admin.transaction():
        admin.execute("SELECT FROM durable_messages WHERE to_id = 'a' FOR UPDATE")
        with pytest.raises(PartialFault):
            hasty.defer_messages(deferrals)
        hasty.defer_messages(deferrals[1:])
    found = reader.load_messages([new.key for new in sent])
    assert [each and each.failures for each in found] == [0, 1]


def test_a_tenant_whose_messages_are_locked_is_refused_alone(hasty: Writer, admin: Admin) -> None:
    sent_by(hasty, message(key("a", "acme")))
    with admin.transaction():
        admin.execute("LOCK TABLE durable_acme.durable_messages")
        for _ in range(2):
            with pytest.raises(StorageFault):
                hasty.commit([sending(message(key("a", "acme")))], NOW)
        sent_by(hasty, message(key("a")))
        assert commit(hasty, save("a", 0)) == []


def test_arguments_that_are_no_text_are_refused_alone(writer: Writer, reader: Reader) -> None:
    bad, good = message(key("a")), message(key("b"))
    bad.arguments = b"\xff"
    with pytest.raises(PartialFault):
        writer.commit([sending(bad), sending(good)], NOW)
    assert commit(writer, sending(good)) == []
    assert waiting(reader) == {good.token}


# --- shards and marks ----------------------------------------------------------------------------


def test_a_member_reads_and_cleans_what_is_of_its_shards_alone(postgres: str) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        one.settle(dict.fromkeys(range(512), 1), two.id)
        sent = [message(key(f"{n}"), wake_at=NOW) for n in range(40)]
        sent += [message(key(f"{n}"), key("s")) for n in range(40)]
        sent_by(one.writer, *sent)
        commit(one.writer, *(recording(f"{n}", expires_at=NOW) for n in range(40)))
        seen: list[set[str]] = []
        with ExitStack() as stack:
            for member, shards in ((one, range(512, 1024)), (two, range(512))):
                reader = stack.enter_context(closing(member.storage.open_reader()))
                assert reader.list_receivers(None, 100) == []
                assert reader.due_messages(NOW + 1, None, 100, ()) == []
                assert member.writer.clean_once(NOW, 100) == 0
                member.membership.feed(shards)
                receivers = {each.key for each in reader.list_receivers(None, 100)}
                due = {each.key.to for each in reader.due_messages(NOW + 1, None, 100, ())}
                expected = {new.to for new in sent if shard_of_key(new.to) in shards}
                assert receivers == due == expected
                assert member.writer.clean_once(NOW, 100) == len(expected)
                seen.append({each.object_id for each in expected})
        assert len(seen[0] | seen[1]) == 40
        assert not seen[0] & seen[1]


def test_the_marks_of_acquired_shards_alone_are_counted(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member()) as (one,):
        sent = [message(key(f"{n}", tenant), key("s")) for n in range(9) for tenant in ("", "acme")]
        for new in sent:
            sent_by(one.writer, new)
            assert one.writer.mark_message(new.key) is True
        acquired = {shard_of_key(new.to) for new in sent[:6]}
        with closing(one.storage.open_reader()) as reader:

            def crashes() -> list[int | None]:
                found = reader.load_messages([new.key for new in sent])
                return [None if each is None else each.crashes for each in found]

            for times in (1, 1):  # a mark is counted once
                one.membership.release_claims(acquired)
                expected = [times if shard_of_key(new.to) in acquired else 0 for new in sent]
                assert crashes() == expected


def test_the_marks_of_a_dead_node_are_counted_when_another_takes_its_place(
    postgres: str, writer: Writer, admin: Admin
) -> None:
    new = message(key("b"), key("a"))
    sent_by(writer, new)
    writer.mark_message(new.key)
    admin.execute(
        "UPDATE durable_nodes SET proof = NULL, host = 'elsewhere', ttl = 0.1, \"group\" = NULL"
    )
    again = PostgresStorage(postgres)
    with closing(again.open_writer()), closing(again.open_reader()) as reader:
        (found,) = reader.load_messages([new.key])
        assert found is not None
        assert found.crashes == 1


def test_the_marks_of_a_former_lease_of_a_living_process_are_no_crashes(postgres: str) -> None:
    storage = PostgresStorage(postgres)
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        new = message(key("b"), key("a"))
        sent_by(writer, new)
        writer.mark_message(new.key)
        assert writer.membership is not None
        writer.membership.rejoin()
        (found,) = reader.load_messages([new.key])
        assert found is not None
        assert found.crashes == 0
        with psycopg.connect(postgres) as admin:
            assert count(admin, "SELECT count(*) FROM durable_messages WHERE begun") == 0


# --- snapshots and poolers -----------------------------------------------------------------------


def test_a_snapshot_lasts_for_its_block_alone_and_changes_nothing(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    with reader.snapshot():
        assert waiting(reader) == set()
        sent_by(writer, message(key("a")))
        assert waiting(reader) == set()
    assert len(waiting(reader)) == 1
    with pytest.raises(RuntimeError, match="in the block"), reader.snapshot():
        raise RuntimeError("in the block")
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    assert count(admin, open_ones) == 0
    sent_by(writer, message(key("b")))
    assert len(waiting(reader)) == 2


def test_the_loss_of_the_connection_ends_a_snapshot(
    writer: Writer, reader: Reader, admin: Admin
) -> None:
    """A read on another connection would see another state."""
    with reader.snapshot():
        assert waiting(reader) == set()
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state = 'idle in transaction'"
        )
        for _ in range(2):
            with pytest.raises(StorageFault):
                waiting(reader)
    assert waiting(reader) == set()


def test_messages_work_through_a_pooler(server: Server) -> None:
    with pooled(server, server) as pooler:
        storage = PostgresStorage(pooler.url())
        with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
            first, second = message(key("b"), key("a")), message(key("b"))
            reminder = message(key("b"), key("a"), NOW, sender_key="k")
            sent_by(writer, first, second, reminder)
            assert [each.key for each in reader.read_mail(key("b"), None, 9, 9)] == [
                second.key,
                first.key,
            ]
            done = MessageChanges([first.key], sent=[message(key("c"), key("b"))])
            cancel = MessageChanges(cancelled=["k"])
            batch = [
                Commit(key("b"), 0, b"1", messages=done),
                Commit(key("a"), 0, messages=cancel),
                recording("b"),
            ]
            assert commit(writer, *batch) == []
            assert cancel.taken_back == {"k"}
            assert commit(writer, handling(first, 1)) == [0]
            commit(writer, burying(second))
            assert dead(reader) == {second.token}
            assert len(writer.retry_messages([second.token])) == 1
            with reader.snapshot():
                before = waiting(reader)
                sent_by(writer, message(key("d"), None))
                assert waiting(reader) == before
            assert len(waiting(reader)) == len(before) + 1
