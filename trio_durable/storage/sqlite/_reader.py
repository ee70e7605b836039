"""Reader of an SQLite file.

A read of a tenant first checks that its tables exist, in the same transaction. Another process may
drop the tenant at any time, and SQLite fails a statement on a missing table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from ..._keys import AlarmKey, ObjectKey
from .._batch import load_by_tenant, summaries
from .._contract import Reader
from .._records import (
    AlarmRow,
    AlarmStatus,
    DueAlarm,
    ObjectRow,
    StoredAlarm,
    StoredObject,
    TypeSummary,
)
from ._migrations import Schema
from ._tables import TenantTables, checked
from ._transaction import transaction
from ._watch import FileWatch


class SQLiteReader(Reader):
    """Reads on a connection of its own. Each read sees all batches committed before it began."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema, watch: FileWatch) -> None:
        self._connection = connection
        self._schema = schema
        self._watch = watch
        self._common = TenantTables(connection, "")

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return load_by_tenant(keys, self._load_of)

    def _load_of(self, tenant: str, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        with self._reading(tenant) as tables:
            return tables.objects.load(keys) if tables else [None] * len(keys)

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        with self._reading(tenant) as tables:
            return tables.objects.list_ids(type_name, after, limit) if tables else []

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        with self._reading(tenant) as tables:
            return tables.alarms.due(before, after, limit, except_types) if tables else []

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        with self._reading(key.tenant) as tables:
            return tables.alarms.of_object(key) if tables else []

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        with self._reading(tenant) as tables:
            return tables.alarms.dead(type_name, after, limit) if tables else []

    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        with checked(self._watch):
            return self._schema.tenants(after or "", limit)

    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        with self._reading(tenant) as tables:
            return tables.objects.browse(type_name, after, limit) if tables else []

    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        with self._reading(tenant) as tables:
            return tables.alarms.browse(status, now, type_name, after, limit) if tables else []

    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        with self._reading(tenant) as tables:
            if tables is None:
                return []
            return summaries(tables.objects.summarize(), tables.alarms.summarize(now))

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _reading(self, tenant: str) -> Iterator[TenantTables | None]:
        """The tables of a tenant, or None; they exist until the block ends.

        Raises a `StorageFault` at its end if the file isn't the one that was opened, see `_watch`.
        """
        with checked(self._watch):
            if tenant:
                with transaction(self._connection, writes=False):
                    exists = self._schema.has_tenant(tenant)
                    yield TenantTables(self._connection, tenant) if exists else None
            else:
                yield self._common
