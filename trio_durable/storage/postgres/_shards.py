"""Shards: the table of their owners, which the members of a group divide.

A statement changes an owner in two cases only. A member acquires a shard that has none, and the
owner of a shard gives it to another member. The removal of a node leaves its shards without an
owner, through the foreign key. So no shard is ever taken from a node.

Each transaction locks the rows of nodes before those of shards, the nodes by id, so that hand-overs
in opposite directions don't block each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import attrs
import psycopg

from ._arrays import BigintArray
from ._connection import Connection
from ._names import Names
from ._nodes import FENCE, IDLE_TIMEOUT, NODES, FoundNode

Result = psycopg.Cursor[tuple[Any, ...]]

# One statement, so one snapshot: each owner of a shard is among the nodes. The rows of the shards
# are read only if a term or an owner has changed.
_READ = f"""
SELECT (SELECT json_agg(n) FROM ({NODES}) AS n), s.terms, s.owned,
    CASE WHEN has_changed THEN (
        SELECT array_agg(owner::text ORDER BY shard) FROM {{shards}} WHERE "group" = %s
    ) END,
    CASE WHEN has_changed THEN (
        SELECT array_agg(term ORDER BY shard) FROM {{shards}} WHERE "group" = %s
    ) END
FROM (
    SELECT terms, owned, (terms, owned) IS DISTINCT FROM (%s::bigint, %s::bigint) AS has_changed
    FROM (
        SELECT sum(term)::bigint AS terms, count(owner) AS owned
        FROM {{shards}} WHERE "group" = %s
    ) AS s
) AS s
"""
_TERMS = "unnest(%s::bigint[], %s::bigint[]) AS k (shard, term)"
# SKIP LOCKED, because another member is about to acquire such a shard.
_ACQUIRE = f"""
WITH {FENCE}, free AS MATERIALIZED (
    SELECT s.shard FROM fence CROSS JOIN {_TERMS}
    JOIN {{shards}} AS s ON s."group" = %s AND s.shard = k.shard AND s.term = k.term
        AND s.owner IS NULL AND passed = 1
    ORDER BY s.shard FOR UPDATE OF s SKIP LOCKED
)
UPDATE {{shards}} AS s SET owner = %s, term = s.term + 1 FROM free AS f
WHERE s."group" = %s AND s.shard = f.shard
"""
_BOUND_WAITS = """
SELECT set_config('lock_timeout', %s, true),
    set_config('idle_in_transaction_session_timeout', '{idle}', true)
""".replace("{idle}", IDLE_TIMEOUT)
_IS_GIVER = "g.node_id = %s AND g.server = %s"
_IS_RECEIVER = (
    """r.node_id = %s AND r.server = %s AND r."group" = %s AND r.serves AND r.status = 'up'"""
)
# Conflicts with the locks of the node's commits, so these are over first.
_LOCK_GIVER = f"SELECT FROM {{nodes}} AS g WHERE {_IS_GIVER} FOR UPDATE"
# Conflicts with a change of the receiver's status.
_LOCK_RECEIVER = f"SELECT FROM {{nodes}} AS r WHERE {_IS_RECEIVER} FOR SHARE"
# Sees nodes as they are since the locks were got, since each statement has a snapshot of its own.
_GIVE = f"""
UPDATE {{shards}} AS s SET owner = r.node_id, term = s.term + 1
FROM {_TERMS}, {{nodes}} AS g, {{nodes}} AS r
WHERE s."group" = %s AND s.shard = k.shard AND s.term = k.term AND s.owner = g.node_id
    AND {_IS_GIVER} AND {_IS_RECEIVER}
"""
_VOID = f"""
UPDATE {{shards}} AS s SET term = s.term + 1 FROM {_TERMS}
WHERE s."group" = %s AND s.shard = k.shard AND s.term = k.term AND s.owner = %s
"""
_ANNOUNCE = """
UPDATE {nodes} SET serves = %s, status = %s WHERE node_id = %s AND server = %s
"""


@attrs.frozen
class Division:
    """The nodes of a database and the owners of one group's shards, as of one read."""

    nodes: Mapping[UUID, FoundNode]
    owners: Sequence[str | None]
    terms: Sequence[int]
    sums: tuple[int, int]
    """The sum of the terms, and the number of shards with an owner."""


class ShardTable:
    """The table of shards. Methods raise psycopg's errors.

    Args:
        home: The schema of the nameless tenant.
        group: The group whose shards these are.
        wait: The bound on the waits for locks, as in `limit_lock_waits`.
    """

    def __init__(self, home: str, group: str, wait: str) -> None:
        names = Names(home)
        self._group = group
        self._wait = wait
        self._read = names.query(_READ)
        self._acquire = names.query(_ACQUIRE)
        self._lock_giver = names.query(_LOCK_GIVER)
        self._lock_receiver = names.query(_LOCK_RECEIVER)
        self._give = names.query(_GIVE)
        self._void = names.query(_VOID)
        self._announce = names.query(_ANNOUNCE)

    def read(self, connection: Connection, before: Division | None) -> Division:
        """Read nodes and shards.

        Args:
            connection: For the statement.
            before: The result of an earlier read on the same incarnation of the server.
        """
        group = self._group
        sums = (None, None) if before is None else before.sums
        parameters = (group, group, *sums, group)
        row = connection.execute(self._read, parameters, binary=True).fetchone()
        assert row is not None
        nodes, terms_sum, owned, owners, terms = row
        found = [FoundNode(**{**node, "node_id": UUID(node["node_id"])}) for node in nodes or ()]
        if owners is None and before is not None:
            owners, terms = before.owners, before.terms
        return Division(
            {node.node_id: node for node in found}, owners or (), terms or (), (terms_sum, owned)
        )

    def announce(
        self, connection: Connection, node_id: UUID, server: str, *, serves: bool, is_leaving: bool
    ) -> None:
        """Let others know that a node may own shards, or that it leaves.

        Waits for hand-overs to this node. None begins once it leaves.
        """
        status = "leaving" if is_leaving else "up"

        def send() -> None:
            connection.execute(_BOUND_WAITS, (self._wait,))
            connection.execute(self._announce, (serves, status, node_id, server))

        connection.pipelined(send)

    def acquire(self, connection: Connection, node_id: UUID, shards: Mapping[int, int]) -> int:
        """Become the owner of shards that have none. Returns the number of the acquired ones.

        Args:
            connection: For the statement; its fence is that of the node.
            node_id: The node.
            shards: The terms that were read.
        """
        assert connection.fence is not None
        parameters = (*connection.fence, *_columns(shards), self._group, node_id, self._group)
        return connection.execute(self._acquire, parameters).rowcount

    def give(
        self, connection: Connection, giver: UUID, server: str, shards: Mapping[int, int], to: UUID
    ) -> bool:
        """Make another member the owner of shards, where the giver still is that at these terms.

        Waits until the giver's commits are over. Gives to no member that leaves, is gone, or has
        joined another incarnation of the server. Returns False if the giver has been removed.

        Args:
            connection: For the transaction, in one round trip, so a process that freezes can't
                hold the locks.
            giver: The node that owns them.
            server: The incarnation of the server that it has joined.
            shards: Their terms.
            to: The node that gets them.
        """
        is_giver, is_receiver = (giver, server), (to, server, self._group)
        locks: list[tuple[UUID, bytes, tuple[object, ...]]] = [
            (giver, self._lock_giver, is_giver),
            (to, self._lock_receiver, is_receiver),
        ]
        found: dict[bytes, Result] = {}

        def send() -> None:
            connection.execute(_BOUND_WAITS, (self._wait,))
            for _, query, parameters in sorted(locks, key=lambda lock: lock[0]):
                found[query] = connection.execute(query, parameters)
            connection.execute(
                self._give, (*_columns(shards), self._group, *is_giver, *is_receiver)
            )

        connection.pipelined(send)
        return found[self._lock_giver].rowcount > 0

    def void(self, connection: Connection, giver: UUID, shards: Mapping[int, int]) -> None:
        """End the doubt about a hand-over whose outcome isn't known.

        Waits for its transaction if that runs still, and raises the terms of the shards that the
        giver has kept. So the transaction does nothing if the server gets it only later.

        Args:
            connection: For the transaction.
            giver: The node that owned them.
            shards: Their terms.
        """
        parameters = (*_columns(shards), self._group, giver)

        def send() -> None:
            connection.execute(_BOUND_WAITS, (self._wait,))
            connection.execute(self._void, parameters)

        connection.pipelined(send)


def _columns(shards: Mapping[int, int]) -> tuple[BigintArray, BigintArray]:
    return BigintArray(list(shards)), BigintArray(list(shards.values()))
