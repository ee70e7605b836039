"""Members of a cluster, which crash, lose their leases and links, and give objects to each other.

No acknowledged change is lost or made twice, no reply is stale, and each alarm has its effect once.
With ``make deep`` there are many more seeds.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress

import pytest

from .cluster_mutants import CLUSTER_MUTANTS
from .run import Undecided, Violation, simulate
from .test_mutants import simulate_all
from .test_simulation import digests_elsewhere

SEEDS = int(os.environ.get("TRIO_DURABLE_CLUSTER_SEEDS", "1"))
"""How many worlds are simulated, each on Trio and on asyncio."""
IS_DEEP = SEEDS > 10
MUTANTS = CLUSTER_MUTANTS if IS_DEEP else ("written_after_its_lease", "unknown_repeated")
"""Each is found by one seed in two to ten, and a seed takes two to three seconds."""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_what_members_tell_is_as_it_must_be(backend: str) -> None:
    """`simulate` raises if it isn't; here is what there was to be judged."""
    reports = []
    for seed in range(SEEDS):
        with suppress(Undecided) if IS_DEEP else nullcontext():
            reports.append(simulate(seed, backend=backend, cluster=True))
    assert len(reports) > 0.9 * SEEDS
    for each in reports:
        assert each.kind == "cluster"
        assert each.operations > 500
        assert each.leases_lost > 5
        assert each.moves > 20
        assert each.forwarded > 100
        assert each.crashes > 2
    assert sum(each.cuts for each in reports) >= SEEDS
    assert sum(each.alarms for each in reports) > 2 * SEEDS


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_seed_tells_the_same_story_of_members_in_every_process(backend: str) -> None:
    [elsewhere] = digests_elsewhere([0], backend, cluster=True)
    assert elsewhere == simulate(0, backend=backend, cluster=True).digest


@pytest.mark.parametrize("name", MUTANTS)
def test_the_checker_finds_what_members_do_wrong(name: str) -> None:
    with CLUSTER_MUTANTS[name](), pytest.raises(Violation):
        simulate_all(range(100), cluster=True)
