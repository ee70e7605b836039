"""Commit listener: the interface to which the group commit reports changes of alarms."""

from __future__ import annotations

from typing import Protocol

from .._keys import ObjectKey
from ..storage import AlarmChanges


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

    def uncertain(self) -> None:
        """A transaction that would have changed alarms failed. It may be durable all the same."""
        ...
