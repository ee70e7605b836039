"""Writer of a PostgreSQL database.

Commits are optimistic. A batch of saves is one statement, which returns the stale ones. Any other
batch is sent as a pipeline: all its statements in one transaction and one round trip, which fails
as a whole if a commit is stale. Only then a second transaction locks the batch's rows in the order
of keys, finds the stale commits and applies the others.

Several runtimes may write at once, each with a writer of its own. Row locks order their
transactions; a writer holds nothing beyond a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from ..._keys import AlarmKey
from .._batch import Stale, by_tenant
from .._contract import StorageFault, Writer
from .._records import Commit, Postponement, StoredAlarm
from ._connection import Connection
from ._migrations import Schema
from ._reconnecting import ReconnectingConnection
from ._tables import MISSING, TenantTables, tables_by_tenant

T = TypeVar("T")
R = TypeVar("R")

_MAX_ATTEMPTS = 10
"""How often the second transaction is tried while other writers keep changing the same rows."""


class PostgresWriter(Writer):
    """One of several concurrent writers of a database."""

    def __init__(self, reconnecting: ReconnectingConnection, schema: Schema) -> None:
        self._reconnecting = reconnecting
        self._schema = schema
        self._tables_of = tables_by_tenant(schema.home)
        self._known_tenants: set[str] = {""}
        """Cache of existing tenants. Another process may have dropped one since."""

    # --- commits ---------------------------------------------------------------------------------

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if not batch:
            return ()
        try:
            return self._run(lambda connection: self._commit_all(connection, batch, now))
        except Stale:
            pass
        for _ in range(_MAX_ATTEMPTS):
            try:
                return self._run(lambda connection: self._commit_fresh(connection, batch, now))
            except Stale:  # another writer changed a row between two statements
                continue
        raise StorageFault(
            f"other writers changed the same objects during each of {_MAX_ATTEMPTS} attempts; "
            "nothing was applied: call again"
        )

    def _commit_all(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Collection[int]:
        """Apply a batch. Other than a batch of saves, it applies nothing if a commit is stale.

        Raises:
            Stale: Nothing was applied.
        """
        parts = by_tenant(batch, lambda commit: commit.key.tenant)
        found = [(self._find(connection, tenant), part) for tenant, part in sorted(parts.items())]
        (tables, _), *others = found
        if tables is not None and not others and all(map(_only_saves, batch)):
            return tables.objects.save_any(connection, batch, now)
        if any(
            tables is None and any(c.writes_anything or c.expects_anything for c in part)
            for tables, part in found
        ):
            raise Stale  # a tenant has to be created, or a commit is stale

        def send() -> None:
            for tables, part in found:
                if tables is not None:
                    tables.apply_all(connection, part, now)

        connection.pipelined(send)
        return ()

    def _commit_fresh(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Collection[int]:
        """Apply the commits that aren't stale. Returns the positions of the stale ones.

        Raises:
            Stale: Another writer changed a row meanwhile. Nothing was applied.
        """
        stale: set[int] = set()
        fresh: list[tuple[TenantTables, list[Commit]]] = []
        parts = by_tenant(enumerate(batch), lambda each: each[1].key.tenant)
        with connection.transaction():
            for tenant, part in sorted(parts.items()):
                tables = self._find(connection, tenant)
                if tables is not None:
                    stale |= tables.stale(connection, part)
                else:
                    stale.update(at for at, commit in part if commit.expects_anything)
                    if any(commit.writes_anything for at, commit in part if at not in stale):
                        self._schema.add_tenant(connection, tenant)
                        tables = self._tables_of(tenant)
                if tables is not None:
                    fresh.append((tables, [commit for at, commit in part if at not in stale]))
            for tables, kept in fresh:
                tables.apply_all(connection, kept, now)
        return stale

    # --- alarms ----------------------------------------------------------------------------------

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        return [
            alarm
            for each in self._apply(
                alarms,
                lambda alarm: alarm.tenant,
                lambda connection, tables, part: tables.alarms.claim(
                    connection, part, claim, now, until
                ),
            )
            for alarm in each
        ]

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self._apply(
            claims,
            lambda claim: claim[0].tenant,
            lambda connection, tables, part: tables.alarms.renew(connection, part, until),
        )

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self._apply(
            postponements,
            lambda each: each.key.tenant,
            lambda connection, tables, part: tables.alarms.postpone(connection, part),
        )

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        revived = self._apply(
            [alarm],
            lambda alarm: alarm.tenant,
            lambda connection, tables, part: tables.alarms.revive(connection, alarm, now),
        )
        return any(revived)

    # --- tenants ---------------------------------------------------------------------------------

    def drop_tenant(self, tenant: str) -> bool:
        self._known_tenants.discard(tenant)
        return self._run(lambda connection: self._schema.drop_tenant(connection, tenant))

    def close(self) -> None:
        self._reconnecting.close()

    # --- inside ----------------------------------------------------------------------------------

    def _run(self, work: Callable[[Connection], T]) -> T:
        """`ReconnectingConnection.run`, once more if another process dropped a tenant meanwhile."""
        try:
            return self._reconnecting.run(work)
        except StorageFault as fault:
            if self._known_tenants == {""} or not isinstance(fault.__cause__, MISSING):
                raise
        self._known_tenants = {""}
        return self._reconnecting.run(work)

    def _apply(
        self,
        items: Iterable[T],
        tenant_of: Callable[[T], str],
        work: Callable[[Connection, TenantTables, list[T]], R],
    ) -> list[R]:
        """Call ``work`` with the items of each existing tenant, in one transaction."""
        parts = sorted(by_tenant(items, tenant_of).items())

        def run(connection: Connection) -> list[R]:
            found = [(self._find(connection, tenant), part) for tenant, part in parts]
            there = [(tables, part) for tables, part in found if tables is not None]
            if len(there) == 1:
                ((tables, part),) = there
                return [work(connection, tables, part)]  # one statement is a transaction by itself
            with connection.transaction():
                return [work(connection, tables, part) for tables, part in there]

        return self._run(run) if parts else []

    def _find(self, connection: Connection, tenant: str) -> TenantTables | None:
        """The tables of a tenant; None if it doesn't exist."""
        if tenant not in self._known_tenants:
            if not self._schema.has_tenant(connection, tenant):
                return None
            self._known_tenants.add(tenant)
        return self._tables_of(tenant)


def _only_saves(commit: Commit) -> bool:
    return commit.state is not None and not commit.delete and commit.alarms is None
