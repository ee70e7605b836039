"""Tables of one tenant in an SQLite file, and the statements that apply a batch to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import attrs

from ..._keys import ObjectKey
from .._batch import GroupedChanges, Stale, acknowledgements, both_names, by_tenant
from .._faults import PartialFault, StorageFault
from .._records import Commit
from ._alarms import MAX_ROWS, AlarmTable
from ._changes import ChangesView, is_needed
from ._message_rows import MessageRows
from ._messages import MessageTable
from ._migrations import Schema, is_partial
from ._names import TableNames
from ._objects import ObjectTable
from ._once import OnceTable
from ._watch import FileWatch

T = TypeVar("T")

UNDECODABLE_MESSAGE = (
    "database disk image is malformed, and SQLite's message is not UTF-8; restore a backup"
)
"""Text for the `UnicodeDecodeError` that sqlite3 raises instead of the database error itself."""

_ADVICE = {
    "file is not a database": "it is not an SQLite file: choose another path",
    "attempt to write a readonly database": "make the file and its folder writable",
    "unable to open database file": "check the path and its permissions",
    "database disk image is malformed": "the file is damaged: restore a backup of it",
    "database is locked": "another program has it locked: close that first",
}

_BOTH = """
WITH named(type_name, object_id) AS (
    SELECT type_name, object_id FROM {objects} UNION SELECT type_name, object_id FROM {alarms}
)
SELECT o.object_id FROM named AS o JOIN named AS n USING (object_id)
WHERE o.type_name = :old AND n.type_name = :new ORDER BY o.object_id LIMIT 1
"""

MAX_CACHED_TENANTS = 256
"""Number of tenants whose tables the writer keeps in memory."""


def advice_for(message: str) -> str:
    """The remedy for an error of SQLite with this message; "" if there is no particular one."""
    return _ADVICE.get(message, "")


class TenantTables:
    """The tables of a tenant, on one connection. Methods raise sqlite3's errors."""

    def __init__(
        self, connection: sqlite3.Connection, tenant: str, numbers: dict[str, int] | None = None
    ) -> None:
        self._connection = connection
        self._names = names = TableNames(tenant)
        rows = MessageRows(connection, names)
        self.objects = ObjectTable(connection, names)
        self.alarms = AlarmTable(connection, names)
        self.messages = MessageTable(rows, tenant, {} if numbers is None else numbers)
        self.once = OnceTable(rows)
        self.changes = ChangesView(connection, names, self.messages)

    def steps(self, batch: Sequence[Commit], now: int) -> Iterator[Step]:
        """The statements that apply a batch, one for each kind of change in it.

        If one of its commits changes messages, one step applies all changes but those of alarms. A
        step raises `Stale` or ``sqlite3.IntegrityError`` if one of its commits is stale. The caller
        then rolls back the transaction.
        """
        grouped = GroupedChanges(batch)
        if any(map(is_needed, batch)):
            yield Step(lambda: self.changes.apply(batch, now), is_transaction=True)
        else:
            if grouped.saved:
                yield Step(lambda: self.objects.save(grouped.saved, now, only=False))
            if grouped.unchanged:
                yield Step(lambda: _require(not self.objects.stale(enumerate(grouped.unchanged))))
        if grouped.acknowledged:
            yield Step(lambda: _require(self.alarms.acknowledge(grouped.acknowledged)))
        if grouped.cleared:
            yield Step(lambda: self.alarms.clear(grouped.cleared), is_transaction=True)
        if grouped.cancelled:
            yield Step(lambda: self.alarms.cancel(grouped.cancelled), is_transaction=True)
        if grouped.scheduled:
            fits = len(grouped.scheduled) <= MAX_ROWS
            yield Step(lambda: self.alarms.set(grouped.scheduled), is_transaction=fits)
        if grouped.conditional:
            yield Step(lambda: self.alarms.set_onto(grouped.conditional, now), is_transaction=True)

    def rename(self, old: str, new: str) -> int:
        """Rename a type everywhere. Part of a transaction. Returns the number of objects.

        Raises:
            PartialFault: Something has both names.
        """
        execute = self._connection.execute
        taken = execute(
            _BOTH.format(objects=self._names.objects, alarms=self._names.alarms),
            {"old": old, "new": new},
        ).fetchone()
        if taken is not None:
            raise PartialFault(both_names(old, ObjectKey(new, taken[0], self._names.tenant)))
        sql = "UPDATE {} SET type_name = ? WHERE type_name = ?"
        count = execute(sql.format(self._names.objects), (new, old)).rowcount
        execute(sql.format(self._names.alarms), (new, old))
        self.messages.rename(old, new)
        self.once.rename(old, new)
        return count

    def stale(self, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of the stale commits, of pairs (number, commit), apart from messages."""
        return self.objects.stale(batch) | self.alarms.lost(acknowledgements(batch))

    def is_stale(self, commit: Commit, now: int) -> bool:
        """True if a commit is stale, by its messages or in another way."""
        if self.stale([(0, commit)]):
            return True
        changes = commit.messages
        if changes is None:
            return False
        waiting = changes.waiting
        if len(set(waiting)) < len(waiting) or not self.messages.are_waiting(waiting):
            return True
        there = self.once.find([reply.key for reply in changes.recorded], now)
        return any(
            found is not None and not (found.is_pending and found.token == reply.token)
            for found, reply in zip(there, changes.recorded, strict=True)
        )


@attrs.frozen
class Step:
    """A part of the code that applies a batch to the tables of one tenant."""

    run: Callable[[], None]
    is_transaction: bool = False
    """True if it is a transaction by itself when it is the only one."""


def _require(is_fresh: bool) -> None:
    if not is_fresh:
        raise Stale


class TenantTablesCache:
    """Cache of the tables of tenants, bounded by dropping the oldest entry."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema) -> None:
        self._connection = connection
        self._schema = schema
        self._known: dict[str, TenantTables] = {}
        self._numbers: dict[str, int] = {}  # no message gets the number of an earlier one
        self._views: set[str] = set()
        self._common = self.new("")  # always exist

    def new(self, tenant: str) -> TenantTables:
        """The tables of a tenant, which the caller has found or is about to create."""
        return TenantTables(self._connection, tenant, self._numbers)

    def find(self, tenant: str) -> TenantTables | None:
        """The tables of a tenant; None if it doesn't exist."""
        if not tenant:
            return self._common
        tables = self._known.get(tenant)
        if tables is None and self._schema.has_tenant(tenant):
            if len(self._known) >= MAX_CACHED_TENANTS:
                del self._known[next(iter(self._known))]
            tables = self._known[tenant] = self.new(tenant)
        return tables

    def of(
        self, items: Iterable[T], tenant_of: Callable[[T], str]
    ) -> list[tuple[TenantTables, list[T]]]:
        """Group items by the tables of their tenant, without those of tenants that don't exist."""
        found = [(self.find(tenant), part) for tenant, part in by_tenant(items, tenant_of).items()]
        return [(tables, part) for tables, part in found if tables is not None]

    def create_views(self, tenants: Iterable[str]) -> None:
        """Create the views of these tenants, which may not exist yet. No transaction is open."""
        needed = set(tenants)
        for tenant in needed - self._views:
            self.new(tenant).changes.create()
        self._views |= needed
        if len(self._views) > MAX_CACHED_TENANTS:
            for tenant in self._views - needed:
                self.new(tenant).changes.drop()
            self._views = needed

    def forget(self, tenant: str) -> None:
        """Drop a tenant from the cache."""
        self._known.pop(tenant, None)


@contextmanager
def checked(watch: FileWatch) -> Iterator[None]:
    """Run the block's transaction or read on the file that was opened, see `_watch`.

    Raises:
        PartialFault: sqlite3 raised an error, and other items may succeed.
        StorageFault: The file isn't the one that was opened, or sqlite3 raised an error.
    """
    if watch.has_failed:
        watch.check_all()
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        watch.check_all()  # SQLite finds the pages of another file malformed
        if isinstance(error, OverflowError) or is_partial(error):
            raise PartialFault(str(error)) from error
        raise StorageFault.of(error) from error
    except UnicodeDecodeError as error:
        watch.check_all()
        raise StorageFault(UNDECODABLE_MESSAGE) from error
    watch.check()
