"""Telemetry of the group commit: transactions, and the turns that each one makes durable.

A group commit with a notifier makes `ObservedTicket` instead of `Ticket` and runs each
transaction through `CommitEvents`. Without a notifier it uses neither.

A transaction that is divided fails as a `Commit`, but its changes go on: they are in the commits of
its parts, with the same records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Self

from .._errors import PersistenceError, StaleObject
from .._eventloop.loop import Loop
from .._telemetry.events import AlarmUpdate, Commit, Delete, Save, Stale, Turn
from .._telemetry.notifier import Notifier
from ..storage import AlarmChanges, MessageChanges, PartialFault, StorageFault
from .ticket import STALE_PROBLEM, Ticket, TicketOwner


class ObservedTicket(Ticket):
    """A ticket that records the turns it makes durable."""

    __slots__ = ("_turns",)

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
        super().__init__(
            owner, revision, state, delete, alarms, epoch, encoded, preceding, messages
        )
        # An ordered set: a turn that commits twice is recorded once.
        self._turns: dict[Turn, None] = {}
        self._record_turn()

    def with_changes(
        self,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        encoded: object,
        messages: MessageChanges | None = None,
    ) -> Self:
        """See `Ticket.with_changes`."""
        ticket = super().with_changes(state, delete, alarms, encoded, messages)
        # One record for both, since a copy for each turn would take quadratic time.
        self._turns.update(ticket._turns)
        ticket._turns = self._turns
        return ticket

    @property
    def turns(self) -> Collection[Turn]:
        """See `Ticket.turns`."""
        return self._turns

    def _record_turn(self) -> None:
        turn = self.owner.turn_event
        if turn is not None:
            self._turns[turn] = None


class CommitEvents:
    """Reports the transactions of one group commit.

    Args:
        loop: The event loop, in whose thread the notifier is called.
        notifier: The receiver of the events.
    """

    def __init__(self, loop: Loop, notifier: Notifier) -> None:
        self._loop = loop
        self._notifier = notifier
        self._written: deque[tuple[int, list[Ticket], Commit, float]] = deque()
        """Transactions that have ended but aren't settled yet: with their numbers and durations in
        seconds."""
        self._open: dict[Ticket, Save | Delete | AlarmUpdate] = {}
        """The changes of a transaction that was divided."""
        self._begun: deque[tuple[int, Commit, list[Save | Delete | AlarmUpdate]]] = deque()
        """Transactions whose start isn't reported yet, and the changes that start with them."""
        self._count = 0  # in the writer's thread

    # In the writer's thread.

    def around(
        self,
        batch: list[Ticket],
        write: Callable[[list[Ticket]], Collection[int] | StorageFault],
    ) -> Collection[int] | StorageFault:
        """Return what ``write`` returns for the batch; report the start, measure the duration."""
        known = [self._open.pop(ticket, None) for ticket in batch]
        changes = [change or _event_of(ticket) for change, ticket in zip(known, batch, strict=True)]
        commit = Commit(tuple(changes), sum(ticket.size for ticket in batch))
        new = [change for change, earlier in zip(changes, known, strict=True) if earlier is None]
        number = self._count = self._count + 1
        self._begun.append((number, commit, new))
        self._loop.call_soon_threadsafe(self._started, number)
        began = self._loop.now()
        outcome = write(batch)
        self._written.append((number, batch, commit, self._loop.now() - began))
        return outcome

    def divided(self, fault: PartialFault) -> None:
        """The last transaction was refused, and its changes are written in parts."""
        _, batch, commit, duration = self._written.pop()
        self._open.update(zip(batch, commit.changes, strict=True))
        self._loop.call_soon_threadsafe(self._notifier.fail, commit, duration, fault)

    # In the loop.

    def _started(self, number: int) -> None:
        """Report the start of a transaction, and of those before it."""
        while self._begun and self._begun[0][0] <= number:
            _, commit, changes = self._begun.popleft()
            self._report_start(commit, changes)

    def _report_start(self, commit: Commit, changes: list[Save | Delete | AlarmUpdate]) -> None:
        self._notifier.start(commit)
        for change in changes:
            self._notifier.start(change)

    def ended(self, batch: list[Ticket], outcome: Collection[int] | StorageFault) -> None:
        """Report the end of the oldest transaction. Its tickets aren't settled yet."""
        notifier = self._notifier
        if not self._written:
            return  # it was cut off, and is repeated
        number, _, commit, duration = self._written.popleft()
        self._started(number)
        refused = range(len(batch)) if isinstance(outcome, StorageFault) else set(outcome)
        for position, change in enumerate(commit.changes):
            if position not in refused:
                notifier.stop(change, duration)
            else:
                error = (
                    outcome if isinstance(outcome, StorageFault) else self._stale(batch[position])
                )
                notifier.fail(change, duration, error)
        if isinstance(outcome, StorageFault):
            notifier.fail(commit, duration, outcome)
        else:
            notifier.stop(commit, duration)

    def _stale(self, ticket: Ticket) -> PersistenceError:
        """The reason for which the storage refused a ticket."""
        if ticket.ended:
            return PersistenceError(
                ticket.key, "save", "an earlier change that it builds on could not be saved"
            )
        revision = ticket.revision or 0
        self._notifier.tell(Stale(ticket.key, revision))
        return StaleObject(ticket.key, "save", STALE_PROBLEM, revision)


def _event_of(ticket: Ticket) -> Save | Delete | AlarmUpdate:
    """The event of a ticket that doesn't change any more."""
    turns = tuple(ticket.turns)
    if ticket.delete:
        return Delete(ticket.key, turns)
    if ticket.state is None:
        return AlarmUpdate(ticket.key, turns)
    return Save(ticket.key, ticket.next_revision or 0, len(ticket.state), turns)
