"""Membership of a runtime in a group of nodes that divide a PostgreSQL database by shards.

After each renewal, and when `ClusterMembership.look` asks for it, the node's thread reads all nodes
and the owners of the group's shards in one statement. It removes the nodes whose death is proved,
acquires shards without an owner up to its share, and reports the result as a `View`. The rows of
the database are the only source of a view: all come through one connection, in order, and are
adopted as they are, even if a term is lower than before.

A hand-over whose connection was lost is in doubt. No view settles it until `ShardTable.void` has
ended the doubt.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from uuid import UUID

import attrs
import psycopg

from ..._clock import boot_time
from .._membership import ClusterMembership, Lease, NewMember, View, newest
from ._connecting import Settings, Unreachable
from ._connection import Connection, WrongServer
from ._deaths import Sign
from ._leases import CurrentLease, NodeLease
from ._membership import (
    BEATS,
    LEAST_WAIT_SECONDS,
    REMOVED,
    NodeSettings,
    PostgresMembership,
)
from ._nodes import Cluster, Joined, NewNode, is_deposed
from ._shard_function import Feed, ShardSet, shard_of
from ._shards import Division, ShardTable

logger = logging.getLogger("trio_durable.storage")


class _Removed(Exception):
    """The row of the own node is gone."""


@attrs.frozen
class _HandOver:
    """Shards to give away."""

    lease: NodeLease
    shards: Mapping[int, int]
    to: UUID


class PostgresClusterMembership(PostgresMembership, ClusterMembership):
    """The membership of one writer that shares the database.

    Args:
        settings: For its connections.
        home: The schema of the nameless tenant.
        node: The durations.
        member: The runtime.
        current: Gets each lease, for all sides of the storage.
        feed: Gets the shards whose alarms the reader returns.
    """

    _succession = "others acquire its shards"

    def __init__(
        self,
        settings: Settings,
        home: str,
        node: NodeSettings,
        member: NewMember,
        current: CurrentLease,
        feed: Feed,
    ) -> None:
        node = attrs.evolve(node, ttl=member.ttl, group=member.group)
        super().__init__(settings, home, node, current)
        self._member = member
        self._feed = feed
        self._shards = ShardTable(home, member.group, self._lock_wait)
        self._cluster: Cluster | None = None
        self._seen: Callable[[View], object] | None = None
        self._views = self._looks = 0
        self._is_retired = False
        self._hand_overs: deque[_HandOver] = deque()
        self.releasing: Callable[[ShardSet], object] = lambda shards: None
        """Ends the claims of alarms in some shards. In the writer's thread."""
        self._forget()

    def _forget(self) -> None:
        """A lease is about to begin, of which nothing is known yet."""
        self._announced: bool | None = None
        self._division: Division | None = None
        self._shown: tuple[object, ...] | None = None
        self._free_since = math.inf
        """The time since which each read has found shards without an owner."""
        self._shown_looks = 0
        self._in_doubt: dict[int, int] = {}
        """The shards of hand-overs whose outcome isn't known, and their terms."""
        self._settled: set[int] = set()
        """The shards of hand-overs whose outcome the next read shows."""

    # --- see `ClusterMembership` -----------------------------------------------------------------

    @property
    def shards(self) -> int:
        """See `ClusterMembership.shards`."""
        return self._joined.shards

    @property
    def secret(self) -> bytes:
        """See `ClusterMembership.secret`."""
        return self._joined.secret

    @property
    def _joined(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    def shard_of(self, object_id: str) -> int:
        """See `ClusterMembership.shard_of`."""
        return shard_of(object_id, self._joined.shards)

    def watch(self, seen: Callable[[View], object]) -> None:
        """See `ClusterMembership.watch`."""
        self._seen = seen

    def follow(
        self, post: Callable[[Callable[[], object]], object], lost: Callable[[Lease, str], object]
    ) -> None:
        """See `Membership.follow`."""
        super().follow(post, lost)
        self.look()

    def look(self) -> int:
        """See `ClusterMembership.look`."""
        self._looks += 1
        self._woken.set()
        return self._looks

    def give(self, shards: Mapping[int, int], to: str) -> None:
        """See `ClusterMembership.give`."""
        lease = self._current.lease
        if lease is not None:
            self._hand_overs.append(_HandOver(lease, dict(shards), UUID(to)))
            self.look()

    def retire(self) -> None:
        """See `ClusterMembership.retire`."""
        self._is_retired = True
        self.look()

    def feed(self, shards: Collection[int]) -> None:
        """See `ClusterMembership.feed`."""
        self._feed.shards = ShardSet.of(shards, self.shards)

    def release_claims(self, shards: Collection[int]) -> None:
        """See `ClusterMembership.release_claims`."""
        if shards:
            self.releasing(ShardSet.of(shards, self.shards))

    # --- joining and leaving, in the writer's thread ---------------------------------------------

    def _new_node(self, server: str) -> NewNode:
        member = self._member
        return attrs.evolve(
            super()._new_node(server),
            address=member.address,
            types=member.types,
            app_release=member.release,
        )

    def _begin(self, joined: Joined) -> None:
        self._cluster = joined.cluster
        self._forget()
        self.feed(())

    def leave(self) -> None:
        """See `PostgresMembership.leave`."""
        super().leave()
        self._feed.shards = None

    # --- in the thread ---------------------------------------------------------------------------

    def _work(self, lease: NodeLease) -> float:
        if self._seen is None or self._post is None:
            return math.inf
        try:
            return self._divide(self._connected(max(lease.left, LEAST_WAIT_SECONDS)), lease)
        except _Removed:
            self._current.lose(lease, REMOVED)
        except (psycopg.Error, WrongServer, Unreachable) as error:
            if isinstance(error, psycopg.Error) and is_deposed(error):
                self._current.lose(lease, REMOVED)
                return math.inf
            if self._connection is not None and not self._connection.is_usable():
                self._drop()
            logger.info("%s: tries again: %s", self._settings.conninfo.location, self._text(error))
            return self._retry_pause()
        return math.inf

    def _divide(self, connection: Connection, lease: NodeLease) -> float:
        """Hand over, read, remove and acquire. Returns the pause until the next time.

        Raises:
            _Removed: The own node isn't there any more.
            psycopg.Error: It failed.
        """
        if connection.session.server.incarnation != lease.server:
            raise _Removed
        connection.fence = lease.node_id, lease.server
        self._announce(connection, lease)
        self._hand_over(connection, lease)
        looked = self._looks
        division = self._division = connection.perform(
            lambda connection: self._shards.read(connection, self._division)
        )
        found = division.nodes.get(lease.node_id)
        if found is None or found.server != lease.server or len(division.terms) != self.shards:
            raise _Removed
        self._show(division, looked)
        has_removed = self._remove_dead(connection, lease, division)
        if self._acquire(connection, lease, division) or has_removed:
            return 0.0  # to see the change
        return min(node.ttl for node in division.nodes.values()) / BEATS

    def _announce(self, connection: Connection, lease: NodeLease) -> None:
        """Let others know that this node may own shards, and later that it leaves."""
        is_leaving = self._is_retired
        if self._announced != is_leaving:
            connection.perform(
                lambda connection: self._shards.announce(
                    connection,
                    lease.node_id,
                    lease.server,
                    serves=self._member.serves,
                    is_leaving=is_leaving,
                )
            )
            self._announced = is_leaving

    def _hand_over(self, connection: Connection, lease: NodeLease) -> None:
        """Give shards away, as `give` has asked for."""
        giver, server = lease.node_id, lease.server
        if self._in_doubt:
            doubt = dict(self._in_doubt)
            connection.perform(lambda connection: self._shards.void(connection, giver, doubt))
            self._settle()
        while self._hand_overs:
            each = self._hand_overs.popleft()
            if each.lease is not lease:
                continue
            self._in_doubt.update(each.shards)
            try:
                is_there = connection.perform(
                    lambda connection, each=each: self._shards.give(  # type: ignore[misc]
                        connection, giver, server, each.shards, each.to
                    )
                )
            except psycopg.Error as error:
                if not connection.is_usable():
                    raise
                logger.info(
                    "%s: %d shards stay here: %s",
                    *(self._settings.conninfo.location, len(each.shards), self._text(error)),
                )
            else:
                if not is_there:
                    raise _Removed
            self._settle()

    def _settle(self) -> None:
        self._settled.update(self._in_doubt)
        self._in_doubt.clear()

    def _show(self, division: Division, looked: int) -> None:
        """Report a view, unless it is the latest one, settles nothing, and was not asked for."""
        members = {
            str(node_id): node.as_member()
            for node_id, node in division.nodes.items()
            if node.group == self._member.group
        }
        shown = members, division.owners, division.terms
        if shown == self._shown and not self._settled and looked == self._shown_looks:
            return
        self._shown, self._shown_looks = shown, looked
        self._views += 1
        owners, terms, settled = division.owners, division.terms, frozenset(self._settled)
        view = View(self._views, members, owners, terms, looked, settled)
        self._settled.clear()
        assert self._post is not None
        assert self._seen is not None
        with contextlib.suppress(Exception):  # the event loop has ended
            self._post(partial(self._seen, view))

    def _remove_dead(self, connection: Connection, lease: NodeLease, division: Division) -> bool:
        """Remove the nodes whose death is proved. Returns whether there were any."""
        has_removed = False
        self._deaths.keep(division.nodes)
        for node in division.nodes.values():
            if (
                node.node_id == lease.node_id
                or self._deaths.look(node, lease.server) is not Sign.DEAD
            ):
                continue
            try:
                has_removed |= self._remove(connection, node)
            except psycopg.Error as error:
                if not connection.is_usable():
                    raise
                logger.info(  # its last transaction still holds its row
                    "%s: couldn't remove process %d on %s yet: %s",
                    *(self._settings.conninfo.location, node.pid, node.host, self._text(error)),
                )
        return has_removed

    def _acquire(self, connection: Connection, lease: NodeLease, division: Division) -> bool:
        """Acquire shards without an owner, up to this node's share. Returns whether it got some.

        Shards that have been free for a TTL are acquired above the share: their taker may hang.
        """
        if self._is_retired or self._hung_for(boot_time()) > self._node.ttl:
            return False
        takers = newest(
            node.as_member() for node in division.nodes.values() if node.group == self._member.group
        )
        if lease.holder not in takers:
            return False
        owners = division.owners
        free = [shard for shard, owner in enumerate(owners) if owner is None]
        now = boot_time()
        if not free:
            self._free_since = math.inf
            return False
        self._free_since = min(self._free_since, now)
        share = -(-len(owners) // len(takers))
        wanted = share - sum(owner == lease.holder for owner in owners)
        if now - self._free_since > self._node.ttl:
            wanted = len(free)
        if wanted <= 0:
            return False
        # Members that look at the same time begin at different shards.
        begin = takers.index(lease.holder) * len(free) // len(takers)
        chosen = (free[begin:] + free[:begin])[:wanted]
        terms = {shard: division.terms[shard] for shard in chosen}
        return (
            connection.perform(
                lambda connection: self._shards.acquire(connection, lease.node_id, terms)
            )
            > 0
        )
