"""Reader of a PostgreSQL database.

Each read is one statement, which sees all batches committed before it began. Before the first read
of a tenant there is a query for its existence. Without it a read of a missing tenant would be an
error in the server's log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ..._keys import AlarmKey, ObjectKey
from .._batch import load_by_tenant, summaries
from .._contract import Reader, StorageFault
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
from ._migrations import Schema
from ._names import Names
from ._reconnecting import ReconnectingConnection
from ._tables import MISSING, TenantTables, tables_by_tenant

T = TypeVar("T")


class PostgresReader(Reader):
    """Reads on a connection of its own. Each read sees all batches committed before it began."""

    def __init__(self, reconnecting: ReconnectingConnection, schema: Schema) -> None:
        self._reconnecting = reconnecting
        self._schema = schema
        self._tables_of = tables_by_tenant(schema.home)
        self._query_tenant = Names(schema.home).query("SELECT FROM {tenants} WHERE name = %s")
        self._known_tenants: set[str] = {""}
        """Cache of existing tenants. Another process may have dropped one since."""

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return load_by_tenant(keys, self._load_of)

    def _load_of(self, tenant: str, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        return self._read(
            tenant,
            [None] * len(keys),
            lambda connection, tables: tables.objects.load(connection, keys),
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
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.alarms.due(
                connection, before, after, limit, except_types
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
        return self._reconnecting.run(
            lambda connection: self._schema.tenants(connection, after or "", limit)
        )

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

    def _read(self, tenant: str, nothing: T, read: Callable[[Connection, TenantTables], T]) -> T:
        """Read from a tenant's tables; ``nothing`` if the tenant doesn't exist."""
        tables = self._tables_of(tenant)
        if tenant not in self._known_tenants:
            found = self._reconnecting.run(
                lambda connection: connection.execute(self._query_tenant, (tenant,)).fetchone()
            )
            if found is None:
                return nothing
            self._known_tenants.add(tenant)
        try:
            return self._reconnecting.run(lambda connection: read(connection, tables))
        except StorageFault as fault:
            if tenant and isinstance(fault.__cause__, MISSING):
                self._known_tenants.discard(tenant)
                return nothing
            raise
