"""Messages in an SQLite file: statements, plans, and work that doesn't grow with the tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable.storage import (
    AlarmChanges,
    Burial,
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
    new_token,
)
from trio_durable.storage.sqlite._tables import MAX_CACHED_TENANTS

from .files import NOW, connection_of, execute, executed, key, steps_of, traced, writing

BUSY = key("busy")


def message(
    to: ObjectKey,
    sender: ObjectKey | None = None,
    wake_at: int | None = None,
    sender_key: str | None = None,
) -> NewMessage:
    lane = "" if sender is None or wake_at is not None else lane_of(sender)
    return NewMessage(
        to, lane, new_token(), "f", b"[]", NOW, wake_at, sender=sender, sender_key=sender_key
    )


def sending(*sent: NewMessage) -> Commit:
    return Commit(sent[0].to, None, messages=MessageChanges(sent=list(sent)))


def handling(*sent: NewMessage) -> list[Commit]:
    """A commit of each receiver that handles its messages and changes its state."""
    handled: dict[ObjectKey, MessageChanges] = {}
    for new in sent:
        changes = handled.setdefault(new.to, MessageChanges())
        changes.acknowledged = [*changes.acknowledged, new.key]
    return [Commit(to, 0, b"1", messages=changes) for to, changes in handled.items()]


@attrs.frozen
class Tables:
    """A file in which many messages wait for one receiver, and some for others."""

    writer: Writer
    reader: Reader
    some: list[NewMessage]
    """32 messages to objects of their own, and each the first of its lane there."""
    dead: list[NewMessage]


@contextmanager
def tables(path: Path, size: int) -> Iterator[Tables]:
    storage = SQLiteStorage(path, durability="normal")
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        crowd = [message(BUSY, key(f"s{n % 40:03}")) for n in range(20 * size)]
        crowd += [message(BUSY) for _ in range(size)]
        crowd += [message(BUSY, wake_at=NOW + 1000 + n) for n in range(size)]
        crowd += [message(key(f"t{n:05}"), wake_at=NOW + 1000) for n in range(size)]
        some = [message(key(f"u{n:03}"), key("a")) for n in range(32)]
        reminders = [message(BUSY, key("a"), NOW + n, sender_key=f"{n}") for n in range(size)]
        dead = [message(key(f"v{n:05}"), key("a")) for n in range(size)]
        writer.commit([sending(*crowd, *some, *reminders, *dead)], NOW)
        burials = MessageChanges(buried=[Burial(new.key, 1, "no") for new in dead])
        keys = [
            OnceReply(OnceKey(key("k"), f"{n:05}"), "f", "", "", b"1", NOW + n) for n in range(size)
        ]
        burials.recorded = keys
        writer.commit([Commit(key("v"), None, messages=burials)], NOW)
        yield Tables(writer, reader, some, dead[:32])


Work = Callable[[Tables], object]
WORK: dict[str, tuple[Work, list[str]]] = {
    "receivers": (
        lambda t: t.reader.list_receivers(BUSY, 5),
        [
            "INTEGER PRIMARY KEY (rowid=?)",
            "INDEX durable_messages_by_lane ((to_type,to_id,lane)>(?,?,?))",
            "COVERING INDEX durable_messages_by_lane (to_type=? AND to_id=? AND lane>?)",
            "INDEX durable_messages_awake (to_type=? AND to_id=?)",
        ],
    ),
    "mail": (
        lambda t: t.reader.read_mail(BUSY, None, 16, 16),
        [
            "INDEX durable_messages_awake (to_type=? AND to_id=? AND place>?)",
            "COVERING INDEX durable_messages_by_lane (to_type=? AND to_id=? AND lane>?)",
            "INTEGER PRIMARY KEY (rowid=?)",
            "COVERING INDEX durable_messages_by_lane (to_type=? AND to_id=? AND lane=?)",
        ],
    ),
    "mail behind a lane": (
        lambda t: t.reader.read_mail(BUSY, lane_of(key("s020")), 16, 16),
        [
            "COVERING INDEX durable_messages_by_lane (to_type=? AND to_id=? AND lane>?)",
            "INTEGER PRIMARY KEY (rowid=?)",
            "COVERING INDEX durable_messages_by_lane (to_type=? AND to_id=? AND lane=?)",
        ],
    ),
    "lane": (
        lambda t: t.reader.read_lane(BUSY, lane_of(key("s020")), 100, 16),
        ["INDEX durable_messages_by_lane (to_type=? AND to_id=? AND lane=? AND place>?)"],
    ),
    "without a lane": (
        lambda t: t.reader.read_lane(BUSY, "", 100, 16),
        ["INDEX durable_messages_awake (to_type=? AND to_id=? AND place>?)"],
    ),
    "load": (
        lambda t: t.reader.load_messages([new.key for new in t.some]),
        ["INTEGER PRIMARY KEY (rowid=?)"],
    ),
    "due": (
        lambda t: t.reader.due_messages(NOW + 50, None, 10, ["Other"]),
        ["INDEX durable_messages_by_time ((wake_at,place)>(?,?) AND wake_at<?)"],
    ),
    "due behind one": (
        lambda t: t.reader.due_messages(NOW + 50, DueMessage(NOW + 9, t.some[0].key), 10, ()),
        ["INDEX durable_messages_by_time ((wake_at,place)>(?,?) AND wake_at<?)"],
    ),
    "find sent": (
        lambda t: t.reader.find_sent(key("a"), "7"),
        ["INDEX durable_messages_by_sender_key (from_type=? AND from_id=? AND sender_key=?)"],
    ),
    "list": (
        lambda t: t.reader.list_messages(None, None, t.some[0].key, 10),
        ["INDEX durable_messages_by_lane ((to_type,to_id,lane,place)>(?,?,?,?))"],
    ),
    "list of a type": (
        lambda t: t.reader.list_messages("Counter", None, t.some[0].key, 10),
        ["INDEX durable_messages_by_lane (to_type=? AND (to_id,lane,place)>(?,?,?))"],
    ),
    "list of an object": (
        lambda t: t.reader.list_messages("Counter", t.some[0].to.object_id, None, 10),
        ["INDEX durable_messages_by_lane (to_type=? AND to_id=? AND (lane,place)>(?,?))"],
    ),
    "dead": (
        lambda t: t.reader.list_dead_messages(None, t.dead[5].seq, 10),
        ["durable_dead_messages USING INTEGER PRIMARY KEY (rowid>?)"],
    ),
    "dead of a type": (
        lambda t: t.reader.list_dead_messages("Counter", t.dead[5].seq, 10),
        ["INDEX durable_dead_messages_by_type (to_type=? AND place>?)"],
    ),
    "load dead": (
        lambda t: t.reader.load_dead_messages([new.token for new in t.dead]),
        ["INDEX durable_dead_messages_by_token (token=?)"],
    ),
    "find once": (
        lambda t: t.reader.find_once([OnceKey(key("k"), f"{n:05}") for n in range(32)], NOW),
        ["PRIMARY KEY (type_name=? AND object_id=? AND key=?)"],
    ),
    "list once": (
        lambda t: t.reader.list_once(OnceKey(key("k"), "00005"), 10),
        ["PRIMARY KEY ((type_name,object_id,key)>(?,?,?))"],
    ),
    "defer": (
        lambda t: t.writer.defer_messages([Deferral(m.key, NOW, 1, "no") for m in t.some]),
        ["INTEGER PRIMARY KEY (rowid=?)"],
    ),
    "mark": (
        lambda t: t.writer.mark_message(t.some[0].key),
        ["INTEGER PRIMARY KEY (rowid=?)"],
    ),
    "clean": (
        lambda t: t.writer.clean_once(NOW + 30, 16),
        [
            "PRIMARY KEY (type_name=? AND object_id=? AND key=?)",
            "durable_once_by_expiry (expires_at<?)",
        ],
    ),
    "retry": (
        lambda t: t.writer.retry_messages([new.token for new in t.dead]),
        [
            "INDEX durable_dead_messages_by_token (token=?)",
            "INDEX durable_dead_messages_by_token (token=?)",
            "INDEX durable_dead_messages_by_token (token=?)",
        ],
    ),
    "drop": (
        lambda t: t.writer.drop_messages([new.token for new in t.dead]),
        [
            "INDEX durable_dead_messages_by_token (token=?)",
            "INDEX durable_dead_messages_by_token (token=?)",
        ],
    ),
    # The triggers of the view aren't in plans, so only their work is counted.
    "send": (lambda t: t.writer.commit([sending(message(BUSY, key("s001")))], NOW), []),
    "acknowledge": (lambda t: t.writer.commit(handling(*t.some), NOW), []),
    "bury": (
        lambda t: t.writer.commit(
            [
                Commit(m.to, 0, messages=MessageChanges(buried=[Burial(m.key, 1, "no")]))
                for m in t.some
            ],
            NOW,
        ),
        [],
    ),
    "delete": (lambda t: t.writer.commit([Commit(m.to, 0, delete=True) for m in t.some], NOW), []),
    "cancel": (
        lambda t: t.writer.commit(
            [Commit(key("a"), 0, messages=MessageChanges(cancelled=["7", "none"]))], NOW
        ),
        ["INDEX durable_messages_by_sender_key (from_type=? AND from_id=? AND sender_key=?)"],
    ),
    "record": (
        lambda t: t.writer.commit(
            [
                Commit(
                    key("a"),
                    0,
                    messages=MessageChanges(
                        recorded=[OnceReply(OnceKey(key("k"), "x"), "f", "", "", b"1", NOW)]
                    ),
                )
            ],
            NOW,
        ),
        [],
    ),
}
WORK_OF_MANY = {name: work for name, (work, _) in WORK.items()} | {
    "stale": lambda t: t.writer.commit(handling(*t.some, *t.dead), NOW)
}
_TABLES = ("durable_messages", "durable_dead_messages", "durable_once", "m", "d", "o")


@pytest.mark.usefixtures("unstamped")
@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed"])
@pytest.mark.parametrize(("work", "expected"), WORK.values(), ids=WORK.keys())
def test_no_statement_looks_at_all_messages(
    path: Path, work: Work, expected: list[str], analyzed: bool
) -> None:
    """However the planner sees the tables."""
    with tables(path, 50) as t:
        if analyzed:
            connection_of(t.writer).execute("ANALYZE")
        with traced(t.writer, t.reader) as statements:
            work(t)
        found: list[str] = []
        for statement in dict.fromkeys(statements):
            if not any(table in statement for table in _TABLES[:3]) or "max(seq)" in statement:
                continue
            plan = connection_of(t.writer).execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            details = [step[3] for step in plan]
            for detail in details:
                verb, _, rest = detail.partition(" ")
                name = rest.partition(" ")[0]
                assert not (verb == "SCAN" and name in _TABLES), (statement[:200], details)
            found += [d for d in details if d.split()[0] == "SEARCH" and d.split()[1] in _TABLES]
        assert len(found) == len(expected), found
        for detail, fragment in zip(found, expected, strict=True):
            assert fragment in detail, found


@pytest.mark.parametrize("work", WORK_OF_MANY.values(), ids=WORK_OF_MANY.keys())
def test_the_work_does_not_grow_with_the_messages(path: Path, work: Work) -> None:
    found = []
    for size in (40, 400):
        with tables(path.with_name(f"{size}.db"), size) as t:
            found.append(steps_of(t.writer, t.reader, partial(work, t)))
    small, large = found
    assert large <= small * 1.05 + 10


def test_the_deletion_of_an_object_takes_work_for_its_own_messages(path: Path) -> None:
    with tables(path, 100) as t:
        count = len(t.reader.list_messages("Counter", "busy", None, 10_000))
        assert t.writer.commit([Commit(BUSY, 0, delete=True)], NOW) == ()
        assert len(t.reader.list_dead_messages(None, 0, 10_000)) == count + 100
        assert t.reader.list_messages("Counter", "busy", None, 1) == []


# --- one statement -------------------------------------------------------------------------------


def exchange(rows: int, attempt: int, handled: list[NewMessage]) -> list[Commit]:
    """Objects that save, send and handle; ``handled`` are the messages that wait for them."""
    batch = []
    for n in range(rows):
        changes = MessageChanges(sent=[message(key(f"{n}"), key(f"{n}"))])
        changes.acknowledged = [new.key for new in handled[n : n + 1]]
        changes.recorded = [
            OnceReply(OnceKey(key(f"{n}"), f"{attempt}"), "f", "", "", b"1", NOW + 1)
        ]
        state = b"1" if n % 2 else None
        revision = attempt if n % 2 else 0
        batch.append(Commit(key(f"{n}"), revision, state, messages=changes))
    return batch


@pytest.mark.usefixtures("unstamped")
@pytest.mark.parametrize("rows", [1, 2, 30])  # the trace takes the square of them
def test_a_batch_with_messages_is_one_statement(path: Path, rows: int) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        handled: list[NewMessage] = []
        for attempt in range(3):
            batch = exchange(rows, attempt, handled)
            batch.append(Commit(key("gone"), 0, delete=True))
            with traced(writer, reader) as statements:
                assert writer.commit(batch, NOW) == ()
            handled = [new for c in batch if c.messages is not None for new in c.messages.sent]
            if attempt:  # the first one creates the view, and finds the last number
                assert len(executed(statements)) == 1, [s[:80] for s in executed(statements)]
                assert statements[0].lstrip().startswith("INSERT INTO durable_changes")
        assert len(reader.list_messages(None, None, None, 1000)) == rows


@pytest.mark.usefixtures("unstamped")
def test_a_batch_without_messages_executes_nothing_about_them(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        alarms = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
        with traced(writer, reader) as statements:
            writer.commit([Commit(key(f"{n}"), 0, b"1") for n in range(3)], NOW)
            assert len(executed(statements)) == 1
            writer.commit([Commit(key("0"), 1, b"2", alarms=alarms), Commit(key("1"), 1)], NOW)
        found = executed(statements)[1:]
        words = [text.split()[0] for text in found]
        assert words == ["BEGIN", "INSERT", "SELECT", "INSERT", "COMMIT"]
        assert not any("messages" in s or "once" in s or "changes" in s for s in statements)


@pytest.mark.parametrize("stale", [False, True], ids=["", "taken apart"])
def test_messages_and_alarms_are_one_transaction(path: Path, stale: bool) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        alarms = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
        changes = MessageChanges(sent=[message(key("b"), key("a"))])
        batch = [Commit(key("a"), 0, b"1", alarms=alarms, messages=changes)]
        if stale:
            lost = AlarmChanges(acknowledged={"x": 1})
            batch.append(Commit(key("c"), 0, b"1", alarms=lost, messages=MessageChanges()))
        with traced(writer, reader) as statements:
            assert list(writer.commit(batch, NOW)) == ([1] if stale else [])
        words = [text.split()[0] for text in executed(statements)]
        assert words.count("COMMIT") == 1
        assert words.count("ROLLBACK") == stale
        assert len(reader.list_messages(None, None, None, 10)) == 1
        assert len(reader.list_alarms(key("a"))) == 1


REFUSALS = {
    "send": "BEFORE INSERT ON durable_messages WHEN NEW.to_id = 'refused'",
    "acknowledge": "BEFORE DELETE ON durable_messages WHEN OLD.to_id = 'b'",
    "bury": "BEFORE INSERT ON durable_dead_messages",
    "record": "BEFORE INSERT ON durable_once",
    "save": "BEFORE INSERT ON durable_objects WHEN NEW.object_id = 'b'",
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_batch_with_messages_that_fails_applies_nothing(path: Path, refusal: str) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        handled, buried = message(key("b"), key("a")), message(key("b"), key("a"))
        writer.commit([sending(handled, buried)], NOW)
        before = reader.list_messages(None, None, None, 10)
        changes = MessageChanges([handled.key], [Burial(buried.key, 1, "no")])
        changes.sent = [message(key("refused"), key("b"))]
        changes.recorded = [OnceReply(OnceKey(key("b"), "k"), "f", "", "", b"1", NOW)]
        batch = [Commit(key("a"), 0, b"1"), Commit(key("b"), 0, b"1", messages=changes)]
        execute(
            path,
            f"CREATE TRIGGER refuse {refusal} "
            "BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
        )
        with pytest.raises(Exception, match="refused by a trigger"):
            writer.commit(batch, NOW)
        assert not connection_of(writer).in_transaction
        assert reader.list_messages(None, None, None, 10) == before
        assert reader.load([key("a"), key("b")]) == [None, None]
        assert reader.list_dead_messages(None, 0, 10) == []
        execute(path, "DROP TRIGGER refuse")
        assert writer.commit(batch, NOW) == ()


def test_numbers_that_another_program_has_used_are_skipped(path: Path) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        writer.commit([sending(message(key("b"), key("a")))], NOW)
        copied = "place, to_type, to_id, lane, token, handler, arguments, sent_at, hops"
        execute(
            path,
            f"INSERT INTO durable_messages (seq, {copied}) "
            f"SELECT 2, {copied} FROM durable_messages",
        )
        later = message(key("b"), key("a"))
        assert writer.commit([sending(later)], NOW) == set()
        assert later.seq == 3
        assert len(reader.list_messages(None, None, None, 10)) == 3


def test_more_tenants_send_than_have_views(path: Path) -> None:
    storage = SQLiteStorage(path, durability="normal")
    tenants = [f"t{n:03}" for n in range(MAX_CACHED_TENANTS + 4)]
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        for part in (tenants[:2], tenants[2:], tenants[:2]):
            batch = [sending(message(ObjectKey("Counter", "b", tenant))) for tenant in part]
            assert writer.commit(batch, NOW) == ()
        counts = [len(reader.list_messages(None, None, None, 9, t)) for t in tenants]
        assert counts == [2, 2] + [1] * (len(tenants) - 2)
        views = "SELECT count(*) FROM temp.sqlite_master WHERE type = 'view'"
        assert connection_of(writer).execute(views).fetchone()[0] <= MAX_CACHED_TENANTS + 2


@pytest.mark.parametrize(
    ("column", "value"),
    [("arguments", "CAST(x'22ff22' AS TEXT)"), ("handler", "x'ff'"), ("from_id", "x'ff'")],
)
def test_a_corrupt_message_hides_itself_alone(
    path: Path, caplog: pytest.LogCaptureFixture, column: str, value: str
) -> None:
    storage = SQLiteStorage(path)
    with writing(storage) as writer, closing(storage.open_reader()) as reader:
        sent = [message(key("b"), key("a")) for _ in range(3)]
        writer.commit([sending(*sent)], NOW)
        execute(path, f"UPDATE durable_messages SET {column} = {value} WHERE seq = 2")
        with caplog.at_level(logging.WARNING):
            found = reader.read_lane(key("b"), sent[0].lane, 0, 10)
        assert [one.key for one in found] == [sent[0].key, sent[2].key]
        assert "durable_messages can't be read" in caplog.text
