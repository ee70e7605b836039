"""Ticket: one commit in the group commit, and the replies that wait for it.

A caller that times out leaves its ended waiter behind. While the disk hangs, more callers arrive
and time out, so ended waiters are removed each time the number of waiters has doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, Self, TypeAlias, TypeVar

from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from .._telemetry.events import Turn
from ..storage import AlarmChanges, Commit, MessageChanges, new_epoch

STALE_PROBLEM = "another owner wrote it, or claimed or changed the alarm that it handled"
"""The reasons for which a commit is stale. A storage doesn't say which of them applied."""
_MIN_WAITERS_TO_COMPACT = 1024
"""Fewer waiters than this are never searched for ended ones."""


def _not_pending() -> BaseException:
    raise AssertionError("the ticket is durable, or was replaced")


_Changes: TypeAlias = "tuple[AlarmChanges | None, MessageChanges | None, _Changes | None]"


class _Mergeable(Protocol):
    def merge(self, later: Self) -> None: ...


C = TypeVar("C", bound=_Mergeable)


def _merged(kind: Callable[[], C], parts: list[C | None]) -> C | None:
    """Changes by several turns, from the latest to the first, as one record of its own."""
    found = [part for part in reversed(parts) if part is not None]
    if len(found) < 2:
        return found[0] if found else None
    merged = kind()
    for part in found:
        merged.merge(part)
    return merged


class TicketOwner(Protocol):
    """The object that commits: its state in memory."""

    key: ObjectKey
    revision: int | None
    """The stored revision; 0 if nothing is stored, None if that isn't known."""
    epoch: int
    """The stored epoch."""
    gate: Ticket | None
    """The last of its tickets that hasn't ended, which holds back its replies. Written by the group
    commit: a change counts from the moment at which its ticket stands here."""

    @property
    def turn_event(self) -> Turn | None:
        """The running turn as telemetry knows it. Read only if the group commit has a notifier."""
        ...

    def committed(self, ticket: Ticket) -> None:
        """A ticket became durable."""
        ...

    def commit_failed(self) -> None:
        """A ticket failed, and those based on it. Their effects are lost."""
        ...


class Ticket(Commit):
    """A commit, and the replies that wait for it.

    Its content never changes: a later turn whose changes join it replaces it by `with_changes`. So
    the content of a ticket is that of whole turns, wherever an exception falls.
    """

    __slots__ = (
        "_earlier",
        "_failed",
        "_limit",
        "_others",
        "_waiter",
        "encoded",
        "ended",
        "owner",
        "preceding",
        "refused",
        "replaced_by",
        "size",
        "taken",
    )

    def __init__(
        self,
        owner: TicketOwner,
        revision: int | None,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        epoch: int,
        encoded: object = None,
        preceding: Ticket | None = None,
        messages: MessageChanges | None = None,
    ) -> None:
        # Commit's own fields, without calling its constructor, because nearly every call makes a
        # ticket.
        self.key: ObjectKey = owner.key
        self.revision = revision
        self.state = state
        self.delete = delete
        self.alarms = alarms
        self.messages = messages
        self.epoch: int = epoch if revision != 0 else new_epoch()
        self.size: int = (0 if state is None else len(state)) + (
            0 if alarms is None else alarms.size
        )
        """The bytes that it sends to the storage, roughly and not less."""
        if messages is not None:
            self.size += messages.size
        # Changes of alarms and messages by earlier turns, as a linked list from the latest on.
        # Merging them one by one would take quadratic time, since no record that stands in a ticket
        # may change.
        self._earlier: _Changes | None = None
        self.owner: TicketOwner = owner
        self.encoded: object = encoded
        """The owner's memory once this is durable; opaque here."""
        self.taken: bool = False
        """The writer has it, so later changes need a ticket of their own."""
        self.ended: bool = False
        self.replaced_by: Ticket | None = None
        """The ticket that has the changes of this one besides its own. See `latest`."""
        self.preceding = preceding
        """The ticket that this one is based on, until that is durable."""
        self.refused: bool = False
        """True if it wasn't applied. Set by the writer's thread, before the loop knows of it."""
        # There is nearly always one waiter, and a list would be one more object to collect.
        self._waiter: Waiter | None = None
        self._others: list[Waiter] | None = None
        self._limit = _MIN_WAITERS_TO_COMPACT
        self._failed: Callable[[], BaseException] = _not_pending

    @property
    def turns(self) -> Collection[Turn]:
        """The turns that it makes durable, for telemetry. Always empty without a notifier."""
        return ()

    @property
    def next_revision(self) -> int | None:
        """The revision that is stored once this is durable; None if it stays as it is, unknown."""
        if self.delete:
            return 0
        return self.revision if self.state is None else (self.revision or 0) + 1

    @property
    def latest(self) -> Ticket:
        """The ticket that has the changes of this one now."""
        ticket = self
        while ticket.replaced_by is not None and ticket.owner.gate is not ticket:
            ticket = ticket.replaced_by
        return ticket

    @property
    def is_durable(self) -> bool:
        """True if its changes are stored."""
        ticket = self.latest
        return ticket.ended and ticket._failed is _not_pending

    @property
    def is_in_writer(self) -> bool:
        """True if the writer has it, or one that it is based on, and the outcome isn't known."""
        ticket: Ticket | None = self
        while ticket is not None and not ticket.ended:
            if ticket.taken:
                return True
            ticket = ticket.preceding
        return False

    def takes(self, state: bytes | None, delete: bool) -> bool:
        """True if the changes of a later turn may be added, and in one commit mean the same.

        A deletion buries the messages that wait for the object. Messages of earlier turns to it
        would come after it, and a later state would take its place.
        """
        if not delete:
            return state is None or not self.delete
        messages, earlier = self.messages, self._earlier
        while messages is None and earlier is not None:
            _, messages, earlier = earlier
        return messages is None

    @property
    def next_to_take(self) -> Ticket:
        """The first ticket that the writer doesn't have, of this one and its bases.

        There are several if one didn't take the changes of the next, see `takes`. For
        `GroupCommit`, with its lock held.
        """
        ticket = self
        while (before := ticket.preceding) is not None and not before.taken and not before.ended:
            ticket = before
        return ticket

    def with_changes(
        self,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        encoded: object,
        messages: MessageChanges | None = None,
    ) -> Self:
        """A ticket with the changes of a later turn besides, in place of this one.

        It has the waiters of this one. Allowed while the writer hasn't taken this one.
        """
        revision, epoch = self.revision, self.epoch
        if revision is None:
            revision, epoch = self.owner.revision, self.owner.epoch
        if state is None and not delete:
            state, delete = self.state, self.delete
        if alarms is None and messages is None:
            latest, sent, earlier = self.alarms, self.messages, self._earlier
        else:
            latest, sent, earlier = alarms, messages, self._earlier
            if self.alarms is not None or self.messages is not None:
                earlier = self.alarms, self.messages, self._earlier
        ticket = type(self)(
            self.owner, revision, state, delete, latest, epoch, encoded, self.preceding, sent
        )
        if self.revision == 0:
            ticket.epoch = self.epoch  # drawn already
        ticket._earlier = earlier
        ticket.size = self.size - len(self.state or b"") + len(ticket.state or b"")
        if alarms is not None:
            ticket.size += alarms.size
        if messages is not None:
            ticket.size += messages.size
        ticket._waiter, ticket._others, ticket._limit = self._waiter, self._others, self._limit
        return ticket

    def changes_alarm(self, name: str) -> bool:
        """True if it replaces or removes an earlier alarm of that name."""
        changes, earlier = self.alarms, self._earlier
        while True:
            if changes is not None and changes.touches(name):
                return True
            if earlier is None:
                return False
            changes, _, earlier = earlier

    def take(self) -> None:
        """From now on it is the writer's. For the writer's thread."""
        self.taken = True
        if self._earlier is not None:
            alarms, messages = [self.alarms], [self.messages]
            earlier: _Changes | None = self._earlier
            while earlier is not None:
                its_alarms, its_messages, earlier = earlier
                alarms.append(its_alarms)
                messages.append(its_messages)
            self.alarms = _merged(AlarmChanges, alarms)
            self.messages = _merged(MessageChanges, messages)
            self._earlier = None

    def lost_its_base(self) -> bool:
        """True if the ticket that it is based on was refused. For the writer's thread."""
        preceding = self.preceding  # read once, because the loop may clear it meanwhile
        return preceding is not None and preceding.refused

    def hold(self, waiter: Waiter) -> None:
        """Release ``waiter`` once this is durable, with the value or error it carries."""
        if self.ended:  # it has failed, or the runtime has
            waiter.fail(self._failed())
        elif self._waiter is None:
            self._waiter = waiter
        elif self._others is None:
            self._others = [waiter]
        else:
            self._others.append(waiter)
            if len(self._others) > self._limit:
                self._others = [other for other in self._others if not other.ended]
                self._limit = 2 * len(self._others) + _MIN_WAITERS_TO_COMPACT

    def succeed(self) -> None:
        """Release all waiters."""
        self.ended = True
        self.preceding = None
        if self._waiter is not None:
            self._waiter.release()
            for waiter in self._others or ():
                waiter.release()

    def fail_all(self, error: Callable[[], BaseException]) -> None:
        """Fail this and all that it is based on and that hasn't ended."""
        ticket: Ticket | None = self
        while ticket is not None and not ticket.ended:
            ticket.fail(error)
            ticket = ticket.preceding

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Fail all waiters, each with an error of its own."""
        self._failed = error
        self.ended = True
        if self._waiter is not None:
            for waiter in (self._waiter, *(self._others or ())):
                waiter.fail(error())
