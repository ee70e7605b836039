"""Group commit and batched loads on their own.

A stepped runner keeps posted jobs until the test runs them, a stepped loop keeps what the writer's
thread hands in, and the writer does what it was told beforehand, calling back into the test in the
middle of a transaction. So every interleaving of loop and thread can be laid out by hand.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from copy import deepcopy
from itertools import islice
from typing import TypeVar, TypeVarTuple, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable import ObjectKey, PersistenceError, StaleObject
from trio_durable._eventloop.loop import Loop, Waiter
from trio_durable._eventloop.runner import Runner, ThreadRunner
from trio_durable._eventloop.running import running_loop
from trio_durable._keys import AlarmKey
from trio_durable._persistence import batched_load, group_commit
from trio_durable._persistence.batched_load import BatchedLoad
from trio_durable._persistence.group_commit import GroupCommit
from trio_durable._persistence.ticket import Ticket
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    MemoryStorage,
    StorageFault,
    StoredAlarm,
    StoredObject,
    Writer,
)
from trio_durable.storage._forwarding import ForwardingReader, ForwardingWriter
from trio_durable.testing.conformance._builders import changes as changed

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Job = Callable[[], object]


class Held(Waiter):
    """A reply that is held back; it notes when it was released."""

    def __init__(self, log: list[str], name: str, value: object = None) -> None:
        self.ended = False
        self.value = value
        self.error = None
        self.log = log
        self.name = name

    def release(self) -> None:
        if not self.ended:
            self.ended = True
            self.log.append(self.name)

    async def wait(self) -> object:
        raise AssertionError


def told(held: Held) -> object:
    """What the caller got."""
    assert held.ended
    assert held.error is None
    return held.value


def failure(held: Held) -> PersistenceError:
    """What the caller got raised."""
    assert held.ended
    assert isinstance(held.error, PersistenceError)
    return held.error


@types.coroutine
def _park() -> Generator[None, None, None]:
    yield


class Parked(Waiter):
    """Parks a coroutine that the test itself drives, `Performed`."""

    def __init__(self) -> None:
        self.ended = False
        self.value = self.error = None

    def release(self) -> None:
        self.ended = True

    async def wait(self) -> object:
        await _park()
        assert self.ended
        if self.error is not None:
            raise self.error
        return self.value


class SteppedLoop(Loop):
    """Keeps callbacks until `step`."""

    def __init__(self) -> None:
        self.callbacks: deque[Callable[[], object]] = deque()
        self.waiter = Parked

    def is_current(self) -> bool:
        return True

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self.callbacks.append(lambda: callback(*args))

    def forgive_cancellation(self) -> bool:
        return False

    def step(self) -> None:
        """Run what has come in so far."""
        for _ in range(len(self.callbacks)):
            self.callbacks.popleft()()


class SteppedRunner(Runner):
    """Keeps jobs until `step`."""

    def __init__(self, loop: Loop, name: str = "") -> None:
        self.jobs: deque[Job] = deque()

    def post(self, job: Job) -> None:
        self.jobs.append(job)

    async def run(self, job: Callable[[], T]) -> T:
        raise AssertionError

    def stop(self) -> None:
        raise AssertionError

    def step(self) -> None:
        """Run the jobs posted so far."""
        for _ in range(len(self.jobs)):
            self.jobs.popleft()()


class ScriptedWriter(ForwardingWriter):
    """Commits to memory; what ``script`` yields is called in the middle of each transaction."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        super().__init__(self.storage.open_writer())
        self.script: deque[Callable[[], object]] = deque()
        self.batches: list[list[Commit]] = []
        self.times: list[int] = []

    def then(self, *steps: Callable[[], object] | Exception | None) -> None:
        for step in steps:
            self.script.append(_raiser(step) if isinstance(step, Exception) else step or _nothing)

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        # As they are now, since nothing may change a commit once the writer has it.
        before = [(c.key, c.revision, c.state, c.delete) for c in batch]
        alarms = [deepcopy(c.alarms) for c in batch]
        self.batches.append(
            [
                Commit(*fields, its, c.epoch)
                for c, fields, its in zip(batch, before, alarms, strict=True)
            ]
        )
        self.times.append(now)
        if self.script:
            self.script.popleft()()
        assert [(c.key, c.revision, c.state, c.delete) for c in batch] == before
        assert [_fields(c.alarms) for c in batch] == [_fields(its) for its in alarms]
        return super().commit(batch, now)

    def close(self) -> None:
        raise AssertionError

    def stored(self, owner: FakeOwner) -> tuple[int, bytes] | None:
        (row,) = self.storage.open_reader().load([owner.key])
        return None if row is None else (row.revision, row.state)

    def commits_of(self, object_id: str) -> list[Commit]:
        return [c for batch in self.batches for c in batch if c.key.object_id == object_id]

    def alarms(self, owner: FakeOwner) -> dict[str, int]:
        """The times of an owner's alarms."""
        found = self.storage.open_reader().list_alarms(owner.key)
        return {alarm.key.name: alarm.due_at for alarm in found}

    def claim_alarm(self, owner: FakeOwner, name: str, claim: int) -> None:
        """Set an alarm and claim it, as it is before its turn."""
        key = AlarmKey(owner.key.type_name, owner.key.object_id, name)
        self.inner.commit([Commit(owner.key, None, alarms=changed({name: 0}))], 0)
        assert self.inner.claim([key], claim, 0, 2**62)


Fields = tuple[dict[str, int], bool, dict[str, tuple[int, bytes | None] | None]]


def _fields(changes: AlarmChanges | None) -> Fields | None:
    """What is in ``changes``, which are compared by identity otherwise."""
    if changes is None:
        return None
    news = {
        name: None if new is None else (new.due_at, new.payload)
        for name, new in changes.changed.items()
    }
    return dict(changes.acknowledged), changes.clear, news


def _nothing() -> None:
    pass


def _raiser(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


class FakeOwner:
    """Does with its tickets what an activation does."""

    def __init__(self, bench: Bench, object_id: str) -> None:
        self.bench = bench
        self.key = ObjectKey("T", object_id)
        self.revision: int | None = 0
        self.epoch = 0
        self.gate: Ticket | None = None
        self.failures = 0
        self.commits = 0

    def committed(self) -> None:
        self.commits += 1
        self.bench.log.append(f"{self.key.object_id} committed")

    def commit_failed(self) -> None:
        self.failures += 1
        self.bench.log.append(f"{self.key.object_id} failed")

    def save(self, state: bytes) -> Held:
        return self._submit(state, False)

    def delete(self) -> Held:
        return self._submit(None, True)

    def change(
        self, alarms: AlarmChanges, state: bytes | None = None, *, delete: bool = False
    ) -> Held:
        """A turn, or somebody from outside, that changes alarms."""
        return self._submit(state, delete, alarms)

    def read(self, value: object = None) -> Held:
        """A turn without a change, which waits for the gate all the same."""
        assert self.gate is not None
        held = Held(self.bench.log, f"{self.key.object_id} read", value)
        self.gate.hold(held)
        return held

    def _submit(
        self, state: bytes | None, delete: bool, alarms: AlarmChanges | None = None
    ) -> Held:
        what = "delete" if delete else "alarms" if state is None else state.decode()
        name = f"{self.key.object_id} {what}"
        self.gate = self.bench.group_commit.submit(self, state, delete, alarms)
        held = Held(self.bench.log, name, name)
        self.gate.hold(held)
        return held

    def reload(self) -> None:
        stored = self.bench.writer.stored(self)
        self.revision = 0 if stored is None else stored[0]


class Bench:
    """The parts under test, and those around them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.time = 1000
        self.loop = SteppedLoop()
        self.runner = SteppedRunner(self.loop)
        self.writer = ScriptedWriter()
        self.told: list[tuple[ObjectKey, Fields | None]] = []
        """What was told of alarms that are durable."""
        self.group_commit = GroupCommit(
            self.loop, self.runner, self.writer, lambda: self.time, self.alarms_changed
        )

    def alarms_changed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        self.told.append((key, _fields(changes)))
        self.log.append(f"{key.object_id} told")

    def owner(self, object_id: str) -> FakeOwner:
        return FakeOwner(self, object_id)

    def owners(self, count: int) -> list[FakeOwner]:
        return [self.owner(f"{n:05}") for n in range(count)]

    def finish(self) -> None:
        """Let both sides go on until nothing is left to do."""
        while self.runner.jobs or self.loop.callbacks:
            self.runner.step()
            self.loop.step()
        assert self.group_commit._unsettled == 0


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


class Stopwatch:
    """What the writer's thread measures and sleeps by; it stands still unless the test moves it."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []
        self.asleep: Callable[[], object] = _nothing

    def sleep(self, duration: float) -> None:
        self.time += duration
        self.sleeps.append(duration)
        self.asleep()


@pytest.fixture(autouse=True)
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    stopwatch = Stopwatch()
    monkeypatch.setattr(group_commit, "perf_counter", lambda: stopwatch.time)
    monkeypatch.setattr(group_commit, "sleep", stopwatch.sleep)
    return stopwatch


@pytest.fixture
def bench(stopwatch: Stopwatch) -> Bench:
    return Bench()


FAULT = StorageFault("disk is full")


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
    assert bench.writer.batches == [[_like(a, 0, b"3")]]
    assert [told(h) for h in held] == ["a 1", "a 2", "a 3"]
    assert told(read) == "seen"
    assert bench.writer.stored(a) == (1, b"3")
    assert a.revision == 1


def test_what_comes_during_a_transaction_goes_into_the_next(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.then(lambda: (a.save(b"2"), b.save(b"1"), a.save(b"3")))
    a.save(b"1")
    bench.runner.step()
    assert bench.writer.batches == [[_like(a, 0, b"1")], [_like(a, 1, b"3"), _like(b, 0, b"1")]]
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
        ([None, "1"], (b"1", False), (1, b"1")),
        ([None, None], (None, True), None),
        (["1", None, "2"], (b"2", False), (1, b"2")),
    ],
    ids=["save, delete", "delete, save", "delete, delete", "save, delete, save"],
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
    assert bench.writer.batches[1:] == [[_like(other, 0, b"1")], [_like(b, 0, b"1")]]
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
        "a 2",
        "a 3",
        "a failed",
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
    bench.writer.then(lambda: b.save(b"1"), _raise_after(lambda: c.save(b"1")), None)
    a.save(b"1")
    bench.finish()
    assert [bench.writer.stored(o) for o in (a, b, c)] == [(1, b"1"), None, (1, b"1")]
    assert (a.failures, b.failures, c.failures) == (0, 1, 0)
    assert (bench.group_commit.batches, bench.group_commit.rows) == (3, 2)


def _raise_after(step: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        step()
        raise FAULT

    return run


def _like(owner: FakeOwner, revision: int, state: bytes) -> _Like:
    return _Like(owner.key, revision, state)


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


class _Like:
    """Equal to a save of these fields; commits are compared by identity otherwise."""

    def __init__(self, key: ObjectKey, revision: int, state: bytes) -> None:
        self.fields = (key, revision, state, False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Commit) and self.fields == (
            other.key,
            other.revision,
            other.state,
            other.delete,
        )

    def __repr__(self) -> str:
        return f"Commit{self.fields}"

    __hash__ = None  # type: ignore[assignment]


# --- alarms: coalescing --------------------------------------------------------------------------


def test_a_change_of_alarms_goes_along_with_a_pending_state(bench: Bench) -> None:
    a = bench.owner("a")
    held = [a.save(b"1"), a.change(changed({"x": 5}))]
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert (commit.revision, commit.state, commit.delete) == (0, b"1", False)
    assert _fields(commit.alarms) == _fields(changed({"x": 5}))
    assert [told(waiter) for waiter in held] == ["a 1", "a alarms"]
    assert bench.writer.stored(a) == (1, b"1")
    assert a.revision == 1


def test_a_state_goes_along_with_pending_alarms(bench: Bench) -> None:
    a = bench.owner("a")
    a.change(changed({"x": 5}))
    a.save(b"1")
    a.save(b"2")
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert (commit.revision, commit.state) == (0, b"2")
    assert bench.writer.alarms(a) == {"x": 5}
    assert a.revision == 1


def test_a_deletion_keeps_to_alarms_that_are_set_behind_it(bench: Bench) -> None:
    a = bench.owner("a")
    a.change(changed({"x": 5}), b"1")
    bench.finish()
    a.change(changed(clear=True), delete=True)
    a.change(changed({"y": 6}))
    bench.finish()
    assert bench.writer.batches[1][0].delete
    assert bench.writer.stored(a) is None
    assert bench.writer.alarms(a) == {"y": 6}
    assert (a.revision, a.failures) == (0, 0)


# What one change does to x, y and the claimed c.
CHANGES = {
    "set x": changed({"x": 1}),
    "set x later": changed({"x": 2}),
    "cancel x": changed({"x": None}),
    "set y, cancel x": changed({"y": 3, "x": None}),
    "set c": changed({"c": 4}),
    "cancel c": changed({"c": None}),
    "clear": changed(clear=True),
    "clear, set x": changed({"x": 5}, clear=True),
    "clear, set c": changed({"c": 6}, clear=True),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=3),
    st.booleans(),
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=4),
)
def test_coalesced_changes_amount_to_the_same_as_one_by_one(
    before: list[str], acknowledge: bool, behind: list[str]
) -> None:
    turns = [CHANGES[each] for each in before]
    if acknowledge and not any(turn.touches("c") for turn in turns):
        turns.append(changed(acknowledged={"c": 1}))
    turns += [CHANGES[each] for each in behind]
    outcomes = []
    for coalesced in (True, False):
        bench = Bench()
        a = bench.owner("a")
        bench.writer.claim_alarm(a, "c", 1)
        for turn in turns:
            # Each its own, for what is merged is taken over.
            a.change(deepcopy(turn))
            if not coalesced:
                bench.finish()
        bench.finish()
        assert len(bench.writer.batches) == (bool(turns) if coalesced else len(turns))
        assert a.failures == 0
        outcomes.append(bench.writer.alarms(a))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("turns", "merged"),
    [
        (["set x", "cancel x"], changed({"x": None})),
        (["cancel x", "set x"], changed({"x": 1})),
        (["set x", "clear"], changed(clear=True)),
        (["clear", "set x"], changed({"x": 1}, clear=True)),
        (["set x", "clear", "set c"], changed({"c": 4}, clear=True)),
        (["acknowledge", "set c"], changed({"c": 4}, acknowledged={"c": 1})),
        (["acknowledge", "clear"], changed(acknowledged={"c": 1}, clear=True)),
        (["set x", "acknowledge", "set c"], changed({"x": 1, "c": 4}, acknowledged={"c": 1})),
    ],
    ids=lambda value: ", then ".join(value) if isinstance(value, list) else "",
)
def test_changes_merge_in_order(bench: Bench, turns: list[str], merged: AlarmChanges) -> None:
    a = bench.owner("a")
    bench.writer.claim_alarm(a, "c", 1)
    for turn in turns:
        change = changed(acknowledged={"c": 1}) if turn == "acknowledge" else CHANGES[turn]
        a.change(deepcopy(change))
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert _fields(commit.alarms) == _fields(merged)
    assert a.failures == 0


def test_changes_do_not_reach_what_the_writer_has(bench: Bench) -> None:
    """`ScriptedWriter` looks whether a commit is changed in its hands."""
    a = bench.owner("a")
    bench.writer.then(lambda: a.change(changed({"x": None, "y": 2})))
    a.change(changed({"x": 1}))
    bench.finish()
    assert [_fields(batch[0].alarms) for batch in bench.writer.batches] == [
        _fields(changed({"x": 1})),
        _fields(changed({"x": None, "y": 2})),
    ]
    assert bench.writer.alarms(a) == {"y": 2}


def test_payloads_count_as_bytes_of_a_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 25_000)
    for owner in bench.owners(10):
        owner.change(changed({"x": 1}, payload=b"p" * 10_000))
        owner.change(changed({"y": 1}, payload=b"p" * 10_000))
    bench.finish()
    # The one that crosses the line still goes in.
    assert [len(batch) for batch in bench.writer.batches] == [2] * 5
    assert bench.group_commit._pending_bytes == 0


def test_many_alarms_count_as_bytes_though_they_have_no_payload(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_BYTES", 1000)
    for owner in bench.owners(10):
        owner.change(changed({f"{n}": 1 for n in range(100)}))
    bench.finish()
    assert [len(batch) for batch in bench.writer.batches] == [1] * 10


def test_what_was_counted_is_taken_off_again(bench: Bench) -> None:
    """However the changes merge, of which some leave less than there was."""
    for owner in bench.owners(10):
        owner.change(changed({"x": 1}, payload=b"p" * 90), b"s" * 50)
        owner.change(changed({"x": None}))
        owner.change(changed(clear=True), b"s")
        owner.change(changed({"y": 1}, payload=b"p" * 5))
        owner.save(b"1")
    assert bench.group_commit._pending_bytes > 0
    bench.finish()
    assert bench.group_commit._pending_bytes == 0


def test_bytes_of_what_is_taken_back_are_not_counted_on(bench: Bench) -> None:
    a, other = bench.owner("a"), bench.owner("other")

    def first_transaction() -> None:
        other.save(b"1")
        raise FAULT

    def second_transaction() -> None:
        a.change(changed({"x": 1}, payload=b"p" * 50), b"2")
        bench.loop.step()

    bench.writer.then(first_transaction, second_transaction)
    a.save(b"1")
    bench.finish()
    assert bench.group_commit._pending_bytes == 0
    assert bench.writer.alarms(a) == {}


# --- alarms: revisions ---------------------------------------------------------------------------


def unloaded(bench: Bench, object_id: str, revision: int) -> FakeOwner:
    """An owner that is stored in that revision but doesn't know."""
    owner = bench.owner(object_id)
    for n in range(revision):
        bench.writer.inner.commit([Commit(owner.key, n, b"0")], 0)
    owner.revision = None
    return owner


@pytest.mark.parametrize("revision", [0, 3])
def test_changes_from_outside_need_no_revision(bench: Bench, revision: int) -> None:
    a = unloaded(bench, "a", revision)
    held = a.change(changed({"x": 5}))
    bench.finish()
    assert bench.writer.batches[0][0].revision is None
    assert told(held) == "a alarms"
    assert bench.writer.alarms(a) == {"x": 5}
    assert a.revision is None  # it still isn't known
    assert a.gate is None


def test_a_change_from_outside_leaves_what_is_known_by_then(bench: Bench) -> None:
    """The object is loaded while the change is on its way."""
    a = unloaded(bench, "a", 3)
    a.change(changed({"x": 5}))
    bench.runner.step()
    a.revision = 3
    bench.finish()
    assert a.revision == 3
    a.save(b"1")
    bench.finish()
    assert bench.writer.stored(a) == (4, b"1")


@pytest.mark.parametrize("revision", [0, 3])
def test_a_turn_that_joins_a_change_from_outside_makes_it_conditional(
    bench: Bench, revision: int
) -> None:
    a = unloaded(bench, "a", revision)
    outside = a.change(changed({"x": 5}))
    a.revision = revision  # it is loaded meanwhile
    a.save(b"1")
    bench.finish()
    ((commit,),) = bench.writer.batches
    assert (commit.revision, commit.state) == (revision, b"1")
    assert outside.ended
    assert bench.writer.stored(a) == (revision + 1, b"1")
    assert bench.writer.alarms(a) == {"x": 5}
    assert a.revision == revision + 1


@pytest.mark.parametrize("revision", [0, 3])
def test_a_turn_behind_a_change_from_outside_is_conditional(bench: Bench, revision: int) -> None:
    """The change is in the writer's hands while the object is loaded and has turns."""
    a = unloaded(bench, "a", revision)

    def first_transaction() -> None:
        a.revision = revision
        a.save(b"1")

    bench.writer.then(first_transaction, lambda: a.change(changed({"y": 6}), b"2"))
    a.change(changed({"x": 5}))
    bench.runner.step()
    a.save(b"3")  # the outcomes of all three are on their way
    bench.finish()
    assert [batch[0].revision for batch in bench.writer.batches] == [
        None,
        revision,
        revision + 1,
        revision + 2,
    ]
    assert bench.writer.stored(a) == (revision + 3, b"3")
    assert bench.writer.alarms(a) == {"x": 5, "y": 6}
    assert (a.revision, a.failures) == (revision + 3, 0)


def test_a_stale_turn_takes_a_change_from_outside_with_it(bench: Bench) -> None:
    """It joined, so that it is part of the turn's commit."""
    a = unloaded(bench, "a", 3)
    outside = a.change(changed({"x": 5}))
    a.revision = 2
    turn = a.save(b"1")
    bench.finish()
    for waiter in (outside, turn):
        assert isinstance(failure(waiter), StaleObject)
    assert bench.writer.alarms(a) == {}
    assert bench.told == []


def test_a_failed_change_from_outside_fails_what_is_behind_it(bench: Bench) -> None:
    a = unloaded(bench, "a", 1)
    other = bench.owner("other")
    held: list[Held] = []

    def first_transaction() -> None:
        a.revision = 1
        held.append(a.save(b"1"))
        other.save(b"1")
        raise FAULT

    bench.writer.then(first_transaction)
    held.append(a.change(changed({"x": 5})))
    bench.finish()
    assert all(failure(waiter).__cause__ is FAULT for waiter in held)
    assert bench.writer.stored(a) == (1, b"0")
    assert a.failures == 1
    assert bench.writer.stored(other) == (1, b"1")


def test_alarms_alone_leave_the_revision(bench: Bench) -> None:
    a = bench.owner("a")

    def alarms(name: str) -> Callable[[], object]:
        return lambda: a.change(changed({name: 1}))

    bench.writer.then(alarms("x"), alarms("y"), lambda: a.save(b"2"), alarms("z"))
    a.save(b"1")
    bench.finish()
    revisions = [batch[0].revision for batch in bench.writer.batches]
    assert revisions == [0, 1, 1, 1, 2]
    assert bench.writer.stored(a) == (2, b"2")
    assert bench.writer.alarms(a) == {"x": 1, "y": 1, "z": 1}
    assert (a.revision, a.failures, a.commits) == (2, 0, 5)


def test_alarms_behind_a_deletion_are_those_of_a_new_object(bench: Bench) -> None:
    a = bench.owner("a")
    a.save(b"1")
    bench.finish()
    bench.writer.then(lambda: a.change(changed({"x": 1})), lambda: a.save(b"2"))
    a.change(changed(clear=True), delete=True)
    bench.finish()
    assert [batch[0].revision for batch in bench.writer.batches] == [0, 1, 0, 0]
    assert bench.writer.stored(a) == (1, b"2")
    assert bench.writer.alarms(a) == {"x": 1}
    assert (a.revision, a.failures) == (1, 0)


def test_a_lost_claim_fails_its_turn_alone(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    bench.writer.claim_alarm(a, "c", 1)
    bench.writer.claim_alarm(a, "c", 2)
    lost = a.change(changed({"x": 1}, acknowledged={"c": 1}), b"1")
    other = b.change(changed({"x": 1}), b"1")
    bench.finish()
    error = failure(lost)
    assert isinstance(error, StaleObject)
    assert (error.key, error.revision) == (a.key, 0)
    assert told(other) == "b 1"
    assert bench.writer.stored(a) is None
    assert bench.writer.alarms(a) == {"c": 0}
    assert (a.failures, b.failures) == (1, 0)


@pytest.mark.parametrize("alarms_only", [True, False])
def test_a_lost_claim_fails_what_is_behind_it(bench: Bench, alarms_only: bool) -> None:
    """What is behind alarms alone has the stored revision, so that nothing else would stop it."""
    a, other = bench.owner("a"), bench.owner("other")
    held: list[Held] = []

    def first_transaction() -> None:
        held.append(a.save(b"2"))
        other.save(b"1")

    bench.writer.then(first_transaction)
    alarms = changed(acknowledged={"c": 1})
    held.append(a.change(alarms, None if alarms_only else b"1"))
    bench.runner.step()
    bench.loop.step()
    assert [type(failure(waiter)) for waiter in held] == [StaleObject] * 2
    assert bench.writer.stored(a) is None
    assert bench.writer.stored(other) == (1, b"1")
    assert a.failures == 1


# --- alarms: who is told -------------------------------------------------------------------------


def test_what_is_durable_is_told_before_anyone_is_released(bench: Bench) -> None:
    a, b = bench.owner("a"), bench.owner("b")
    a.change(changed({"x": 1}), b"1")
    a.change(changed({"x": 2, "y": None}))
    b.save(b"1")
    bench.runner.step()
    assert bench.told == []
    bench.loop.step()
    # Once for what was coalesced, and nothing of what had no alarms.
    assert bench.told == [(a.key, _fields(changed({"x": 2, "y": None})))]
    assert bench.log == ["a told", "a committed", "a 1", "a alarms", "b committed", "b 1"]


def test_each_commit_is_told_once_and_in_order(bench: Bench) -> None:
    a = unloaded(bench, "a", 0)
    bench.writer.then(*(lambda n=n: a.change(changed({"x": n})) for n in (1, 2, 3)))
    a.change(changed({"x": 0}))
    bench.finish()
    assert bench.told == [(a.key, _fields(changed({"x": n}))) for n in range(4)]


def test_what_fails_is_never_told(bench: Bench) -> None:
    a, b, c = bench.owner("a"), bench.owner("b"), bench.owner("c")
    bench.writer.claim_alarm(c, "x", 1)
    b.revision = 7

    def first_transaction() -> None:
        a.change(changed({"y": 1}))  # behind one that fails, and so never written
        b.change(changed({"x": 1}))  # stale
        c.change(changed({"y": 1}, acknowledged={"x": 5}))  # its claim is lost
        raise FAULT

    bench.writer.then(first_transaction)
    a.change(changed({"x": 1}))
    bench.finish()
    assert (a.failures, b.failures, c.failures) == (1, 1, 1)
    assert bench.told == []
    # Nor is it told with what succeeds later.
    a.change(changed({"z": 1}))
    bench.finish()
    assert bench.told == [(a.key, _fields(changed({"z": 1})))]


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
    assert not bench.group_commit._scheduled


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
        bench.writer.then(_raise_after(lambda: held.append(a.save(b"2"))))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            assert not done
            runner.step()
        assert done
        assert all(waiter.ended for waiter in held)
        assert bench.group_commit._unsettled == 0

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


# --- batched loads -------------------------------------------------------------------------------


class ScriptedReader(ForwardingReader):
    """Reads from memory; ``script`` is called in the middle of each read."""

    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__(storage.open_reader())
        self.script: deque[Callable[[], object]] = deque()
        self.batches: list[list[str]] = []

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        self.batches.append([key.object_id for key in keys])
        if self.script:
            self.script.popleft()()
        return super().load(keys)

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


class FakeLoading:
    def __init__(self, object_id: str) -> None:
        self.key = ObjectKey("T", object_id)
        self.outcomes: list[StoredObject | StorageFault | None] = []
        self.then: Callable[[], object] = _nothing

    def loaded(self, row: StoredObject | None) -> None:
        self.outcomes.append(row)
        self.then()

    def load_failed(self, fault: StorageFault) -> None:
        self.outcomes.append(fault)
        self.then()


def loading_with(
    backend: str, scenario: Callable[[BatchedLoad, ScriptedReader, SteppedRunner], None]
) -> None:
    """Run ``scenario``, deliver what it brought about, then stop."""

    async def main() -> None:
        storage = MemoryStorage()
        storage.open_writer().commit(
            [Commit(ObjectKey("T", f"{n}"), 0, str(n).encode()) for n in range(5)], 0
        )
        loop = running_loop()
        runner = SteppedRunner(loop)
        reader = ScriptedReader(storage)
        load = BatchedLoad(loop, runner, reader)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run)
            await anyio.wait_all_tasks_blocked()
            scenario(load, reader, runner)
            await anyio.wait_all_tasks_blocked()
            while runner.jobs:
                runner.step()
                await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


backends = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@backends
def test_loads_that_wait_go_into_one_read(backend: str) -> None:
    loadings = [FakeLoading(f"{n}") for n in range(7)]

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        for loading in loadings[:3]:
            load.submit(loading)
        assert len(runner.jobs) == 1

        def more() -> None:
            for loading in loadings[3:]:
                load.submit(loading)

        reader.script.append(more)
        runner.step()
        assert reader.batches == [["0", "1", "2"], ["3", "4", "5", "6"]]
        assert all(loading.outcomes == [] for loading in loadings)

    loading_with(backend, scenario)
    assert [loading.outcomes for loading in loadings] == [
        *([StoredObject(1, str(n).encode())] for n in range(5)),
        [None],
        [None],
    ]


@backends
@pytest.mark.parametrize("error", [FAULT, RuntimeError("boom"), ValueError()])
def test_a_read_that_fails_fails_its_loads_only(backend: str, error: Exception) -> None:
    first, second = FakeLoading("0"), FakeLoading("1")

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        def fail() -> None:
            load.submit(second)
            raise error

        reader.script.append(fail)
        load.submit(first)
        runner.step()

    loading_with(backend, scenario)
    (fault,) = first.outcomes
    assert isinstance(fault, StorageFault)
    assert str(fault) == (str(error) or type(error).__name__)
    assert second.outcomes == [StoredObject(1, b"1")]


@backends
def test_reads_are_bounded(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_load, "MAX_BATCH_KEYS", 2)
    loadings = [FakeLoading(f"{n}") for n in range(5)]
    batches: list[list[str]] = []

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        for loading in loadings:
            load.submit(loading)
        runner.step()
        batches.extend(reader.batches)

    loading_with(backend, scenario)
    assert batches == [["0", "1"], ["2", "3"], ["4"]]
    assert [len(loading.outcomes) for loading in loadings] == [1] * 5


@backends
def test_loads_that_wait_are_expected_to_take_as_long_as_the_last_full_reads(
    backend: str, monkeypatch: pytest.MonkeyPatch, stopwatch: Stopwatch
) -> None:
    monkeypatch.setattr(batched_load, "MAX_BATCH_KEYS", 2)
    monkeypatch.setattr(batched_load, "perf_counter", lambda: stopwatch.time)
    expected: list[tuple[bool, float]] = []

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        def slowly() -> None:
            stopwatch.time += 1
            expected.append((load.is_behind, load.expected_wait()))
            stopwatch.time += 2

        reader.script.extend([slowly] * 4)
        for number in range(7):
            load.submit(FakeLoading(f"{number}"))
        runner.step()
        assert not load.is_behind

    loading_with(backend, scenario)
    # At first only how long one has been under way is known.
    assert expected == [(True, 3), (True, 2 + 2 * 3), (False, 2 + 3), (False, 2 + 3)]


@backends
def test_loads_behind_a_hanging_reader_are_expected_to_take_long_and_only_then(
    backend: str, monkeypatch: pytest.MonkeyPatch, stopwatch: Stopwatch
) -> None:
    monkeypatch.setattr(batched_load, "MAX_BATCH_KEYS", 2)
    monkeypatch.setattr(batched_load, "perf_counter", lambda: stopwatch.time)

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        for number in range(3):
            load.submit(FakeLoading(f"{number}"))
        stopwatch.time += 3  # while the reader's thread does something else
        assert load.expected_wait() == 2 * 3
        runner.step()
        assert load.expected_wait() == 0

    loading_with(backend, scenario)


@backends
def test_a_load_asked_for_while_one_is_handed_over(backend: str) -> None:
    first, second = FakeLoading("0"), FakeLoading("1")

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        first.then = lambda: load.submit(second)
        load.submit(first)
        runner.step()

    loading_with(backend, scenario)
    assert first.outcomes == [StoredObject(1, b"0")]
    assert second.outcomes == [StoredObject(1, b"1")]
