"""Handlers that block the event loop: for longer than a TTL, and for longer than is tolerated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import pytest

from . import interleaved
from .interleaved import SHARDS, Node, World, world_of
from .rows import Admin

_UNRESPONSIVE_AFTER = 5.0


@pytest.fixture
def world(postgres: str, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(interleaved, "TTL", 1.0)
    with world_of(postgres, admin, monkeypatch) as world:
        yield world


class Loop:
    """An event loop that a handler may block: what is posted to it waits."""

    def __init__(self, node: Node) -> None:
        self.is_blocked = False
        self.posted: list[Callable[[], object]] = []
        self.losses: list[str] = []
        membership = node.membership
        membership._node = attrs.evolve(membership._node, unresponsive_after=_UNRESPONSIVE_AFTER)
        membership.follow(self.post, lambda lease, problem: self.losses.append(problem))

    def post(self, call: Callable[[], object]) -> None:
        self.posted.append(call)
        self.run()

    def run(self) -> None:
        while self.posted and not self.is_blocked:
            self.posted.pop(0)()


def members(world: World) -> tuple[Node, Loop, Node]:
    """A member with all shards, its event loop, and another one that looks after it."""
    one = world.join()
    loop = Loop(one)
    for _ in range(3):
        world.beat(one)
    other = world.join()
    world.beat(other)
    assert one.believed() == set(range(SHARDS))
    return one, loop, other


def pass_time(world: World, seconds: float, *nodes: Node) -> None:
    """Let time pass, in which the threads of nodes beat four times a second."""
    for _ in range(round(seconds * 4)):
        world.pass_time(0.25)
        for node in nodes:
            world.beat(node)


def test_a_handler_that_blocks_for_longer_than_a_ttl_costs_nothing(world: World) -> None:
    one, loop, other = members(world)
    loop.is_blocked = True
    pass_time(world, 2.0, one, other)
    assert one.lease.is_valid()
    assert one.id in world.rows.nodes
    loop.is_blocked = False
    loop.run()
    pass_time(world, 0.25, one, other)
    assert loop.losses == []
    world.save(one, 0)
    world.finish(one.writing)
    assert world.acknowledged == {0: 1}


def test_a_loop_that_hangs_for_too_long_is_taken_for_dead(world: World) -> None:
    one, loop, other = members(world)
    former = one.id
    one.known[0] = 0
    loop.is_blocked = True
    pass_time(world, _UNRESPONSIVE_AFTER, one, other)
    assert one.lease.is_valid()
    pass_time(world, 0.5, one, other)
    assert one.lease.is_valid()  # of its last renewal
    pass_time(world, 0.5, one, other)
    assert not one.lease.is_valid()
    [problem] = loop.losses
    assert "the event loop hasn't run for" in problem
    pass_time(world, 2.5, one, other)
    assert former not in world.rows.nodes
    assert other.believed() == set(range(SHARDS))
    world.start(one.writing, "save", lambda: one.save(0))
    world.finish(one.writing)
    assert world.acknowledged == {}
    assert world.rows.objects == {}
