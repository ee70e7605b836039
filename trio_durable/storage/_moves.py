"""Marks of moves to another storage: a storage as a whole, or a tenant of it.

A copy has the alarms and messages of its source, so both would deliver them. The mark keeps
runtimes from opening the source, or from serving the tenant, until it is taken back.
"""

from __future__ import annotations

import attrs

from .._clock import instant
from .._errors import StorageMoved
from ._faults import StorageFault


@attrs.frozen
class Move:
    """One mark."""

    tenant: str
    """The tenant; "" if it is the whole storage, with all tenants."""
    target: str
    """The location of the storage that has the copy."""
    moved_at: int
    """When the mark was made, in microseconds since 1970 UTC."""

    @property
    def when(self) -> str:
        """When the mark was made, for messages."""
        return f"{instant(self.moved_at):%Y-%m-%d %H:%M} UTC"

    def describe(self, what: str) -> str:
        """The statement of messages that ``what`` was moved: the storage, or the tenant."""
        return f"{what} was moved to {self.target} on {self.when}"

    def refusal(self, location: str) -> StorageMoved:
        """The error of one who opens the storage."""
        return StorageMoved(location, f"moved on {self.when}", self.target)

    def refusal_of_tenant(self) -> str:
        """The problem of one who uses the tenant."""
        moved = self.describe(f"tenant {self.tenant!r}")
        return (
            f"{moved}; open that storage, or take the mark back with `trio-durable reopen -t "
            f"{self.tenant}`"
        )


class MarkingWriter:
    """Marks in the contract of a storage: the part of `Writer` that is about them. Optional."""

    def mark_moved(self, target: str, now: int, tenant: str = "") -> None:
        """Mark the storage, or a tenant of it, as moved. Replaces an earlier mark of the same.

        From then on `Storage.open_writer` raises `StorageMoved`; of a tenant, reading and writing
        raise `PartialFault`, and `Reader.list_tenants` leaves it out. `Writer.drop_tenant` removes
        the tenant with its mark. The default refuses.

        Args:
            target: The location of the storage that has the copy.
            now: The current wall time.
            tenant: The tenant's name; "" for the whole storage.

        Raises:
            StorageFault: It can't be marked.
        """
        raise StorageFault("this storage can't be marked as moved")


class MarkedStorage:
    """The part of `Storage` that is about marks. Optional."""

    def list_moves(self) -> list[Move]:
        """The marks, by tenant. Needs no open side. The default has none.

        Raises:
            StorageUnavailable: It can't be read.
        """
        return []

    def reopen(self, tenant: str = "") -> bool:
        """Take a mark back, so that runtimes may open the storage or serve the tenant again.

        Needs no open side, and excludes runtimes as a writer does.

        Returns:
            Whether there was one. The default has none.

        Raises:
            StorageInUse: A runtime owns the storage.
            StorageUnavailable: It can't be opened.
        """
        return False
