"""What the runtime asks of a storage, and the records that cross the line.

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

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import attrs

from .._keys import AlarmKey, ObjectKey

Durability = Literal["full", "normal"]
"""Whether a commit that returned also survives a loss of power, or a crash of the server."""


@attrs.define(eq=False)
class NewAlarm:
    """An alarm as it is set."""

    due_at: int
    """In microseconds since 1970 UTC."""
    payload: bytes | None
    """JSON."""


@attrs.define(eq=False)
class AlarmChanges:
    """What turns of one object did to its alarms. Applied in the order of the fields."""

    acknowledged: dict[str, int] = attrs.field(factory=dict)
    """The names of alarms that were handled, and the claims under which they were: these alarms
    go. The claims must still be held, or the commit does not apply."""
    clear: bool = False
    """All alarms go."""
    changed: dict[str, NewAlarm | None] = attrs.field(factory=dict)
    """By name: set anew, with no trace of one that was there; or, if None, cancelled."""

    def touches(self, name: str) -> bool:
        """Whether an alarm of that name, known from before, is no longer what it was."""
        return self.clear or name in self.changed or name in self.acknowledged

    def merge(self, later: AlarmChanges) -> None:
        """Make these and then ``later`` one."""
        self.acknowledged.update(later.acknowledged)
        if later.clear:
            self.clear = True
            self.changed.clear()
        self.changed.update(later.changed)

    @property
    def size(self) -> int:
        """The bytes that they take, roughly."""
        payloads = sum(len(new.payload) for new in self.changed.values() if new and new.payload)
        return payloads + 64 * (len(self.changed) + len(self.acknowledged))


def new_epoch() -> int:
    """An epoch for an object that begins, which no other ever had."""
    return secrets.randbits(62)


@attrs.define(eq=False)
class Commit:
    """What one or more turns of one object changed, to be applied as a whole."""

    key: ObjectKey
    revision: int | None
    """The revision this is based on; 0 if nothing was stored. Applying a new state stores the next
    one. None for changes to alarms alone that come from outside of the object."""
    state: bytes | None = None
    """The encoded state, or None if the turn left it as it was."""
    delete: bool = False
    """Remove the object's row. ``state`` then has no meaning, and ``revision`` isn't None."""
    alarms: AlarmChanges | None = None
    epoch: int = 0
    """Which of the objects that were ever stored under this key it is about: a number that a new
    one is given, up to 2**63 - 1, and that its row keeps."""

    @property
    def writes_anything(self) -> bool:
        """Whether there is something afterwards that there may not have been before."""
        if self.state is not None and not self.delete:
            return True
        return self.alarms is not None and any(self.alarms.changed.values())

    @property
    def expects_anything(self) -> bool:
        """Whether it is stale where nothing is stored."""
        return bool(self.revision or (self.alarms and self.alarms.acknowledged))


@attrs.frozen
class StoredObject:
    """A row as it was read."""

    revision: int
    state: bytes
    epoch: int = 0


NO_TIME = -(2**63)
"""Stands for the time of an alarm whose row has something else in its place. Not a time that an
alarm can be set for."""


@attrs.frozen
class StoredAlarm:
    """An alarm as it was read."""

    key: AlarmKey
    due_at: int
    """When it was set for, in microseconds since 1970 UTC; or `NO_TIME`."""
    payload: bytes | None
    failures: int
    """How often it was handled in vain."""
    last_error: str | None


@attrs.frozen
class DueAlarm:
    """An entry of the horizon feed."""

    available_at: int
    """From when on it can be claimed: due, or due again after a failure, or its claim runs out."""
    key: AlarmKey


@attrs.frozen
class Postponement:
    """What becomes of a claimed alarm that was not acknowledged. The claim is given back."""

    key: AlarmKey
    claim: int
    available_at: int | None
    """When it is due again; None makes it a dead letter, which is kept but never due."""
    failures: int
    last_error: str | None
    """Without NUL and lone surrogates."""


@attrs.frozen
class ObjectRow:
    """An object as it is kept, for those who look through a storage."""

    key: ObjectKey
    revision: int
    updated_at: int
    """When it was last written, in microseconds since 1970 UTC."""
    state: bytes
    epoch: int = 0


AlarmStatus = Literal["pending", "overdue", "dead"]
"""Of an alarm: due later; due or claimed by now, and not acknowledged; a dead letter."""


@attrs.frozen
class AlarmRow:
    """An alarm as it is kept, for those who look through a storage."""

    alarm: StoredAlarm
    available_at: int | None
    """See `DueAlarm`; None for a dead letter."""
    status: AlarmStatus


@attrs.frozen
class TypeSummary:
    """What is kept of a type."""

    type_name: str
    objects: int
    state_bytes: int
    pending: int
    overdue: int
    dead: int


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
            SpoiltRow: One of them can't be read, whatever the others are; without it they may be.
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


class SpoiltRow(StorageFault):
    """The row of one object is not as a storage writes it, by no fault of others."""

    __module__ = "trio_durable.storage"

    def __init__(self, key: ObjectKey, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self._problem = problem

    def __str__(self) -> str:
        return self._problem
