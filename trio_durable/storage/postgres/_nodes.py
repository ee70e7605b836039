"""Nodes: the runtimes that may write to a PostgreSQL database, one row for each.

A node is one incarnation of a runtime. Its id is never used again, and the removal of its row is
its end: every writing transaction locks that row first, see `FENCE`. A removal waits for these
locks, and each transaction that locks later finds that the row is gone. So a removed node can't
write, whatever it believes.

The number of a node's renewals is in a table of its own, because it changes all the time, and
because updates of a row that others lock make multixacts.

No decision rests on a clock of the server's. ``beaten_at`` is for messages only.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from uuid import UUID

import attrs
import psycopg

from .._membership import Member
from ._arrays import BigintArray, text_array
from ._connection import Connection
from ._isolation import limit_lock_waits
from ._names import Names
from ._shard_function import SHARD_FUNCTION

SHARDS = 1024
"""The number of shards of a new database."""

IDLE_TIMEOUT = "5s"
"""How long a transaction of several statements may wait for its client, who may be frozen. It holds
the row of its node meanwhile."""

_DEPOSED_MARK = "trio_durable: deposed"

FENCE = f"""
fence AS MATERIALIZED (
    SELECT CASE WHEN count(*) = 1 THEN 1 ELSE ('{_DEPOSED_MARK} ' || count(*))::int END AS passed
    FROM (
        SELECT FROM {{nodes}} WHERE node_id = %s AND server = %s FOR KEY SHARE
    ) AS n
)
"""
"""The first part of each writing statement: locks the row of the writer's node.

Without that row, or on another incarnation of the server than the node has joined, the statement
fails, see `is_deposed`. The error is a cast of a text to a number. A statement must read
``passed`` of ``fence``, or it isn't evaluated. Its parameters are `Connection.fence`.
"""

_LOCK_NODE = f"WITH {FENCE} SELECT passed FROM fence"
_BEGIN = f"""
WITH {FENCE}
SELECT passed, set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT}', true) FROM fence
"""

_BOUND_IDLE = f"SELECT set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT}', true)"
_SET_UP = """
INSERT INTO {cluster} (shards, shard_function, secret) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
"""
_SERIALIZE = "SELECT shards, shard_function, secret FROM {cluster} FOR UPDATE"
# Not by ON CONFLICT, which waits for transactions that change such a row.
_ADD_SHARDS = """
INSERT INTO {shards} ("group", shard) SELECT %s, n FROM generate_series(0, %s - 1) AS n
WHERE NOT EXISTS (SELECT FROM {shards} WHERE "group" = %s AND shard = n)
"""

NODES = """
SELECT n.node_id, n.host, n.pid, n.ttl, n.proof, n."group", n.server, n.release, n.address,
    n.serves, n.status, n.types, n.app_release, b.renewals,
    extract(epoch FROM clock_timestamp() - b.beaten_at)::float8 AS age
FROM {nodes} AS n JOIN {beats} AS b USING (node_id)
"""
"""All nodes, with the columns of `FoundNode`."""

_LIST = f"{NODES} ORDER BY n.node_id"
_OWNED = "SELECT owner, count(*) FROM {shards} WHERE owner IS NOT NULL GROUP BY owner"
_ADD = """
INSERT INTO {nodes} (node_id, name, host, pid, release, server, status, ttl, proof, "group",
    address, types, app_release)
SELECT %s, %s, %s, %s, %s, %s, 'up', %s, %s, %s, %s, coalesce(jsonb_object_agg(t, v), '{{}}'), %s
FROM unnest(%s::text[], %s::bigint[]) AS k (t, v)
"""
_ADD_BEAT = "INSERT INTO {beats} (node_id, renewals) VALUES (%s, 0)"
_BEAT = """
UPDATE {beats} SET renewals = renewals + 1, beaten_at = clock_timestamp()
WHERE node_id = %s AND EXISTS (SELECT FROM {nodes} WHERE node_id = %s AND server = %s)
"""
_STOP_BEATS = "DELETE FROM {beats} WHERE node_id = %s AND renewals = %s"
_REMOVE = """
WITH beat AS (DELETE FROM {beats} WHERE node_id = %s) DELETE FROM {nodes} WHERE node_id = %s
"""


def is_deposed(error: psycopg.Error) -> bool:
    """True if a statement failed because the fence has refused it."""
    return error.sqlstate == "22P02" and _DEPOSED_MARK in (error.diag.message_primary or "")


@attrs.frozen
class NewNode:
    """A node that joins."""

    node_id: UUID
    host: str
    server: str
    """The incarnation of the server, see `Server.incarnation`."""
    ttl: float
    """Seconds without a renewal after which others may remove it."""
    proof: str | None
    """Proof of its death for processes of the same machine, see `Presence`."""
    group: str | None
    """The group that it is a member of; None for a node that owns all objects alone."""
    address: str | None = None
    types: Mapping[str, int] = attrs.field(factory=dict)
    app_release: int = 0


@attrs.frozen
class FoundNode:
    """A node in the table."""

    node_id: UUID
    host: str
    pid: int
    ttl: float
    proof: str | None
    group: str | None
    server: str
    release: str
    """Its release of trio_durable."""
    address: str | None
    serves: bool
    status: str
    types: Mapping[str, int]
    app_release: int
    renewals: int
    age: float
    """Seconds since its last renewal, by the server's clock; for messages only."""

    def as_member(self) -> Member:
        """The node as the contract knows it."""
        return Member(
            str(self.node_id),
            self.host,
            self.pid,
            self.release,
            self.address,
            self.serves or self.group is None,
            self.status == "leaving",
            self.types,
            self.app_release,
            self.age,
        )


@attrs.frozen
class Cluster:
    """The numbers that all nodes of a database agree on, and their secret."""

    shards: int
    shard_function: int
    secret: bytes


@attrs.frozen
class Joined:
    """The outcome of an attempt to join."""

    cluster: Cluster
    others: Sequence[FoundNode]
    """The nodes because of which the node wasn't added; none if it was."""


class NodeTable:
    """The tables of nodes and their beats. Methods raise psycopg's errors.

    Args:
        home: The schema of the nameless tenant.
    """

    def __init__(self, home: str) -> None:
        names = Names(home)
        self._lock_node = names.query(_LOCK_NODE)
        self._begin = names.query(_BEGIN)
        self._set_up = names.query(_SET_UP)
        self._serialize = names.statement(_SERIALIZE).encode()
        self._add_shards = names.query(_ADD_SHARDS)
        self._list = names.statement(_LIST).encode()
        self._owned = names.statement(_OWNED).encode()
        self._add = names.query(_ADD)
        self._add_beat = names.query(_ADD_BEAT)
        self._beat = names.query(_BEAT)
        self._stop_beats = names.query(_STOP_BEATS)
        self._remove = names.query(_REMOVE)

    # --- the fence -------------------------------------------------------------------------------

    def lock(self, connection: Connection) -> None:
        """Lock the row of the connection's node; the first statement of a pipeline."""
        connection.execute(self._lock_node, connection.fence)

    def begin(self, connection: Connection) -> None:
        """Do so in a transaction of several round trips, and bound its idle time."""
        connection.execute(self._begin, connection.fence)

    # --- membership ------------------------------------------------------------------------------

    def join(self, connection: Connection, node: NewNode, before: UUID | None) -> Joined:
        """Add a node, unless there are others that it can't be beside.

        A node without a group owns all objects, and so is alone. A member owns no shards at first.

        Joining is serialized by the row of the cluster, so of two that join at once the second one
        finds the first.

        Args:
            connection: For the transaction.
            node: The node.
            before: The id of the same runtime's former node, whose row is removed.
        """
        with connection.transaction():
            connection.execute(_BOUND_IDLE)
            secret = secrets.token_bytes(32)
            connection.execute(self._set_up, (SHARDS, SHARD_FUNCTION, secret))
            row = connection.execute(self._serialize).fetchone()
            assert row is not None
            cluster = Cluster(*row)
            if before is not None:
                connection.execute(self._remove, (before, before))
            others = [
                each for each in self.list(connection) if node.group is None or each.group is None
            ]
            if others:
                return Joined(cluster, others)
            pid = os.getpid()
            release = version("trio-durable")
            name = f"{node.host}:{pid}"
            known = (node.node_id, name, node.host, pid, release, node.server)
            types = (text_array(node.types), BigintArray(list(node.types.values())))
            connection.execute(
                self._add,
                (*known, node.ttl, node.proof, node.group, node.address, node.app_release, *types),
            )
            connection.execute(self._add_beat, (node.node_id,))
            if node.group is not None:
                connection.execute(self._add_shards, (node.group, cluster.shards, node.group))
        return Joined(cluster, ())

    def list(self, connection: Connection) -> Sequence[FoundNode]:
        """All nodes, by id."""
        return [FoundNode(*row) for row in connection.execute(self._list)]

    def owned(self, connection: Connection) -> dict[UUID, int]:
        """The numbers of shards of the nodes that own some."""
        return dict(connection.execute(self._owned).fetchall())

    def beat(self, connection: Connection, node_id: UUID, server: str) -> bool:
        """Count one more renewal; False if the node has been removed or has joined another server.

        Args:
            connection: For the statement.
            node_id: The node.
            server: The incarnation of the server at the other end of the connection.
        """
        return connection.execute(self._beat, (node_id, node_id, server)).rowcount > 0

    def leave(self, connection: Connection, node_id: UUID) -> None:
        """Remove a node's own row."""
        connection.execute(self._remove, (node_id, node_id))

    def remove(self, connection: Connection, node_id: UUID, seen: int, wait: str = "1s") -> bool:
        """Remove a node that is taken for dead, unless it has been renewed since.

        Waits for the node's transactions, which hold locks on its row. The shards that it owned
        have no owner then.

        Args:
            connection: For the transaction.
            node_id: The node.
            seen: The number of its renewals when it was seen.
            wait: The bound on the waits for locks, as in `limit_lock_waits`.
        """
        with connection.transaction():
            connection.execute(_BOUND_IDLE)
            limit_lock_waits(connection, wait)
            if not connection.execute(self._stop_beats, (node_id, seen)).rowcount:
                return False
            connection.execute(self._remove, (node_id, node_id))
        return True
