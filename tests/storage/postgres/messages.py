"""Messages and commits of the tests on PostgreSQL."""

from __future__ import annotations

from trio_durable import ObjectKey
from trio_durable.storage import (
    Burial,
    Commit,
    MessageChanges,
    NewMessage,
    OnceKey,
    OnceReply,
    Reader,
    Writer,
    lane_of,
    new_token,
)

from .rows import NOW, SECOND, key


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


def handling(new: NewMessage, revision: int | None = 0, state: bytes | None = b"1") -> Commit:
    changes = MessageChanges(acknowledged=[new.key])
    return Commit(new.to, revision, state, messages=changes)


def burying(*sent: NewMessage) -> Commit:
    burials = [Burial(new.key, 1, "no") for new in sent]
    return Commit(sent[0].to, None, messages=MessageChanges(buried=burials))


def recording(object_id: str, *, expires_at: int = NOW + SECOND, tenant: str = "") -> Commit:
    once_key = OnceKey(key(object_id, tenant), "k")
    reply = OnceReply(once_key, "f", "d", "s", b"1", expires_at)
    return Commit(once_key.to, None, messages=MessageChanges(recorded=[reply]))


def sent_by(writer: Writer, *sent: NewMessage) -> None:
    assert list(writer.commit([sending(*sent)], NOW)) == []


def waiting(reader: Reader, tenant: str = "") -> set[int]:
    """The tokens of all waiting messages."""
    return {one.key.token for one in reader.list_messages(None, None, None, 10_000, tenant)}


def dead(reader: Reader) -> set[int]:
    """The tokens of all dead letters."""
    return {one.message.key.token for one in reader.list_dead_messages(None, 0, 10_000)}
