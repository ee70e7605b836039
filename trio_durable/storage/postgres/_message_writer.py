"""Changes of messages and once-keys by the writer of a PostgreSQL database, apart from commits."""

from __future__ import annotations

from collections.abc import Sequence

from .._message_sides import MessageWriter
from .._messages import (
    DeadMessage,
    Deferral,
    MessageKey,
    OnceKey,
    OnceReply,
    RetriedMessage,
    StoredMessage,
)
from ._connection import Connection
from ._migrations import Schema
from ._reconnecting import ReconnectingConnection
from ._shard_function import Feed
from ._tenant_work import TenantWork
from ._tenants import KnownTenants


class PostgresMessageWriter(TenantWork, MessageWriter):
    """The part of a writer that is about messages.

    Args:
        reconnecting: The writer's connection.
        schema: The schema of the database.
        tenants: Those that the storage knows.
        feed: The shards of the writer.
    """

    def __init__(
        self,
        reconnecting: ReconnectingConnection,
        schema: Schema,
        tenants: KnownTenants,
        feed: Feed,
    ) -> None:
        super().__init__(reconnecting, schema, tenants)
        self._feed = feed

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self._apply(
            deferrals,
            lambda each: each.key.to.tenant,
            lambda connection, tables, part: tables.messages.defer(connection, part),
        )

    def mark_message(self, message: MessageKey) -> bool:
        return self._changes_one(
            message.to.tenant,
            lambda connection, tables: tables.messages.mark(connection, message),
        )

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        done = self._apply(
            tokens,
            lambda _: tenant,
            lambda connection, tables, part: tables.messages.retry(connection, part),
        )
        return [message for each in done for message in each]

    def drop_messages(self, tokens: Sequence[int], tenant: str = "") -> list[int]:
        done = self._apply(
            tokens,
            lambda _: tenant,
            lambda connection, tables, part: tables.messages.drop(connection, part),
        )
        return [token for each in done for token in each]

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        shards = self._feed.shards
        if shards is not None and not shards:
            return 0
        return self._apply_to(
            tenant, lambda connection, tables: tables.once.clean(connection, now, limit, shards)
        )

    def rename_type(self, old: str, new: str, tenant: str = "") -> int:
        """See `Writer.rename_type`."""

        def work(connection: Connection) -> int:
            tables = self._find(tenant)
            if tables is None or old == new:
                return 0
            with self._locks.transaction(connection):
                self._nodes.begin(connection)
                return tables.rename(connection, old, new)

        return self._isolated([tenant], work)

    def rename_messages(self, old: str, new: str, tenant: str = "") -> None:
        def work(connection: Connection) -> None:
            tables = self._find(tenant)
            if tables is not None:
                with self._locks.transaction(connection):
                    self._nodes.begin(connection)
                    tables.messages.rename(connection, old, new)
                    tables.once.rename(connection, old, new)

        self._isolated([tenant], work)

    def restore_messages(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
        once: Sequence[OnceReply],
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        keys = [message.key.to for message in (*waiting, *(each.message for each in dead))]
        keys += [each.key.to for each in once]
        if not keys:
            return [], []
        tenants = sorted({key.tenant for key in keys})
        parts: list[tuple[list[StoredMessage], list[DeadMessage], list[OnceReply]]] = [
            (
                [each for each in waiting if each.key.to.tenant == tenant],
                [each for each in dead if each.message.key.to.tenant == tenant],
                [each for each in once if each.key.to.tenant == tenant],
            )
            for tenant in tenants
        ]

        def work(connection: Connection) -> tuple[list[int], list[OnceKey]]:
            tokens: list[int] = []
            taken: list[OnceKey] = []
            new = {tenant: [0] for tenant in tenants if self._find(tenant) is None}
            with self._locks.transaction(connection):
                self._nodes.begin(connection)
                if new:
                    self._add_tenants(connection, new)
                for tenant, (messages, letters, replies) in zip(tenants, parts, strict=True):
                    tables = self._tables_of(tenant)
                    tokens += tables.messages.restore(connection, messages, letters)
                    if replies:
                        taken += tables.once.restore(connection, replies, now)
            return tokens, taken

        return self._isolated(tenants, work)
