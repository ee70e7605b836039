"""Overload: admission control rejects the excess at once, and the rest completes."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable

import anyio
import pytest
from support.runtimes import threaded_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls
from support.workers import Worker

from trio_durable import (
    CallFailed,
    DurableRuntime,
    Overloaded,
    alarm,
    handler,
)
from trio_durable._persistence import batched_load, group_commit
from trio_durable._persistence.batched_load import BatchedLoad
from trio_durable._persistence.wait_estimate import PATIENCE, WaitEstimate


class Colleague(Worker):
    @handler
    async def hand_on(self, to: str, seconds: float) -> int:
        self.done += 1
        self.ctx.schedule_alarm("ring", after=1000)
        return await self.ctx.runtime.get(Colleague, to, timeout=5).work(seconds)

    @handler
    async def hand_on_or_do_without(self, to: str, seconds: float) -> None:
        try:
            await self.hand_on(to, seconds)
        except Overloaded:
            self.done += 10
            await anyio.sleep(20)

    @alarm
    def ring(self) -> None:
        self.done += 100


# --- what is expected ----------------------------------------------------------------------------


def backlog(*took: float) -> WaitEstimate:
    made = WaitEstimate()
    for duration in took:
        made.begin(100)
        made.end(100 + duration)
    return made


def test_nothing_is_expected_of_what_is_unknown() -> None:
    assert WaitEstimate().wait(1000, 5) == 0
    begun = WaitEstimate()
    begun.begin(5)
    assert begun.wait(1000, 50) == 0


def test_who_comes_last_waits_for_all_that_are_before() -> None:
    assert backlog(2).wait(3, 200) == 6


def test_the_one_under_way_counts_with_what_is_left_of_it() -> None:
    line = backlog(2)
    line.begin(200)
    assert line.wait(3, 200.5) == 7.5
    assert line.wait(3, 300) == 6
    assert line.elapsed(200.5) == 0.5


def test_the_average_follows_what_changes() -> None:
    assert backlog(*[1] * 9, *[5] * 30).wait(1, 200) == pytest.approx(5, rel=0.01)


def test_a_part_tells_only_where_nothing_is_known() -> None:
    line = WaitEstimate()
    for share, took, expected in (
        (0.1, 3, 0),
        (0.25, 3, 12),
        (0.125, 3, 12),
        (0.5, 3, 6),
        (1, 4, 4),
        (0.5, 1, 4),
        (1, 6, 5),
    ):
        line.begin(200)
        line.end(200 + took, share)
        assert line.wait(1, 300) == expected
        assert line.elapsed(300) == 0


def test_a_first_one_that_was_long_does_not_count_for_long() -> None:
    assert backlog(10, *[0] * 9).wait(1, 200) == pytest.approx(10 / 4 * 0.75**6)
    line = WaitEstimate(16)
    for took in (10, *[0] * 9):
        line.begin(100)
        line.end(100 + took)
    assert line.wait(1, 200) == pytest.approx(1)


def test_one_that_woke_a_sleeping_disk_says_nothing_of_those_after_it() -> None:
    line = WaitEstimate()
    for took in (5, 0.01):
        line.begin(100)
        line.end(100 + took, share=0.2)
    assert line.wait(2, 200) == pytest.approx(0.1)


def test_what_takes_longer_than_ever_is_taken_for_the_measure() -> None:
    line = backlog(2)
    line.begin(200)
    assert line.wait_of_late(3, 200.5) == 7.5
    assert line.wait_of_late(3, 210) == 30


# --- one object ----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("turn", [0.01, 1.0])
async def test_an_overloaded_object_does_as_much_as_it_can_for_callers_who_still_wait(
    turn: float,
) -> None:
    """Without the refusals each would be served just when its time is up, and nobody in time."""
    outcomes: list[Outcome[int]] = []
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        worker = runtime.get(Colleague, "a")
        await worker.read()
        for _ in range(round(2 * 20 / turn)):  # twice what can be done, for 20 seconds
            outcomes.append(group.start(worker.work, turn))
            await anyio.sleep(turn / 2)
        for outcome in outcomes:
            await outcome.wait()
        done = await worker.read()
    late = outcomes[len(outcomes) // 2 :]
    served = [outcome for outcome in late if outcome.error is None]
    assert len(served) >= 0.8 * len(late) / 2
    assert {type(outcome.error) for outcome in late} == {type(None), Overloaded}
    # None was worked for in vain.
    assert done == sum(outcome.error is None for outcome in outcomes)


@pytest.mark.anyio
async def test_who_is_refused_is_told_why_and_never_run() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        worker = runtime.get(Colleague, "a", timeout=None)
        for _ in range(12):
            group.start(worker.work, 1)
        await anyio.sleep(2.5)
        began = anyio.current_time()
        with pytest.raises(Overloaded, match=r"9 calls wait before it, .* takes 10\.5 s") as caught:
            await runtime.get(Colleague, "a", timeout=10).work(1)
        assert anyio.current_time() == began
        assert isinstance(caught.value, CallFailed)
        assert caught.value.timeout == 10
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        await anyio.sleep(20)
        assert await worker.read() == 12


@pytest.mark.anyio
async def test_a_turn_whose_call_is_refused_is_rolled_back_unless_it_does_without() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        for _ in range(12):
            group.start(runtime.get(Colleague, "busy", timeout=None).work, 1)
        await anyio.sleep(2.5)
        outer = runtime.get(Colleague, "outer")
        with pytest.raises(Overloaded) as caught:
            await outer.hand_on("busy", 1)
        assert caught.value.key.object_id == "busy"
        assert await outer.read() == 0
        assert await runtime.list_alarms(Colleague, "outer") == []
        outer = runtime.get(Colleague, "outer", timeout=None)
        without = group.start(outer.hand_on_or_do_without, "busy", 1)
        await anyio.sleep(17)
        # It doesn't wait for the other any more, so this closes no circle.
        assert await runtime.get(Colleague, "busy").hand_on("outer", 1) == 12
        assert without.error is None
        assert await outer.read() == 12


@pytest.mark.anyio
async def test_who_would_be_served_in_time_is_let_in() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        worker = runtime.get(Colleague, "a", timeout=10)
        outcomes = []
        for _ in range(7):
            outcomes.append(group.start(worker.work, 1))
            await anyio.sleep(0.1)
        await anyio.sleep(10)
        assert [outcome.value for outcome in outcomes] == list(range(1, 8))


@pytest.mark.anyio
async def test_who_waits_for_ever_is_never_refused() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        worker = runtime.get(Colleague, "a")
        outcomes = []
        for _ in range(100):
            outcomes.append(group.start(worker.work, 1))
            await anyio.sleep(0.1)
        await anyio.sleep(100)
        assert [outcome.value for outcome in outcomes] == list(range(1, 101))


@pytest.mark.anyio
async def test_all_is_as_before_right_after_an_overload() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        worker = runtime.get(Colleague, "a")
        for _ in range(40):
            group.start(worker.work, 0.5)
            await anyio.sleep(0.1)
        await anyio.sleep(6)
        assert await worker.work(0.5) > 0


# --- the storage ---------------------------------------------------------------------------------


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the sides of the storage measure their time by."""
    now = [0.0]
    monkeypatch.setattr(group_commit, "perf_counter", lambda: now[0])
    monkeypatch.setattr(batched_load, "perf_counter", lambda: now[0])
    return now


@pytest.mark.anyio
async def test_while_the_disk_hangs_changes_are_refused_and_reads_go_on(
    seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH_ROWS", 2)
    storage = ScriptedStorage()
    async with threaded_runtime(storage) as runtime, calls() as group:
        for name in "abcdef":
            await runtime.get(Colleague, name).read()
        with storage.blocked_writer():
            under_way = group.start(runtime.get(Colleague, "a").work_quickly)
            await anyio.to_thread.run_sync(storage.writer_busy.wait)
            waiting = [group.start(runtime.get(Colleague, name).work_quickly) for name in "bcd"]
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            assert runtime.count_objects() == 6
            seconds[0] += 4.5
            hasty = runtime.get(Colleague, "e", timeout=5)
            with pytest.raises(Overloaded, match=r"the queue of commits takes 9 s"):
                await hasty.work_quickly()
            with pytest.raises(Overloaded):
                await hasty.work(0)
            with pytest.raises(Overloaded):
                await runtime.get(Colleague, "new", timeout=5).work_quickly()
            assert runtime.whereis(Colleague, "new") is None  # nothing is left of it
            assert await hasty.read() == 0
        await under_way.wait()
        for outcome in waiting:
            await outcome.wait()
        assert await runtime.get(Colleague, "e").work_quickly() == 1
        assert storage.states() == {name: {"done": 1} for name in "abcde"}


@pytest.mark.anyio
async def test_a_lot_to_save_is_no_overload_while_the_disk_keeps_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with DurableRuntime(":memory:", objects=[Colleague]) as runtime:
        behind(monkeypatch, group_commit.GroupCommit, 3.4)
        assert await runtime.get(Colleague, "a").work_quickly() == 1
        assert await runtime.get(Colleague, "a").work(1) == 2
        behind(monkeypatch, group_commit.GroupCommit, 1000)
        assert await runtime.get(Colleague, "a", timeout=None).work_quickly() == 3
        assert await runtime.get(Colleague, "a").read() == 3
        assert (await runtime.get_state(Colleague, "a")).done == 3
        assert await runtime.exists(Colleague, "a")
        await runtime.stop(Colleague, "a")
        assert runtime.whereis(Colleague, "a") is None


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["put_state", "delete", "schedule_alarm"])
async def test_changes_from_outside_are_refused_as_well(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with DurableRuntime(":memory:", objects=[Colleague]) as runtime:
        behind(monkeypatch, group_commit.GroupCommit, 4.5)
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "put_state": lambda: runtime.put_state(Colleague, "a", Colleague(done=3)),
            "delete": lambda: runtime.delete(Colleague, "a"),
            "schedule_alarm": lambda: runtime.schedule_alarm(Colleague, "a", "ring", after=1),
        }
        with pytest.raises(Overloaded, match="queue of commits"):
            await changes[what]()
        assert runtime.whereis(Colleague, "a") is None


@pytest.mark.anyio
async def test_who_would_have_to_be_loaded_is_refused_where_loads_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with DurableRuntime(":memory:", objects=[Colleague]) as runtime:
        present = runtime.get(Colleague, "present")
        assert await present.work_quickly() == 1
        behind(monkeypatch, BatchedLoad, 4.5)
        with pytest.raises(Overloaded, match=r"the queue of loads takes 4\.5 s"):
            await runtime.get(Colleague, "absent").read()
        assert runtime.whereis(Colleague, "absent") is None
        assert await present.work_quickly() == 2
        await runtime.put_state(Colleague, "present", Colleague(done=2))
        assert (await runtime.get_state(Colleague, "present")).done == 2
        assert await runtime.get(Colleague, "absent", timeout=None).read() == 0
        behind(monkeypatch, BatchedLoad, 3.4)
        assert await runtime.get(Colleague, "another").read() == 0


@pytest.mark.anyio
async def test_alarms_go_off_however_much_there_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async with DurableRuntime(":memory:", objects=[Colleague]) as runtime:
        await runtime.schedule_alarm(Colleague, "a", "ring", after=1)
        behind(monkeypatch, group_commit.GroupCommit, 1000)
        behind(monkeypatch, BatchedLoad, 1000)
        await anyio.sleep(2)
        assert (await runtime.get_state(Colleague, "a")).done == 100
        assert await runtime.list_alarms(Colleague, "a") == []


def behind(
    monkeypatch: pytest.MonkeyPatch, side: type[group_commit.GroupCommit | BatchedLoad], wait: float
) -> None:
    """Let a side of the storage be behind by so much."""
    assert 3.4 < PATIENCE * 5 < 4.5
    monkeypatch.setattr(side, "is_behind", property(lambda _: True, _set_nothing), raising=False)
    monkeypatch.setattr(side, "expected_wait", lambda _: wait)


def _set_nothing(side: object, value: bool) -> None:
    pass
