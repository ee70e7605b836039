"""Whether the simulation would notice: of the library with one mechanism broken, each is found.

The same seeds, in `test_simulation`, find nothing in the library as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from trio_durable import SQLiteStorage

from .mutants import MUTANTS, OF_TWO_OWNERS, SELDOM_SEEN, sqlite_without_fence
from .run import Broken, Undecided, Violation, draw, simulate
from .seeds import MORE_SEEDS, SEEDS, SQLITE_SEEDS


def simulate_all(
    seeds: Iterable[int],
    folder: Path | None = None,
    *,
    backend: str = "trio",
    cluster: bool = False,
) -> None:
    for seed in seeds:
        storage = None
        if folder is not None:
            storage = SQLiteStorage(folder / f"{seed}.db", durability="normal")
        with suppress(
            Broken, Undecided
        ):  # what is broken may also keep the simulation from its end
            simulate(seed, storage=storage, backend=backend, cluster=cluster)


def test_the_checker_finds_no_fence_in_sqlite(tmp_path: Path) -> None:
    """The same mechanism, in the statement that saves."""
    with sqlite_without_fence(), pytest.raises(Violation):
        simulate_all(SQLITE_SEEDS, tmp_path)


@pytest.mark.parametrize("name", ["cancelled_calls_run", "reply_before_commit"])
def test_the_checker_finds_on_asyncio(name: str) -> None:
    """A sample: all are found there, with the same seeds."""
    with MUTANTS[name](), pytest.raises(Violation):
        simulate_all(SEEDS, backend="asyncio")


def _finds(name: str) -> Any:
    def test() -> None:
        with MUTANTS[name](), pytest.raises(Violation):
            simulate_all(seeds)

    pairs_only = name in OF_TWO_OWNERS
    all_seeds = [*SEEDS, *MORE_SEEDS] if name in SELDOM_SEEN else SEEDS
    seeds = [seed for seed in all_seeds if not pairs_only or draw(seed).kind == "pair"]
    test.__doc__ = MUTANTS[name].__doc__
    return test


# One test for each, so that a mutant that is missed is named: test_the_checker_finds_no_fence.
globals().update({f"test_the_checker_finds_{name}": _finds(name) for name in MUTANTS})
