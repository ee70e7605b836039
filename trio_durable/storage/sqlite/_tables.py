"""Tables of one tenant in an SQLite file, and the statements that apply a batch to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from .._batch import GroupedChanges, Stale, acknowledgements, by_tenant
from .._faults import PartialFault, StorageFault
from .._records import Commit
from ._alarms import AlarmTable
from ._migrations import Schema, TableNames, is_partial
from ._objects import ObjectTable
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

MAX_CACHED_TENANTS = 256
"""Number of tenants whose tables the writer keeps in memory."""


def advice_for(message: str) -> str:
    """The remedy for an error of SQLite with this message; "" if there is no particular one."""
    return _ADVICE.get(message, "")


class TenantTables:
    """The tables of a tenant, on one connection. Methods raise sqlite3's errors."""

    def __init__(self, connection: sqlite3.Connection, tenant: str) -> None:
        names = TableNames(tenant)
        self.objects = ObjectTable(connection, names)
        self.alarms = AlarmTable(connection, names)

    def steps(self, batch: Sequence[Commit], now: int) -> Iterator[Callable[[], None]]:
        """The statements that apply a batch, one for each kind of change in it.

        A step raises `Stale` or ``sqlite3.IntegrityError`` if one of its commits is stale. The
        caller then rolls back the transaction.
        """
        grouped = GroupedChanges(batch)
        if grouped.saved:
            yield lambda: self.objects.save(grouped.saved, now, only=False)
        if grouped.deleted:
            yield lambda: _require(self.objects.delete(grouped.deleted))
        if grouped.unchanged:
            yield lambda: _require(not self.objects.stale(enumerate(grouped.unchanged)))
        if grouped.acknowledged:
            yield lambda: _require(self.alarms.acknowledge(grouped.acknowledged))
        if grouped.cleared:
            yield lambda: self.alarms.clear(grouped.cleared)
        if grouped.cancelled:
            yield lambda: self.alarms.cancel(grouped.cancelled)
        if grouped.scheduled:
            yield lambda: self.alarms.set(grouped.scheduled)

    def stale(self, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of the stale commits, of pairs (number, commit)."""
        return self.objects.stale(batch) | self.alarms.lost(acknowledgements(batch))


def _require(is_fresh: bool) -> None:
    if not is_fresh:
        raise Stale


class TenantTablesCache:
    """Cache of the tables of tenants, bounded by dropping the oldest entry."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema) -> None:
        self._connection = connection
        self._schema = schema
        self._known: dict[str, TenantTables] = {}
        self._common = TenantTables(connection, "")  # always exist

    def find(self, tenant: str) -> TenantTables | None:
        """The tables of a tenant; None if it doesn't exist."""
        if not tenant:
            return self._common
        tables = self._known.get(tenant)
        if tables is None and self._schema.has_tenant(tenant):
            if len(self._known) >= MAX_CACHED_TENANTS:
                del self._known[next(iter(self._known))]
            tables = self._known[tenant] = TenantTables(self._connection, tenant)
        return tables

    def of(
        self, items: Iterable[T], tenant_of: Callable[[T], str]
    ) -> list[tuple[TenantTables, list[T]]]:
        """Group items by the tables of their tenant, without those of tenants that don't exist."""
        found = [(self.find(tenant), part) for tenant, part in by_tenant(items, tenant_of).items()]
        return [(tables, part) for tables, part in found if tables is not None]

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
