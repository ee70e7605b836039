"""Reader of an SQLite file.

A read of a tenant first checks that its tables exist, in the same transaction. Another process may
drop the tenant at any time, and SQLite fails a statement on a missing table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from ..._keys import AlarmKey, ObjectKey
from .._batch import by_tenant, load_by_tenant, summaries
from .._contract import Reader
from .._messages import (
    DeadMessage,
    DueMessage,
    MessageKey,
    MessageSummary,
    OnceKey,
    OnceReply,
    Receiver,
    StoredMessage,
)
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

    def load_alarms(self, alarms: Sequence[AlarmKey], now: int) -> list[AlarmRow | None]:
        found: dict[AlarmKey, AlarmRow | None] = {}
        for tenant, part in by_tenant(alarms, lambda key: key.tenant).items():
            with self._reading(tenant) as tables:
                if tables:
                    found.update(zip(part, tables.alarms.load(part, now), strict=True))
        return [found.get(key) for key in alarms]

    def recurring_alarms(
        self,
        type_name: str,
        name: str,
        due_after: int,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredAlarm]:
        with self._reading(tenant) as tables:
            if tables is None:
                return []
            return tables.alarms.recurring(type_name, name, due_after, after, limit)

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        with self._reading(tenant) as tables:
            return tables.alarms.dead(type_name, after, limit) if tables else []

    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        with checked(self._watch):
            return self._schema.tenants(after or "", limit, self._schema.moves)

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

    # --- messages --------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with transaction(self._connection, writes=False):
            # SQLite takes its snapshot with the first read.
            self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            yield

    def list_receivers(
        self, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[Receiver]:
        with self._reading(tenant) as tables:
            return tables.messages.receivers(after, limit) if tables else []

    def read_mail(
        self, to: ObjectKey, after: str | None, lanes: int, limit: int
    ) -> list[StoredMessage]:
        with self._reading(to.tenant) as tables:
            return tables.messages.mail(to, after, lanes, limit) if tables else []

    def read_lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        with self._reading(to.tenant) as tables:
            return tables.messages.lane(to, lane, after, limit) if tables else []

    def load_messages(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        found: dict[MessageKey, StoredMessage | None] = {}
        for tenant, part in by_tenant(keys, lambda key: key.to.tenant).items():
            with self._reading(tenant) as tables:
                if tables:
                    found.update(zip(part, tables.messages.load(part), strict=True))
        return [found.get(key) for key in keys]

    def due_messages(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueMessage]:
        with self._reading(tenant) as tables:
            return tables.messages.due(before, after, limit, except_types) if tables else []

    def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        with self._reading(sender.tenant) as tables:
            return tables.messages.find_sent(sender, sender_key) if tables else None

    def list_messages(
        self,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredMessage]:
        with self._reading(tenant) as tables:
            return tables.messages.waiting(type_name, object_id, after, limit) if tables else []

    def list_dead_messages(
        self, type_name: str | None, after: int, limit: int, tenant: str = ""
    ) -> list[DeadMessage]:
        with self._reading(tenant) as tables:
            return tables.messages.dead(type_name, after, limit) if tables else []

    def load_dead_messages(
        self, tokens: Sequence[int], tenant: str = ""
    ) -> list[DeadMessage | None]:
        with self._reading(tenant) as tables:
            return tables.messages.load_dead(tokens) if tables else [None] * len(tokens)

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        found: dict[OnceKey, OnceReply | None] = {}
        for tenant, part in by_tenant(keys, lambda key: key.to.tenant).items():
            with self._reading(tenant) as tables:
                if tables:
                    found.update(zip(part, tables.once.find(part, now), strict=True))
        return [found.get(key) for key in keys]

    def list_once(self, after: OnceKey | None, limit: int, tenant: str = "") -> list[OnceReply]:
        with self._reading(tenant) as tables:
            return tables.once.page(after, limit) if tables else []

    def summarize_messages(self, tenant: str = "") -> list[MessageSummary]:
        with self._reading(tenant) as tables:
            return tables.messages.summarize() if tables else []

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _reading(self, tenant: str) -> Iterator[TenantTables | None]:
        """The tables of a tenant, or None; they exist until the block ends.

        Raises a `StorageFault` at its end if the file isn't the one that was opened, see `_watch`.
        """
        with checked(self._watch):
            if not tenant:
                yield self._common
            elif self._connection.in_transaction:  # a snapshot
                yield self._tables_of(tenant)
            else:
                with transaction(self._connection, writes=False):
                    yield self._tables_of(tenant)

    def _tables_of(self, tenant: str) -> TenantTables | None:
        return TenantTables(self._connection, tenant) if self._schema.has_tenant(tenant) else None
