"""Tables of one tenant in a PostgreSQL database, and the statements that apply a batch to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from .._batch import GroupedChanges, acknowledgements
from .._records import Commit
from ._alarms import AlarmTable
from ._connection import Connection
from ._names import Names
from ._objects import ObjectTable

MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
"""Errors of statements on the tables of a tenant that doesn't exist."""

Result = psycopg.Cursor[tuple[Any, ...]]

MAX_CACHED_TENANTS = 256
"""Number of tenants whose statements are kept in memory."""


class TenantTables:
    """The tables of a tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self.objects = ObjectTable(names)
        self.alarms = AlarmTable(names)

    def apply(self, connection: Connection, batch: Sequence[Commit], now: int) -> list[Result]:
        """Apply the commits that aren't stale, by one statement for each kind of change.

        The method reads no results, so the statements can go to the server as a pipeline. It is
        part of a transaction. A claim that was lost in this very moment makes a statement fail, and
        so does a save whose row was deleted; then the transaction must be rolled back.

        Deadlocks are avoided by locking rows in the order of keys, those of objects before those of
        alarms. A statement does so by itself. If several statements would lock existing rows, one
        statement locks all of them first.

        Returns:
            The results, each with a row if commits are stale, see `ObjectTable.save`.
        """
        results: list[Result] = []
        grouped = GroupedChanges(batch)
        if grouped.acknowledged:
            results.append(self.alarms.check(connection, grouped.acknowledged))
        unchanged = [commit for commit in grouped.unchanged if commit.revision]
        # A missing row can't be locked. So it is inserted, for which a concurrent insert waits, and
        # removed again.
        missing = [commit for commit in grouped.unchanged if not commit.revision]
        if unchanged or (grouped.deleted and grouped.saved):
            stored = [commit for commit in batch if commit.revision]
            results.append(self.objects.require_fresh(connection, stored))
        if grouped.saved or missing:
            results.append(self.objects.save(connection, [*grouped.saved, *missing], now))
        if missing:
            self.objects.remove(connection, missing)
        if grouped.deleted:
            results.append(self.objects.delete(connection, grouped.deleted))
        changes = (grouped.acknowledged, grouped.cleared, grouped.cancelled, grouped.scheduled)
        if sum(map(bool, changes)) > 1:
            self._lock_alarms(connection, grouped)
        if grouped.acknowledged:
            self.alarms.acknowledge_all(connection, grouped.acknowledged)
        if grouped.cleared:
            self.alarms.clear(connection, grouped.cleared)
        if grouped.cancelled:
            self.alarms.cancel(connection, grouped.cancelled)
        if grouped.scheduled:
            self.alarms.set(connection, grouped.scheduled)
        return results

    def stale(self, connection: Connection, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of the stale commits, of pairs (number, commit).

        Locks the rows of the others, in the order of keys, until the transaction ends.
        """
        conditional = [(number, commit) for number, commit in batch if commit.revision is not None]
        positions = self.objects.stale(connection, [commit for _, commit in conditional])
        if any(commit.alarms for _, commit in batch):
            self._lock_alarms(connection, GroupedChanges(commit for _, commit in batch))
        claims = acknowledgements(batch)
        return {conditional[position][0] for position in positions} | (
            self.alarms.lost(connection, claims) if claims else set()
        )

    def locked(self, connection: Connection, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of the commits whose rows or alarms other sessions have locked.

        Waits for locks of the tables only. Locks the rows of the others.

        Args:
            connection: It has a transaction open.
            batch: Pairs (number, commit).
        """
        positions = self.objects.locked(connection, [commit for _, commit in batch])
        numbers = {batch[position][0] for position in positions}
        if any(commit.alarms for _, commit in batch):
            numbers |= self.alarms.locked(connection, batch)
        return numbers

    def _lock_alarms(self, connection: Connection, grouped: GroupedChanges) -> None:
        """Lock all alarms that the batch changes, by one statement."""
        named = [key for changes in (grouped.acknowledged, grouped.scheduled) for key, _ in changes]
        self.alarms.lock(connection, named + grouped.cancelled, grouped.cleared)


def stale_positions(
    batch: Sequence[Commit], results: Iterable[tuple[str, Sequence[Result]]]
) -> set[int]:
    """The positions of the commits that are stale by the results of `TenantTables.apply`.

    Args:
        batch: All commits.
        results: Pairs (tenant, results).
    """
    keys = {
        (tenant, *key)
        for tenant, cursors in results
        for cursor in cursors
        for row in cursor
        for key in zip(row[0], row[1], strict=True)
    }
    if not keys:
        return set()
    return {
        position
        for position, commit in enumerate(batch)
        if (commit.key.tenant, commit.key.type_name, commit.key.object_id) in keys
    }


def tables_by_tenant(home: str) -> Callable[[str], TenantTables]:
    """A cached function from a tenant's name to its tables, which need not exist.

    Args:
        home: The schema of the nameless tenant.
    """
    return lru_cache(MAX_CACHED_TENANTS)(lambda tenant: TenantTables(Names(home, tenant)))
