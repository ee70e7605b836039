"""Ticket: one commit in the group commit, and the replies that wait for it.

A caller that times out leaves its ended waiter behind. While the disk hangs, more callers arrive
and time out, so ended waiters are removed each time the number of waiters has doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from .._errors import PersistenceError
from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from .._telemetry.events import Turn
from ..storage import AlarmChanges, Commit, new_epoch

STALE_PROBLEM = "another owner wrote it, or claimed or changed the alarm that it handled"
"""The reasons for which a commit is stale. A storage doesn't say which of them applied."""
_MIN_WAITERS_TO_COMPACT = 1024
"""Fewer waiters than this are never searched for ended ones."""


class TicketOwner(Protocol):
    """The object that commits: its state in memory."""

    key: ObjectKey
    revision: int | None
    """The stored revision; 0 if nothing is stored, None if that isn't known."""
    epoch: int
    """The stored epoch."""
    gate: Ticket | None
    """The last of its tickets that hasn't ended, which holds back its replies."""

    @property
    def turn_event(self) -> Turn | None:
        """The running turn as telemetry knows it. Read only if the group commit has a notifier."""
        ...

    def committed(self) -> None:
        """A ticket became durable."""
        ...

    def commit_failed(self) -> None:
        """A ticket failed, and those based on it. Their effects are lost."""
        ...


class Ticket(Commit):
    """A commit, and the replies that wait for it."""

    __slots__ = (
        "_alarms_size",
        "_limit",
        "_others",
        "_waiter",
        "ended",
        "following",
        "owner",
        "preceding",
        "refused",
    )

    def __init__(
        self,
        owner: TicketOwner,
        revision: int | None,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        epoch: int,
    ) -> None:
        # Commit's own fields, without calling its constructor, because nearly every call makes a
        # ticket.
        self.key = owner.key
        self.revision = revision
        self.state = state
        self.delete = delete
        self.alarms = alarms
        self.epoch = epoch if revision != 0 else new_epoch()
        self._alarms_size = alarms.size if alarms is not None else 0
        self.owner = owner
        self.ended = False
        self.preceding: Ticket | None = None
        """The ticket that this one is based on, until that is durable."""
        self.following: Ticket | None = None
        """The ticket that is based on this one."""
        self.refused = False
        """True if it wasn't applied. Set by the writer's thread, before the loop knows of it."""
        # There is nearly always one waiter, and a list would be one more object to collect.
        self._waiter: Waiter | None = None
        self._others: list[Waiter] | None = None
        self._limit = _MIN_WAITERS_TO_COMPACT

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
    def size(self) -> int:
        """The bytes that it sends to the storage, roughly and not less."""
        return (len(self.state) if self.state is not None else 0) + self._alarms_size

    def add(self, state: bytes | None, delete: bool, alarms: AlarmChanges | None) -> None:
        """Merge the changes of a later turn. Allowed while the ticket is pending."""
        if state is not None or delete:
            self.state = state
            self.delete = delete
        if self.revision is None:
            self.revision = self.owner.revision
            self.epoch = self.owner.epoch if self.revision != 0 else new_epoch()
        if alarms is not None:
            self._alarms_size += alarms.size
            if self.alarms is None:
                self.alarms = alarms
            else:
                self.alarms.merge(alarms)

    def lost_its_base(self) -> bool:
        """True if the ticket that it is based on was refused. For the writer's thread."""
        preceding = self.preceding  # read once, because the loop may clear it meanwhile
        return preceding is not None and preceding.refused

    def hold(self, waiter: Waiter) -> None:
        """Release ``waiter`` once this is durable, with the value or error it carries."""
        if self._waiter is None:
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

    def fail(self, error: Callable[[], PersistenceError]) -> None:
        """Fail all waiters, each with an error of its own."""
        self.ended = True
        if self._waiter is not None:
            for waiter in (self._waiter, *(self._others or ())):
                waiter.fail(error())
