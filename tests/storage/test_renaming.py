"""A type is renamed in all that is stored, in one transaction, on each storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.storages import storage

from trio_durable import ObjectKey, Storage
from trio_durable.storage import (
    AlarmChanges,
    Burial,
    Commit,
    MessageChanges,
    NewAlarm,
    NewMessage,
    OnceKey,
    OnceReply,
    PartialFault,
    Reader,
    Writer,
    lane_of,
)

__all__ = ["storage"]  # a fixture

NOW = 1_700_000_000_000_000


@pytest.fixture
def sides(storage: Storage) -> Iterator[tuple[Writer, Reader]]:
    with closing(storage.open_writer()) as writer, closing(storage.open_reader()) as reader:
        yield writer, reader


def key(object_id: str, type_name: str = "Old", tenant: str = "") -> ObjectKey:
    return ObjectKey(type_name, object_id, tenant)


def message(token: int, to: ObjectKey, sender: ObjectKey) -> NewMessage:
    return NewMessage(to, lane_of(sender), token, "add", b"[{}]", NOW, sender=sender)


def fill(writer: Writer, tenant: str = "") -> list[NewMessage]:
    """Objects, alarms, messages and once-keys of the types `Old`, `Other` and `Older`."""
    a, other = key("a", tenant=tenant), key("o", "Other", tenant)
    alarms = AlarmChanges(changed={"x": NewAlarm(NOW, b"1")})
    sent = [
        message(1, a, other),
        message(2, other, a),
        message(3, a, a),
        message(4, key("a", "Older", tenant), other),
    ]
    commits = [
        Commit(a, 0, b'{"n":1}', alarms=alarms),
        Commit(key("b", tenant=tenant), 0, b"{}"),
        Commit(key("alone", tenant=tenant), None, alarms=alarms),
        Commit(key("a", "Older", tenant), 0, b"{}", alarms=alarms),
    ]
    assert not writer.commit(commits, NOW)
    assert not writer.commit([Commit(other, 0, b"{}", messages=MessageChanges(sent=sent))], NOW)
    reply = OnceReply(OnceKey(a, "k"), "add", "d", "s", b"1", NOW + 10**9)
    changes = MessageChanges(buried=[Burial(sent[0].key, 1, "no")], recorded=[reply])
    assert not writer.commit([Commit(a, 1, messages=changes)], NOW)
    return sent


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_type_is_renamed_in_all_that_is_stored(sides: tuple[Writer, Reader], tenant: str) -> None:
    writer, reader = sides
    fill(writer, tenant)
    assert writer.rename_type("Old", "New", tenant) == 2
    (row,) = reader.load([key("a", "New", tenant)])
    assert row is not None
    assert (row.revision, row.state) == (1, b'{"n":1}')
    found = reader.browse_objects(None, None, 9, tenant)
    names = sorted((each.key.type_name, each.key.object_id) for each in found)
    assert names == [("New", "a"), ("New", "b"), ("Older", "a"), ("Other", "o")]
    alarms = reader.browse_alarms(None, NOW, None, None, 9, tenant)
    assert sorted((each.alarm.key.type_name, each.alarm.key.object_id) for each in alarms) == [
        *[("New", "a"), ("New", "alone"), ("Older", "a")]
    ]
    new = key("a", "New", tenant)
    waiting = {each.key.token: each for each in reader.list_messages(None, None, None, 9, tenant)}
    assert waiting[2].sender == waiting[3].sender == waiting[3].key.to == new
    assert waiting[2].key.lane == waiting[3].key.lane == lane_of(new)
    assert waiting[4].key.to == key("a", "Older", tenant)
    (letter,) = reader.list_dead_messages(None, 0, 9, tenant)
    assert letter.message.key.to == new
    assert [each.key.to for each in reader.list_once(None, 9, tenant)] == [new]


def test_an_alarm_and_a_message_of_a_renamed_type_are_due_and_found(
    sides: tuple[Writer, Reader],
) -> None:
    writer, reader = sides
    fill(writer)
    writer.rename_type("Old", "New")
    due = [each.key.object_key for each in reader.due_alarms(NOW + 1, None, 9, ())]
    assert key("a", "New") in due
    assert key("a") not in due
    assert key("a", "New") in [each.key for each in reader.list_receivers(None, 9)]
    (row,) = reader.load([key("a", "New")])
    assert row is not None
    saved = Commit(key("a", "New"), row.revision, b"{}", epoch=row.epoch)
    assert not writer.commit([saved], NOW)


@pytest.mark.parametrize("of_what", ["object", "alarm"])
def test_nothing_is_renamed_if_something_has_both_names(
    sides: tuple[Writer, Reader], of_what: str
) -> None:
    writer, reader = sides
    fill(writer)
    alarms = AlarmChanges(changed={"x": NewAlarm(NOW, None)})
    there = key("a", "New")
    commit = Commit(there, 0, b"{}") if of_what == "object" else Commit(there, None, alarms=alarms)
    assert not writer.commit([commit], NOW)
    with pytest.raises(PartialFault, match=r"New\('a'\) is there, and as 'Old' as well"):
        writer.rename_type("Old", "New")
    assert reader.load([key("a"), key("b")]) != [None, None]
    waiting = reader.list_messages(None, None, None, 9)
    assert key("a") in [each.sender for each in waiting]
    assert [each.key.to for each in reader.list_once(None, 9)] == [key("a")]


def test_the_other_tenants_keep_the_name(sides: tuple[Writer, Reader]) -> None:
    writer, reader = sides
    for tenant in ("", "acme"):
        fill(writer, tenant)
    assert writer.rename_type("Old", "New", "acme") == 2
    assert writer.rename_type("Old", "New", "none") == 0
    assert writer.rename_type("Old", "Old") == 0
    (row,) = reader.load([key("a")])
    assert row is not None
    assert reader.list_messages("Old", None, None, 9) != []
    assert reader.list_messages("Old", None, None, 9, "acme") == []
