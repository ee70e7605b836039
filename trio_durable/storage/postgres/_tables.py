"""Tables of one tenant in a PostgreSQL database, and the statements that apply a batch to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

MAX_CACHED_TENANTS = 256
"""Number of tenants whose statements are kept in memory."""


class TenantTables:
    """The tables of a tenant. Methods raise psycopg's errors."""

    def __init__(self, names: Names) -> None:
        self.objects = ObjectTable(names)
        self.alarms = AlarmTable(names)

    def check(
        self, connection: Connection, batch: Sequence[Commit]
    ) -> list[psycopg.Cursor[tuple[Any, ...]]]:
        """Find out without locks whether commits are stale, as part of a pipeline.

        If one is, a result has a row, and `apply_all` changes nothing in the same transaction.
        """
        results = []
        conditional = [commit for commit in batch if commit.revision is not None]
        if conditional:
            results.append(self.objects.check(connection, conditional))
        claims = [(alarm, claim) for _, alarm, claim in acknowledgements(enumerate(batch))]
        if claims:
            results.append(self.alarms.check(connection, claims))
        return results

    def apply_all(self, connection: Connection, batch: Sequence[Commit], now: int) -> None:
        """Apply a batch, by one statement for each kind of change in it.

        The method reads no results, so the statements can go to the server as a pipeline. If a
        commit is stale, one of them fails, and the transaction must be rolled back.

        Deadlocks are avoided by locking rows in the order of keys. A statement does so by itself.
        If several statements would lock existing rows, one statement locks all of them first.
        """
        grouped = GroupedChanges(batch)
        unchanged = [commit for commit in grouped.unchanged if commit.revision]
        # A missing row can't be locked. So it is inserted, for which a concurrent insert waits, and
        # removed again.
        missing = [commit for commit in grouped.unchanged if not commit.revision]
        if unchanged or (grouped.deleted and grouped.saved):
            self.objects.require_fresh(connection, [commit for commit in batch if commit.revision])
        if grouped.saved or missing:
            self.objects.save_all(connection, [*grouped.saved, *missing], now)
        if missing:
            self.objects.remove(connection, missing)
        if grouped.deleted:
            self.objects.delete_all(connection, grouped.deleted)
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


def tables_by_tenant(home: str) -> Callable[[str], TenantTables]:
    """A cached function from a tenant's name to its tables, which need not exist.

    Args:
        home: The schema of the nameless tenant.
    """
    return lru_cache(MAX_CACHED_TENANTS)(lambda tenant: TenantTables(Names(home, tenant)))
