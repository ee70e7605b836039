"""Cell: the latest durable state of one watched object, and the watchers that wait for the next.

A watcher remembers the version that it has seen. There is no queue, so a slow watcher takes no
memory and misses what was replaced before it came back. Prior art: trio-util's ``AsyncValue``,
tokio's ``watch`` channel.
"""

from __future__ import annotations

from typing import Protocol

from .._errors import PersistenceError
from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from ..storage import StorageFault


class Follower(Protocol):
    """A watcher in another hub, which gets each change at once."""

    def changed(self, cell: Cell) -> None:
        """The cell has another state, a fault, a confirmation, or its end. In the commit's path."""
        ...


class Cell:
    """The latest durable state of one object.

    A watcher may need a state that is no older than its beginning, where the one in the cell may
    be. It asks for a confirmation, by number, and a read that begins later gives that.

    Args:
        key: The object.
    """

    __slots__ = (
        "confirmed",
        "covers",
        "fault",
        "followers",
        "has_ended",
        "is_looked_for",
        "key",
        "look_again",
        "look_is_outdated",
        "parked",
        "revision",
        "row",
        "to_examine",
        "version",
        "wanted",
        "watchers",
    )

    def __init__(self, key: ObjectKey) -> None:
        self.key: ObjectKey = key
        self.revision: int = 0
        self.row: bytes | None = None
        """The stored state; None if nothing is stored."""
        self.version: int = 0
        """The number of changes so far; 0 until the state is known."""
        self.fault: StorageFault | None = None
        """The fault of the last read, until another one is begun."""
        self.is_looked_for: bool = False
        """A read of it is running."""
        self.look_is_outdated: bool = False
        """A commit was reported since that read began."""
        self.look_again: bool = False
        """The state is in doubt since that read began."""
        self.has_ended: bool = False
        """No further version comes."""
        self.wanted: int = 0
        """The number of the last confirmation that was asked for."""
        self.covers: int = 0
        """The last one that had been asked for when the running read began."""
        self.confirmed: int = 0
        """The last one that was given."""
        self.watchers: int = 0
        self.followers: list[Follower] = []
        """The watchers that don't park."""
        self.parked: dict[Waiter, int] = {}
        """The watchers that wait, each with the version that it has seen, in order of arrival.

        One that has seen none has 0, or the confirmation that it needs, as a negative number."""
        self.to_examine: int = 0
        """How many of them, from the first on, may not have seen the latest version."""

    def adopt(self, revision: int, row: bytes | None) -> bool:
        """Take over a state; return True if it is another one than before."""
        self.fault = None
        if self.version and (self.revision, self.row) == (revision, row):
            return False
        self.revision, self.row = revision, row
        self.version += 1
        return True

    def has_version(self, seen: int) -> bool:
        """True for a watcher that may return the state."""
        if seen > 0:
            return self.version != seen
        return self.version > 0 and self.confirmed >= -seen

    def has_news(self, seen: int) -> bool:
        """True for a watcher that has something to do: see a version, an error, or the end."""
        return self.has_ended or self.fault is not None or self.has_version(seen)

    def confirm(self, number: int) -> bool:
        """Give all confirmations up to a number; return True if one of them is new."""
        if number <= self.confirmed:
            return False
        self.confirmed = number
        return True

    def load_error(self, fault: StorageFault) -> PersistenceError:
        """An error that says that a read has failed; another one for each watcher."""
        error = PersistenceError(self.key, "load", str(fault))
        error.__cause__ = fault
        return error
