"""Submission: a call for a caller elsewhere, which no task here waits for."""

from __future__ import annotations

from .activation import Activation
from .envelope import Envelope


class Submission:
    """A call in the mailbox of an object, made by `LocalCalls.submit`."""

    __slots__ = ("_activation", "_envelope")

    def __init__(self, activation: Activation, envelope: Envelope) -> None:
        self._activation = activation
        self._envelope = envelope

    @property
    def has_begun(self) -> bool:
        """True once its turn has begun."""
        return not self._activation.is_queued(self._envelope)

    def withdraw(self) -> None:
        """Take it back if its turn hasn't begun."""
        self._activation.withdraw(self._envelope)
