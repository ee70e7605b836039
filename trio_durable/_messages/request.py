"""A request to send a message, before it is checked and encoded; and the bounds of messages."""

from __future__ import annotations

from typing import Final, NamedTuple

import attrs

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Bytes of JSON that the arguments of a message may take."""
MAX_TURN_MESSAGES: Final = 1_000
"""Messages that one turn may send."""
MAX_TURN_BYTES: Final = 1_000_000
"""Bytes of arguments that one turn may send."""
WARNED_HOPS: Final = 100
"""Messages in succession, each of which has led to the next, at which a warning is logged."""
MAX_HOPS: Final = 10_000
"""Messages in succession after which the next one is a dead letter."""


@attrs.frozen(eq=False)
class SendOptions:
    """The options of a message."""

    wake_at: int | None = None
    """When it may be delivered, in microseconds since 1970 UTC; None for at once."""
    key: str | None = None
    """It replaces what its sender has waiting under this key."""
    reply_to: str | None = None
    """The handler of the sender that gets the result."""
    failed_to: str | None = None
    """The handler of the sender that learns of its death."""


NO_OPTIONS: Final = SendOptions()


class SendRequest(NamedTuple):
    """A message to send."""

    cls: type
    """The class of the receiver."""
    object_id: str
    handler: str
    args: tuple[object, ...]
    kwargs: dict[str, object]
    options: SendOptions
