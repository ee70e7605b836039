"""Abstract classes of the contract between the runtime and a storage.

The conditions that an implementation must keep are in the docstring of `trio_durable.storage`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from .._errors import StorageUnavailable
from .._keys import AlarmKey, ObjectKey
from ._faults import StorageFault
from ._maintenance import MaintainedWriter
from ._membership import MemberRow, Membership, NewMember
from ._message_sides import MessageReader, MessageWriter
from ._moves import MarkedStorage, MarkingWriter
from ._records import (
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    Finding,
    ObjectRow,
    Postponement,
    StoredAlarm,
    StoredObject,
    TypeSummary,
)
from ._renaming import RenamingWriter

Durability = Literal["full", "normal"]
"""Durability of commits. With ``"full"`` they survive a power loss and a crash of the database
server; with ``"normal"`` either may undo the latest commits, but none in part."""


class Writer(MessageWriter, MarkingWriter, RenamingWriter, MaintainedWriter, ABC):
    """Writing side of a storage. Used by one thread, the one that opened it.

    Methods take wall times in microseconds since 1970 UTC. Their sequences may be empty.
    """

    @property
    def membership(self) -> Membership | None:
        """Its place among several runtimes; None if it owns the storage until it is closed."""
        return None

    @abstractmethod
    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """Apply a batch in one transaction and make it durable.

        The contract sets no upper bound. A runtime's batch has at most 1024 commits, and ends with
        the commit that takes its states and payloads past 32 MiB. A commit may change any number of
        alarms.

        Args:
            batch: Commits of distinct keys, applied in this order where messages depend on it; see
                condition 7.
            now: The current wall time, stored with each object.

        Returns:
            The positions of the stale commits, which did not apply.

        Raises:
            PartialFault: Some of the commits can't be written, or the batch is too large for one
                transaction. Nothing was applied; the caller may commit it in parts.
            StorageFault: Writing failed. Nothing was applied, unless the text says that the outcome
                is unknown.
        """

    @abstractmethod
    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        """Claim the available ones among ``alarms``, in one transaction.

        The contract sets no upper bound. A runtime claims at most 256 alarms at a time. `renew` and
        `postpone` may get all deliveries in flight at once, which can be more than 16,384.

        Args:
            alarms: Distinct keys.
            claim: A number from 1 to 2**63 - 1 that was never used before.
            now: The current wall time. An alarm is available if its ``available_at`` is not later.
                A time after the year 9999 makes every alarm available.
            until: The claim's expiry, which becomes the alarm's ``available_at``.

        Returns:
            The claimed alarms.

        Raises:
            PartialFault: Some of the alarms can't be claimed. The caller may claim them in parts.
            StorageFault: Writing failed. No alarm was claimed, unless the outcome is unknown.
        """

    @abstractmethod
    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        """Extend to ``until`` the claims that are still held. The others are left alone.

        Raises:
            PartialFault: Some of the claims can't be extended; the caller may call in parts.
            StorageFault: Writing failed.
        """

    @abstractmethod
    def postpone(self, postponements: Sequence[Postponement]) -> None:
        """Apply the postponements whose claims are still held, in one transaction.

        Raises:
            PartialFault: Some can't be applied, and none was; the caller may call in parts.
            StorageFault: Writing failed. None was applied, unless the outcome is unknown.
        """

    @abstractmethod
    def revive(self, alarm: AlarmKey, now: int) -> bool:
        """Make a dead letter due ``now``. Returns whether it was one.

        Sets ``available_at``, resets ``failures``, and ``crashes`` to 0 unless it is None; the
        other fields stay.

        Raises:
            StorageFault: Writing failed.
        """

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        """Note durably that a delivery of a suspect begins, see condition 12.

        The default does nothing, for a storage that has no suspects.

        Returns:
            Whether the claim is still held.

        Raises:
            StorageFault: Writing failed.
        """
        return True

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        """End the suspicion of an alarm whose delivery has begun and let its process live.

        The default does nothing, for a storage that has no suspects.

        Returns:
            Whether the claim is still held. If it isn't, nothing is changed.

        Raises:
            StorageFault: Writing failed.
        """
        return True

    @abstractmethod
    def drop_tenant(self, tenant: str) -> bool:
        """Remove a tenant and all its data, in one transaction. Returns whether it existed.

        Raises:
            StorageFault: Writing failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Close this side and release its resources."""


class Reader(MessageReader, ABC):
    """Reading side of a storage. Used by one thread, the one that opened it.

    Pages are in the order of UTF-8 bytes; the last item of a page is the ``after`` of the next one.
    Methods take wall times in microseconds since 1970 UTC.
    """

    @abstractmethod
    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        """Load objects, in the order of ``keys``; None where nothing is stored.

        A key may occur twice. The contract sets no upper bound; a runtime loads at most 1024 keys
        at a time.

        Raises:
            CorruptRow: The row of one object can't be read. The caller may load the others without
                it.
            PartialFault: Some of the objects can't be read. The caller may load the others.
            StorageFault: Reading failed.
        """

    @abstractmethod
    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        """Ids of the stored objects of one type.

        Args:
            type_name: The stored type name.
            after: Only ids after this one.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
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
        """Horizon feed: alarms with ``available_at`` before ``before``, by time and then key.

        Its duration must not depend on the number of later alarms. It may depend on the number of
        alarms of ``except_types``.

        Args:
            before: The horizon.
            after: Only entries after this one.
            limit: The length of the page.
            except_types: Leave out alarms of these types.
            tenant: The tenant's name.

        Raises:
            PartialFault: The alarms of this tenant can't be read.
            StorageFault: Reading failed.
        """

    @abstractmethod
    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        """Alarms of one object without its dead letters, by ``due_at`` and then name.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def load_alarms(self, alarms: Sequence[AlarmKey], now: int) -> list[AlarmRow | None]:
        """Load alarms, dead letters and marks, in the order of ``alarms``; None where none is.

        Args:
            alarms: Keys, of any tenants.
            now: The current wall time, which separates overdue from pending.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def recurring_alarms(
        self,
        type_name: str,
        name: str,
        due_after: int,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredAlarm]:
        """Recurring alarms of one type and name that are due after a time, by object id.

        Those with any ``recurrence`` but `STOPPED` and `MOVED`, without dead letters. Its duration
        must not depend on the number of other alarms.

        Args:
            type_name: The stored type name.
            name: The alarm's name.
            due_after: Only alarms that are due later than this.
            after: Only alarms after this one.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        """Dead letters of one type, by object id and then name.

        Args:
            type_name: The stored type name.
            after: Only dead letters after this one.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        """Names of the existing tenants, without the nameless one.

        Args:
            after: Only names after this one.
            limit: The length of the page.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        """Objects with their metadata, by type and then id.

        Args:
            type_name: Only objects of this type; None for all.
            after: Only objects after this one, which is of that type if one is given.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
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
        """Alarms with their status, by type, id and then name.

        Args:
            status: Only alarms of this status; None for all.
            now: The current wall time, which separates overdue from pending.
            type_name: Only alarms of this type; None for all.
            after: Only alarms after this one, which is of that type if one is given.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        """Counts and sizes of each type that has objects or alarms, by type name. Reads all rows.

        Args:
            now: The current wall time, which separates overdue from pending.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Close this side and release its resources."""


class Storage(MarkedStorage, ABC):
    """A place for objects and alarms. A runtime opens one writer and one reader.

    Threads and lifetime:

    - `open_writer` and all methods of the writer, ``close`` included, are called in one thread; so
      are `open_reader` and those of the reader, in another thread. Under `InlineRunner` both are
      the event loop's thread.
    - A runtime opens the writer and then the reader, and closes them in the opposite order, each
      once. If the reader can't be opened, the writer is closed.
    - The command line and tests also open a reader without a writer, several readers at a time, or
      a writer alone, and call `pending_migrations` and `migration_sql` while nothing is open.
    - After all sides are closed, the same `Storage` may be opened again, and has everything that
      was committed.
    - The sides may share a handle that the `Storage` owns, such as an environment that a process
      may open only once. It must work in both threads, opens with the first side, and closes with
      the last one, whichever side that is. The threads open and close without synchronization, so
      the `Storage` needs a lock for that.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """The path or URL, for messages; without secrets."""

    @property
    def foreign_alarms(self) -> str | None:
        """The place of its alarms, if they are for the scheduler of another program; else None.

        Known once a side is open.
        """
        return None

    @property
    def keeps_messages(self) -> bool:
        """True if it keeps messages and once-keys. If False, no commit has `Commit.messages`."""
        return False

    @abstractmethod
    def open_writer(self) -> Writer:
        """Take ownership, apply pending migrations and return the writing side.

        Raises:
            StorageInUse: Another runtime owns the storage.
            StorageMoved: It was marked as moved, see `Writer.mark_moved`.
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be opened.
        """

    @abstractmethod
    def open_reader(self) -> Reader:
        """Return the reading side, which may work while another process has a writer open.

        Raises:
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be opened, or its tables are missing or of an older
                release: then open a writer first.
        """

    def pending_migrations(self) -> list[str]:
        """Names of the migrations that `open_writer` would apply. Changes nothing.

        Raises:
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be opened, doesn't exist, or belongs to another program.
        """
        return []

    def migration_sql(self) -> str | None:
        """The pending migrations as SQL, for an administrator to apply. Changes nothing.

        None if the storage has no such SQL.

        Raises:
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be opened.
        """
        return None

    def diagnose(self, thorough: bool = False) -> Iterator[Finding]:
        """Check the storage, for ``trio-durable doctor``. Changes nothing.

        Called while this `Storage` has no side open; a runtime of another process may have. The
        checks run as the iterator advances. A failed check becomes a finding and not an exception,
        and checks that can't run after it are left out. The default opens a reader.

        Args:
            thorough: Also run checks whose duration grows with the amount of data.
        """
        try:
            pending = self.pending_migrations()
            if pending:
                yield Finding(
                    "schema",
                    "warning",
                    f"migrations are pending: {', '.join(pending)}",
                    "apply them with `trio-durable migrate`, or open a runtime",
                )
                return
            self.open_reader().close()
        except (StorageUnavailable, StorageFault) as error:
            yield Finding("opening", "problem", str(error))
        else:
            yield Finding("opening", "ok", "a reader can be opened, and no migrations are pending")


class SharedStorage(Storage):
    """A storage whose objects the runtimes of several processes may share, see `Membership`."""

    @abstractmethod
    def open_member(self, member: NewMember) -> Writer:
        """Join the other members and return the writing side, whose membership is of a cluster.

        In other respects as `open_writer`. It does not wait for the death of another member.

        Raises:
            StorageInUse: A runtime that isn't in a cluster owns the storage.
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be opened.
        """

    @abstractmethod
    def list_members(self) -> list[MemberRow]:
        """All runtimes that are there, of all groups. Changes nothing, and needs no open side.

        One that has died is among them until another runtime has removed it.

        Raises:
            SchemaTooNew: A newer release has migrated it.
            StorageUnavailable: It can't be read, or its tables are missing or of an older release.
        """
