"""Membership: a writer's place among the runtimes of a storage, and its leases.

A storage that is its writer's until that is closed, such as a locked file, has none of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class Lease(ABC):
    """The time in which a writer's runtime owns the objects of its storage.

    A lease that is over stays over. Until then no other runtime has another one. Used from any
    thread.
    """

    @property
    @abstractmethod
    def holder(self) -> str:
        """The id of its holder, which no other holder ever has."""

    @abstractmethod
    def is_valid(self) -> bool:
        """True if it isn't over. Doesn't block."""


class Membership(ABC):
    """A writer's place among the runtimes of a storage, where that can be lost.

    It holds one `Lease` after the other, and renews each in a thread of its own. When a lease is
    over, what the runtime has in memory may be older than what is stored, and the writer applies
    nothing until there is the next lease.
    """

    @property
    @abstractmethod
    def lease(self) -> Lease:
        """The latest lease. From any thread."""

    @abstractmethod
    def follow(
        self, post: Callable[[Callable[[], object]], object], lost: Callable[[Lease, str], object]
    ) -> None:
        """Renew the lease for as long as the event loop runs, and report its end.

        Called once, by a runtime that has opened the writer.

        Args:
            post: Calls a function in the event loop, from any thread.
            lost: Called from any thread when a lease is over, once for each, with the reason.
        """

    @abstractmethod
    def rejoin(self) -> None:
        """Get the next lease, as a new holder. Called in the writer's thread. May take long.

        Raises:
            StorageInUse: Another runtime owns the storage.
            StorageUnavailable: It can't be had now.
        """
