"""Writer of an SQLite file.

Commits are optimistic. The writer first applies the whole batch as if no commit were stale: a batch
of saves by one statement, see `_objects`, and any other batch by several in one transaction. A
stale commit makes that fail as a whole. Only then a second transaction finds the stale commits and
applies the others. Stale commits are rare, so the common path pays nothing for them.

After each transaction the writer checks that its file is still in place, see `_watch`. Otherwise it
raises, and nothing is acknowledged.

A row that SQLite refuses, because of a constraint or a trigger that was added by hand, fails the
second transaction as well. That is a `PartialFault`, after which the runtime commits the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from ..._keys import AlarmKey
from .._batch import Stale, by_tenant
from .._contract import Writer
from .._messages import (
    DeadMessage,
    Deferral,
    MessageKey,
    OnceKey,
    OnceReply,
    RetriedMessage,
    StoredMessage,
)
from .._moves import Move
from .._records import Commit, Postponement, StoredAlarm
from ._alarms import MAX_ROWS
from ._changes import is_needed
from ._lock import FileLock
from ._log import Log
from ._migrations import Schema
from ._moves import mark
from ._objects import NotOnlySaves
from ._tables import Step, TenantTables, TenantTablesCache, checked
from ._transaction import transaction
from ._watch import FileWatch, Stamp

T = TypeVar("T")
R = TypeVar("R")


class SQLiteWriter(Writer):
    """The writer of a file, which holds the file's lock until it is closed.

    Args:
        connection: In autocommit mode. Closed with the writer.
        schema: The schema of the file, on the same connection.
        lock: The file's lock. Released after the connection is closed.
        watch: The checks of the file. Closed after the connection, too.
        log: The log of the connection, if it can be looked at. Closed after that as well.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        schema: Schema,
        lock: FileLock,
        watch: FileWatch,
        log: Log | None = None,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._tables = TenantTablesCache(connection, schema)
        self._lock = lock
        self._watch = watch
        self._log = log
        self._stamp = Stamp(connection, watch)

    @property
    def log_bytes(self) -> int | None:
        return self._watch.log_bytes

    def maintain(self) -> None:
        # Not in a file that isn't there any more, or is another one.
        if self._log is not None and not self._watch.has_failed:
            self._log.maintain()

    # --- commits ---------------------------------------------------------------------------------

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if not batch:
            return ()
        stale: Collection[int] = ()
        with checked(self._watch):
            stamps = self._stamp.is_due
            if stamps:
                self._stamp.prepare()
            try:
                try:
                    tables = self._tables.find(batch[0].key.tenant)
                    if stamps or tables is None:
                        raise NotOnlySaves
                    tables.objects.save(batch, now)
                except NotOnlySaves:
                    self._tables.create_views(c.key.tenant for c in batch if is_needed(c))
                    self._commit_all(batch, now, stamps=stamps)
            except (sqlite3.IntegrityError, Stale):
                stale = self._commit_fresh(batch, now)
        return stale

    def _commit_all(self, batch: Sequence[Commit], now: int, *, stamps: bool) -> None:
        """Apply a batch of any kind of changes. Applies nothing and raises if a commit is stale.

        Args:
            batch: The commits.
            now: The current wall time.
            stamps: Stamp the file in the same transaction.
        """
        steps: list[Step] = []
        for tenant, part in by_tenant(batch, lambda commit: commit.key.tenant).items():
            tables = self._tables.find(tenant)
            if tables is None and any(c.expects_anything for c in part):
                raise Stale
            steps += self._steps(tenant, tables, part, now)
        stamps = stamps and bool(steps)
        if not stamps and len(steps) == 1 and steps[0].is_transaction:
            steps[0].run()
            return
        with transaction(self._connection):
            for step in steps:
                step.run()
            if stamps:
                self._stamp.apply()
        if stamps:
            self._stamp.applied()

    def _commit_fresh(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """Apply the commits that aren't stale. Returns the positions of the stale ones."""
        stale: set[int] = set()
        with transaction(self._connection):
            for tenant, part in by_tenant(enumerate(batch), lambda at: at[1].key.tenant).items():
                tables = self._tables.find(tenant)
                if any(commit.messages is not None for _, commit in part):
                    stale |= self._commit_in_turn(tenant, tables, part, now)
                    continue
                if tables is None:
                    stale.update(at for at, commit in part if commit.expects_anything)
                else:
                    stale |= tables.stale(part)
                fresh = [commit for at, commit in part if at not in stale]
                for step in self._steps(tenant, tables, fresh, now):
                    step.run()
        return stale

    def _commit_in_turn(
        self,
        tenant: str,
        tables: TenantTables | None,
        batch: Sequence[tuple[int, Commit]],
        now: int,
    ) -> set[int]:
        """Apply what isn't stale of pairs (number, commit), one commit after the other.

        A commit with messages may make a later one of the same batch stale. The caller has a
        transaction open. Returns the numbers of the stale commits.
        """
        stale = set()
        if tables is not None:
            tables.messages.recount()
        for at, commit in batch:
            if tables.is_stale(commit, now) if tables is not None else commit.expects_anything:
                stale.add(at)
                if commit.messages is not None:
                    commit.messages.forget_results()
                continue
            for step in self._steps(tenant, tables, [commit], now):
                step.run()
            if tables is None and self._schema.has_tenant(tenant):
                tables = self._tables.new(tenant)
        return stale

    def _steps(
        self, tenant: str, tables: TenantTables | None, batch: Sequence[Commit], now: int
    ) -> Iterator[Step]:
        """The statements that apply a batch of one tenant, see `TenantTables.steps`.

        For a new tenant with anything to store, the first step creates its tables. The caller has
        a transaction open, so the tables exist together with their first rows or not at all.
        """
        if tables is None:
            if not any(commit.writes_anything for commit in batch):
                return
            yield Step(lambda: self._schema.add_tenant(tenant))
            tables = self._tables.new(tenant)
        yield from tables.steps(batch, now)

    # --- alarms ----------------------------------------------------------------------------------

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        return [
            alarm
            for each in self._apply(
                alarms,
                lambda alarm: alarm.tenant,
                lambda tables, part: tables.alarms.claim(part, claim, now, until),
            )
            for alarm in each
        ]

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self._apply(
            claims,
            lambda claim: claim[0].tenant,
            lambda tables, part: tables.alarms.renew(part, until),
        )

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self._apply(
            postponements,
            lambda each: each.key.tenant,
            lambda tables, part: tables.alarms.postpone(part),
            statements=1 if all(each.dead_firing is None for each in postponements) else 3,
        )

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        with checked(self._watch):
            tables = self._tables.find(alarm.tenant)
            return tables is not None and tables.alarms.revive(alarm, now)

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        with checked(self._watch):
            tables = self._tables.find(alarm.tenant)
            return tables is not None and tables.alarms.mark(alarm, claim)

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        with checked(self._watch):
            tables = self._tables.find(alarm.tenant)
            return tables is not None and tables.alarms.acquit(alarm, claim)

    def _apply(
        self,
        items: Sequence[T],
        tenant_of: Callable[[T], str],
        work: Callable[[TenantTables, list[T]], R],
        statements: int = 1,
    ) -> list[R]:
        """Call ``work`` with the items of each existing tenant, in one transaction.

        Args:
            items: The items.
            tenant_of: The tenant of an item.
            work: Applies up to `MAX_ROWS` items.
            statements: How many it executes.
        """
        with checked(self._watch):
            parts = self._tables.of(items, tenant_of)
            if statements == len(parts) == 1 and len(items) <= MAX_ROWS:
                ((tables, part),) = parts
                return [work(tables, part)]  # one statement is a transaction by itself
            with transaction(self._connection):
                return [work(tables, part) for tables, part in parts]

    # --- messages --------------------------------------------------------------------------------

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        with checked(self._watch):
            parts = self._tables.of(deferrals, lambda each: each.key.to.tenant)
            if len(parts) == 1:
                ((tables, part),) = parts
                tables.messages.defer(part)  # one statement is a transaction by itself
                return
            with transaction(self._connection):
                for tables, part in parts:
                    tables.messages.defer(part)

    def mark_message(self, message: MessageKey) -> bool:
        with checked(self._watch):
            tables = self._tables.find(message.to.tenant)
            return tables is not None and tables.messages.mark(message)

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        with checked(self._watch), transaction(self._connection):
            tables = self._tables.find(tenant)
            return [] if tables is None else tables.messages.retry(tokens)

    def drop_messages(self, tokens: Sequence[int], tenant: str = "") -> list[int]:
        with checked(self._watch), transaction(self._connection):
            tables = self._tables.find(tenant)
            return [] if tables is None else tables.messages.drop(tokens)

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        with checked(self._watch):
            tables = self._tables.find(tenant)
            return 0 if tables is None else tables.once.clean(now, limit)

    def rename_type(self, old: str, new: str, tenant: str = "") -> int:
        with checked(self._watch):
            tables = self._tables.find(tenant)
            if tables is None or old == new:
                return 0
            with transaction(self._connection):
                return tables.rename(old, new)

    def rename_messages(self, old: str, new: str, tenant: str = "") -> None:
        with checked(self._watch), transaction(self._connection):
            tables = self._tables.find(tenant)
            if tables is not None and old != new:
                tables.messages.rename(old, new)
                tables.once.rename(old, new)

    def restore_messages(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
        once: Sequence[OnceReply],
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        tokens: list[int] = []
        keys: list[OnceKey] = []
        of_tenants = (
            by_tenant(waiting, lambda message: message.key.to.tenant),
            by_tenant(dead, lambda letter: letter.message.key.to.tenant),
            by_tenant(once, lambda reply: reply.key.to.tenant),
        )
        messages, letters, replies = of_tenants
        with checked(self._watch), transaction(self._connection):
            for tenant in dict.fromkeys([*messages, *letters, *replies]):
                tables = self._tables.find(tenant)
                if tables is None:
                    self._schema.add_tenant(tenant)
                    tables = self._tables.new(tenant)
                tokens += tables.messages.restore(messages.get(tenant, ()), letters.get(tenant, ()))
                keys += tables.once.restore(replies.get(tenant, ()), now)
        return tokens, keys

    # --- tenants ---------------------------------------------------------------------------------

    def mark_moved(self, target: str, now: int, tenant: str = "") -> None:
        move = Move(tenant, target, now)
        with checked(self._watch), transaction(self._connection):
            mark(self._connection, move)
        self._tables.forget(tenant)
        self._schema.moves[tenant] = move

    def drop_tenant(self, tenant: str) -> bool:
        with checked(self._watch):
            self._tables.forget(tenant)
            return self._schema.drop_tenant(tenant)

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            if self._log is not None:
                self._log.close()
            self._watch.close()
            self._lock.release()
