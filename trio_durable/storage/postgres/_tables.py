"""The tables of one tenant in a PostgreSQL database, and what a batch does to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import psycopg

from .._batch import GroupedChanges, acknowledgements
from .._records import Commit
from ._alarms import AlarmTable
from ._connection import Connection
from ._names import Names
from ._objects import ObjectTable

MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
"""The errors of statements on the tables of a tenant that isn't there."""

MAX_CACHED_TENANTS = 256
"""The statements of how many tenants are kept at hand."""


class TenantTables:
    """The tables of a tenant. Errors are psycopg's own."""

    def __init__(self, names: Names) -> None:
        self.objects = ObjectTable(names)
        self.alarms = AlarmTable(names)

    def apply_all(self, connection: Connection, batch: Sequence[Commit], now: int) -> None:
        """Apply a batch, by a statement for each kind of thing that is in it.

        What is there and several statements would lock, one locks before them, in the order of
        keys: two batches that lock one thing first and another second could wait for each other.

        Looks at no results, so the statements may go to the server together. If something is
        stale one of them fails; what the others did has to be undone then.
        """
        work = GroupedChanges(batch)
        unchanged = [commit for commit in work.unchanged if commit.revision]
        # What isn't there can't be locked. So it is made, which whoever else makes it waits for,
        # and removed again.
        missing = [commit for commit in work.unchanged if not commit.revision]
        if unchanged or (work.deleted and work.saved):
            self.objects.require_fresh(connection, [commit for commit in batch if commit.revision])
        if work.saved or missing:
            self.objects.save_all(connection, [*work.saved, *missing], now)
        if missing:
            self.objects.remove(connection, missing)
        if work.deleted:
            self.objects.delete_all(connection, work.deleted)
        changes = (work.acknowledged, work.cleared, work.cancelled, work.scheduled)
        if sum(map(bool, changes)) > 1:
            self._lock_alarms(connection, work)
        if work.acknowledged:
            self.alarms.acknowledge_all(connection, work.acknowledged)
        if work.cleared:
            self.alarms.clear(connection, work.cleared)
        if work.cancelled:
            self.alarms.cancel(connection, work.cancelled)
        if work.scheduled:
            self.alarms.set(connection, work.scheduled)

    def stale(self, connection: Connection, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of those of (number, commit) that are stale.

        What the others are based on is locked, in the order of keys, until the transaction ends.
        """
        conditional = [(number, commit) for number, commit in batch if commit.revision is not None]
        positions = self.objects.stale(connection, [commit for _, commit in conditional])
        if any(commit.alarms for _, commit in batch):
            self._lock_alarms(connection, GroupedChanges(commit for _, commit in batch))
        claims = acknowledgements(batch)
        return {conditional[position][0] for position in positions} | (
            self.alarms.lost(connection, claims) if claims else set()
        )

    def _lock_alarms(self, connection: Connection, work: GroupedChanges) -> None:
        """Lock all alarms that are to be changed, by whichever statements."""
        named = [key for changes in (work.acknowledged, work.scheduled) for key, _ in changes]
        self.alarms.lock(connection, named + work.cancelled, work.cleared)


def tables_by_tenant(home: str) -> Callable[[str], TenantTables]:
    """What tells the tables of a tenant, whether it is there or not.

    Args:
        home: The schema of the nameless tenant.
    """
    return lru_cache(MAX_CACHED_TENANTS)(lambda tenant: TenantTables(Names(home, tenant)))
