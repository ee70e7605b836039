"""Submission: a call for a caller elsewhere, which no task here waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .._keys import ObjectKey
from .activation import Activation
from .envelope import Envelope
from .wait_graph import WaitGraph


class Submitted(Protocol):
    """A call that was submitted, and whose caller has no task here."""

    @property
    def has_begun(self) -> bool:
        """True once its turn has begun."""
        ...

    def withdraw(self) -> None:
        """Take it back if its turn hasn't begun."""
        ...

    def end(self) -> None:
        """The call has its outcome, such as a timeout. Called once."""
        ...


class Submission:
    """A call in the mailbox of an object, made by `LocalCalls.submit`.

    Args:
        activation: The object.
        envelope: The call.
        wait_graph: Gets the wait of the call's chain.
        chain: The objects that wait for the call.
    """

    __slots__ = ("_activation", "_chain", "_envelope", "_wait_graph")

    def __init__(
        self,
        activation: Activation,
        envelope: Envelope,
        wait_graph: WaitGraph,
        chain: Sequence[ObjectKey],
    ) -> None:
        self._activation = activation
        self._envelope = envelope
        self._wait_graph = wait_graph
        self._chain = chain
        if chain:
            wait_graph.begin_elsewhere(self, chain, activation.state)

    @property
    def has_begun(self) -> bool:
        """True once its turn has begun."""
        return not self._activation.is_queued(self._envelope)

    def withdraw(self) -> None:
        """Take it back if its turn hasn't begun."""
        self._activation.withdraw(self._envelope)

    def end(self) -> None:
        """The call has its outcome, such as a timeout, and leaves the mailbox. Called once."""
        self.withdraw()
        if self._chain:
            self._wait_graph.end_elsewhere(self, self._activation.state)
