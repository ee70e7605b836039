"""Statements of batches with messages, and work that doesn't grow with the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import attrs
import psycopg
import pytest
from support.postgres import Database, wait_until

from trio_durable.storage import (
    AlarmChanges,
    Commit,
    Deferral,
    DueMessage,
    MessageChanges,
    NewAlarm,
    NewMessage,
    OnceKey,
    OnceReply,
    Reader,
    Writer,
    lane_of,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._message_rows import shard_of_key
from trio_durable.storage.postgres._shard_function import ShardSet

from .messages import burying, handling, message, recording, sending, sent_by
from .rows import NOW, commit, key, save, setting
from .test_plans import catch_up, counted

BUSY = key("busy")


# --- statements ----------------------------------------------------------------------------------


def statements(writer: Writer, *batch: Commit) -> list[str]:
    """The first words of what a commit executes, with the table that it is about."""
    connection = writer._reconnecting._connection  # type: ignore[attr-defined]
    found = list[str]()

    def noting(execute: Callable[..., object]) -> Callable[..., object]:
        def execute_and_note(query: bytes, *args: object, **kwargs: object) -> object:
            found.append(query.decode())
            return execute(query, *args, **kwargs)

        return execute_and_note

    connection.execute = noting(connection.execute)
    connection.execute_binary = noting(connection.execute_binary)
    try:
        writer.commit(batch, NOW)
    finally:
        del connection.execute, connection.execute_binary
    return found


def test_a_batch_without_messages_executes_no_statement_about_them(writer: Writer) -> None:
    alarms = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    commit(writer, *(Commit(key(one), 0, b"1", alarms=alarms) for one in "abc"))
    batches = [
        [save("a", 1), save("b", 1)],
        [Commit(key("a"), 2, b"2", alarms=alarms), setting("b", "y", revision=2)],
        [setting("new", "y", revision=0), setting("c", "y")],
        [Commit(key("c"), 1, b"2", alarms=AlarmChanges({"x": 7}, clear=True))],
    ]
    for batch in batches:
        found = statements(writer, *batch)
        assert found
        assert not [sql for sql in found if "durable_messages" in sql or "durable_once" in sql]
    assert len(statements(writer, save("a", 2))) == 1


def test_a_deletion_has_one_statement_more(writer: Writer) -> None:
    commit(writer, save("a", 0))
    found = statements(writer, Commit(key("a"), 1, delete=True))
    assert len([sql for sql in found if "durable_messages" in sql]) == 1
    assert len(found) == 3


def test_a_batch_has_one_statement_for_all_that_it_sends_and_one_for_what_it_handles(
    writer: Writer,
) -> None:
    handled = [message(key(f"r{n}"), key("s")) for n in range(20)]
    sent_by(writer, *handled)
    batch = []
    for new in handled:
        each = handling(new)
        assert each.messages is not None
        each.messages.sent = [message(key("t"), new.to) for _ in range(3)]
        batch.append(each)
    found = [sql for sql in statements(writer, *batch) if "durable_messages" in sql]
    assert len([sql for sql in found if "DELETE FROM" in sql]) == 1
    assert len([sql for sql in found if sql.strip().startswith("INSERT")]) == 1
    assert len(found) == 3  # and a look whether all of them wait
    assert all(new.seq for each in batch if each.messages for new in each.messages.sent)


@pytest.mark.parametrize("revision", [0, 7])
def test_a_batch_with_messages_is_one_round_trip(writer: Writer, revision: int) -> None:
    for _ in range(8):  # some of them prepared
        handled, other = message(key("a"), key("s")), message(key("b"), key("s"))
        sent_by(writer, handled, other)
        changes = MessageChanges(acknowledged=[handled.key], cancelled=["k"])
        changes.sent = [message(key("c"), key("a"))]
        batch = [
            Commit(key("a"), 0 if revision == 0 else 7, messages=changes),
            burying(other),
            sending(message(key("d"))),
            Commit(key("e"), 0, delete=True),
        ]
        with counted(writer) as sent:
            assert commit(writer, *batch) == ([] if revision == 0 else [0])
        assert (sent[0], sent[-1]) == ("_enter_gen", "_exit_gen")
        assert sent.count("_enter_gen") == 1
        assert set(sent[1:-1]) <= {"_execute_gen", "_communicate_gen", "_fetch_gen"}


def test_a_lost_message_or_a_taken_key_takes_no_second_round_trip(writer: Writer) -> None:
    lost, there = message(key("a"), key("s")), message(key("b"), key("s"))
    sent_by(writer, lost, there)
    assert commit(writer, handling(lost), recording("k")) == []
    batch = [handling(lost, 1), handling(there), recording("k"), recording("z")]
    with counted(writer) as sent:
        assert commit(writer, *batch) == [0, 2]
    assert sent.count("_enter_gen") == 1


# --- work ----------------------------------------------------------------------------------------


@attrs.frozen
class Crowd:
    """Tables in which many messages wait for one receiver, and some for others."""

    writer: Writer
    reader: Reader
    some: Sequence[NewMessage]
    """Messages to objects of their own."""
    dead: Sequence[NewMessage]


@attrs.frozen
class Crowded:
    """The same, while nothing is open."""

    storage: PostgresStorage
    conninfo: str
    some: Sequence[NewMessage]
    dead: Sequence[NewMessage]


@pytest.fixture(scope="module")
def crowded(postgres_database: Database) -> Iterator[Crowded]:
    conninfo = postgres_database.new_schema("crowded")
    storage = PostgresStorage(conninfo)
    with closing(storage.open_writer()) as writer:
        some = [message(key(f"u{n:03}"), key("a")) for n in range(600)]
        crowd = [message(BUSY, key(f"s{n % 40:03}")) for n in range(8000)]
        crowd += [message(BUSY) for _ in range(3000)]
        crowd += [message(BUSY, wake_at=NOW + 1000 + n) for n in range(3000)]
        crowd += [message(key(f"t{n:05}"), wake_at=NOW + 1000) for n in range(3000)]
        crowd += [message(BUSY, key("a"), NOW + n, sender_key=f"{n}") for n in range(1000)]
        dead = [message(key("v"), key("a")) for n in range(3000)]
        sent_by(writer, *crowd, *dead, *some)
        commit(writer, burying(*dead))
        keys = [
            OnceReply(OnceKey(key("k"), f"{n:05}"), "f", "", "", b"1", NOW + n) for n in range(5000)
        ]
        commit(writer, Commit(key("k"), None, messages=MessageChanges(recorded=keys)))
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("ANALYZE durable_messages, durable_dead_messages, durable_once")
        yield Crowded(storage, conninfo, some, dead)
        admin.execute("DROP SCHEMA crowded CASCADE")


def promised(new: NewMessage) -> Commit:
    reply = OnceReply(OnceKey(new.to, "k"), "f", "", "", b"1", NOW + 1)
    changes = MessageChanges([new.key], recorded=[reply], sent=[message(new.to, key("x"))])
    return Commit(new.to, 0, messages=changes)


Work = Callable[[Crowd, list[NewMessage]], object]
# With a bound on the rows that one execution reads. It gets four of the messages in `some`.
WORK: dict[str, tuple[Work, int]] = {
    "receivers": (lambda c, some: c.reader.list_receivers(BUSY, 5), 40),
    "mail": (lambda c, some: c.reader.read_mail(BUSY, None, 16, 4), 100),
    "mail behind a lane": (
        lambda c, some: c.reader.read_mail(BUSY, lane_of(key("s020")), 8, 4),
        60,
    ),
    "lane": (lambda c, some: c.reader.read_lane(BUSY, lane_of(key("s020")), 4000, 5), 10),
    "without a lane": (lambda c, some: c.reader.read_lane(BUSY, "", 9000, 5), 10),
    "load": (lambda c, some: c.reader.load_messages([new.key for new in some]), 8),
    "due": (lambda c, some: c.reader.due_messages(NOW + 500, None, 5, ["Other"]), 10),
    "due behind one": (
        lambda c, some: c.reader.due_messages(NOW + 900, DueMessage(NOW + 9, some[0].key), 5, ()),
        10,
    ),
    "find sent": (lambda c, some: c.reader.find_sent(key("a"), "7"), 4),
    "list": (lambda c, some: c.reader.list_messages(None, None, some[0].key, 5), 10),
    "list of a type": (lambda c, some: c.reader.list_messages("Cart", None, some[0].key, 5), 10),
    "list of an object": (lambda c, some: c.reader.list_messages("Cart", "busy", None, 5), 10),
    "dead": (lambda c, some: c.reader.list_dead_messages(None, 1000, 5), 10),
    "dead of a type": (lambda c, some: c.reader.list_dead_messages("Cart", 1000, 5), 10),
    "load dead": (
        lambda c, some: c.reader.load_dead_messages([new.token for new in c.dead[:4]]),
        8,
    ),
    "find once": (lambda c, some: c.reader.find_once([OnceKey(key("k"), "00007")], NOW), 4),
    "list once": (lambda c, some: c.reader.list_once(OnceKey(key("k"), "00700"), 5), 10),
    "clean once": (lambda c, some: c.writer.clean_once(NOW + 4000, 5), 40),
    "defer": (
        lambda c, some: c.writer.defer_messages([Deferral(new.key, None, 1, None) for new in some]),
        40,
    ),
    "mark": (lambda c, some: c.writer.mark_message(some[0].key), 10),
    "retry": (lambda c, some: c.writer.retry_messages([new.token for new in c.dead[:4]]), 30),
    "drop": (lambda c, some: c.writer.drop_messages([new.token for new in c.dead[4:8]]), 30),
    "handle": (lambda c, some: c.writer.commit([handling(new) for new in some], NOW), 60),
    "bury": (lambda c, some: c.writer.commit([burying(new) for new in some], NOW), 60),
    "handle, record and send": (
        lambda c, some: c.writer.commit([promised(new) for new in some], NOW),
        80,
    ),
    "cancel": (
        lambda c, some: c.writer.commit(
            [Commit(key("a"), None, messages=MessageChanges(cancelled=["3", "4"]))], NOW
        ),
        20,
    ),
    "delete": (
        lambda c, some: c.writer.commit([Commit(new.to, 0, delete=True) for new in some], NOW),
        60,
    ),
    "handle, cancel and delete": (
        lambda c, some: c.writer.commit(
            [
                Commit(key("a"), None, messages=MessageChanges(cancelled=["5"])),
                handling(some[0]),
                Commit(some[1].to, 0, delete=True),
            ],
            NOW,
        ),
        80,
    ),
}

TIMES = 10
"""How often each work is done: at first with plans for its parameters, later for any."""


def rows_read(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    catch_up(admin)
    row = admin.execute(
        "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = 'crowded' "
        "AND relname IN ('durable_messages', 'durable_dead_messages', 'durable_once')) "
        "+ (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'crowded' "
        "AND relname IN ('durable_messages', 'durable_dead_messages', 'durable_once'))"
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


@pytest.mark.parametrize("name", WORK)
def test_work_does_not_grow_with_the_tables(crowded: Crowded, name: str) -> None:
    work, bound = WORK[name]
    at = list(WORK).index(name) * 4 * TIMES % (len(crowded.some) - 4 * TIMES)
    at -= at % 4
    with psycopg.connect(crowded.conninfo, autocommit=True) as admin:

        def are_closed() -> bool:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'trio_durable%'"
            ).fetchone()
            return row == (0,)

        wait_until(are_closed)
        # Else planners look for the lowest number behind those of rows that are gone.
        admin.execute("VACUUM durable_messages, durable_dead_messages, durable_once")
        before = rows_read(admin)
        with (
            closing(crowded.storage.open_writer()) as writer,
            closing(crowded.storage.open_reader()) as reader,
        ):
            opened = Crowd(writer, reader, crowded.some, crowded.dead)
            for n in range(TIMES):
                work(opened, list(crowded.some[at + 4 * n : at + 4 * n + 4]))
        wait_until(are_closed)
        read = rows_read(admin) - before
    assert read <= TIMES * bound


@pytest.mark.parametrize("size", [4, 200])
def test_dead_letters_of_other_lanes_are_not_read(postgres: str, size: int) -> None:
    with (
        closing(PostgresStorage(postgres).open_writer()) as writer,
        psycopg.connect(postgres, autocommit=True) as admin,
    ):
        # All of one lane, so that statistics say nothing about the others, and not yet vacuumed.
        dead = [message(key("v"), key("a")) for _ in range(2000)]
        sent_by(writer, *dead)
        commit(writer, burying(*dead))
        handled = [message(key(f"u{n}"), key("a")) for n in range(size * 3)]
        sent_by(writer, *handled)
        admin.execute("ANALYZE durable_messages, durable_dead_messages")
        before = dead_letters_read(admin)
        for at in range(0, len(handled), size):
            assert commit(writer, *map(handling, handled[at : at + size])) == []
        writer.close()
        assert dead_letters_read(admin) - before == 0


def dead_letters_read(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    catch_up(admin)
    row = admin.execute(
        "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE {0})"
        " + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE {0})".format(
            "relname = 'durable_dead_messages' AND schemaname = current_schema()"
        )
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_receivers_of_other_shards_are_not_walked(crowded: Crowded) -> None:
    storage = PostgresStorage(crowded.conninfo)
    with closing(storage.open_reader()) as reader:
        every = [each.key for each in reader.list_receivers(None, 10_000)]
        assert BUSY in every
        for shards in ([3, 700], list(range(512))):
            storage._feed.shards = ShardSet.of(shards, 1024)
            found = [each.key for each in reader.list_receivers(None, 10_000)]
            mine = [one for one in every if shard_of_key(one) in shards]
            assert found == mine
            half = len(mine) // 2
            assert reader.list_receivers(mine[half], 1)[0].key == mine[half + 1]
