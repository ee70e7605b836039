"""The listeners of one group commit, called under guard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

from .commit_listener import CommitListener, MessageListener, StateListener
from .ticket import Ticket


def raised(error: BaseException) -> NoReturn:
    """Raise a fault where it was found, if no runtime has it."""
    raise error


class Listeners:
    """The listeners, in the order in which they are called.

    A fault of a listener is passed on. It must not hold back the replies that wait for the commit.

    Args:
        alarms: The listeners of changes of alarms.
        failed: Called with a fault of a listener.
    """

    def __init__(
        self, alarms: tuple[CommitListener, ...], failed: Callable[[BaseException], object]
    ) -> None:
        self.alarms = alarms
        self.messages: MessageListener | None = None
        """The listener of changes of messages, if there is one."""
        self.states: StateListener | None = None
        """The listener of changes of states, if there is one."""
        self._failed = failed

    def succeeded(self, ticket: Ticket) -> None:
        """A commit is durable."""
        if ticket.alarms is not None:
            for listener in self.alarms:
                try:
                    listener.committed(ticket.key, ticket.alarms)
                except BaseException as error:  # noqa: BLE001  # a fault, or a signal's handler
                    self._failed(error)
                    listener.unsure(ticket.key, ticket.alarms)
        if self.messages is not None and (ticket.delete or ticket.messages is not None):
            self._tell_of_messages(self.messages, ticket)
        if self.states is not None and (ticket.delete or ticket.state is not None):
            self._tell_of_states(self.states, ticket)

    def _tell_of_messages(self, listener: MessageListener, ticket: Ticket) -> None:
        try:
            if ticket.delete:
                listener.deleted(ticket.key)
            if ticket.messages is not None:
                listener.sent(ticket.messages)
        except BaseException as error:  # noqa: BLE001  # likewise
            self._failed(error)
            listener.unsure(ticket.key, ticket.messages)

    def _tell_of_states(self, listener: StateListener, ticket: Ticket) -> None:
        try:
            listener.committed(ticket.key, ticket.next_revision or 0, ticket.state)
        except BaseException as error:  # noqa: BLE001  # likewise
            self._failed(error)
            listener.uncertain(ticket.key)

    def failed(self, tickets: Iterable[Ticket]) -> None:
        """Commits of a failed transaction may be durable all the same."""
        for ticket in tickets:
            if ticket.alarms is not None:
                for listener in self.alarms:
                    listener.unsure(ticket.key, ticket.alarms)

    def refused(self, ticket: Ticket) -> None:
        """A commit failed, alone or with its transaction."""
        if self.messages is not None and ticket.messages is not None:
            self.messages.unsure(ticket.key, ticket.messages)
        if self.states is not None:
            self.states.uncertain(ticket.key)
