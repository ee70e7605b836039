"""Commit listeners: the interfaces to which the group commit reports what has become of commits."""

from __future__ import annotations

from typing import Protocol

from .._keys import ObjectKey
from ..storage import AlarmChanges, MessageChanges


class CommitListener(Protocol):
    """Observer of commits that change alarms.

    The group commit calls it in the event loop, before the replies that wait for the commit are
    released. A listener must not raise.
    """

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """A commit that changed alarms of the object is durable.

        Commits of one object are reported in the order of their revisions.
        """
        ...

    def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """A commit failed that would have changed alarms of the object.

        It may be durable all the same.
        """
        ...


class MessageListener(Protocol):
    """Observer of commits that change messages, called as a `CommitListener` is."""

    def sent(self, changes: MessageChanges) -> None:
        """A commit that changed messages is durable. Its new messages have their numbers."""
        ...

    def deleted(self, key: ObjectKey) -> None:
        """A commit that deleted an object is durable. Its waiting messages are dead letters."""
        ...

    def unsure(self, key: ObjectKey, changes: MessageChanges | None) -> None:
        """A commit of an object failed that would have changed messages, or deleted it.

        It may be durable all the same.
        """
        ...


class StateListener(Protocol):
    """Observer of commits that change states, called as a `CommitListener` is."""

    def committed(self, key: ObjectKey, revision: int, row: bytes | None) -> None:
        """A commit that changed the object's state is durable; revision 0 if it deleted it."""
        ...

    def uncertain(self, key: ObjectKey) -> None:
        """A commit of the object failed, whatever it would have changed. It may be durable."""
        ...
