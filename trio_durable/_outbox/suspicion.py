"""Suspicion: which messages may have been in delivery when an earlier process died.

Those that waited when their receivers came here, as far as one of their kind was delivered at a
time: the first of each lane, and those without a lane. See `suspects`, which delivers them.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._keys import ObjectKey
from ..storage import StoredMessage


class Suspicion:
    """The tokens of the suspects, and the receivers of unread ones."""

    def __init__(self) -> None:
        self.tokens: set[int] = set()
        self.since = 0.0
        """When the receivers were looked for last, by the loop's clock, in seconds."""
        self._due_before = 0
        """The same by the wall clock, in microseconds since 1970 UTC."""
        self._receivers: set[ObjectKey] = set()

    def scanning(self, now: float, wall_time: int) -> None:
        """All receivers with messages in the table are being looked for: some may be new here."""
        self.since, self._due_before = now, wall_time

    def found(self, to: ObjectKey) -> None:
        """A receiver has messages that aren't in memory."""
        self._receivers.add(to)

    def read(self, to: ObjectKey, lane: Sequence[StoredMessage]) -> None:
        """The first messages of one of its lanes were read."""
        if to in self._receivers:
            possible = lane[:1] if lane[0].key.lane else lane
            self.tokens.update(message.key.token for message in possible)

    def read_all(self, to: ObjectKey) -> None:
        """Its last lane was read. Messages that come now were sent since."""
        self._receivers.discard(to)

    def woken(self, message: StoredMessage) -> None:
        """A message without a lane has slept until now."""
        if message.wake_at is not None and message.wake_at <= self._due_before:
            self.tokens.add(message.key.token)

    def falls_on(self, message: StoredMessage) -> bool:
        """True if a message is a suspect. One that has crashed is one each time it is read."""
        return message.crashes > 0 or message.key.token in self.tokens

    def ends(self, message: StoredMessage) -> None:
        """Its delivery begins, or isn't watched."""
        self.tokens.discard(message.key.token)
