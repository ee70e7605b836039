"""Members of one database, with all else that can happen between two of their statements.

`interleaved.World` checks after each statement that no shard is believed to be two members' own,
that none was taken from its owner, and that no removed member has written.

``make test`` has a sample of the points at which a member stops, and of the locks that it waits
for: all operations and all that happens meanwhile are in it. For all of them set
``TRIO_DURABLE_INTERLEAVINGS=all``, and ``TRIO_DURABLE_ORDERS`` for more drawn orders.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from .interleaved import SHARDS, TTL, Node, World, world_of
from .rows import Admin

ORDERS = int(os.environ.get("TRIO_DURABLE_ORDERS", "2"))
ALL = os.environ.get("TRIO_DURABLE_INTERLEAVINGS") == "all"
_SET_CLOCK = "UPDATE durable_beats SET beaten_at = beaten_at - interval '1 day'"


@pytest.fixture
def world(postgres: str, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_of(postgres, admin, monkeypatch) as world:
        yield world


def settle(world: World, count: int) -> list[Node]:
    """Members that live, the first of which owns all shards and has an object of each in memory."""
    world.unlock()
    while len(world.nodes) < count:
        world.join()
    first, *others = world.nodes
    world.finish_all()
    while world.rows.nodes.keys() - {node.id for node in world.nodes}:
        world.pass_time(0.4 * TTL)  # until these are removed
        for node in world.nodes:
            world.revive(node)
            world.beat(node)
    for node in world.nodes:
        world.leave(node)
    for node in (first, first, first, *others, first):
        world.beat(node)
    assert first.believed() == set(range(SHARDS))
    for shard in range(SHARDS):
        world.save(first, shard)
        world.finish(first.writing)
    world.keep()
    return world.nodes


def die(world: World, node: Node) -> None:
    """Let a member be silent, until the others have taken its shards over."""
    others = [each for each in world.nodes if each is not node and each.thread.is_idle]
    for seconds in (*[0.4 * TTL] * 4, *[0.05 * TTL] * 3):  # removed, acquired, seen
        world.pass_time(seconds)
        for each in others:
            world.beat(each)
    serve(world, others)


def serve(world: World, nodes: list[Node]) -> None:
    """Let members change an object of each shard that is theirs."""
    for node in nodes:
        for shard in sorted(node.believed()):
            if node.writing.is_idle:
                world.save(node, shard)
                world.finish(node.writing)


# --- what a member does, and stops in the middle of ----------------------------------------------


def beat(world: World, node: Node) -> None:
    world.start(node.thread, "beat", node.beat)


def acquire(world: World, node: Node) -> None:
    """Acquire the shard of a member that has left, as the only one that serves."""
    other, newcomer = world.nodes[1:3]
    node.give(0, other.id)
    world.beat(node)
    world.beat(other)
    world.leave(other)
    world.leave(newcomer)
    beat(world, node)


def give(world: World, node: Node) -> None:
    node.give(0, world.nodes[1].id)
    beat(world, node)


def remove(world: World, node: Node) -> None:
    """Remove a member that is taken for dead."""
    for _ in range(3):
        world.beat(node)
        world.beat(world.nodes[2])
        world.pass_time(0.4 * TTL)
    beat(world, node)


def save(world: World, node: Node) -> None:
    world.save(node, 0)


def save_slowly(world: World, node: Node) -> None:
    """Save in a transaction of several round trips."""
    node.writer._locks.timed_out()  # type: ignore[attr-defined]
    world.save(node, 0)


OPERATIONS: list[Callable[[World, Node], None]] = [beat, acquire, give, remove, save, save_slowly]


# --- what happens meanwhile ----------------------------------------------------------------------


def is_removed(world: World, node: Node) -> None:
    die(world, node)


def another_one_joins(world: World, node: Node) -> None:
    other = world.nodes[2]
    world.leave(other)
    for _ in range(2):
        world.beat(other)
    serve(world, [other])


def gets_a_shard(world: World, node: Node) -> None:
    other = world.nodes[1]
    for shard in sorted(other.believed()):
        other.give(shard, node.id)
    world.beat(other)
    serve(world, [other])


def clock_is_set(world: World, node: Node) -> None:
    """The clock of the server, as after a failover."""
    world.admin.execute(_SET_CLOCK)
    for each in world.nodes[1:]:
        world.beat(each)
    serve(world, world.nodes)


def server_is_another(world: World, node: Node) -> None:
    world.fail_over()
    world.finish(node.writing)
    serve(world, [node])  # which may not have noticed it
    for each in world.nodes[1:]:
        world.beat(each)


Part = Callable[[World, Node], None]
MEANWHILE: list[Part] = [
    is_removed,
    another_one_joins,
    gets_a_shard,
    clock_is_set,
    server_is_another,
]
LOCKS = {
    "objects": "SELECT FROM durable_objects FOR UPDATE",
    "shard": "SELECT FROM durable_shards WHERE shard = 0 FOR UPDATE",
    "node": "SELECT FROM durable_nodes WHERE node_id = %s FOR UPDATE",
}


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value))


# The steps of the samples divide no number of parts evenly, so each part is met.
EACH = list(product(OPERATIONS, MEANWHILE))
PAIRS = EACH if ALL else [*EACH[1::2], (acquire, another_one_joins)]
WAITS = list(product(OPERATIONS, MEANWHILE, LOCKS))[:: 1 if ALL else 13]
STRIDE = 1 if ALL else 4
"""Statements between two points at which a member stops."""


def test_each_part_is_met() -> None:
    assert {operation for operation, _ in PAIRS} == set(OPERATIONS)
    assert {meanwhile for _, meanwhile in PAIRS} == set(MEANWHILE)
    for number, parts in enumerate((OPERATIONS, MEANWHILE, LOCKS)):
        assert {each[number] for each in WAITS} == set(parts)


@pytest.mark.parametrize(("operation", "meanwhile"), PAIRS, ids=name_of)
def test_a_member_may_stop_before_each_statement(
    operation: Part, meanwhile: Part, world: World
) -> None:
    first, *_ = settle(world, 3)
    stops = EACH.index((operation, meanwhile)) % STRIDE
    while True:
        operation(world, first)
        for _ in range(stops):
            for actor in (first.thread, first.writing):
                if actor.has_stopped:
                    world.step(actor)
        is_over = first.thread.is_idle and first.writing.is_idle
        if not is_over or ALL:
            meanwhile(world, first)
        settle(world, 3)
        if is_over:
            break
        stops += STRIDE
    assert stops >= 1


@pytest.mark.parametrize(("operation", "meanwhile", "lock"), WAITS, ids=name_of)
def test_a_member_may_wait_within_a_statement(
    operation: Part, meanwhile: Part, lock: str, world: World
) -> None:
    first, *_ = settle(world, 3)
    operation(world, first)
    world.lock(LOCKS[lock], *([first.id] if lock == "node" else []))
    world.finish(first.thread)
    world.finish(first.writing)
    meanwhile(world, first)
    settle(world, 3)


# --- any order -----------------------------------------------------------------------------------


class Story:
    """A drawn order: some threads stop in the middle of what they do, the others do all of it."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)

    def run(self, events: int) -> None:
        settle(self.world, 3)
        draw = [self.beat, self.save, self.stop, self.step, self.pass_time, self.lock, self.give]
        for _ in range(events):
            self.rng.choices(draw, [10, 6, 6, 8, 3, 1, 3])[0]()
        settle(self.world, 3)

    def _node(self) -> Node:
        node = self.rng.choice(self.world.nodes)
        self.world.revive(node)
        return node

    def beat(self) -> None:
        self.world.beat(self._node(), views=self.rng.random() < 0.8)

    def save(self) -> None:
        node = self._node()
        if node.writing.is_idle and (shards := sorted(node.believed())):
            self.world.save(node, self.rng.choice(shards))
            self.world.finish(node.writing)

    def stop(self) -> None:
        """Begin something, and stop before one of its statements."""
        node, world = self._node(), self.world
        shards = sorted(node.believed())
        if self.rng.random() < 0.5:
            if node.may_beat:
                beat(world, node)
        elif shards and node.writing.is_idle:
            if self.rng.random() < 0.3:
                node.writer._locks.timed_out()  # type: ignore[attr-defined]
            world.save(node, self.rng.choice(shards))

    def step(self) -> None:
        stopped = [actor for actor in self.world.scheduler.actors if actor.has_stopped]
        if stopped:
            actor = self.rng.choice(stopped)
            if self.rng.random() < 0.7:
                self.world.step(actor)
            else:
                self.world.finish(actor)

    def pass_time(self) -> None:
        """Time passes, and all that can do so renew their leases."""
        self.world.pass_time(self.rng.choice([0.1, 0.4]) * TTL)
        for node in self.world.nodes:
            if self.rng.random() < 0.9:
                self.world.revive(node)
                self.world.beat(node)

    def lock(self) -> None:
        if self.world.has_locks:
            self.world.unlock()
        else:
            name = self.rng.choice(list(LOCKS))
            self.world.lock(LOCKS[name], *([self._node().id] if name == "node" else []))

    def give(self) -> None:
        node = self._node()
        shards = sorted(node.believed() - {node.saving})
        if shards and node.others:
            node.give(self.rng.choice(shards), self.rng.choice(node.others))


@pytest.mark.parametrize("seed", range(ORDERS))
def test_any_order(seed: int, world: World) -> None:
    Story(world, seed).run(120)
