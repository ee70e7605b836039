"""The graph of waits: any cycle is found, with its path, at a cost that others don't choose."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import attrs
import pytest

from trio_durable import CallCycle
from trio_durable._activations.wait_graph import Turn, WaitGraph
from trio_durable._eventloop.running import running_loop
from trio_durable._keys import ObjectKey

pytestmark = pytest.mark.anyio


@attrs.define(eq=False)
class Node:
    """An object in a turn, which counts how often it is looked at."""

    key: ObjectKey
    own: Turn = attrs.field(init=False)
    looks: int = 0
    gate: None = None

    def __attrs_post_init__(self) -> None:
        self.own = Turn(self, "turn", readonly=False)

    @property
    def turn(self) -> Turn:
        self.looks += 1
        return self.own


def nodes() -> Iterator[Node]:
    number = 0
    while True:
        yield Node(ObjectKey("", "Node", str(number)))
        number += 1


def reachable(start: Node) -> set[Node]:
    found, pending = {start}, [start]
    while pending:
        for node in pending.pop().own.waits_for:
            assert isinstance(node, Node)
            if node not in found:
                found.add(node)
                pending.append(node)
    return found


async def test_a_wait_is_refused_if_and_only_if_it_closes_a_cycle() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        graph = WaitGraph(running_loop())
        some = [node for node, _ in zip(nodes(), range(rng.randint(1, 12)), strict=False)]
        waits: list[tuple[Node, Node]] = []
        for _ in range(60):
            if waits and rng.random() < 0.3:
                origin, target = waits.pop(rng.randrange(len(waits)))
                graph.end(origin.own, target)
                continue
            origin, target = rng.choice(some), rng.choice(some)
            closes = origin in reachable(target)
            try:
                graph.check(origin.own, target, "call")
            except CallCycle as cycle:
                assert closes
                path = [node for key in cycle.path for node in some if node.key == key]
                assert path[0] is path[-1] is origin
                assert path[1] is target
                for one, next_one in itertools.pairwise(path[1:]):
                    assert next_one in one.own.waits_for
            else:
                assert not closes
                graph.begin(origin.own, target)
                waits.append((origin, target))
        for origin, target in waits:
            graph.end(origin.own, target)
        assert not any(node.own.waits_for for node in some)
        assert not graph._waiting


async def test_a_cycle_of_any_length_is_found() -> None:
    graph = WaitGraph(running_loop())
    chain = [node for node, _ in zip(nodes(), range(20_000), strict=False)]
    for origin, target in itertools.pairwise(chain):
        graph.check(origin.own, target, "call")
        graph.begin(origin.own, target)
    with pytest.raises(CallCycle) as caught:
        graph.check(chain[-1].own, chain[0], "call")
    assert len(caught.value.path) == 20_001


async def test_a_caller_that_nothing_waits_for_never_searches_the_waits_of_others() -> None:
    graph = WaitGraph(running_loop())
    chain = [node for node, _ in zip(nodes(), range(1_000), strict=False)]
    for origin, target in itertools.pairwise(chain):
        graph.begin(origin.own, target)
    looks = sum(node.looks for node in chain)
    bystander = next(nodes())
    graph.check(bystander.own, chain[0], "call")
    assert sum(node.looks for node in chain) - looks <= 2


async def test_thousands_of_waits_of_one_turn_end_in_any_order() -> None:
    graph = WaitGraph(running_loop())
    caller, *others = (node for node, _ in zip(nodes(), range(5_001), strict=False))
    targets = others * 2
    for target in targets:
        graph.begin(caller.own, target)
    random.Random(1).shuffle(targets)
    for left, target in enumerate(reversed(targets)):
        assert len(graph._waiting) == len(caller.own.waits_for) > 0, left
        graph.end(caller.own, target)
    assert not caller.own.waits_for
    assert not graph._waiting
