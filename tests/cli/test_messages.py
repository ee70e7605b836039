"""Messages in the command line: listing, retrying and dropping, and in exports and copies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_durable import ObjectKey, SQLiteStorage
from trio_durable._browsing import iter_alarms
from trio_durable.cli.storage.restore import Mail, restore_mail
from trio_durable.storage import (
    RECEIVER_DELETED,
    Commit,
    DeadMessage,
    MessageChanges,
    MessageKey,
    NewMessage,
    OnceKey,
    OnceReply,
    Reader,
    StoredMessage,
    lane_of,
)

from .stored_data import DAY, NOW, json_of, lines_of, save, writer_of
from .support import assert_refused, run

BOB = ObjectKey("Account", "bob")

THEIRS = ObjectKey("Account", "bob", "acme")


def a_message(number: int, to: ObjectKey = BOB, **options: Any) -> StoredMessage:
    sender = sender_of(to)
    message = StoredMessage(
        MessageKey(to, lane_of(sender), number, number),
        "deposit",
        b'[{"cents":%d}]' % number,
        NOW - DAY,
        None,
        failures=0,
        crashes=0,
        hops=0,
        sender=sender,
        reply_to=None,
        failed_to=None,
        sender_key=None,
        once_key=None,
        last_error=None,
    )
    return attrs.evolve(message, **options)


def sender_of(to: ObjectKey) -> ObjectKey:
    return ObjectKey("Account", "ada", to.tenant)


def some_mail() -> Mail:
    dead = a_message(9, failures=3, last_error="ValueError: [bold]no", reply_to="done")
    delayed = attrs.evolve(
        a_message(5, wake_at=NOW + DAY, sender=None), key=MessageKey(BOB, "", 5, 5)
    )
    odd = a_message(3, arguments=b'[{"a":1e2}]', hops=7, crashes=1, failed_to="lost")
    return Mail(
        [a_message(1), a_message(2), odd, delayed],
        [DeadMessage(dead, NOW, is_overtaken=True)],
        [
            OnceReply(OnceKey(BOB, "k"), "deposit", "d", "s", b"1", NOW + DAY),
            OnceReply(OnceKey(BOB, "l"), "deposit", "d", "s", None, NOW - DAY, token=5),
        ],
    )


@pytest.fixture
def mail_db(tmp_path: Path) -> Path:
    path = tmp_path / "mail.db"
    with writer_of(path) as writer:
        save(writer, BOB, {"cents": 0})
        restore_mail(writer, some_mail(), NOW)
        restore_mail(writer, Mail([a_message(1, THEIRS)]), NOW)
    return path


def mail_of(path: Path) -> list[object]:
    """Messages and once-keys in their order, without the numbers that a storage gives."""
    with closing(SQLiteStorage(path).open_reader()) as reader:
        return [each for tenant in ("", "acme") for each in mail_in(reader, tenant)]


def mail_in(reader: Reader, tenant: str) -> Sequence[object]:
    def plain(message: StoredMessage) -> StoredMessage:
        return attrs.evolve(message, key=message.key._replace(seq=0))

    return [
        *map(plain, reader.list_messages(None, None, None, 100, tenant)),
        *(
            attrs.evolve(dead, message=plain(dead.message))
            for dead in reader.list_dead_messages(None, 0, 100, tenant)
        ),
        *reader.list_once(None, 100, tenant),
    ]


# --- transfer ------------------------------------------------------------------------------------


def test_messages_are_exported_and_imported_exactly(mail_db: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    result = run("export", "-s", str(mail_db), str(first))
    assert result.stderr == (
        "Exported 1 object, 0 alarms, 5 messages, 1 dead message and 2 once-keys.\n"
    )
    copy = tmp_path / "copy.db"
    result = run("import", "-s", str(copy), str(first))
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    assert result.stdout == (
        "Imported 1 object, 0 alarms, 5 messages, 1 dead message and 2 once-keys.\n"
    )
    assert mail_of(copy) == mail_of(mail_db)
    assert len(mail_of(copy)) == 8
    run("export", "-s", str(copy), str(second))
    kinds = [json.loads(line).get("kind") for line in second.read_text().splitlines()]
    assert kinds == [
        *(None, "object", "dead_message", "message", "message", "message", "message"),
        *("once", "once", "message", "end"),
    ]


def test_messages_that_are_there_are_refused_or_skipped(mail_db: Path, tmp_path: Path) -> None:
    exported = tmp_path / "mail.jsonl"
    run("export", "-s", str(mail_db), str(exported))
    with writer_of(mail_db) as writer:
        writer.commit([Commit(BOB, 1, delete=True)], NOW)  # what waits for it is dead now
    before = mail_of(mail_db)
    stored = "dead message 0000000000000009 is stored already"
    assert_refused(tmp_path, stored, "import", "-s", str(mail_db), str(exported))
    for option in ("--skip", "--replace"):
        result = run("import", "-s", str(mail_db), option, str(exported))
        assert result.exit_code == 0
        assert "5 messages, 1 dead message and 1 once-key" in result.stdout.partition("Skip")[2]
        assert len(mail_of(mail_db)) == len(before)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"message":"0000000000000001"', '"message":"1"', "not an id of 16 hexadecimal digits"),
        ('"number":', '"nummer":', "number is missing"),
        ('"sender":["Account","ada"]', '"sender":"ada"', "not null or a type and an id"),
        ('"is_overtaken":true', '"is_overtaken":1', "is_overtaken must be true or false"),
        ('"messages":5', '"messages":4', "7 rows of messages, not 8"),
    ],
)
def test_a_bad_line_of_a_message_is_refused(
    mail_db: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    exported = tmp_path / "mail.jsonl"
    run("export", "-s", str(mail_db), str(exported))
    text = exported.read_text()
    assert old in text
    exported.write_text(text.replace(old, new, 1))
    target = tmp_path / "target.db"
    assert_refused(tmp_path, says, "import", "-s", str(target), str(exported))


def test_an_export_is_one_moment(
    mail_db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver handles its message after it was exported: both are as they were before."""

    def handled_meanwhile(reader: Reader, now: int, type_name: None, tenant: str) -> object:
        if not tenant:
            with closing(SQLiteStorage(mail_db).open_reader()) as other:
                head = other.list_messages("Account", "bob", None, 100)[1]
            with writer_of(mail_db) as writer:
                changes = MessageChanges(acknowledged=[head.key])
                commit = Commit(BOB, 1, b'{"cents":1}', messages=changes)
                assert not writer.commit([commit], NOW)
        return iter_alarms(reader, now, type_name, tenant)

    before = mail_of(mail_db)
    monkeypatch.setattr("trio_durable.cli.commands.export.iter_alarms", handled_meanwhile)
    exported, copy = tmp_path / "mail.jsonl", tmp_path / "copy.db"
    assert run("export", "-s", str(mail_db), str(exported)).exit_code == 0
    assert len(mail_of(mail_db)) == len(before) - 1
    run("import", "-s", str(copy), str(exported))
    assert mail_of(copy) == before


def test_messages_are_copied(mail_db: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    result = run("copy", str(mail_db), str(copy), "--move")
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    assert "5 messages, 1 dead message and 2 once-keys" in result.stdout
    assert mail_of(copy) == mail_of(mail_db)
    run("reopen", "-s", str(mail_db), "--yes")
    assert run("copy", "--resume", str(mail_db), str(copy), "--move").exit_code == 0
    assert mail_of(copy) == mail_of(mail_db)


def test_a_copy_with_a_message_less_is_told(mail_db: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    run("copy", str(mail_db), str(copy), "--move")
    run("reopen", "-s", str(mail_db), "--yes")
    with writer_of(copy) as writer:
        new = NewMessage(BOB, "", 77, "deposit", b"[{}]", NOW)
        writer.commit([Commit(BOB, None, messages=MessageChanges(sent=[new]))], NOW)
    result = run("copy", "--resume", str(mail_db), str(copy), "--move")
    assert result.exit_code == 1
    assert "differs between the storages" in result.stderr


# --- listing, retrying, dropping -----------------------------------------------------------------


def test_messages_are_listed(mail_db: Path) -> None:
    result = run("messages", "list", "-s", str(mail_db), "Account", "bob")
    assert result.exit_code == 0
    assert "0000000000000001" in result.stdout, result.stdout
    lines = lines_of("messages", "list", "-s", str(mail_db), "--json")
    assert [line["message"][-1] for line in lines] == ["5", "1", "2", "3"]
    assert lines[1]["arguments"] == [{"cents": 1}]
    assert lines[1]["sender"] == {"type": "Account", "id": "ada"}
    assert len(lines_of("messages", "list", "-s", str(mail_db), "--json", "--limit", "2")) == 2
    assert "There are more" in run("messages", "list", "-s", str(mail_db), "--limit", "2").stderr
    assert "No messages match" in run("messages", "list", "-s", str(mail_db), "Account", "x").stderr
    assert "no type Cart in" in run("messages", "list", "-s", str(mail_db), "Cart").stderr
    [theirs] = lines_of("messages", "list", "-s", str(mail_db), "-t", "acme", "--json")
    assert theirs["tenant"] == "acme"


def test_dead_letters_are_listed_with_their_errors(mail_db: Path) -> None:
    [dead] = lines_of("messages", "dead", "-s", str(mail_db), "--json")
    assert (dead["message"], dead["is_overtaken"]) == ("0000000000000009", True)
    assert dead["last_error"] == "ValueError: [bold]no"
    assert "overtaken" in run("messages", "dead", "-s", str(mail_db)).stdout
    assert run("messages", "dead", "-s", str(mail_db), "Cart").exit_code == 2


def test_a_dead_letter_is_retried_at_the_end_of_its_lane(mail_db: Path) -> None:
    result = run("messages", "retry", "-s", str(mail_db), "0000000000000009")
    assert result.stdout == "Made 1 dead letter wait again.\n"
    assert "Later messages were handled before 1 of them" in result.stderr
    assert not lines_of("messages", "dead", "-s", str(mail_db), "--json")
    lines = lines_of("messages", "list", "-s", str(mail_db), "--json")
    assert [line["message"][-1] for line in lines] == ["5", "1", "2", "3", "9"]


def test_all_dead_letters_are_retried(mail_db: Path) -> None:
    result = run("messages", "retry-all", "-s", str(mail_db), "Cart")
    assert result.stdout == "No dead letters match.\n"
    result = run("messages", "retry-all", "-s", str(mail_db))
    assert result.stdout == "Made 1 dead letter wait again.\n"


def test_dead_letters_are_dropped_and_nothing_else_is(mail_db: Path) -> None:
    assert_refused(
        mail_db.parent,
        "there is no dead letter '0000000000000001'",
        *("messages", "drop", "-s", str(mail_db), "0000000000000009", "0000000000000001"),
    )
    assert len(lines_of("messages", "dead", "-s", str(mail_db), "--json")) == 1
    result = run("messages", "drop", "-s", str(mail_db), "0000000000000009")
    assert result.stdout == "Dropped 1 dead letter.\n"
    assert not lines_of("messages", "dead", "-s", str(mail_db), "--json")
    drop = ("messages", "drop", "-s", str(mail_db), "nonsense")
    assert_refused(mail_db.parent, "no dead letter", *drop)


def test_stats_count_messages(mail_db: Path) -> None:
    counts = json_of("stats", "-s", str(mail_db), "--json")["messages"]
    assert [(each["tenant"], each["waiting"], each["dead"]) for each in counts] == [
        ("", 4, 1),
        ("acme", 1, 0),
    ]
    assert counts[0]["oldest"] is not None
    assert "messages to" in run("stats", "-s", str(mail_db)).stdout


# --- objects with messages -----------------------------------------------------------------------


def test_messages_to_a_removed_object_are_dead_letters(mail_db: Path) -> None:
    assert "4 messages waiting" in run("show", "-s", str(mail_db), "Account", "bob").stdout
    shown = run("show", "-s", str(mail_db), "Account", "bob", "--json").stdout
    assert json.loads(shown)["messages_waiting"] == 4
    asked = run("rm", "-s", str(mail_db), "Account", "bob", stdin="n\n")
    assert "4 messages to them will be dead letters. [y/N]" in asked.stderr
    said = run("rm", "-s", str(mail_db), "Account", "bob", "--yes").stdout
    assert "Dead letters now: 4 messages that waited for them." in said
    with closing(SQLiteStorage(mail_db).open_reader()) as reader:
        assert reader.list_messages(None, None, None, 9) == []
        errors = [each.message.last_error for each in reader.list_dead_messages(None, 0, 9)]
    assert errors.count(RECEIVER_DELETED) == 4


def test_an_object_that_has_only_messages_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    with writer_of(path) as writer:
        restore_mail(writer, Mail([a_message(1)]), NOW)
    assert "no stored state" in run("show", "-s", str(path), "Account", "bob").stdout
    assert run("rm", "-s", str(path), "Account", "bob", "--yes").exit_code == 0
    with closing(SQLiteStorage(path).open_reader()) as reader:
        assert len(reader.list_dead_messages(None, 0, 9)) == 1
