"""Writer of a PostgreSQL database.

A batch of saves is one statement, which returns the stale ones. Any other batch is sent as a
pipeline: all its statements in one transaction and one round trip. Each leaves out the commits that
earlier ones found stale. A second transaction is needed only to create tenants, and if another
writer changes a row between two statements. It locks the batch's rows in the order of keys, finds
the stale commits and applies the others.

A commit that can't be applied, because of its own row or its tenant, is a `PartialFault`; see
`_isolation`. A transaction holds a lock for each table and index that it uses, of which the server
has a limited number, so a batch of very many tenants is a `PartialFault` as well.

Each transaction first locks the row of the writer's node, see `_nodes`. A single statement does so
by itself, and a pipeline by its first statement, so that takes no round trip.

Other sessions may lock rows, too. Row locks order their transactions; a writer holds nothing beyond
a transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Sequence
from typing import TypeVar

import psycopg

from ..._keys import AlarmKey
from .._batch import Stale, by_tenant
from .._contract import Writer
from .._faults import PartialFault, StorageFault
from .._membership import Membership
from .._moves import Move
from .._records import Commit, Postponement, StoredAlarm
from ._connection import Connection
from ._isolation import (
    Reach,
    reach_of,
)
from ._job_checks import prepare_tables
from ._job_move import move_alarms
from ._jobs import Jobs
from ._membership import PostgresMembership
from ._message_groups import Numbered
from ._message_writer import PostgresMessageWriter
from ._migrations import Schema
from ._moves import MoveTable
from ._reconnecting import ReconnectingConnection
from ._shard_function import Feed, ShardSet
from ._tables import Applied, TenantTables, stale_positions
from ._tenant_work import MAX_TENANTS
from ._tenants import KnownTenants
from ._verification import Unsuitable

logger = logging.getLogger("trio_durable.storage")

T = TypeVar("T")
R = TypeVar("R")

_MAX_ATTEMPTS = 10
"""How often the second transaction is tried while other writers keep changing the same rows."""
MAX_NEW_TENANTS = 16
"""Number of tenants that one transaction may create. Each takes about fifty locks."""
_LOCKED = "another session has locked the object's row; nothing was applied"

Part = tuple[str, list[Numbered]]
"""A tenant, and its commits with their positions in the batch."""


class PostgresWriter(PostgresMessageWriter, Writer):
    """The writer of one node."""

    def __init__(
        self,
        reconnecting: ReconnectingConnection,
        schema: Schema,
        tenants: KnownTenants,
        membership: PostgresMembership,
        feed: Feed,
    ) -> None:
        super().__init__(reconnecting, schema, tenants, feed)
        self._membership = membership
        membership.rejoined = self._begin_lease

    # --- membership ------------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        return self._membership

    def _begin_lease(self) -> None:
        self._reconnecting.renew()
        if self._membership.is_alone:
            self.release_claims(are_crashes=False)

    def release_claims(self, shards: ShardSet | None = None, *, are_crashes: bool) -> None:
        """End the claims of former nodes, so that their alarms are due at their original times.

        Their marks of messages end, too. The claims of a tenant that can't be written are left to
        run out, and its marks stay.

        Args:
            shards: Only claims and marks in these shards.
            are_crashes: See `AlarmTable.release` and `MessageTable.end_marks`.

        Raises:
            StorageFault: Some may be held still, until they run out.
        """
        after = ""
        self._release(("",), shards, are_crashes=are_crashes)
        while tenants := self._reconnecting.run(
            lambda connection, after=after: self._schema.tenants(  # type: ignore[misc]
                connection, after, MAX_TENANTS
            )
        ):
            self._release(tenants, shards, are_crashes=are_crashes)
            after = tenants[-1]

    def _release(
        self, tenants: Sequence[str], shards: ShardSet | None, *, are_crashes: bool
    ) -> None:
        def run(connection: Connection) -> None:
            self._look_up(connection, tenants)
            found = [tables for each in tenants if (tables := self._find(each)) is not None]

            def send() -> None:
                self._nodes.lock(connection)
                for tables in found:
                    tables.alarms.release(connection, shards, are_crashes=are_crashes)
                    tables.messages.end_marks(connection, shards, are_crashes=are_crashes)

            connection.pipelined(send)

        try:
            self._reconnecting.run(run)
        except StorageFault as fault:
            if reach_of(fault) is Reach.SERVER:
                raise
            if len(tenants) > 1:
                for tenant in tenants:
                    self._release([tenant], shards, are_crashes=are_crashes)
            else:
                logger.warning(
                    "alarms%s that a dead process was handling wait until its claims run out: %s",
                    *(f" of tenant {tenants[0]!r}" if tenants[0] else "", fault),
                )

    # --- commits ---------------------------------------------------------------------------------

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if not batch:
            return ()
        tenants = [commit.key.tenant for commit in batch]
        try:
            return self._isolated(
                tenants,
                lambda connection: (
                    self._commit_fresh(connection, batch, now)
                    if self._locks.is_wary
                    else self._commit_all(connection, batch, now)
                ),
            )
        except Stale:
            pass
        for _ in range(_MAX_ATTEMPTS):
            try:
                return self._isolated(
                    tenants, lambda connection: self._commit_fresh(connection, batch, now)
                )
            except Stale:  # another writer changed a row between two statements
                continue
        raise StorageFault(
            f"other writers changed the same objects during each of {_MAX_ATTEMPTS} attempts; "
            "nothing was applied: call again"
        )

    def _commit_all(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Collection[int]:
        """Apply the commits that aren't stale. Returns the positions of the stale ones.

        Raises:
            Stale: A tenant has to be created, or another writer changed a row in this very moment.
                Nothing was applied.
        """
        only = _tenant_of_saves(batch)
        if only is not None:
            tables = self._find(only)
            if tables is not None:
                return tables.objects.save_any(connection, batch, now)
        parts = by_tenant(enumerate(batch), lambda each: each[1].key.tenant)
        found = [(tenant, self._find(tenant), part) for tenant, part in sorted(parts.items())]
        _forget_results(batch)
        if any(
            tables is None and any(c.writes_anything or c.expects_anything for _, c in part)
            for _, tables, part in found
        ):
            raise Stale
        results: list[tuple[str, Applied]] = []

        def send() -> None:
            self._nodes.lock(connection)
            for tenant, tables, part in found:
                if tables is not None:
                    results.append((tenant, tables.apply(connection, part, now)))

        connection.pipelined(send)
        return stale_positions(batch, results)

    def _commit_fresh(
        self, connection: Connection, batch: Sequence[Commit], now: int
    ) -> Collection[int]:
        """Apply the commits that aren't stale. Returns the positions of the stale ones.

        Raises:
            Stale: Another writer changed a row meanwhile. Nothing was applied.
            PartialFault: Other sessions have locked rows or tables, or the transaction would create
                too many tenants. Nothing was applied.
        """
        _forget_results(batch)
        parts = sorted(by_tenant(enumerate(batch), lambda each: each[1].key.tenant).items())
        new = {
            tenant: [at for at, _ in part]
            for tenant, part in parts
            if self._find(tenant) is None
            and any(c.writes_anything and not c.expects_anything for _, c in part)
        }
        if len(new) > MAX_NEW_TENANTS:
            raise PartialFault(f"{len(new)} new tenants are too many for one transaction")
        are_locked = False
        try:
            with self._locks.transaction(connection):
                self._nodes.begin(connection)
                if new:
                    self._add_tenants(connection, new)
                if self._locks.is_wary:
                    are_locked = self._are_locked(connection, parts, len(batch))
                return self._apply_fresh(connection, batch, parts, new, now)
        except psycopg.errors.LockNotAvailable as error:
            if not are_locked:
                raise
            raise PartialFault(_LOCKED, range(len(batch))) from error

    def _apply_fresh(
        self,
        connection: Connection,
        batch: Sequence[Commit],
        parts: Sequence[Part],
        new: Container[str],
        now: int,
    ) -> Collection[int]:
        """Lock rows, and apply the commits that aren't stale. Returns the positions of the stale.

        Raises:
            psycopg.Error: Another writer changed a row meanwhile, or another session has locked it.
        """
        stale: set[int] = set()
        fresh: list[tuple[str, TenantTables, list[Numbered]]] = []
        for tenant, part in parts:
            tables = self._tables_of(tenant) if tenant in new else self._find(tenant)
            if tables is not None:
                stale |= tables.stale(connection, part, now)
                kept = [(at, commit) for at, commit in part if at not in stale]
                fresh.append((tenant, tables, kept))
            else:
                stale.update(at for at, commit in part if commit.expects_anything)
        results = [(tenant, tables.apply(connection, kept, now)) for tenant, tables, kept in fresh]
        return stale | stale_positions(batch, results)

    def _are_locked(self, connection: Connection, parts: Sequence[Part], size: int) -> bool:
        """True if other sessions have locked all rows of a batch. Waits for none of them.

        Raises:
            PartialFault: Some of the rows are locked.
        """
        locked: set[int] = set()
        for tenant, part in parts:
            tables = self._find(tenant)
            if tables is not None:
                locked |= tables.locked(connection, part)
        if 0 < len(locked) < size:
            raise PartialFault(_LOCKED, sorted(locked))
        return len(locked) == size

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
        def work(connection: Connection, tables: TenantTables, part: list[Postponement]) -> None:
            alive = [each for each in part if each.dead_firing is None]
            if alive or not part:
                tables.alarms.postpone(connection, alive)
            dead = [(each, each.dead_firing) for each in part if each.dead_firing is not None]
            if dead:
                tables.recurrences.bury(connection, dead)

        statements = 1 if all(each.dead_firing is None for each in postponements) else 2
        self._apply(postponements, lambda each: each.key.tenant, work, statements)

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        return self._changes_one(
            alarm.tenant, lambda connection, tables: tables.alarms.revive(connection, alarm, now)
        )

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        return self._changes_one(
            alarm.tenant, lambda connection, tables: tables.alarms.mark(connection, alarm, claim)
        )

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        return self._changes_one(
            alarm.tenant, lambda connection, tables: tables.alarms.acquit(connection, alarm, claim)
        )

    # --- tenants ---------------------------------------------------------------------------------

    def mark_moved(self, target: str, now: int, tenant: str = "") -> None:
        move = Move(tenant, target, now)

        def work(connection: Connection) -> None:
            with connection.transaction():
                self._nodes.begin(connection)
                MoveTable(self._schema.home).mark(connection, move)

        self._reconnecting.run(work)
        self._tenants.forget([tenant])
        self._schema.moves[tenant] = move

    def take_back(self, tenant: str) -> bool:
        """See `Storage.reopen`."""

        def work(connection: Connection) -> bool:
            with connection.transaction():
                self._nodes.begin(connection)
                return MoveTable(self._schema.home).take_back(connection, tenant)

        return self._reconnecting.run(work)

    def move_alarms(self, to: Jobs | None) -> int:
        """See `PostgresStorage.move_alarms`."""

        def work(connection: Connection) -> int:
            if to is not None:
                prepare_tables(connection, self._schema.home, to)
            with connection.transaction():
                self._nodes.begin(connection)
                return move_alarms(connection, self._schema, to)

        try:
            return self._reconnecting.run(work)
        except Unsuitable as error:
            raise StorageFault(str(error)) from None

    def drop_tenant(self, tenant: str) -> bool:
        self._tenants.forget([tenant])
        try:
            return self._reconnecting.run(lambda connection: self._drop(connection, tenant))
        finally:
            self._tenants.forget([tenant])  # the reader may have looked it up meanwhile

    def _drop(self, connection: Connection, tenant: str) -> bool:
        with connection.transaction():
            self._nodes.begin(connection)
            drop_alarms = self._tables_of(tenant).drop_alarms
            if drop_alarms is not None:
                connection.execute(drop_alarms)
            return self._schema.drop_tenant(connection, tenant)

    def close(self) -> None:
        self._reconnecting.close()
        self._membership.leave()


def _tenant_of_saves(batch: Sequence[Commit]) -> str | None:
    """The tenant of a batch that only saves states; None if there are others or other changes."""
    tenant = batch[0].key.tenant
    for commit in batch:  # in one loop, since this runs for each change
        if (
            commit.state is None
            or commit.delete
            or commit.alarms is not None
            or commit.messages is not None
            or commit.key.tenant != tenant
        ):
            return None
    return tenant


def _forget_results(batch: Sequence[Commit]) -> None:
    for commit in batch:
        if commit.messages is not None:
            commit.messages.forget_results()
