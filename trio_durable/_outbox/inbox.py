"""Inbox: the part of one receiver's waiting messages that is in memory, and its deliveries.

Its lanes have the messages, and each that is taken from a lane is a flight until what becomes of it
is durable. See `inboxes` for all of these together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import attrs

from .._activations.submission import Submission
from .._declarations.records import HandlerDefinition
from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from .._messages.delivery import MessageDelivery
from ..storage import StoredMessage

DEPTH = 16
"""Messages of one lane in memory, at most."""


@attrs.define(eq=False)
class Lane:
    """One lane of a receiver: messages that are delivered one after the other.

    The lane with the name "" is that of messages which wait for no other.
    """

    inbox: Inbox
    name: str
    is_whole: bool
    """All of its messages in the table are in memory."""
    queue: deque[StoredMessage] = attrs.field(factory=deque)
    last: int = 0
    """The number of the latest message that came into memory."""
    running: int = 0
    """Deliveries whose turns haven't ended."""
    is_reading: bool = False
    is_ready: bool = False
    """It is among `Lanes.ready`."""

    @property
    def possible(self) -> Sequence[StoredMessage]:
        """The messages of which the next one is delivered: the first, or any if it has no name."""
        return (self.queue[0],) if self.name and self.queue else self.queue

    @property
    def may_deliver(self) -> bool:
        """True if the next message may be handed to the object."""
        most = 1 if self.name else DEPTH
        return bool(self.queue) and self.running < most


class Tower(Protocol):
    """The deliverer, as far as its deliveries call it."""

    def turn_ended(self, flight: Flight) -> None:
        """See `MessageDelivery.turn_ended`."""
        ...

    def ended(self, flight: Flight) -> None:
        """The outcome is durable, or the delivery has failed with its ``error``."""
        ...

    def answer(self, flight: Flight, result: object) -> None:
        """Hand on the result of the turn."""
        ...


class Flight(MessageDelivery):
    """One delivery.

    One object for everything, since each message makes one.

    Args:
        tower: The deliverer.
        lane: The lane of the message.
        stored: The message.
    """

    __slots__ = (
        "_tower",
        "handler",
        "has_run",
        "is_decided",
        "lane",
        "over",
        "submission",
    )

    def __init__(self, tower: Tower, lane: Lane, stored: StoredMessage) -> None:
        super().__init__(stored)
        self._tower = tower
        self.lane = lane
        self.handler: HandlerDefinition | None = None
        """The handler, once it is known."""
        self.submission: Submission | None = None
        """It is, or was, in the mailbox of its object."""
        self.has_run = False
        """Its turn has ended well."""
        self.is_decided = False
        """The fate of the message is stored, or about to be: it is gone, or sleeps."""
        self.over: Waiter | None = None
        """Released when the delivery is over, if one waits for that."""

    def withdraw(self) -> bool:
        """Take it out of its object's mailbox; return whether its turn hasn't begun."""
        submission = self.submission
        if submission is None or submission.has_begun:
            return False
        submission.withdraw()
        return True

    def release(self) -> None:
        """See `Waiter.release`."""
        if not self.ended:
            self._tower.ended(self)
            self.ended = True

    def turn_ended(self) -> None:
        """See `MessageDelivery.turn_ended`."""
        self._tower.turn_ended(self)

    def result(self, key: ObjectKey, handler: str, result: object) -> object:
        """See `MessageDelivery.result`."""
        self._tower.answer(self, result)
        return None


@attrs.define(eq=False)
class Inbox:
    """The messages to one object that are in memory."""

    key: ObjectKey
    is_whole: bool
    """All lanes that have messages in the table are here, except sleeping ones."""
    lanes: dict[str, Lane] = attrs.field(factory=dict)
    cursor: str | None = None
    """The last lane that was read; None if the next read begins with the first one."""
    in_flight: dict[Flight, None] = attrs.field(factory=dict)
    """Deliveries whose outcome isn't durable."""
    held: list[Lane] | None = None
    """Lanes with a next message that wait until fewer are in flight."""
    is_stale: bool = False
    """The lanes may differ from the table. They are read again once nothing is in flight."""
    is_paused: bool = False
    """It is read again later, after a fault."""
    is_reading: bool = False
    missed: set[str] | None = None
    """Lanes of messages that were committed while this was read."""
    has_missed: bool = False
    """Messages may have been committed by another process while this was read."""
    is_complete: bool = False
    """Reading from the first lane on has missed none so far."""
    reads: int = 0
    """How many reads of it, or of its lanes, haven't returned."""
    ended: set[int] | None = None
    """Tokens of the messages whose deliveries have ended during these, which may return them."""

    def miss(self, name: str) -> None:
        """A message of a lane was committed, and isn't in memory: a read may not return it."""
        if self.missed is not None:
            self.missed.add(name)

    @property
    def is_settled(self) -> bool:
        """True if nothing of it is delivered or may be."""
        return not (self.lanes or self.in_flight or self.is_reading or self.is_stale)
