"""The tables of one tenant in a PostgreSQL database, and what a batch does to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from ._batch import Work
from ._contract import Commit
from ._postgres_alarms import AlarmTable
from ._postgres_names import Names
from ._postgres_objects import ObjectTable

Connection = psycopg.Connection[tuple[Any, ...]]

MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
"""The errors of statements on the tables of a tenant that isn't there."""

_MAX_KNOWN = 256
"""The statements of how many tenants are kept at hand."""


class TenantTables:
    """The tables of a tenant. Errors are psycopg's own."""

    def __init__(self, names: Names) -> None:
        self.objects = ObjectTable(names)
        self.alarms = AlarmTable(names)

    def apply_all(self, connection: Connection, batch: Sequence[Commit], now: int) -> None:
        """Apply a batch, by a statement for each kind of thing that is in it.

        Looks at no results, so the statements may go to the server together. If something is
        stale one of them fails; what the others did has to be undone then.
        """
        work = Work(batch)
        if work.saved:
            self.objects.save_all(connection, work.saved, now)
        if work.deleted:
            self.objects.delete_all(connection, work.deleted)
        if work.untouched:
            self.objects.require_untouched(connection, work.untouched)
        if work.acknowledged:
            self.alarms.acknowledge_all(connection, work.acknowledged)
        if work.cleared:
            self.alarms.clear(connection, work.cleared)
        if work.cancelled:
            self.alarms.cancel(connection, work.cancelled)
        if work.set_anew:
            self.alarms.set(connection, work.set_anew)

    def stale(self, connection: Connection, batch: Sequence[tuple[int, Commit]]) -> set[int]:
        """The numbers of those of (number, commit) that are stale.

        What the others are based on is locked, in the order of keys, until the transaction ends.
        """
        conditional = [(number, commit) for number, commit in batch if commit.revision is not None]
        positions = self.objects.stale(connection, [commit for _, commit in conditional])
        claims = [
            (number, commit.key.alarm(name), claim)
            for number, commit in batch
            if commit.alarms
            for name, claim in commit.alarms.acknowledged.items()
        ]
        return {conditional[position][0] for position in positions} | (
            self.alarms.lost(connection, claims) if claims else set()
        )


class TablesOfTenants:
    """The tables of each tenant, whether it is there or not.

    Args:
        home: The schema of the nameless tenant.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        self._known: dict[str, TenantTables] = {}
        self.common = TenantTables(Names(home))
        """Those of the nameless tenant, which are always there."""

    def of(self, tenant: str) -> TenantTables:
        """The tables of a tenant."""
        if not tenant:
            return self.common
        tables = self._known.get(tenant)
        if tables is None:
            if len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            tables = self._known[tenant] = TenantTables(Names(self._home, tenant))
        return tables
