"""Batches that the storage refuses because of a part of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import pytest

from trio_durable import ObjectKey, PersistenceError, StaleObject
from trio_durable._persistence.division import MAX_DIVISIONS, in_parts
from trio_durable._persistence.group_commit import MAX_SUSPECTS
from trio_durable.storage import Commit, PartialFault, StorageFault

from .bench import FAULT, Bench, FakeOwner, Held, failure, told

Item = tuple[str, int]
"""A tenant and a number."""


def divided(
    items: list[Item], attempt: Callable[[list[Item]], str | StorageFault]
) -> tuple[list[Item], list[Item], int]:
    """The items that succeeded, those that failed, and the number of attempts."""
    fine: list[Item] = []
    failed: list[Item] = []
    attempts = 0

    def counted(part: list[Item]) -> str | StorageFault:
        nonlocal attempts
        attempts += 1
        return attempt(part)

    for part, outcome in in_parts(items, lambda item: item[0], counted):
        (failed if isinstance(outcome, StorageFault) else fine).extend(part)
    assert sorted(fine + failed) == sorted(items)
    return fine, failed, attempts


def refusing(
    culprits: Collection[Item], *, named: bool = False
) -> Callable[[list[Item]], str | StorageFault]:
    def attempt(part: list[Item]) -> str | StorageFault:
        positions = [at for at, item in enumerate(part) if item in culprits]
        if not positions:
            return "fine"
        return PartialFault("refused", positions if named else ())

    return attempt


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1024])
def test_one_culprit_among_many_is_found_in_logarithmic_time(size: int) -> None:
    items = [("", n) for n in range(size)]
    for culprit in {0, size // 3, size - 1}:
        _, failed, attempts = divided(items, refusing([("", culprit)]))
        assert failed == [("", culprit)]
        assert attempts <= 1 + 2 * math.ceil(math.log2(size))


def test_culprits_that_the_storage_names_take_two_more_attempts() -> None:
    items = [("", n) for n in range(100)]
    culprits = items[::7]
    fine, failed, attempts = divided(items, refusing(culprits, named=True))
    assert failed == culprits
    assert fine == [item for item in items if item not in culprits]
    assert attempts == 3


def test_a_batch_is_divided_between_tenants_first() -> None:
    """Items of one tenant come in any order, and often fail for one reason."""
    items = [(f"{n % 8}", n) for n in range(800)]
    seen: list[list[Item]] = []

    def attempt(part: list[Item]) -> str | StorageFault:
        seen.append(part)
        if len({tenant for tenant, _ in part}) > 1:
            return PartialFault("too many tenants") if ("3", 3) in part else "fine"
        positions = range(len(part)) if ("3", 3) in part else ()
        return PartialFault("no such schema", positions) if positions else "fine"

    _, failed, attempts = divided(items, attempt)
    assert failed == [item for item in items if item[0] == "3"]
    assert attempts == 7


def test_if_all_are_culprits_the_attempts_are_bounded() -> None:
    items = [("", n) for n in range(1024)]
    _, failed, attempts = divided(items, refusing(items))
    assert failed == items
    assert attempts == 2 * MAX_DIVISIONS + 1


def test_a_fault_of_the_storage_itself_divides_nothing() -> None:
    items = [("", n) for n in range(9)]
    assert divided(items, lambda part: FAULT) == ([], items, 1)


# --- in the group commit -------------------------------------------------------------------------


def refuse(bench: Bench, *ids: str, named: bool = False) -> None:
    """Let the storage refuse batches that hold commits of these objects."""
    commit = bench.writer.commit

    def refusing(batch: Sequence[Commit], now: int) -> Collection[int]:
        positions = [at for at, each in enumerate(batch) if each.key.object_id in ids]
        if positions:
            bench.writer.batches.append(list(batch))
            raise PartialFault("refused", positions if named else ())
        return commit(batch, now)

    bench.writer.commit = refusing  # type: ignore[method-assign]


@pytest.mark.parametrize("named", [True, False])
def test_only_the_refused_one_fails(bench: Bench, named: bool) -> None:
    refuse(bench, "00005", named=named)
    owners = bench.owners(9)
    helds = [owner.save(b"1") for owner in owners]
    bench.finish()
    for owner, held in zip(owners, helds, strict=True):
        if owner.key.object_id == "00005":
            error = failure(held)
            assert type(error) is PersistenceError
            assert error.problem == "refused"
            assert isinstance(error.__cause__, PartialFault)
            assert bench.writer.stored(owner) is None
        else:
            assert told(held) == held.name
            assert bench.writer.stored(owner) == (1, b"1")
    assert [owner.failures for owner in owners] == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert bench.group_commit.rows == 8


def test_stale_commits_of_a_part_are_stale(bench: Bench) -> None:
    refuse(bench, "00003")
    owners = bench.owners(4)
    owners[1].revision = 7
    helds = [owner.save(b"1") for owner in owners]
    bench.finish()
    assert type(failure(helds[1])) is StaleObject
    assert type(failure(helds[3])) is PersistenceError
    assert [told(helds[at]) for at in (0, 2)] == [helds[0].name, helds[2].name]


@pytest.mark.parametrize("named", [True, False])
def test_what_builds_on_a_refused_commit_is_not_written(bench: Bench, named: bool) -> None:
    """Even if the next batch is divided as well."""
    owners = bench.owners(4)
    refuse(bench, "00000", "00002", named=named)
    later: list[Held] = []

    def next_turns() -> None:
        later.extend(owner.save(b"2") for owner in owners)

    bench.writer.then(next_turns)
    helds = [owner.save(b"1") for owner in owners]
    bench.finish()
    for at, owner in enumerate(owners):
        if at % 2:
            assert (told(helds[at]), told(later[at])) == (helds[at].name, later[at].name)
            assert bench.writer.stored(owner) == (2, b"2")
        else:
            failure(helds[at])
            failure(later[at])
            assert bench.writer.stored(owner) is None


def test_the_refused_one_is_found_behind_one_that_lost_its_base(bench: Bench) -> None:
    """The storage counts positions without the latter."""
    owners = bench.owners(4)
    owners[0].revision = 7
    later: list[Held] = []

    def next_turns() -> None:
        refuse(bench, "00002", named=True)
        later.extend(owner.save(b"2") for owner in owners)

    bench.writer.then(next_turns)
    for owner in owners:
        owner.save(b"1")
    bench.finish()
    for at in (0, 2):
        failure(later[at])
    for at in (1, 3):
        assert told(later[at]) == later[at].name
        assert bench.writer.stored(owners[at]) == (2, b"2")
    assert [len(batch) for batch in bench.writer.batches] == [4, 3, 2, 1]


def test_a_refused_object_does_not_have_the_next_batch_divided(bench: Bench) -> None:
    owners = bench.owners(64)
    refuse(bench, "00007")
    save_all(bench, owners)
    for _ in range(3):
        bench.writer.batches.clear()
        owners[7].reload()
        save_all(bench, owners)
        assert [len(batch) for batch in bench.writer.batches] == [63, 1]
    del bench.writer.commit
    for expected in ([63, 1], [64]):  # once it succeeds, it is written with the others
        bench.writer.batches.clear()
        owners[7].reload()
        save_all(bench, owners)
        assert [len(batch) for batch in bench.writer.batches] == expected


def save_all(bench: Bench, owners: list[FakeOwner]) -> None:
    for owner in owners:
        owner.save(b"1")
    bench.finish()


def test_suspects_are_bounded(bench: Bench) -> None:
    for n in range(3):
        owners = [bench.owner(f"{n}-{m}") for m in range(MAX_SUSPECTS)]
        refuse(bench, *(owner.key.object_id for owner in owners), named=True)
        save_all(bench, owners)
        assert len(bench.group_commit._suspects) == MAX_SUSPECTS
    assert ObjectKey("T", "0-0") not in bench.group_commit._suspects
