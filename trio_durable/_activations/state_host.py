"""The surroundings of an object's state: the way of its commits, and the rest of the object."""

from __future__ import annotations

from typing import Protocol

from .._persistence.ticket import Ticket, TicketOwner
from .._telemetry.events import Turn as TurnEvent
from ..storage import AlarmChanges, MessageChanges
from .effects import ContextHost


class Commits(Protocol):
    """The way of a commit to the storage: the group commit, or a recorder in a test."""

    def submit(
        self,
        owner: TicketOwner,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None = None,
        encoded: object = None,
        messages: MessageChanges | None = None,
    ) -> Ticket:
        """Put a change on its way to the storage; its ticket becomes the owner's gate."""
        ...


class StateHost(ContextHost, Protocol):
    """The rest of an object: its activation, or a single turn in a test."""

    @property
    def commits(self) -> Commits:
        """The way of the object's commits."""
        ...

    @property
    def turn_event(self) -> TurnEvent | None:
        """The record for instruments of the turn that runs, if there are any."""
        ...

    def committed(self) -> None:
        """A ticket became durable."""
        ...

    def commit_failed(self) -> None:
        """A ticket failed, and all that were based on it."""
        ...

    def started_over(self) -> None:
        """The object was deleted or rewritten: the next turn begins in a new activation."""
        ...

    def was_awaited(self, base_lost: bool) -> None:
        """A ``def`` turn has ended in which the event loop ran; calls may wait for its end.

        Args:
            base_lost: A commit that it builds on has failed meanwhile.
        """
        ...
