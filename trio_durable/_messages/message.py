"""The records of messages, as handlers and users see them."""

from __future__ import annotations

from datetime import datetime

import attrs

from .._clock import instant
from .._keys import ObjectKey
from ..storage import StoredMessage


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


def message_of(stored: StoredMessage) -> Message:
    """The record of a stored message that is being delivered."""
    return Message(
        message_id(stored.key.token),
        stored.sender,
        instant(stored.sent_at),
        stored.failures + 1,
        stored.last_error,
    )
