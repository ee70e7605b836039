"""Tickets that are failed as a runtime ends, or loses its lease, in each stage of a commit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_durable.storage import PartialFault

from .bench import Bench, Held


def begin(bench: Bench, stage: str, fail: Callable[[], object]) -> Held:
    """A commit of what is no object in memory, and ``fail`` while it is in a stage of it."""
    if stage == "waiting":
        held = bench.owner("outside").save(b"1")
        fail()
    elif stage == "written":
        bench.writer.then(fail)
        held = bench.owner("outside").save(b"1")
        bench.runner.step()
    else:  # the loop hasn't heard of the outcome
        held = bench.owner("outside").save(b"1")
        bench.runner.step()
        fail()
    return held


@pytest.mark.parametrize("stage", ["waiting", "written", "durable"])
@pytest.mark.parametrize("how", ["abandoned", "deposed"])
def test_a_commit_of_no_object_is_failed_in_each_stage(bench: Bench, how: str, stage: str) -> None:
    group, error = bench.group_commit, RuntimeError("over")

    def fail() -> None:
        if how == "abandoned":
            group.abandon([], lambda: error)
        else:
            group.depose([], lambda owner: error)

    held = begin(bench, stage, fail)
    assert held.ended
    assert held.error is error
    bench.finish()
    assert held.error is error
    written = bench.writer.commits_of("outside")
    assert len(written) == (0 if stage == "waiting" else 1)


def test_a_commit_in_the_middle_of_a_divided_batch_is_failed(bench: Bench) -> None:
    error = RuntimeError("over")
    held: list[Held] = []

    def refuse() -> None:
        raise PartialFault("a row", [0])

    bench.writer.then(refuse, lambda: bench.group_commit.abandon([], lambda: error))
    held += [owner.save(b"1") for owner in bench.owners(3)]
    bench.runner.step()
    assert [each.error for each in held] == [error] * 3
    bench.finish()
