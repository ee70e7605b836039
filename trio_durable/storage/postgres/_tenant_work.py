"""Work on the tables of tenants by a writer, with faults of items and tenants apart.

Each item of a batch is of one tenant. A fault that isn't of the whole server becomes a
`PartialFault`, see `_isolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from .._batch import by_tenant
from .._faults import PartialFault, StorageFault
from ._connection import Connection
from ._isolation import LockWatch, is_lock_timeout, is_table_lock, isolated
from ._migrations import NewerRelease, Schema
from ._nodes import NodeTable
from ._reconnecting import ReconnectingConnection
from ._tables import MISSING, TenantTables, tables_by_tenant
from ._tenants import KnownTenants

T = TypeVar("T")
R = TypeVar("R")

MAX_TENANTS = 64
"""Number of tenants that one transaction may use. Each takes seven locks, or 21 with messages."""


class TenantWork:
    """The connection of one writer, and the tenants that it knows."""

    def __init__(
        self, reconnecting: ReconnectingConnection, schema: Schema, tenants: KnownTenants
    ) -> None:
        self._reconnecting = reconnecting
        self._nodes = NodeTable(schema.home)
        self._schema = schema
        self._tenants = tenants
        self._tables_of = tables_by_tenant(schema.home, schema.jobs)
        self._locks = LockWatch()

    def _apply_to(self, tenant: str, work: Callable[[Connection, TenantTables], int]) -> int:
        """Call ``work``, one statement; 0 if the tenant doesn't exist."""
        done = self._apply(
            [tenant],
            lambda tenant: tenant,
            lambda connection, tables, _: work(connection, tables),
        )
        return sum(done)

    def _changes_one(self, tenant: str, work: Callable[[Connection, TenantTables], bool]) -> bool:
        """Call ``work``, one statement; False if the tenant doesn't exist."""
        return self._apply_to(tenant, work) > 0

    def _isolated(self, tenants: Sequence[str], work: Callable[[Connection], T]) -> T:
        """Call ``work``, and tell faults of items and tenants from those of the server.

        It is called again if a wait for a lock ended without it, or if another process dropped a
        tenant.

        Args:
            tenants: The tenant of each item that ``work`` is about. They are looked up first.
            work: A transaction.

        Raises:
            Stale: See `ReconnectingConnection.run`.
            PartialFault: The fault is of some of the items. Nothing was applied.
            StorageFault: It failed.
        """
        self._locks.refuse(tenants)
        may_forget = True

        def run(connection: Connection) -> T:
            self._look_up(connection, set(tenants))
            self._tenants.refuse(tenants)
            return work(connection)

        while True:
            was_wary = self._locks.is_wary
            try:
                return self._reconnecting.run(run)
            except PartialFault:
                raise
            except StorageFault as fault:
                if isinstance(fault.__cause__, MISSING) and may_forget:
                    may_forget = False
                    if self._tenants.forget(set(tenants)):
                        continue
                if is_lock_timeout(fault):
                    self._locks.timed_out()
                    if not was_wary:
                        continue
                    if is_table_lock(fault) and len(set(tenants)) == 1:
                        self._locks.table_locked(tenants[0], str(fault))
                raise isolated(fault, tenants) from fault.__cause__

    def _apply(
        self,
        items: Sequence[T],
        tenant_of: Callable[[T], str],
        work: Callable[[Connection, TenantTables, list[T]], R],
        statements: int = 1,
    ) -> list[R]:
        """Call ``work`` with the items of each existing tenant, in one transaction.

        Args:
            items: The items.
            tenant_of: The tenant of an item.
            work: Applies items of one tenant.
            statements: How many it executes at most.
        """
        parts = sorted(by_tenant(items, tenant_of).items())

        def run(connection: Connection) -> list[R]:
            found = [(self._find(tenant), part) for tenant, part in parts]
            there = [(tables, part) for tables, part in found if tables is not None]
            if len(there) == statements == 1 and not self._locks.is_wary:
                ((tables, part),) = there
                return [work(connection, tables, part)]  # one statement is a transaction by itself
            with self._locks.transaction(connection):
                self._nodes.begin(connection)
                return [work(connection, tables, part) for tables, part in there]

        if not parts:
            return []
        return self._isolated([tenant_of(item) for item in items], run)

    def _look_up(self, connection: Connection, tenants: Collection[str]) -> None:
        """Let `_find` know the existing ones of ``tenants``.

        Raises:
            PartialFault: These are too many for one transaction.
        """
        if len(tenants) > MAX_TENANTS:
            raise PartialFault(f"{len(tenants)} tenants are too many for one transaction")
        self._tenants.look_up(connection, self._schema, tenants)

    def _find(self, tenant: str) -> TenantTables | None:
        """The tables of a tenant that was looked up; None if it doesn't exist."""
        return self._tables_of(tenant) if tenant in self._tenants else None

    def _add_tenants(self, connection: Connection, new: dict[str, list[int]]) -> None:
        """Create tenants, at the beginning of a transaction.

        Args:
            connection: It has a transaction open.
            new: The tenants, each with the positions of its commits.

        Raises:
            PartialFault: A newer release has migrated the database.
        """
        try:
            self._schema.add_tenants(connection, list(new))
        except NewerRelease as error:
            positions = [at for its in new.values() for at in its]
            raise PartialFault(str(error), positions) from error
