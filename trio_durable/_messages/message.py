"""The records of messages, as handlers and users see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
import orjson

from .._clock import instant
from .._keys import ObjectKey
from ..storage import DeadMessage as StoredDeadMessage
from ..storage import MessageKey, MessageSummary, StoredMessage


def message_id(token: int) -> str:
    """The public id of a message: its token, as 16 hexadecimal digits."""
    return f"{token:016x}"


def token_of(message_id: str) -> int | None:
    """The token of the message with an id; None if it can't be an id."""
    try:
        token = int(message_id, 16)
    except (TypeError, ValueError):
        return None
    return token if 0 <= token < 2**62 else None


@attrs.frozen
class Message:
    """A message that is being handled, see `Context.message`."""

    id: str
    """16 hexadecimal digits, which stay the same at each attempt. An effect outside of the storage
    may take it as its key."""
    sender: ObjectKey | None
    """The object whose turn sent it; None if it came from outside of turns."""
    sent_at: datetime
    """When it was sent, in UTC."""
    attempt: int
    """The number of this delivery, from 1."""
    last_error: str | None = None
    """The error of the previous attempt."""


@attrs.frozen
class SendFailed:
    """The death of a message, as the handler gets it that its sender has named for that."""

    id: str
    """The id of the message."""
    receiver: str
    """The object that it was sent to, as ``Type/id``."""
    handler: str
    error: str | None
    """The last error."""
    attempts: int


@attrs.frozen
class WaitingMessage:
    """A message that isn't handled yet, see `Objects.list_messages`."""

    id: str
    receiver: ObjectKey
    handler: str
    sender: ObjectKey | None
    """The object whose turn sent it; None if it came from outside of turns."""
    sent_at: datetime
    wake_at: datetime | None
    """When it may be delivered, or tried again, in UTC; None for at once."""
    failures: int
    last_error: str | None
    arguments: object
    """The arguments by the names of the parameters, as JSON."""
    place: MessageKey = attrs.field(repr=False)
    """Its place in the storage, for the next page."""


@attrs.frozen
class DeadMessage(WaitingMessage):
    """A dead letter: a message that isn't delivered any more, see `Objects.list_dead_messages`."""

    died_at: datetime
    is_overtaken: bool
    """True if later messages of the sender to the receiver were handled since. If it is retried, it
    comes after them."""


@attrs.frozen
class MessageCounts:
    """The messages to objects of one type in the storage, see `Objects.count_messages`."""

    type_name: str
    waiting: int
    """Messages that wait, sleeping ones among them."""
    oldest: datetime | None
    """When the oldest of these was sent, in UTC; None if none waits."""
    dead: int
    """Dead letters."""


def counts_of(summary: MessageSummary) -> MessageCounts:
    """The record of the counts of a type."""
    oldest = None if summary.oldest is None else instant(summary.oldest)
    return MessageCounts(summary.type_name, summary.waiting, oldest, summary.dead)


def waiting_of(stored: StoredMessage) -> WaitingMessage:
    """The record of a stored message."""
    return WaitingMessage(**_fields(stored))


def dead_of(dead: StoredDeadMessage) -> DeadMessage:
    """The record of a stored dead letter."""
    died_at, is_overtaken = instant(dead.died_at), dead.is_overtaken
    return DeadMessage(**_fields(dead.message), died_at=died_at, is_overtaken=is_overtaken)


def _fields(stored: StoredMessage) -> dict[str, Any]:
    try:
        arguments = orjson.loads(stored.arguments)[0]
    except (LookupError, TypeError, ValueError):
        arguments = None  # no release of the library wrote it
    return {
        "id": message_id(stored.key.token),
        "receiver": stored.key.to,
        "handler": stored.handler,
        "sender": stored.sender,
        "sent_at": instant(stored.sent_at),
        "wake_at": None if stored.wake_at is None else instant(stored.wake_at),
        "failures": stored.failures,
        "last_error": stored.last_error,
        "arguments": arguments,
        "place": stored.key,
    }


def message_of(stored: StoredMessage) -> Message:
    """The record of a stored message that is being delivered."""
    return Message(
        message_id(stored.key.token),
        stored.sender,
        instant(stored.sent_at),
        stored.failures + 1,
        stored.last_error,
    )
