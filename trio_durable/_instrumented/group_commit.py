"""Group commit that tells of its transactions, and of the turns that they make durable."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol, cast

from .._errors import PersistenceError, StaleObject
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from .._persistence.group_commit import GroupCommit
from .._persistence.ticket import Owner, Ticket
from .._telemetry.events import AlarmUpdate, Commit, Delete, Save, Stale, Turn
from .._telemetry.notifier import Notifier
from ..storage import AlarmChanges, StorageFault, Writer


class TurningOwner(Owner, Protocol):
    """An owner that says which turn its commits are of."""

    turn_event: Turn | None


class InstrumentedTicket(Ticket):
    """A ticket that knows its turns."""

    __slots__ = ("turns",)

    def __init__(
        self,
        owner: Owner,
        revision: int | None,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        epoch: int,
    ) -> None:
        super().__init__(owner, revision, state, delete, alarms, epoch)
        self.turns: dict[Turn, None] = {}  # in order, and once each: a turn may commit twice
        self._note_turn()

    def add(self, state: bytes | None, delete: bool, alarms: AlarmChanges | None) -> None:
        super().add(state, delete, alarms)
        self._note_turn()

    def _note_turn(self) -> None:
        turn = cast("TurningOwner", self.owner).turn_event
        if turn is not None:
            self.turns[turn] = None

    def event(self) -> Save | Delete | AlarmUpdate:
        """The record of what it does; once it is in the writer's hands."""
        turns = tuple(self.turns)
        if self.delete:
            return Delete(self.key, turns)
        if self.state is None:
            return AlarmUpdate(self.key, turns)
        return Save(self.key, self.next_revision or 0, len(self.state), turns)


class InstrumentedGroupCommit(GroupCommit):
    """Tells of every transaction."""

    _ticket_type = InstrumentedTicket

    def __init__(
        self,
        telemetry: Notifier,
        loop: Loop,
        runner: Runner,
        writer: Writer,
        wall_time: Callable[[], int],
        alarms_changed: Callable[[ObjectKey, AlarmChanges], None],
        alarms_uncertain: Callable[[], None],
    ) -> None:
        super().__init__(loop, runner, writer, wall_time, alarms_changed, alarms_uncertain)
        self._telemetry = telemetry
        self._written: deque[tuple[Commit, float]] = deque()
        """Transactions that have ended, and how long each took, on the way to the loop."""

    # In the writer's thread.

    def _write(self, batch: list[Ticket]) -> Collection[int] | StorageFault:
        tickets = cast("list[InstrumentedTicket]", batch)
        commit = Commit(
            tuple(ticket.event() for ticket in tickets), sum(ticket.size for ticket in tickets)
        )
        self._loop.call_soon_threadsafe(self._started, commit)
        began = self._loop.now()
        outcome = super()._write(batch)
        self._written.append((commit, self._loop.now() - began))
        return outcome

    # In the loop.

    def _started(self, commit: Commit) -> None:
        self._telemetry.start(commit)
        for change in commit.changes:
            self._telemetry.start(change)

    def _settle(self, batch: list[Ticket], outcome: Collection[int] | StorageFault) -> None:
        # First, for the objects go on from there.
        telemetry = self._telemetry
        commit, duration = self._written.popleft()
        refused = range(len(batch)) if isinstance(outcome, StorageFault) else set(outcome)
        for position, change in enumerate(commit.changes):
            if position not in refused:
                telemetry.stop(change, duration)
            else:
                error = (
                    outcome if isinstance(outcome, StorageFault) else self._stale(batch[position])
                )
                telemetry.fail(change, duration, error)
        if isinstance(outcome, StorageFault):
            telemetry.fail(commit, duration, outcome)
        else:
            telemetry.stop(commit, duration)
        super()._settle(batch, outcome)

    def _stale(self, ticket: Ticket) -> PersistenceError:
        """Why ``ticket`` was refused."""
        if ticket.ended:
            return PersistenceError(
                ticket.key, "save", "an earlier change that it builds on could not be saved"
            )
        revision = ticket.revision or 0
        self._telemetry.tell(Stale(ticket.key, revision))
        return StaleObject(ticket.key, "save", "a newer owner wrote it", revision)
