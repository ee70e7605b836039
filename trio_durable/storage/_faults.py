"""Faults that the methods of writers and readers raise."""

from __future__ import annotations

from collections.abc import Collection

from .._keys import ObjectKey


class StorageFault(Exception):
    """Reading or writing failed. The text becomes that of a `PersistenceError`."""

    __module__ = "trio_durable.storage"  # the public module, for tracebacks

    @classmethod
    def of(cls, error: Exception) -> StorageFault:
        """The fault for an ``error`` of the driver."""
        return StorageFault(str(error) or type(error).__name__)


class LeaseOver(StorageFault):
    """The writer's lease is over, so nothing was applied or read. See `Membership`."""

    __module__ = "trio_durable.storage"


class PartialFault(StorageFault):
    """Part of a batch can't be read or written, such as one object or one tenant.

    The storage itself works, and nothing of the batch was applied. Without that part the rest may
    be applied, so a runtime divides the batch and fails only the part.

    Args:
        problem: The text of the fault.
        positions: The positions of the items that failed, as far as the storage knows them. If it
            names none, the batch is halved until the fault stays with a single item.
    """

    __module__ = "trio_durable.storage"

    def __init__(self, problem: str, positions: Collection[int] = ()) -> None:
        super().__init__(problem, positions)
        self.positions = positions
        self._problem = problem

    def __str__(self) -> str:
        return self._problem


class CorruptRow(StorageFault):
    """The row of one object is corrupt: it holds a value that the storage never writes.

    Other rows are unaffected.
    """

    __module__ = "trio_durable.storage"

    def __init__(self, key: ObjectKey, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self._problem = problem

    def __str__(self) -> str:
        return self._problem


SpoiltRow = CorruptRow
"""The former name of `CorruptRow`."""
