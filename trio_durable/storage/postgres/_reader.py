"""Reader of a PostgreSQL database.

Each read is one statement, which sees all batches committed before it began. Before the first read
of a tenant there is a query for its existence. Without it a read of a missing tenant would be an
error in the server's log.

A fault of one tenant is a `PartialFault`, see `_isolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ..._keys import AlarmKey, ObjectKey
from .._batch import load_by_tenant, summaries
from .._contract import Reader
from .._faults import StorageFault
from .._records import (
    AlarmRow,
    AlarmStatus,
    DueAlarm,
    ObjectRow,
    StoredAlarm,
    StoredObject,
    TypeSummary,
)
from ._connection import Connection
from ._isolation import LockWatch, is_lock_timeout, isolated
from ._migrations import Schema
from ._reconnecting import ReconnectingConnection
from ._shard_function import Feed
from ._tables import MISSING, TenantTables, tables_by_tenant
from ._tenants import KnownTenants

T = TypeVar("T")


class PostgresReader(Reader):
    """Reads on a connection of its own. Each read sees all batches committed before it began."""

    def __init__(
        self,
        reconnecting: ReconnectingConnection,
        schema: Schema,
        tenants: KnownTenants,
        feed: Feed,
    ) -> None:
        self._reconnecting = reconnecting
        self._feed = feed
        self._schema = schema
        self._tenants = tenants
        self._tables_of = tables_by_tenant(schema.home)
        self._locks = LockWatch()

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        self._look_up(list({key.tenant for key in keys}))
        return load_by_tenant(keys, self._load_of)

    def _load_of(self, tenant: str, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        return self._read(
            tenant,
            [None] * len(keys),
            lambda connection, tables: tables.objects.load(connection, keys),
            len(keys),
        )

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.objects.list_ids(connection, type_name, after, limit),
        )

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        shards = self._feed.shards
        if shards is not None and not shards:
            return []
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.alarms.due(
                connection, before, after, limit, except_types, shards
            ),
        )

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        return self._read(
            key.tenant, [], lambda connection, tables: tables.alarms.of_object(connection, key)
        )

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.alarms.dead(connection, type_name, after, limit),
        )

    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        tenants = self._reconnecting.run(
            lambda connection: self._schema.tenants(connection, after or "", limit)
        )
        self._look_up(tenants)  # because they are likely to be read next
        return tenants

    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.objects.browse(connection, type_name, after, limit),
        )

    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.alarms.browse(
                connection, status, now, type_name, after, limit
            ),
        )

    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: summaries(
                tables.objects.summarize(connection), tables.alarms.summarize(connection, now)
            ),
        )

    def close(self) -> None:
        self._reconnecting.close()

    # --- inside ----------------------------------------------------------------------------------

    def _read(
        self,
        tenant: str,
        nothing: T,
        read: Callable[[Connection, TenantTables], T],
        items: int = 1,
    ) -> T:
        """Read from a tenant's tables.

        Args:
            tenant: The tenant.
            nothing: The result if the tenant doesn't exist.
            read: One or more statements.
            items: The number of items that ``read`` is about.

        Raises:
            PartialFault: The fault is of some of the items.
            StorageFault: Reading failed.
        """
        tenants = [tenant] * items
        self._locks.refuse(tenants)
        if not self._can_use(tenant, tenants):
            return nothing
        tables = self._tables_of(tenant)

        def run(connection: Connection) -> T:
            if not self._locks.is_wary:
                return read(connection, tables)
            with self._locks.transaction(connection):
                return read(connection, tables)

        try:
            return self._reconnecting.run(run)
        except StorageFault as fault:
            is_gone = isinstance(fault.__cause__, MISSING) and self._tenants.forget([tenant])
            if is_gone and not self._can_use(tenant, tenants):
                return nothing
            if is_lock_timeout(fault):
                self._locks.table_locked(tenant, str(fault))
            raise isolated(fault, tenants) from fault.__cause__

    def _can_use(self, tenant: str, items: Sequence[str]) -> bool:
        """Look a tenant up. Returns whether it exists.

        Args:
            tenant: The tenant.
            items: See `KnownTenants.refuse`.

        Raises:
            PartialFault: It can't be used.
            StorageFault: Reading failed.
        """
        self._look_up([tenant])
        self._tenants.refuse(items)
        return tenant in self._tenants

    def _look_up(self, tenants: Sequence[str]) -> None:
        if not all(tenant in self._tenants for tenant in tenants):
            try:
                self._reconnecting.run(
                    lambda connection: self._tenants.look_up(connection, self._schema, tenants)
                )
            except StorageFault as fault:
                raise isolated(fault, tenants) from fault.__cause__
