"""The tables of one tenant in an SQLite file, and what a batch does to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from .._batch import GroupedChanges, Stale, acknowledgements, by_tenant
from .._contract import StorageFault
from .._records import Commit
from ._alarms import AlarmTable
from ._migrations import Schema, TableNames
from ._objects import ObjectTable

T = TypeVar("T")

UNDECODABLE_MESSAGE = "database disk image is malformed, and what SQLite says of it is no text"
"""For the error that sqlite3 raises when it can't even decode the message of SQLite's."""

MAX_CACHED_TENANTS = 256
"""The statements of how many tenants are kept at hand."""


class TenantTables:
    """The tables of a tenant, through one connection. Errors are SQLite's own."""

    def __init__(self, connection: sqlite3.Connection, tenant: str) -> None:
        names = TableNames(tenant)
        self.objects = ObjectTable(connection, names)
        self.alarms = AlarmTable(connection, names)

    def steps(self, batch: Sequence[Commit], now: int) -> Iterator[Callable[[], None]]:
        """What there is to do for a batch: a statement for each kind of thing that is in it.

        Each raises `Stale` or ``sqlite3.IntegrityError`` if something in it is stale; what the
        others did has to be rolled back then.
        """
        work = GroupedChanges(batch)
        if work.saved:
            yield lambda: self.objects.save(work.saved, now, only=False)
        if work.deleted:
            yield lambda: _require(self.objects.delete(work.deleted))
        if work.unchanged:
            yield lambda: _require(not self.objects.stale(enumerate(work.unchanged)))
        if work.acknowledged:
            yield lambda: _require(self.alarms.acknowledge(work.acknowledged))
        if work.cleared:
            yield lambda: self.alarms.clear(work.cleared)
        if work.cancelled:
            yield lambda: self.alarms.cancel(work.cancelled)
        if work.scheduled:
            yield lambda: self.alarms.set(work.scheduled)

    def stale(self, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of those of (number, commit) that are stale."""
        return self.objects.stale(batch) | self.alarms.lost(acknowledgements(batch))


def _require(is_fresh: bool) -> None:
    if not is_fresh:
        raise Stale


class TenantTablesCache:
    """Finds the tables of a tenant, and keeps those of some at hand."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema) -> None:
        self._connection = connection
        self._schema = schema
        self._known: dict[str, TenantTables] = {}
        self._common = TenantTables(connection, "")  # always there

    def find(self, tenant: str) -> TenantTables | None:
        """The tables of a tenant, if it is there."""
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
        """The items of each tenant that is there, with its tables."""
        found = [(self.find(tenant), part) for tenant, part in by_tenant(items, tenant_of).items()]
        return [(tables, part) for tables, part in found if tables is not None]

    def forget(self, tenant: str) -> None:
        """Look anew whether a tenant is there."""
        self._known.pop(tenant, None)


@contextmanager
def storage_faults() -> Iterator[None]:
    """Let SQLite's errors be storage_faults of the storage."""
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        raise StorageFault.of(error) from error
    except UnicodeDecodeError as error:
        raise StorageFault(UNDECODABLE_MESSAGE) from error
