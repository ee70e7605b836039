"""One commit on its way through the group commit, and the replies that wait for it.

A caller that gives up leaves its waiter behind. If the disk hangs, others come and give up as well,
so what has ended is dropped whenever the waiters have become twice as many as were left of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from .._errors import PersistenceError
from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from .._telemetry.events import Turn
from ..storage._records import AlarmChanges, Commit, new_epoch

_MIN_WAITERS_TO_COMPACT = 1024
"""Waiters among which it isn't worth it to look for those that have ended."""


class Owner(Protocol):
    """Whose commits these are: an activation."""

    key: ObjectKey
    revision: int | None
    """The revision that is stored; 0 for none, None if that isn't known."""
    epoch: int
    """The epoch that is stored with it."""
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
        """A ticket failed, and those behind it. Its effects are lost."""
        ...


class Ticket(Commit):
    """One commit on its way, and the replies that wait for it."""

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

    turns: Collection[Turn] = ()
    """The turns that it makes durable, for telemetry. Always empty without a notifier."""

    def __init__(
        self,
        owner: Owner,
        revision: int | None,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        epoch: int,
    ) -> None:
        # Commit's own fields, without the way through its constructor: one of these is made for
        # nearly every call.
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
        """The owner's ticket that this one is based on, while that isn't durable."""
        self.following: Ticket | None = None
        """The owner's next ticket, based on this one."""
        self.refused = False
        """The writer's thread knows that it didn't apply, though the loop may not know yet."""
        # Nearly always one, and a list of one is one more thing for the garbage collector.
        self._waiter: Waiter | None = None
        self._others: list[Waiter] | None = None
        self._limit = _MIN_WAITERS_TO_COMPACT

    @property
    def next_revision(self) -> int | None:
        """What is stored once this is durable; None if it isn't known, for it stays what it is."""
        if self.delete:
            return 0
        return self.revision if self.state is None else (self.revision or 0) + 1

    @property
    def size(self) -> int:
        """The bytes that it takes to the storage, or somewhat more."""
        return (len(self.state) if self.state is not None else 0) + self._alarms_size

    def add(self, state: bytes | None, delete: bool, alarms: AlarmChanges | None) -> None:
        """Take up what a later turn did; while nobody has it in hands."""
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
        """Whether what it is based on was refused. For the writer's thread."""
        preceding = self.preceding  # once: the loop may take it away meanwhile
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
        """Release what is held."""
        self.ended = True
        self.preceding = None
        if self._waiter is not None:
            self._waiter.release()
            for waiter in self._others or ():
                waiter.release()

    def fail(self, error: Callable[[], PersistenceError]) -> None:
        """Fail what is held, each waiter with an error of its own."""
        self.ended = True
        if self._waiter is not None:
            for waiter in (self._waiter, *(self._others or ())):
                waiter.fail(error())
