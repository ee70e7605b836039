"""What the runtime asks of a storage. The records that cross the line are in `_records`.

Storages are synchronous and know no event loop: the runtime runs a writer and a reader in a
thread each (or inline, where a test wants virtual time). They see bytes, never objects.

Conditions, which `trio_durable.testing.conformance` checks on every backend, as far as one process
sees them:

1. A commit is atomic: all of a `Commit` is applied, or nothing.
2. A batch is one transaction: if `Writer.commit` raises, nothing of the batch is applied.
3. A commit is conditional: it applies only if the stored revision equals `Commit.revision`,
   where 0 stands for no row. Commits that don't apply are reported by their positions and change
   nothing; the others of the batch apply all the same. A deletion lets revisions begin anew, so a
   storage that several may write to at once also compares epochs: a new row gets `Commit.epoch`,
   and what is based on a row applies only to the epoch of that row. Others may ignore epochs, and
   load 0.
4. Durable: when `Writer.commit` returns, what it applied survives a kill of the process, and a
   loss of power where the storage's durability promises that.
5. Exact: state bytes come back as they were written.
6. A reader sees every batch that was committed before the read began.
7. Keys of one batch are distinct.
8. A commit's alarms are part of it: it applies only if every claim that it acknowledges is held,
   and state and alarms are applied together.
9. A claim is exclusive: of several that are made for one alarm, one gets it. It is held until it
   is acknowledged or postponed, the alarm is set or cancelled, or somebody else claims the alarm
   after the time until which it was claimed.
10. Where the storage can tell that all who claimed anything are dead, because it opens for one
    writer at a time, opening it gives their claims back.
11. Tenants are apart: what has the same type and id under another tenant is another object. A
    tenant comes into being with the first commit that writes something of it. One that isn't
    there is empty to readers, and nothing of it can be claimed, renewed or postponed. The tenant
    "" is always there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from .._keys import AlarmKey, ObjectKey
from ._records import (
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    ObjectRow,
    Postponement,
    StoredAlarm,
    StoredObject,
    TypeSummary,
)

Durability = Literal["full", "normal"]
"""Whether a commit that returned also survives a loss of power, or a crash of the server."""


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
    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        """Claim those of ``alarms`` that are available, as one transaction.

        Args:
            alarms: Distinct keys.
            claim: A number from 1 to 2**63 - 1 that was never used before.
            now: The wall time.
            until: When others may claim them, if they were not acknowledged before.

        Returns:
            Those that were claimed.

        Raises:
            StorageFault: As far as can be known none was.
        """

    @abstractmethod
    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        """Hold those of ``claims`` that are still held until the time ``until``.

        Raises:
            StorageFault: It could not be written.
        """

    @abstractmethod
    def postpone(self, postponements: Sequence[Postponement]) -> None:
        """Carry out those of ``postponements`` whose claims are still held, as one transaction.

        Raises:
            StorageFault: As far as can be known none was.
        """

    @abstractmethod
    def revive(self, alarm: AlarmKey, now: int) -> bool:
        """Make a dead letter due ``now``, with no failures; whether there was one.

        Raises:
            StorageFault: It could not be written.
        """

    @abstractmethod
    def drop_tenant(self, tenant: str) -> bool:
        """Remove a tenant and all that is stored of it, as one transaction; whether it was there.

        Raises:
            StorageFault: It could not be written.
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
            CorruptRow: One of them can't be read, whatever the others are; without it they may be.
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        """The ids of stored objects of one type, in the order of their UTF-8 bytes.

        Args:
            type_name: The stored type name.
            after: Only ids behind this one.
            limit: At most so many.
            tenant: Whose.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        """Alarms that are available before the time ``before``, in order of time and then key.

        Takes a time that doesn't depend on how many alarms there are later, but for those of
        ``except_types``.

        Args:
            before: In microseconds since 1970 UTC.
            after: Only those behind this one; the last of a page gives the next page.
            limit: At most so many.
            except_types: Leave out alarms of these types.
            tenant: Whose.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        """The alarms of one object, dead letters excepted, by ``due_at`` and then name.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        """The dead letters of one type, in the order of the UTF-8 bytes of object id and name.

        Args:
            type_name: The stored type name.
            after: Only those behind this one.
            limit: At most so many.
            tenant: Whose.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        """The names of the tenants that are there, in order; without the nameless one.

        Args:
            after: Only names behind this one.
            limit: At most so many.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        """Objects, in the order of the UTF-8 bytes of type and id.

        Args:
            type_name: Only those of this type; None for all.
            after: Only those behind this one, which is of that type if one is given.
            limit: At most so many.
            tenant: Whose.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        """Alarms, in the order of the UTF-8 bytes of type, id and name.

        Args:
            status: Only such; None for all.
            now: The wall time.
            type_name: Only those of this type; None for all.
            after: Only those behind this one, which is of that type if one is given.
            limit: At most so many.
            tenant: Whose.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        """What is kept of each type, in the order of their names. Looks at everything.

        Args:
            now: The wall time.
            tenant: Whose.

        Raises:
            StorageFault: The storage can't be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the storage."""


class Hints(ABC):
    """Word between the runtimes of one storage that there are alarms for others to deliver.

    Nothing depends on it: a runtime looks for alarms at every polling interval, and a hint only
    lets it look earlier. So hints may be lost, come late, twice or for nothing; but they hold up
    nothing, and fail nothing. Used from any thread.
    """

    @abstractmethod
    def send(self, available_at: int) -> None:
        """Tell the others that an alarm is available at a time. Returns at once; never raises.

        Only the earliest of what waits to be sent is.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what waits, if that takes no more than a moment, and hear no more."""


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
        """Return the reading side. It may be of use beside a writer of another process.

        Raises:
            SchemaTooNew: A newer release migrated it.
            StorageUnavailable: It can't be opened, or there is nothing to read: nobody opened a
                writer yet, or an older release did.
        """

    def open_hints(self, heard: Callable[[int], object]) -> Hints | None:
        """The way to and from other runtimes on this storage; None if there can't be any.

        Returns at once, whether anybody can be reached or not; never raises.

        Args:
            heard: Called with what others send, from any thread; and with 0 whenever some of it
                may have been missed.
        """
        return None

    def pending_migrations(self) -> list[str]:
        """The names of what `open_writer` would do to bring the tables up to date. Only looks.

        Raises:
            SchemaTooNew: A newer release migrated it.
            StorageUnavailable: It can't be opened, isn't there, or is a file of others.
        """
        return []

    def migration_sql(self) -> str | None:
        """The same as SQL, for somebody else to apply; None where nobody else does. Only looks.

        Raises:
            SchemaTooNew: A newer release migrated it.
            StorageUnavailable: It can't be opened.
        """
        return None


class StorageFault(Exception):
    """The storage failed to read or write; the text says how, for a `PersistenceError`."""

    __module__ = "trio_durable.storage"  # where it is imported from, for tracebacks

    @classmethod
    def of(cls, error: Exception) -> StorageFault:
        """The fault that ``error`` of the driver amounts to."""
        return StorageFault(str(error) or type(error).__name__)


class CorruptRow(StorageFault):
    """The row of one object is not as a storage writes it, by no fault of others."""

    __module__ = "trio_durable.storage"

    def __init__(self, key: ObjectKey, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self._problem = problem

    def __str__(self) -> str:
        return self._problem


SpoiltRow = CorruptRow
"""The former name of `CorruptRow`."""
