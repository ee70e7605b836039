"""What the runtime asks of a storage, and the records that cross the line.

Storages are synchronous and know no event loop: the runtime runs a writer and a reader in a
thread each (or inline, where a test wants virtual time). They see bytes, never objects.

Conditions, which the conformance suite checks on every backend:

1. A commit is atomic: all of a `Commit` is applied, or nothing.
2. A batch is one transaction: if `Writer.commit` raises, nothing of the batch is applied.
3. A commit is conditional: it applies only if the stored revision equals `Commit.revision`,
   where 0 stands for no row. Commits that don't apply are reported by their positions and change
   nothing; the others of the batch apply all the same.
4. Durable: when `Writer.commit` returns, what it applied survives a kill of the process, and a
   loss of power where the storage's durability promises that.
5. Exact: state bytes come back as they were written.
6. A reader sees every batch that was committed before the read began.
7. Keys of one batch are distinct.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Self

import attrs

from .._keys import ObjectKey


@attrs.define(eq=False)
class Commit:
    """What one or more turns of one object changed, to be applied as a whole."""

    key: ObjectKey
    revision: int
    """The revision this is based on; 0 if nothing was stored. Applying it stores the next one."""
    state: bytes | None = None
    """The encoded state, or None if the turn left it as it was."""
    delete: bool = False
    """Remove the object. ``state`` then has no meaning."""


@attrs.frozen
class StoredObject:
    """A row as it was read."""

    revision: int
    state: bytes


class Writer(ABC):
    """The writing side. Used by one thread, the one that opened it."""

    @abstractmethod
    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """Apply a batch in one transaction and make it durable.

        Args:
            batch: Commits of distinct keys.
            now: The wall time to note, in microseconds since 1970 UTC.

        Returns:
            The positions of the commits that were stale and did not apply.

        Raises:
            StorageFault: Nothing was applied, as far as can be known.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the storage."""


class Reader(ABC):
    """The reading side. Used by one thread, the one that opened it."""

    @abstractmethod
    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        """Read objects, in the order of ``keys``; None where nothing is stored.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def list_ids(self, type_name: str, after: str | None, limit: int) -> list[str]:
        """The ids of stored objects of one type, in the order of their UTF-8 bytes.

        Args:
            type_name: The stored type name.
            after: Only ids behind this one.
            limit: At most so many.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the storage."""


class Storage(ABC):
    """A place for objects. Opens at most one writer at a time."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where it is, for messages; without secrets."""

    @abstractmethod
    def open_writer(self) -> Writer:
        """Take possession, bring the tables up to date and return the writing side.

        Raises:
            StorageInUse: Another runtime has it.
            SchemaTooNew: A newer release migrated it.
            StorageUnavailable: It can't be opened.
        """

    @abstractmethod
    def open_reader(self) -> Reader:
        """Return the reading side; after `open_writer`.

        Raises:
            StorageUnavailable: It can't be opened.
        """


class StorageFault(Exception):
    """The storage failed to read or write; the text says how, for a `PersistenceError`."""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The fault that ``error`` of the driver amounts to."""
        return cls(str(error) or type(error).__name__)
