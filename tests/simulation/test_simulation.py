"""Many callers, failing storage, crashing processes, jumping clocks: what all were told agrees.

Each object's history is linearizable, and the effects of each alarm happened exactly once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trio_durable import SQLiteStorage

from .run import KINDS, Report, draw, simulate
from .schedule import BACKENDS
from .seeds import ASYNCIO_SEEDS, MORE_SEEDS, SEEDS, SQLITE_SEEDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [simulate(seed) for seed in SEEDS]


def test_every_history_is_as_it_must_be(reports: list[Report]) -> None:
    """`simulate` raises if one isn't; here is what there was to be judged."""
    assert {each.kind for each in reports} == set(KINDS)
    assert all(each.histories == 10 for each in reports)
    assert sum(each.operations for each in reports) > 10_000
    assert sum(each.unknown for each in reports) > 1000
    assert sum(each.crashes for each in reports) > 50
    assert sum(each.faults for each in reports) > 200
    assert sum(each.alarms for each in reports) > 200
    # Handlers of alarms begin in vain as well.
    assert sum(each.attempts for each in reports) > 2 * sum(each.alarms for each in reports)


def test_what_more_seeds_tell_is_as_it_must_be() -> None:
    """Those in which mutants are found that show seldom."""
    for seed in MORE_SEEDS:
        simulate(seed)


def test_on_asyncio_every_history_is_as_it_must_be() -> None:
    """The same worlds, in an event loop that resumes tasks in a drawn order."""
    reports = [simulate(seed, backend="asyncio") for seed in ASYNCIO_SEEDS]
    assert {each.kind for each in reports} == set(KINDS)
    assert sum(each.operations for each in reports) > 6000
    assert sum(each.crashes for each in reports) > 30
    assert sum(each.alarms for each in reports) > 120


def test_a_history_of_thousands_of_operations() -> None:
    report = simulate(3, callers=40, operations=100)
    assert report.operations > 4000


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_tells_the_same_story_in_every_process(backend: str) -> None:
    seeds = [1, 2, 3]
    here = [simulate(seed, backend=backend).digest for seed in seeds]
    assert digests_elsewhere(seeds, backend) == here


def digests_elsewhere(seeds: list[int], backend: str, *, cluster: bool = False) -> list[int]:
    """What another process simulates, with other hashes of texts."""
    program = (
        "import json; from simulation.run import simulate; "
        f"print(json.dumps([simulate(seed, backend={backend!r}, cluster={cluster}).digest "
        f"for seed in {seeds}]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "PYTHONHASHSEED": "7",
        },
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    found: list[int] = json.loads(output)
    return found


def test_on_sqlite_the_story_is_the_same(tmp_path: Path, reports: list[Report]) -> None:
    """With its statements to fence, claim and acknowledge in the place of the memory's."""
    for seed in SQLITE_SEEDS:
        storage = SQLiteStorage(tmp_path / f"{seed}.db", durability="normal")
        report = simulate(seed, storage=storage)
        assert report.digest == reports[SEEDS.index(seed)].digest


def test_seeds_draw_different_worlds() -> None:
    settings = {str(draw(seed)) for seed in SEEDS}
    assert len(settings) > len(SEEDS) / 2
