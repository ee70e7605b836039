"""The delivery of a message: the message, and the changes of messages that its turn commits."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..storage import MessageChanges, StoredMessage
from .message import Message, message_of


@attrs.define(eq=False)
class MessageDelivery:
    """A message on its way to its handler.

    The turn commits `changes`, whose acknowledgement makes the effects of the turn and the removal
    of the message one transaction.
    """

    stored: StoredMessage
    turn_ended: Callable[[], object]
    """Called when the turn has ended well and its commit is submitted, which isn't durable yet."""
    changes: MessageChanges = attrs.field(init=False)
    """The acknowledgement, and what the turn sends."""

    def __attrs_post_init__(self) -> None:
        self.changes = MessageChanges(acknowledged=[self.stored.key])

    @property
    def message(self) -> Message:
        """The record that its handler sees."""
        return message_of(self.stored)
