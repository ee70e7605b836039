"""Reader of a PostgreSQL database.

Each read is one statement, which sees all batches committed before it began. Before the first read
of a tenant there is a query for its existence. Without it a read of a missing tenant would be an
error in the server's log.

A fault of one tenant is a `PartialFault`, see `_isolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from ..._keys import AlarmKey, ObjectKey
from .._batch import by_tenant, load_by_tenant, summaries
from .._contract import Reader
from .._faults import StorageFault
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
from ._connection import Connection
from ._isolation import LockWatch, is_lock_timeout, isolated
from ._migrations import Schema
from ._reconnecting import ReconnectingConnection
from ._shard_function import Feed
from ._steps import MESSAGE_SHARDS
from ._tables import MISSING, TenantTables, tables_by_tenant
from ._tenants import KnownTenants

K = TypeVar("K")
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
        self._tables_of = tables_by_tenant(schema.home, schema.jobs)
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

    def load_alarms(self, alarms: Sequence[AlarmKey], now: int) -> list[AlarmRow | None]:
        found: dict[AlarmKey, AlarmRow | None] = {}
        parts = by_tenant(alarms, lambda key: key.tenant)
        self._look_up(list(parts))
        for tenant, part in parts.items():
            rows = self._read(
                tenant,
                [None] * len(part),
                lambda connection, tables, part=part: tables.recurrences.load(  # type: ignore[misc]
                    connection, part, now
                ),
                len(part),
            )
            found.update(zip(part, rows, strict=True))
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
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.recurrences.recurring(
                connection, type_name, name, due_after, after, limit
            ),
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
            lambda connection: self._schema.tenants(
                connection, after or "", limit, self._schema.moves
            )
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

    # --- messages --------------------------------------------------------------------------------

    def snapshot(self) -> AbstractContextManager[None]:
        return self._reconnecting.snapshot()

    def list_receivers(
        self, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[Receiver]:
        fed = self._feed.shards
        shards = range(MESSAGE_SHARDS) if fed is None else fed.numbers()
        if not shards:
            return []
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.messages.receivers(connection, after, limit, shards),
        )

    def read_mail(
        self, to: ObjectKey, after: str | None, lanes: int, limit: int
    ) -> list[StoredMessage]:
        return self._read(
            to.tenant,
            [],
            lambda connection, tables: tables.messages.mail(connection, to, after, lanes, limit),
        )

    def read_lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        return self._read(
            to.tenant,
            [],
            lambda connection, tables: tables.messages.lane(connection, to, lane, after, limit),
        )

    def load_messages(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        return self._read_each(
            keys,
            lambda key: key.to.tenant,
            lambda connection, tables, part: tables.messages.load(connection, part),
        )

    def due_messages(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueMessage]:
        shards = self._feed.shards
        if shards is not None and not shards:
            return []
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.messages.due(
                connection, before, after, limit, except_types, shards
            ),
        )

    def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        return self._read(
            sender.tenant,
            None,
            lambda connection, tables: tables.messages.find_sent(connection, sender, sender_key),
        )

    def list_messages(
        self,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredMessage]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.messages.waiting(
                connection, type_name, object_id, after, limit
            ),
        )

    def list_dead_messages(
        self, type_name: str | None, after: int, limit: int, tenant: str = ""
    ) -> list[DeadMessage]:
        return self._read(
            tenant,
            [],
            lambda connection, tables: tables.messages.dead(connection, type_name, after, limit),
        )

    def load_dead_messages(
        self, tokens: Sequence[int], tenant: str = ""
    ) -> list[DeadMessage | None]:
        return self._read_each(
            tokens,
            lambda _: tenant,
            lambda connection, tables, part: tables.messages.load_dead(connection, part),
        )

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        return self._read_each(
            keys,
            lambda key: key.to.tenant,
            lambda connection, tables, part: tables.once.find(connection, part, now),
        )

    def list_once(self, after: OnceKey | None, limit: int, tenant: str = "") -> list[OnceReply]:
        return self._read(
            tenant, [], lambda connection, tables: tables.once.page(connection, after, limit)
        )

    def summarize_messages(self, tenant: str = "") -> list[MessageSummary]:
        return self._read(
            tenant, [], lambda connection, tables: tables.messages.summarize(connection)
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

    def _read_each(
        self,
        items: Sequence[K],
        tenant_of: Callable[[K], str],
        read: Callable[[Connection, TenantTables, Sequence[K]], list[T | None]],
    ) -> list[T | None]:
        """Read one record for each of ``items``, in their order, by one statement a tenant."""
        found: list[T | None] = [None] * len(items)
        for tenant, part in by_tenant(enumerate(items), lambda each: tenant_of(each[1])).items():
            its = [item for _, item in part]
            nothing: list[T | None] = [None] * len(its)
            records = self._read(tenant, nothing, partial(_of, read, its), len(its))
            for (position, _), record in zip(part, records, strict=True):
                found[position] = record
        return found

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


def _of(
    read: Callable[[Connection, TenantTables, Sequence[K]], list[T | None]],
    items: Sequence[K],
    connection: Connection,
    tables: TenantTables,
) -> list[T | None]:
    return read(connection, tables, items)
