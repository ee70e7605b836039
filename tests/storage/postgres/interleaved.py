"""Members of one database whose statements a test interleaves, and a check after each of them.

Each member has two threads, as in a program: that of its node, which renews, reads, removes,
acquires and hands over, and that of its writer. Its event loop is the test, which gets views when
it likes to, and adopts them as a runtime does. Time is a number that the test moves.

The check knows nothing of the library's decisions. It compares the rows before and after a
statement, and the shards that each member believes to be its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from unittest.mock import patch as patched

import attrs
import psycopg
import pytest

from trio_durable._errors import StorageUnavailable
from trio_durable.storage import LeaseOver, NewMember, StorageFault, View, Writer
from trio_durable.storage import _membership as _contract
from trio_durable.storage.postgres import (
    PostgresStorage,
    _cluster,
    _deaths,
    _leases,
    _membership,
    _nodes,
    _session,
)
from trio_durable.storage.postgres._cluster import PostgresClusterMembership
from trio_durable.storage.postgres._leases import NodeLease
from trio_durable.storage.postgres._servers import Server
from trio_durable.storage.postgres._shard_function import shard_of

from .rows import Admin, commit, save
from .steps import Actor, Scheduler, scheduler_of

TTL = 100.0
SHARDS = 3
NAMES = [
    next(f"{n}" for n in range(1000) if shard_of(f"{n}", SHARDS) == shard)
    for shard in range(SHARDS)
]
"""An object of each shard."""

# One statement, so one snapshot.
_ROWS = """
SELECT (SELECT json_object_agg(node_id, server) FROM durable_nodes),
    (SELECT json_agg(json_build_array(owner, term) ORDER BY shard) FROM durable_shards),
    (SELECT json_object_agg(object_id, json_build_array(revision, state)) FROM durable_objects)
"""

_BLOCKERS = """
SELECT DISTINCT unnest(pg_blocking_pids(pid)) FROM unnest(%s::int[]) AS waiting (pid)
"""

_MOST_STATEMENTS = 50
_TABLES = ["durable_nodes", "durable_beats", "durable_shards", "durable_objects"]
_DISCONNECT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()
    AND application_name LIKE 'trio_durable%'
"""


class Violated(AssertionError):
    """A guarantee that members of a cluster have."""


@attrs.frozen
class Rows:
    """What is stored, as of one moment."""

    nodes: dict[str, str]
    """The incarnations of the server that the nodes have joined, by their ids."""
    shards: list[tuple[str | None, int]]
    """Owners and terms."""
    objects: dict[str, tuple[int, str]]
    """Revisions and writers, by the ids of objects."""


class Node:
    """A member, and what its runtime believes."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        storage = PostgresStorage(world.conninfo)
        new = NewMember("default", None, True, TTL, {}, 0)
        self.writer: Writer = storage.open_member(new)
        membership = self.writer.membership
        assert isinstance(membership, PostgresClusterMembership)
        self.membership = membership
        self.inbox: deque[View] = deque()
        self.thread = world.scheduler.add(f"node {number}")
        self.writing = world.scheduler.add(f"writer {number}")
        self.owned: set[int] = set()
        self.terms: list[int] = [0] * SHARDS
        self.moving: dict[int, str] = {}
        """The shards that are given away, and to whom, until a view settles them."""
        self.known: dict[int, int] = {}
        """The revisions of the objects in memory, by their shards."""
        self.others: list[str] = []
        self.saves = 0
        self.saving: int | None = None
        """The shard of the save that is under way."""
        self.is_rejoining = False
        """Its writer's thread has the membership, for which the node's thread would wait."""
        membership.watch(self.inbox.append)
        membership.follow(lambda call: call(), lambda lease, text: None)
        world.holders[self.id] = self.lease

    @property
    def lease(self) -> NodeLease:
        lease = self.membership._current.lease
        assert lease is not None
        return lease

    @property
    def id(self) -> str:
        return self.lease.holder

    def believed(self) -> set[int]:
        """The shards whose objects it serves."""
        return self.owned - self.moving.keys() if self.lease.is_valid() else set()

    @property
    def may_beat(self) -> bool:
        """The node's thread can begin a round."""
        return self.thread.is_idle and not self.is_rejoining

    # --- what its event loop does ----------------------------------------------------------------

    def adopt(self) -> None:
        """Adopt the next view, as `ShardMap.adopt`."""
        view = self.inbox.popleft()
        if not self.lease.is_valid():
            return
        for shard in view.settled:
            self.moving.pop(shard, None)
        self.owned = {shard for shard, owner in enumerate(view.owners) if owner == self.id}
        self.terms = list(view.terms)
        self.others = [each for each in view.takers() if each != self.id]
        self._forget_others()

    def _forget_others(self) -> None:
        for shard in self.known.keys() - self.believed():
            del self.known[shard]

    def give(self, shard: int, to: str) -> None:
        """Give a shard away. Nothing of it is in memory any more, and no save is under way."""
        self.moving[shard] = to
        self._forget_others()
        self.membership.give({shard: self.terms[shard]}, to)

    # --- what its threads do ---------------------------------------------------------------------

    def beat(self) -> None:
        """One round of the node's thread."""
        membership, lease = self.membership, self.lease
        membership._renew_at = 0.0
        with membership._in_use:
            membership._woken.clear()
            if not lease.is_reported:
                membership._serve(lease)

    def rejoin(self) -> None:
        """Join again, as a runtime does that has lost its lease."""
        self.owned.clear()
        self.moving.clear()
        self.known.clear()
        self.others.clear()
        self.is_rejoining = True
        try:
            with suppress(StorageUnavailable):
                self.membership.rejoin()
        finally:
            self.is_rejoining = False
        # A view of the former lease never comes after this.
        self.inbox.clear()
        self._world.holders[self.id] = self.lease

    def save(self, shard: int) -> None:
        """Change the object of a shard."""
        lease, revision = self.lease, self.known[shard]
        self.saves += 1
        try:
            stale = commit(self.writer, save(NAMES[shard], revision, f'"{lease.holder}"'.encode()))
        except LeaseOver:
            self.known.pop(shard, None)
        except StorageFault:  # the outcome isn't known
            self.known.pop(shard, None)
        else:
            if stale or shard not in self.known:
                self.known.pop(shard, None)
            else:
                self.known[shard] = revision + 1
                if lease.is_valid():
                    self._world.acknowledged[shard] = revision + 1
        finally:
            self.saving = None


class World:
    """Members, what is stored, and the time."""

    def __init__(self, conninfo: str, admin: Admin, scheduler: Scheduler) -> None:
        self.conninfo = conninfo
        self.admin = admin
        self.scheduler = scheduler
        self.now = 1000.0
        self.epoch = 0
        """Grows with each start of the server."""
        self.incarnation = ""
        """That of the server, once a connection has seen it."""
        self.nodes: list[Node] = []
        self.holders: dict[str, NodeLease] = {}
        self.acknowledged: dict[int, int] = {}
        """The revisions that callers know of, by their shards."""
        self._kept: dict[int, int] = {}
        self.log: list[str] = []
        self._stranger: psycopg.Connection[tuple[Any, ...]] | None = None
        self.rows = Rows({}, [], {})

    # --- changes ---------------------------------------------------------------------------------

    def join(self) -> Node:
        """One more member, which joins at once."""
        node = Node(self, len(self.nodes))
        self.nodes.append(node)
        self.look(f"{node.number} joins")
        return node

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.look(f"{seconds:g} s pass")

    def start(self, actor: Actor, what: str, task: Callable[[], None]) -> None:
        self.scheduler.start(actor, task)
        self.look(f"{actor.name} begins to {what}")

    def step(self, actor: Actor) -> None:
        self.scheduler.step(actor)
        self.look(f"{actor.name} goes on")

    def finish(self, actor: Actor) -> None:
        """Let a thread do all of its task, unless it has to wait for another one.

        It may try again and again for a lock that a stopped thread has.
        """
        for _ in range(_MOST_STATEMENTS):
            if actor.has_stopped:
                self.step(actor)

    def beat(self, node: Node, *, views: bool = True) -> None:
        """A whole round of a node, and its views."""
        if node.may_beat:
            self.start(node.thread, "beat", node.beat)
        self.finish(node.thread)
        while views and node.inbox:
            self.adopt(node)

    def adopt(self, node: Node) -> None:
        node.adopt()
        self.look(f"{node.number} adopts a view")

    def save(self, node: Node, shard: int) -> None:
        """Begin to change an object, which the member has in memory or loads."""
        if shard not in node.known:
            node.known[shard] = self.read().objects.get(NAMES[shard], (0, ""))[0]
        node.saving = shard
        self.start(node.writing, f"save in {shard}", lambda: node.save(shard))

    def rejoin(self, node: Node) -> None:
        self.start(node.writing, "rejoin", node.rejoin)

    def leave(self, node: Node) -> None:
        """Let a member that does nothing leave, and join again."""
        if node.thread.is_idle and node.writing.is_idle:
            self.rejoin(node)
            self.finish(node.writing)

    def revive(self, node: Node) -> None:
        """Let a member join again if it knows that its lease is over."""
        if node.lease.is_reported:
            self.leave(node)

    def finish_all(self) -> None:
        """Let all threads do all of their tasks."""
        while stopped := [actor for actor in self.scheduler.actors if actor.has_stopped]:
            for actor in stopped:
                self.finish(actor)

    # --- another server --------------------------------------------------------------------------

    def keep(self) -> None:
        """Let a standby have what is stored now, and nothing later."""
        for table in _TABLES:
            self._execute(f"DROP TABLE IF EXISTS kept_{table}")
            self._execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
        self._kept = dict(self.acknowledged)

    def fail_over(self) -> None:
        """Promote the standby of `keep`. Connections end."""
        self.epoch += 1
        self.incarnation = ""
        if self._stranger is not None:
            self._stranger.rollback()
        self._execute(_DISCONNECT)
        with self.admin.transaction():
            self._execute("SET LOCAL session_replication_role = replica")
            for table in _TABLES:
                self._execute(f"DELETE FROM {table}")
                self._execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")
        self.acknowledged = dict(self._kept)
        self.scheduler.settle()
        self.rows = self.read()
        self.look("the standby is promoted")

    def _execute(self, statement: str) -> None:
        self.admin.execute(statement.encode())

    def new_server(self, started_at: int, *details: Any) -> Server:
        """The server at the end of a new connection."""
        server = Server(started_at + self.epoch, *details)
        self.incarnation = server.incarnation
        return server

    def lock(self, statement: str, *parameters: object) -> None:
        """Let another program lock rows, until `unlock`."""
        if self._stranger is None:
            self._stranger = psycopg.connect(self.conninfo)
        self._stranger.execute("SET LOCAL lock_timeout = '10ms'")
        try:
            self._stranger.execute(statement.encode(), parameters)
        except psycopg.errors.LockNotAvailable:
            self._stranger.rollback()
        self.look(f"another program: {statement} {parameters}")

    def unlock(self) -> None:
        if self._stranger is not None:
            self._stranger.rollback()
            self.scheduler.settle()
            self.look("another program ends its transaction")

    @property
    def has_locks(self) -> bool:
        return self._stranger is not None and self._stranger.info.transaction_status != 0

    def close(self) -> None:
        if self._stranger is not None:
            self._stranger.close()
        for node in self.nodes:
            node.writer._reconnecting.close()  # type: ignore[attr-defined]
            node.membership._end()

    # --- the check -------------------------------------------------------------------------------

    def read(self) -> Rows:
        row = self.admin.execute(_ROWS).fetchone()
        assert row is not None
        stored: tuple[Any, ...] = row
        nodes, shards, objects = stored
        return Rows(
            nodes or {},
            [(owner, term) for owner, term in shards],
            {
                each: (revision, str(state).strip('"'))
                for each, (revision, state) in (objects or {}).items()
            },
        )

    def look(self, what: str) -> None:
        """Check what has happened since the last look."""
        self.log.append(what)
        before, after = self.rows, self.read()
        self.rows = after
        for shard in range(SHARDS):
            believers = [node.number for node in self._up() if shard in node.believed()]
            self._require(len(believers) < 2, f"{believers} have shard {shard}")
            if before.shards:
                self._check_owner(shard, before, after)
            self._check_object(shard, before, after)
        for node_id in before.nodes.keys() - after.nodes.keys():
            self._require(
                not self.holders[node_id].is_valid(), f"{node_id} was removed with its lease"
            )
        self._check_waits(after)

    def _check_waits(self, after: Rows) -> None:
        """Nothing waits for a save of a removed member, which may be frozen."""
        waiting = [actor.pid for actor in self.scheduler.actors if actor.is_moving]
        if not waiting:
            return
        blockers = {pid for (pid,) in self.admin.execute(_BLOCKERS, (waiting,))}
        for node in self.nodes:
            if node.saving is not None and node.writing.pid in blockers:
                self._require(node.id in after.nodes, f"{node.id} was removed, and has locks")

    def _up(self) -> list[Node]:
        """The members of the present server. A commit that it lacks may be known to others."""
        return [node for node in self.nodes if node.lease.server == self.incarnation]

    def _check_owner(self, shard: int, before: Rows, after: Rows) -> None:
        """An owner has given its shard away, or was removed."""
        (owner, term), (now, new_term) = before.shards[shard], after.shards[shard]
        self._require(new_term >= term, f"the term of shard {shard} went back")
        if owner in (None, now):
            return
        is_given = any(node.id == owner and node.moving.get(shard) == now for node in self.nodes)
        was_removed = now is None and owner not in after.nodes
        self._require(is_given or was_removed, f"shard {shard} was taken from {owner} by {now}")

    def _check_object(self, shard: int, before: Rows, after: Rows) -> None:
        """A change is that of the shard's owner, and none that was acknowledged is gone."""
        name = NAMES[shard]
        revision, writer = after.objects.get(name, (0, ""))
        if after.objects.get(name) != before.objects.get(name):
            self._require(writer in before.nodes, f"{writer} has changed {name}, and was removed")
            self._require(
                before.shards[shard][0] == writer,
                f"{writer} has changed {name}, and isn't its owner",
            )
            self._require(
                before.nodes[writer] == self.incarnation,
                f"{writer} has changed {name} on another server",
            )
        self._require(revision >= self.acknowledged.get(shard, 0), f"a change of {name} is gone")
        for node in self._up():
            if shard in node.believed() and shard in node.known and node.saving != shard:
                self._require(
                    node.known[shard] == revision, f"{node.number} has an older state of {name}"
                )

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            raise Violated("\n".join([problem, *self.log[-60:]]))


@contextmanager
def world_of(conninfo: str, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world without members yet, in an empty schema."""
    with ExitStack() as stack:
        stack.enter_context(patched.object(_nodes, "SHARDS", SHARDS))
        scheduler = stack.enter_context(scheduler_of(admin, monkeypatch))
        world = World(conninfo, admin, scheduler)
        for module in (_contract, _membership, _cluster, _deaths, _leases):
            stack.enter_context(patched.object(module, "boot_time", lambda: world.now))
        stack.enter_context(patched.object(_session, "Server", world.new_server))
        # Waits have real time, of which the virtual one says nothing.
        for module in (_membership, _cluster):
            stack.enter_context(patched.object(module, "LEAST_WAIT_SECONDS", 30.0))
        # The test is the node's thread.
        stack.enter_context(
            patched.object(_membership.PostgresMembership, "_run", lambda self: None)
        )
        stack.callback(world.close)
        yield world
