"""The delivery of a message: the message, and the changes of messages that its turn commits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from ..storage import MessageChanges, StoredMessage
from .message import Message, message_of


class MessageDelivery(Waiter):
    """A message on its way to its handler: the waiter of its turn, and the `Replies` of that.

    The turn commits `changes`, whose acknowledgement makes the effects of the turn and the removal
    of the message one transaction. It is released when that is durable.

    Args:
        stored: The message.
    """

    __slots__ = ("changes", "stored")

    def __init__(self, stored: StoredMessage) -> None:
        self.ended = False
        self.value: object = None
        self.error: BaseException | None = None
        self.expiry: Callable[[], BaseException] | None = None
        self.stored: StoredMessage = stored
        self.changes: MessageChanges = MessageChanges(acknowledged=(stored.key,))
        """The acknowledgement, and the turn's messages."""

    @property
    def message(self) -> Message:
        """The record that its handler sees."""
        return message_of(self.stored)

    @abstractmethod
    def turn_ended(self) -> None:
        """The turn has ended well, and its commit is submitted, which isn't durable yet."""

    @abstractmethod
    def result(self, key: ObjectKey, handler: str, result: object) -> object:
        """See `Replies.result`: the result is sent, or recorded, by `changes`."""

    async def wait(self) -> object:
        """Not supported.

        Raises:
            TypeError: Always.
        """
        raise TypeError("no task can wait for a delivery")
