"""Group commit on its own: coalescing, batches, settlement, and other work for the writer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import cast

import anyio
import pytest

from trio_durable import PersistenceError, StaleObject
from trio_durable._eventloop.runner import ThreadRunner
from trio_durable._eventloop.running import running_loop
from trio_durable._keys import AlarmKey
from trio_durable._persistence import group_commit
from trio_durable._persistence.group_commit import GroupCommit
from trio_durable.storage import (
    RECEIVER_DELETED,
    NewMessage,
    StorageFault,
    StoredAlarm,
    Writer,
    lane_of,
)
from trio_durable.testing.conformance._builders import changes as changed

from .bench import (
    FAULT,
    Bench,
    FakeOwner,
    Held,
    SteppedRunner,
    Stopwatch,
    failure,
    like,
    raise_after,
    told,
)


class Performed:
    """A call of `perform`, begun and then left where it waits."""

    def __init__(self, bench: Bench, job: Callable[[Writer], object]) -> None:
        self._call = bench.group_commit.perform(job)
        self._call.send(None)

    def result(self) -> object:
        """What it returns; or it raises."""
        try:
            self._call.send(None)
        except StopIteration as stop:
            return cast("object", stop.value)
        raise AssertionError

    def abandon(self) -> None:
        """Cancel the caller."""
        self._call.close()


# --- coalescing and batches ----------------------------------------------------------------------


def test_a_reply_is_held_until_the_loop_hears_of_its_commit(bench: Bench) -> None:
    a = bench.owner("a")
    held = a.save(b"1")
    assert a.gate is not None
    bench.runner.step()
    assert bench.writer.stored(a) == (1, b"1")
    assert not held.ended
    assert a.revision == 0
    bench.loop.step()
    assert told(held) == "a 1"
    assert a.revision == 1
    assert a.gate is None


def test_what_waits_goes_into_one_transaction(bench: Bench) -> None:
    owners = bench.owners(100)
    held = [owner.save(b"1") for owner in owners]
    assert len(bench.runner.jobs) == 1
    bench.finish()
    assert [len(batch) for batch in bench.writer.batches] == [100]
    assert all(h.ended for h in held)
    assert (bench.group_commit.batches, bench.group_commit.rows) == (1, 100)


def test_turns_of_one_object_coalesce_while_they_wait(bench: Bench) -> None:
    a = bench.owner("a")
    held = [a.save(state) for state in (b"1", b"2", b"3")]
    read = a.read("seen")
    bench.finish()
    assert bench.writer.batches == [[like(a, 0, b"3")]]
    assert [told(h) for h in held] == ["a 1", "a 2", "a 3"]
    assert told(read) == "seen"
    assert bench.writer.stored(a) == (1, b"3")
    assert a.revision == 1


def test_what_comes_during_a_transaction_goes_into_the_next(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.then(lambda: (a.save(b"2"), b.save(b"1"), a.save(b"3")))
    a.save(b"1")
    bench.runner.step()
    assert bench.writer.batches == [[like(a, 0, b"1")], [like(a, 1, b"3"), like(b, 0, b"1")]]
    assert bench.log == []
    bench.loop.step()
    assert bench.writer.stored(a) == (2, b"3")
    assert (a.revision, b.revision) == (2, 1)
    assert a.gate is None


def test_the_gate_stays_while_a_later_ticket_is_on_its_way(bench: Bench) -> None:
    a = bench.owner("a")
    later: list[Held] = []

    def second_transaction() -> None:
        bench.loop.step()
        bench.log.append("in the second transaction")
        later.append(a.read("2"))

    bench.writer.then(lambda: a.save(b"2"), second_transaction)
    first = a.save(b"1")
    bench.runner.step()
    assert bench.log == ["a committed", "a 1", "in the second transaction"]
    assert first.ended
    assert a.gate is not None
    assert a.revision == 1
    assert not later[0].ended
    bench.loop.step()
    assert told(later[0]) == "2"
    assert a.gate is None


@pytest.mark.parametrize(
    ("turns", "expected", "stored"),
    [
        (["1", None], (None, True), None),
        ([None, None], (None, True), None),
    ],
    ids=["save, delete", "delete, delete"],
)
def test_saves_and_deletions_coalesce(
    bench: Bench,
    turns: list[str | None],
    expected: tuple[bytes | None, bool],
    stored: tuple[int, bytes] | None,
) -> None:
    a = bench.owner("a")
    for turn in turns:
        a.delete() if turn is None else a.save(turn.encode())
    bench.finish()
    state, is_deletion = expected
    ((commit,),) = bench.writer.batches
    assert commit.delete is is_deletion
    if not is_deletion:
        assert commit.state == state
    assert bench.writer.stored(a) == stored
    assert a.revision == (stored[0] if stored else 0)
    assert a.failures == 0


def a_message(owner: FakeOwner) -> NewMessage:
    return NewMessage(owner.key, lane_of(owner.key), 7, "handle", b"[{}]", 1, sender=owner.key)


def test_a_deletion_follows_what_was_sent_to_the_object_in_a_transaction_of_its_own(
    bench: Bench,
) -> None:
    a = bench.owner("a")
    held = [a.save(b"1"), a.send(a_message(a)), a.delete(), a.save(b"2")]
    bench.finish()
    (first,), (second,), (third,) = bench.writer.batches
    assert first == like(a, 0, b"1")
    assert (second.revision, second.delete) == (1, True)
    assert third == like(a, 0, b"2")
    assert [told(h) for h in held] == ["a 1", "a alarms", "a delete", "a 2"]
    reader = bench.writer.storage.open_reader()
    (dead,) = reader.list_dead_messages(None, 0, 10)
    assert dead.message.last_error == RECEIVER_DELETED
    assert (a.failures, bench.group_commit.is_drained) == (0, True)


def test_a_deletion_that_follows_what_was_refused_is_refused_as_well(bench: Bench) -> None:
    a = bench.owner("a")
    a.save(b"1")
    bench.finish()
    a.revision = 7
    held = [a.send(a_message(a)), a.delete()]
    bench.finish()
    assert [type(failure(each)) for each in held] == [StaleObject, StaleObject]
    assert bench.writer.stored(a) == (1, b"1")
    assert bench.writer.storage.open_reader().list_messages(None, None, None, 10) == []


def test_a_state_behind_a_deletion_does_not_take_its_place(bench: Bench) -> None:
    a = bench.owner("a")
    held = [a.delete(), a.save(b"1"), a.save(b"2")]
    bench.finish()
    (first,), (second,) = bench.writer.batches
    assert first.delete
    assert second == like(a, 0, b"2")
    assert [told(h) for h in held] == ["a delete", "a 1", "a 2"]


def test_a_deletion_joins_changes_of_alarms(bench: Bench) -> None:
    a = bench.owner("a")
    alarms = [changed({"x": 1}), changed({"y": 2})]
    held = [*(a.change(each) for each in alarms), a.delete()]
    bench.finish()
    assert len(bench.writer.batches) == 1
    assert [told(h) for h in held] == ["a alarms", "a alarms", "a delete"]


def test_revisions_start_over_behind_a_deletion(bench: Bench) -> None:
    a = bench.owner("a")
    a.save(b"1")
    bench.finish()
    bench.writer.then(lambda: a.save(b"2"), lambda: a.save(b"3"))
    a.delete()
    bench.finish()
    assert [batch[0].revision for batch in bench.writer.batches] == [0, 1, 0, 1]
    assert bench.writer.stored(a) == (2, b"3")
    assert a.failures == 0


def test_batches_are_bounded_in_rows(bench: Bench) -> None:
    limit = group_commit.MAX_BATCH_ROWS
    owners = bench.owners(2 * limit + 1)
    held = [owner.save(b"1") for owner in owners]
    bench.finish()
    assert [len(batch) for batch in bench.writer.batches] == [limit, limit, 1]
    # First come, first served: nobody is overtaken for ever.
    order = [commit.key for batch in bench.writer.batches for commit in batch]
    assert order == [owner.key for owner in owners]
    assert all(h.ended for h in held)


def test_batches_are_bounded_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 100)
    for owner in bench.owners(10):
        owner.save(b"x" * 40)
    bench.finish()
    sizes = [len(batch) for batch in bench.writer.batches]
    assert sum(sizes) == 10
    # The one that crosses the line still goes in, so that a state larger than it is stored too.
    assert max(sizes) * 40 <= 100 + 40
    assert min(sizes) >= 1


def test_one_state_larger_than_a_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 100)
    a, b = bench.owner("a"), bench.owner("b")
    a.save(b"x" * 500)
    b.save(b"y")
    bench.finish()
    assert bench.writer.stored(a) == (1, b"x" * 500)
    assert bench.writer.stored(b) == (1, b"y")


def test_what_did_not_fit_still_coalesces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_ROWS", 1)
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.then(lambda: (b.save(b"2"), a.save(b"2")))
    a.save(b"1")
    b.save(b"1")
    bench.finish()
    assert [[(c.key.object_id, c.state) for c in batch] for batch in bench.writer.batches] == [
        [("a", b"1")],
        [("b", b"2")],
        [("a", b"2")],
    ]


def test_the_writer_sleeps_when_nothing_waits_and_is_woken_again(bench: Bench) -> None:
    a = bench.owner("a")
    for n in range(3):
        assert not bench.runner.jobs
        a.save(str(n).encode())
        assert len(bench.runner.jobs) == 1
        bench.finish()
    assert bench.writer.stored(a) == (3, b"2")
    assert bench.group_commit.batches == 3


def test_each_transaction_has_its_time(bench: Bench) -> None:
    a = bench.owner("a")

    def later() -> None:
        bench.time = 2000
        a.save(b"2")

    bench.writer.then(later)
    a.save(b"1")
    bench.finish()
    assert bench.writer.times == [1000, 2000]


def test_a_slow_disk_is_worth_a_wait(bench: Bench, stopwatch: Stopwatch) -> None:
    """Who comes while the writer waits for more goes into the transaction behind the wait."""
    a, b, c = bench.owners(3)

    def slowly() -> None:
        stopwatch.time += 1.0
        b.save(b"1")

    stopwatch.asleep = lambda: c.save(b"1")
    bench.writer.then(slowly)
    a.save(b"1")
    bench.finish()
    assert [[x.key for x in batch] for batch in bench.writer.batches] == [[a.key], [b.key, c.key]]
    assert len(stopwatch.sleeps) == 1
    assert 0 < stopwatch.sleeps[0] <= 0.25


def test_a_fast_disk_is_not_waited_for(bench: Bench, stopwatch: Stopwatch) -> None:
    a = bench.owner("a")
    bench.writer.then(lambda: a.save(b"2"))
    a.save(b"1")
    bench.finish()
    assert stopwatch.sleeps == []


@pytest.mark.parametrize("slowness", [1, 5, 20, 200])
def test_transactions_grow_with_what_one_takes(
    bench: Bench, stopwatch: Stopwatch, slowness: int
) -> None:
    """One change comes each millisecond: however slow the disk, it keeps up with them."""
    owners = bench.owners(2000)
    coming = iter(owners)
    held: list[Held] = []

    def slowly(transactions: int) -> None:
        for _ in range(slowness):
            stopwatch.time += 1e-3
            held.extend(owner.save(b"1") for owner in islice(coming, 1))
        if transactions:
            bench.writer.then(lambda: slowly(transactions - 1))

    bench.writer.then(lambda: slowly(8))
    held.append(next(coming).save(b"1"))
    bench.finish()
    rows = [len(batch) for batch in bench.writer.batches]
    # All that came during one, and what came first.
    assert rows[:9] == [1, *[slowness] * 8]
    assert all(told(waiter) for waiter in held)


def test_what_waits_is_expected_to_take_as_long_as_the_last_full_transactions(
    bench: Bench, stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_ROWS", 4)
    group = bench.group_commit
    expected: list[tuple[bool, float]] = []

    def slowly() -> None:
        expected.append((group.is_behind, group.expected_wait()))
        stopwatch.time += 2

    bench.writer.then(slowly, slowly, slowly, slowly)
    for owner in bench.owners(13):
        owner.save(b"1")
    assert group.is_behind
    assert group.expected_wait() == 0  # nothing is known yet
    bench.finish()
    assert [len(batch) for batch in bench.writer.batches] == [4, 4, 4, 1]
    # 9 wait for three transactions, of which the last has room, behind the one under way.
    assert expected == [(True, 0), (True, 2 + 2 * 2), (False, 2 + 2), (False, 2 + 2)]
    assert not group.is_behind


def test_what_waits_behind_a_hanging_job_is_expected_to_take_long_and_only_then(
    bench: Bench, stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_ROWS", 4)
    group = bench.group_commit
    expected: list[float] = []

    def hangs(writer: Writer) -> None:
        for owner in bench.owners(5):
            owner.save(b"1")
        stopwatch.time += 3
        expected.append(group.expected_wait())

    Performed(bench, hangs)
    bench.finish()
    assert expected == [2 * 3]
    assert group.expected_wait() == 0  # a job says nothing about transactions


def test_large_states_are_behind_though_they_are_few(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 100)
    owners = bench.owners(3)
    for owner in owners[:2]:
        owner.save(b"1" * 50)
    assert not bench.group_commit.is_behind
    owners[0].save(b"1" * 51)
    assert bench.group_commit.is_behind
    bench.finish()
    assert not bench.group_commit.is_behind


def test_callers_that_have_given_up_do_not_pile_up_while_the_disk_hangs(bench: Bench) -> None:
    a = bench.owner("a")
    live = [a.save(b"1")]
    for _ in range(20):
        live.append(a.read())
        for _ in range(1000):
            a.read().ended = True
    assert a.gate is not None
    assert len(a.gate._others or ()) <= 2 * 1024
    bench.finish()
    assert all(waiter.ended and waiter.error is None for waiter in live)


def test_a_divided_share_leaves_nobody_behind(bench: Bench, stopwatch: Stopwatch) -> None:
    owners = bench.owners(101)

    def slowly() -> None:
        stopwatch.time += 1e-3

    bench.writer.then(slowly)
    owners[0].save(b"0")
    bench.finish()
    stopwatch.time += 60
    held = [owner.save(b"1") for owner in owners]
    bench.finish()
    assert [len(batch) for batch in bench.writer.batches] == [1, 51, 50]
    assert all(told(waiter) for waiter in held)


# --- maintenance of the storage ------------------------------------------------------------------


def test_replies_are_released_before_the_storage_maintains_itself(bench: Bench) -> None:
    a, seen = bench.owner("a"), list[bool]()

    def checkpoint() -> None:
        bench.loop.step()
        seen.append(held.ended)

    bench.writer.maintenance = checkpoint
    held = a.save(b"1")
    bench.runner.step()
    assert seen == [True]
    assert told(held) == "a 1"
    assert bench.group_commit.is_drained


def test_each_transaction_is_followed_by_maintenance(bench: Bench) -> None:
    a, order = bench.owner("a"), list[str]()

    def note(what: str) -> Callable[..., None]:
        return lambda *_: order.append(what)

    bench.writer.maintenance = note("maintenance")
    bench.writer.then(lambda: (note("commit")(), a.save(b"2")), note("commit"))
    a.save(b"1")
    bench.finish()
    assert order == ["commit", "maintenance"] * 2
    performed = Performed(bench, note("job"))
    bench.finish()
    performed.result()
    assert order[4:] == ["job", "maintenance"]


def test_a_fault_of_maintenance_is_ignored(bench: Bench) -> None:
    a = bench.owner("a")
    bench.writer.maintenance = raise_after(lambda: None)
    for state in (b"1", b"2"):
        held = a.save(state)
        bench.finish()
        assert told(held) == f"a {state.decode()}"


def test_maintenance_that_hangs_counts_as_a_wait(bench: Bench, stopwatch: Stopwatch) -> None:
    a, waits = bench.owner("a"), list[float]()

    def hang() -> None:
        stopwatch.time += 5.0
        waits.append(bench.group_commit.expected_wait())

    bench.writer.maintenance = hang
    a.save(b"1")
    bench.finish()
    assert waits == [5.0]


# --- settlement ----------------------------------------------------------------------------------


def test_replies_are_released_in_order(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    a.save(b"1")
    b.save(b"1")
    a.read()
    a.save(b"2")
    bench.finish()
    assert bench.log == ["a committed", "a 1", "a read", "a 2", "b committed", "b 1"]


def test_an_error_can_be_held_back(bench: Bench) -> None:
    """A turn that failed on what isn't durable yet waits with its error, too."""
    a = bench.owner("a")
    a.save(b"1")
    assert a.gate is not None
    held = Held(bench.log, "")
    held.error = error = ValueError("no")
    a.gate.hold(held)
    assert not held.ended
    bench.finish()
    assert held.ended
    assert held.error is error


def test_an_abandoned_reply_does_not_disturb(bench: Bench) -> None:
    a = bench.owner("a")
    gone, here = a.save(b"1"), a.save(b"2")
    gone.ended = True  # its caller was cancelled
    bench.finish()
    assert told(here) == "a 2"
    assert bench.writer.stored(a) == (1, b"2")


# --- other work for the writer -------------------------------------------------------------------


def test_a_job_gets_the_writer_and_answers(bench: Bench) -> None:
    seen: list[Writer] = []

    def job(writer: Writer) -> str:
        seen.append(writer)
        return "done"

    call = Performed(bench, job)
    assert seen == []
    bench.runner.step()
    assert seen == [bench.writer]
    bench.finish()
    assert call.result() == "done"
    assert bench.writer.batches == []
    assert (bench.group_commit.batches, bench.group_commit.rows) == (0, 0)


def test_jobs_are_done_in_order_between_transactions(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    calls: list[Performed] = []
    events: list[str] = []

    def job(name: str) -> Callable[[Writer], object]:
        def run(_: Writer) -> str:
            events.append(name)
            return name

        return run

    def first_transaction() -> None:
        events.append("first begins")
        b.save(b"1")
        calls.append(Performed(bench, job("2")))
        calls.append(Performed(bench, job("3")))
        events.append("first ends")

    bench.writer.then(first_transaction, lambda: events.append("second"))
    a.save(b"1")
    calls.append(Performed(bench, job("1")))
    assert len(bench.runner.jobs) == 1
    bench.finish()
    assert events == ["1", "first begins", "first ends", "2", "3", "second"]
    assert [call.result() for call in calls] == ["1", "2", "3"]


def test_a_job_that_comes_with_the_last_transaction_is_done(bench: Bench) -> None:
    """Nothing else is pending behind it that would wake the writer."""
    a = bench.owner("a")
    calls: list[Performed] = []
    bench.writer.then(lambda: calls.append(Performed(bench, lambda _: bench.writer.stored(a))))
    a.save(b"1")
    bench.finish()
    assert calls[0].result() == (1, b"1")
    assert bench.group_commit.is_drained
    assert not bench.runner.jobs


def test_a_commit_that_comes_during_a_job_is_written(bench: Bench) -> None:
    a = bench.owner("a")
    call = Performed(bench, lambda _: a.save(b"1"))
    bench.finish()
    assert bench.writer.stored(a) == (1, b"1")
    assert told(cast("Held", call.result())) == "a 1"


def test_the_writer_is_woken_for_each_job(bench: Bench) -> None:
    done: list[str] = []
    for n in range(3):
        assert not bench.runner.jobs
        Performed(bench, lambda _: done.append("job"))
        assert len(bench.runner.jobs) == 1
        bench.finish()
        assert len(done) == n + 1
    a = bench.owner("a")
    held = a.save(b"1")
    bench.finish()
    assert told(held) == "a 1"


@pytest.mark.parametrize("error", [FAULT, RuntimeError("boom"), ValueError(), MemoryError()])
def test_errors_of_jobs_are_faults(bench: Bench, error: Exception) -> None:
    a = bench.owner("a")
    held = a.save(b"1")

    def fail(_: Writer) -> None:
        raise error

    failing = Performed(bench, fail)
    behind = Performed(bench, lambda _: "done")
    bench.finish()
    with pytest.raises(StorageFault) as caught:
        failing.result()
    assert str(caught.value) == (str(error) or type(error).__name__)
    assert (caught.value is error) is (error is FAULT)
    # Nobody else is concerned.
    assert behind.result() == "done"
    assert told(held) == "a 1"
    assert a.failures == 0


def test_a_job_whose_caller_is_gone_is_done_all_the_same(bench: Bench) -> None:
    done: list[str] = []
    Performed(bench, lambda _: done.append("gone")).abandon()
    call = Performed(bench, lambda _: done.append("here"))
    bench.finish()
    assert done == ["gone", "here"]
    assert call.result() is None


def test_commits_do_not_starve_jobs(bench: Bench) -> None:
    a = bench.owner("a")
    done_after: list[int] = []

    def busy() -> None:
        if len(bench.writer.batches) < 50:
            a.save(b"1")
        if len(bench.writer.batches) == 1:
            Performed(bench, lambda _: done_after.append(len(bench.writer.batches)))
        bench.writer.then(busy)

    bench.writer.then(busy)
    a.save(b"1")
    bench.finish()
    assert len(bench.writer.batches) == 50
    assert done_after == [1]


def test_jobs_do_not_starve_commits(bench: Bench) -> None:
    """Whoever comes back at once with another job, before the one is done that came after it."""
    a = bench.owner("a")
    jobs_before: list[int] = []
    jobs = 0

    def busy(_: Writer) -> None:
        nonlocal jobs
        jobs += 1
        if jobs < 50:
            Performed(bench, busy)

    bench.writer.then(lambda: jobs_before.append(jobs))
    Performed(bench, busy)
    a.save(b"1")
    bench.finish()
    assert jobs == 50
    assert jobs_before == [1]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_jobs_with_a_real_thread(backend: str) -> None:
    """Claims and commits of many, side by side: each gets its own answer."""

    async def main() -> None:
        bench = Bench()
        loop = running_loop()
        runner = ThreadRunner(loop, "writer")
        bench.group_commit = GroupCommit(loop, runner, bench.writer, lambda: 0)
        answers: dict[str, list[int]] = {}

        def claim_at(one: AlarmKey, claim: int, now: int) -> Callable[[Writer], list[StoredAlarm]]:
            return lambda writer: writer.claim([one], claim, now, now)

        async def turns(owner: FakeOwner) -> None:
            mine = answers[owner.key.object_id] = []
            one = AlarmKey(owner.key.type_name, owner.key.object_id, "x")
            claim = 0
            for n in range(20):
                waiter = loop.waiter()
                alarms = changed({"x": n}, acknowledged={"x": claim} if claim else None)
                owner.gate = bench.group_commit.submit(owner, b"1", False, alarms)
                owner.gate.hold(waiter)
                await waiter.wait()
                claim = 1 + n + 1000 * int(owner.key.object_id)
                claimed = await bench.group_commit.perform(claim_at(one, claim, n))
                mine += [alarm.due_at for alarm in claimed]

        owners = bench.owners(20)
        async with anyio.create_task_group() as tasks:
            for owner in owners:
                tasks.start_soon(turns, owner)
        await bench.group_commit.drained()
        runner.stop()
        assert list(answers.values()) == [list(range(20))] * 20
        assert all(bench.writer.stored(owner) == (20, b"1") for owner in owners)

    anyio.run(main, backend=backend)


# --- in a real loop, with a real thread ----------------------------------------------------------


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_drained_waits_for_all_that_is_on_its_way(backend: str) -> None:
    async def main() -> None:
        bench = Bench()
        bench.loop = running_loop()  # type: ignore[assignment]
        runner = SteppedRunner(bench.loop)
        bench.group_commit = GroupCommit(bench.loop, runner, bench.writer, lambda: 0)
        await bench.group_commit.drained()  # nothing is
        a, b = bench.owner("a"), bench.owner("b")
        done = False

        async def drain() -> None:
            nonlocal done
            await bench.group_commit.drained()
            done = True

        held = [a.save(b"1"), b.save(b"1")]
        # The second transaction fails and takes a pending ticket with it, which counts as well.
        bench.writer.then(raise_after(lambda: held.append(a.save(b"2"))))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            assert not done
            runner.step()
        assert done
        assert all(waiter.ended for waiter in held)
        assert bench.group_commit.is_drained

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_with_a_real_thread(backend: str) -> None:
    """Fifty owners, forty turns each, with a fault now and then: the books balance."""

    async def main() -> None:
        bench = Bench()
        loop = running_loop()
        runner = ThreadRunner(loop, "writer")
        bench.group_commit = GroupCommit(loop, runner, bench.writer, lambda: 0)
        bench.writer.then(*([None, None, StorageFault("now and then")] * 20))
        outcomes: dict[str, list[bool]] = {}

        async def turns(owner: FakeOwner) -> None:
            told = outcomes[owner.key.object_id] = []
            for n in range(40):
                waiter = loop.waiter()
                owner.gate = bench.group_commit.submit(owner, str(n).encode(), False)
                owner.gate.hold(waiter)
                try:
                    await waiter.wait()
                except PersistenceError:
                    owner.reload()
                    told.append(False)
                else:
                    told.append(True)

        owners = bench.owners(50)
        async with anyio.create_task_group() as tasks:
            for owner in owners:
                tasks.start_soon(turns, owner)
        await bench.group_commit.drained()
        runner.stop()
        for owner in owners:
            told = outcomes[owner.key.object_id]
            last = max(n for n, durable in enumerate(told) if durable)
            assert bench.writer.stored(owner) == (sum(told), str(last).encode())
            assert owner.gate is None
        assert not all(all(told) for told in outcomes.values())

    anyio.run(main, backend=backend)
