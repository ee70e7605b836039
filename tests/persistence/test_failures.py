"""Group commit when a batch fails, and the epochs of rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_durable import PersistenceError, StaleObject
from trio_durable.storage import AlarmChanges

from .bench import FAULT, Bench, Held, failure, like, raise_after, told

# --- failures ------------------------------------------------------------------------------------


def test_a_fault_fails_the_whole_batch(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.then(FAULT)
    held = [a.save(b"1"), a.read(), b.save(b"1")]
    bench.finish()
    for waiter in held:
        error = failure(waiter)
        assert type(error) is PersistenceError
        assert error.action == "save"
        assert error.problem == "disk is full"
        assert error.__cause__ is FAULT
    # Each its own: tasks add tracebacks and notes to them.
    assert len({id(failure(waiter)) for waiter in held}) == 3
    assert (a.failures, b.failures) == (1, 1)
    assert a.gate is None
    assert (a.revision, b.revision) == (0, 0)
    assert bench.group_commit.rows == 0


def test_all_behind_a_failure_fail_at_once(bench: Bench) -> None:
    """One's outcome is on its way, one is in the writer's hands, one is pending."""
    a, b, other = bench.owner("a"), bench.owner("b"), bench.owner("other")
    held: list[Held] = []
    seen: list[bool] = []

    def first_transaction() -> None:
        held.append(a.save(b"2"))
        other.save(b"1")  # what is based on the failure isn't written, so something else must be
        raise FAULT

    def second_transaction() -> None:
        held.append(a.save(b"3"))
        held.append(a.read())
        b.save(b"1")
        assert not any(waiter.ended for waiter in held)
        bench.loop.step()
        seen.extend(waiter.ended for waiter in held)
        assert a.gate is None

    bench.writer.then(first_transaction, second_transaction)
    held.append(a.save(b"1"))
    bench.finish()
    assert seen == [True] * 4
    assert all(type(failure(waiter)) is PersistenceError for waiter in held)
    assert {failure(waiter).problem for waiter in held} == {"disk is full"}
    # The pending one is taken back, the one in the writer's hands is kept from the storage.
    assert bench.writer.batches[1:] == [[like(other, 0, b"1")], [like(b, 0, b"1")]]
    assert bench.writer.stored(a) is None
    assert a.failures == 1
    assert a.commits == 0


def test_a_chain_fails_even_if_the_writer_was_faster(bench: Bench) -> None:
    """All three outcomes come in together; none of the chain was applied."""
    a = bench.owner("a")
    held: list[Held] = []

    def first_transaction() -> None:
        held.append(a.save(b"2"))
        raise FAULT

    bench.writer.then(first_transaction, lambda: held.append(a.save(b"3")))
    held.append(a.save(b"1"))
    bench.runner.step()
    assert bench.writer.stored(a) is None
    bench.loop.step()
    assert all(failure(waiter) for waiter in held)
    assert (a.failures, a.commits, a.revision) == (1, 0, 0)


def test_the_owner_goes_on_while_its_failed_tickets_come_in(bench: Bench) -> None:
    """What it does anew must not be mistaken for what failed before."""
    a, other = bench.owner("a"), bench.owner("other")
    a.save(b"1")
    bench.finish()
    bench.log.clear()
    anew: list[Held] = []

    def first_transaction() -> None:
        a.save(b"3")
        other.save(b"1")
        raise FAULT

    def second_transaction() -> None:
        bench.loop.step()
        a.reload()
        anew.append(a.save(b"new"))

    bench.writer.then(first_transaction, second_transaction)
    a.save(b"2")
    bench.finish()
    assert bench.log == [
        "a failed",
        "a 2",
        "a 3",
        "other committed",
        "other 1",
        "a committed",
        "a new",
    ]
    assert told(anew[0]) == "a new"
    assert bench.writer.stored(a) == (2, b"new")
    assert (a.failures, a.revision) == (1, 2)


@pytest.mark.parametrize("stored", [False, True])
def test_a_chain_with_a_deletion_never_succeeds_later(bench: Bench, stored: bool) -> None:
    """The third ticket is based on a revision that is stored, though not the one it means."""
    a = bench.owner("a")
    if stored:
        a.save(b"old")
        bench.finish()
    before = bench.writer.stored(a)
    held: list[Held] = []
    turns: list[Callable[[], Held]] = [a.delete, lambda: a.save(b"1"), lambda: a.save(b"2")]
    if not stored:
        turns = [lambda: a.save(b"1"), a.delete, lambda: a.save(b"2")]

    def first_transaction() -> None:
        held.append(turns[1]())
        raise FAULT

    bench.writer.then(first_transaction, lambda: held.append(turns[2]()))
    held.append(turns[0]())
    bench.finish()
    assert all(failure(waiter) for waiter in held)
    assert bench.writer.stored(a) == before


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_stale_commit_fails_alone(bench: Bench, position: int) -> None:
    owners = bench.owners(3)
    owners[position].revision = 7
    held = [owner.save(b"1") for owner in owners]
    bench.finish()
    for n, (owner, waiter) in enumerate(zip(owners, held, strict=True)):
        if n == position:
            error = failure(waiter)
            assert isinstance(error, StaleObject)
            assert (error.key, error.revision) == (owner.key, 7)
            assert owner.failures == 1
            assert owner.gate is None
        else:
            assert waiter.ended
            assert owner.failures == 0
            assert bench.writer.stored(owner) == (1, b"1")


def test_all_behind_a_stale_commit_fail(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    a.revision = 7
    held: list[Held] = []
    bench.writer.then(lambda: held.append(a.save(b"2")))
    held.append(a.save(b"1"))
    other = b.save(b"1")
    bench.runner.step()
    held.append(a.save(b"3"))
    bench.finish()
    assert [type(failure(waiter)) for waiter in held] == [StaleObject] * 3
    assert a.failures == 1
    assert told(other) == "b 1"
    assert bench.writer.stored(a) is None


@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError(), MemoryError()])
def test_any_exception_of_the_writer_is_a_fault(bench: Bench, error: Exception) -> None:
    a = bench.owner("a")
    bench.writer.then(error)
    held = a.save(b"1")
    bench.finish()
    assert type(failure(held)) is PersistenceError
    assert failure(held).problem == (str(error) or type(error).__name__)
    # The thread lives, and the next one is served.
    again = a.save(b"1")
    bench.finish()
    assert told(again) == "a 1"


def test_a_fault_between_two_transactions_that_succeed(bench: Bench) -> None:
    a, b, c = bench.owners(3)
    bench.writer.then(lambda: b.save(b"1"), raise_after(lambda: c.save(b"1")), None)
    a.save(b"1")
    bench.finish()
    assert [bench.writer.stored(o) for o in (a, b, c)] == [(1, b"1"), None, (1, b"1")]
    assert (a.failures, b.failures, c.failures) == (0, 1, 0)
    assert (bench.group_commit.batches, bench.group_commit.rows) == (3, 2)


# --- epochs --------------------------------------------------------------------------------------


def test_an_object_that_begins_from_nothing_gets_an_epoch_and_keeps_it() -> None:
    bench = Bench()
    one, other = bench.owner("one"), bench.owner("other")
    one.save(b"1")
    other.save(b"1")
    bench.runner.step()
    one.save(b"2")  # on top of one that isn't known to be durable yet
    bench.finish()
    one.save(b"3")
    bench.finish()
    assert other.epoch not in (0, one.epoch)
    assert one.revision == 3
    epochs = [(c.revision, c.epoch) for c in bench.writer.commits_of("one")]
    assert epochs == [(0, one.epoch), (1, one.epoch), (2, one.epoch)]


@pytest.mark.parametrize("step", [False, True], ids=["in flight", "durable"])
def test_what_is_deleted_begins_with_another_epoch(step: bool) -> None:
    bench = Bench()
    one = bench.owner("one")
    one.save(b"1")
    bench.finish()
    first = one.epoch
    one.delete()
    bench.runner.step()
    if step:
        bench.finish()
    one.save(b"2")
    bench.finish()
    epochs = [(c.revision, c.epoch) for c in bench.writer.commits_of("one")]
    assert epochs == [(0, first), (1, first), (0, one.epoch)]
    assert one.epoch not in (0, first)


@pytest.mark.parametrize("stored", [0, 7])
def test_a_change_from_outside_that_a_turn_joins_takes_the_epoch_of_the_turn(stored: int) -> None:
    bench = Bench()
    one = bench.owner("one")
    one.revision = None
    one.change(AlarmChanges(clear=True))
    one.revision, one.epoch = stored, 42 if stored else 0  # it was loaded meanwhile
    one.save(b"1")
    bench.runner.step()
    (commit,) = bench.writer.commits_of("one")
    assert commit.revision == stored
    assert commit.epoch == 42 if stored else commit.epoch not in (0, 42)
