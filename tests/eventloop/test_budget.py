"""The budget of calls that wait for nothing, on Trio with a clock of real time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_durable import DurableObject, DurableRuntime, MemoryStorage, handler
from trio_durable._eventloop import budget
from trio_durable._eventloop.running import running_loop


class Plain(DurableObject):
    count: int = 3

    @handler(readonly=True)
    def read(self) -> int:
        time.pass_by(CALL)
        return self.count


CALL = budget.EACH / 3.5
"""Seconds that a read takes: after four the budget is spent."""


class Time:
    """The clock of budgets, which moves by what tests let pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


time = Time()


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "perf_counter", time)


class Passes:
    """The passes of Trio's scheduler."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        """A pass has ended."""
        self.count += 1


@attrs.define
class Shares:
    """What callers did beside each other."""

    calls: list[int]
    """Of each."""
    passes: int = 0
    seconds: float = 0.0


def shares(callers: int, calls: int) -> Shares:
    """Let ``callers`` make ``calls`` together."""
    seen, shared = Passes(), Shares([0] * callers)

    async def read(number: int) -> None:
        while sum(shared.calls) < calls:
            await Plain.read(str(number))
            shared.calls[number] += 1

    async def main() -> None:
        async with DurableRuntime(MemoryStorage(), objects=[Plain]):
            for number in range(callers):
                await Plain.read(str(number))
            before, began = seen.count, time.now
            async with trio.open_nursery() as nursery:
                for number in range(callers):
                    nursery.start_soon(read, number)
            shared.passes, shared.seconds = seen.count - before, time.now - began

    trio.run(main, instruments=[seen])  # type: ignore[list-item]  # with the method that it needs
    return shared


def passes(main: Callable[[], Any], clock: trio.abc.Clock | None = None) -> int:
    """The passes of the scheduler while ``main`` runs."""
    seen = Passes()
    trio.run(main, clock=clock, instruments=[seen])  # type: ignore[list-item]  # see above
    return seen.count


async def reads(number: int) -> None:
    async with DurableRuntime(MemoryStorage(), objects=[Plain]):
        for _ in range(number):
            await Plain.read("a")


def test_a_single_caller_makes_some_calls_between_two_checkpoints() -> None:
    without = passes(lambda: reads(0))
    added = passes(lambda: reads(4001)) - without
    assert 900 <= added <= 1100


def test_in_virtual_time_each_call_is_a_checkpoint() -> None:
    without = passes(lambda: reads(0), MockClock())
    assert passes(lambda: reads(1000), MockClock()) - without >= 999


@pytest.mark.parametrize("callers", [3, 64, 200])
def test_a_pass_of_the_scheduler_is_longer_by_the_budget_of_all(callers: int) -> None:
    shared = shares(callers, 30 * callers)
    pass_seconds = shared.seconds / shared.passes
    assert pass_seconds <= min(budget.ALL, callers * budget.EACH) + callers * CALL


def test_in_a_crowd_each_call_is_a_checkpoint() -> None:
    callers = 2 * budget.CROWD
    shared = shares(callers, 10 * callers)
    assert shared.passes >= 8


def test_the_budget_is_back_when_a_crowd_has_gone() -> None:
    async def main() -> None:
        async with DurableRuntime(MemoryStorage(), objects=[Plain]):
            async with trio.open_nursery() as nursery:
                for number in range(2 * budget.CROWD):
                    nursery.start_soon(reads_of, str(number), 3)
            await reads_of("a", 20 * budget.CROWD)
            before = seen.count
            await reads_of("a", 400)
            assert seen.count - before <= 120

    async def reads_of(object_id: str, number: int) -> None:
        for _ in range(number):
            await Plain.read(object_id)

    seen = Passes()
    trio.run(main, instruments=[seen])  # type: ignore[list-item]  # with the method that it needs


@pytest.mark.parametrize("callers", [2, 64])
def test_all_callers_have_alike_shares(callers: int) -> None:
    calls = shares(callers, 100 * callers).calls
    assert min(calls) >= max(calls) / 2


@pytest.mark.parametrize("seconds", [0.0, budget.EACH])
def test_the_budget_is_whole_after_other_tasks_have_run(seconds: float) -> None:
    async def main() -> None:
        ticks = 0
        async with DurableRuntime(MemoryStorage(), objects=[Plain]), trio.open_nursery() as nursery:

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await trio.lowlevel.checkpoint()
                    time.pass_by(seconds)
                    ticks += 1

            nursery.start_soon(tick)
            for _ in range(400):
                await Plain.read("a")
            nursery.cancel_scope.cancel()
        assert 90 <= ticks <= 110

    trio.run(main)


def test_runtimes_of_one_loop_have_one_budget() -> None:
    async def main() -> None:
        first = DurableRuntime(MemoryStorage(), objects=[Plain])
        second = DurableRuntime(MemoryStorage(), objects=[Plain])
        async with first, second:
            for _ in range(2000):
                await first.get(Plain, "a").read()
                await second.get(Plain, "a").read()

    without = passes(lambda: reads(0))
    assert 900 <= passes(main) - without <= 1200


def test_a_call_within_the_budget_is_a_cancel_point() -> None:
    async def main() -> None:
        async with DurableRuntime(MemoryStorage(), objects=[Plain]):
            await Plain.read("a")
            await trio.lowlevel.checkpoint()
            await Plain.read("a")
            with trio.CancelScope() as scope:
                scope.cancel()
                await Plain.read("a")
            assert scope.cancelled_caught

    trio.run(main)


def test_a_loop_of_calls_meets_its_deadline() -> None:
    async def main() -> None:
        made = 0
        async with DurableRuntime(MemoryStorage(), objects=[Plain]):
            with trio.move_on_after(0) as scope:  # the scheduler has to find that it has passed
                while made < 100:
                    await Plain.read("a")
                    made += 1
        assert scope.cancelled_caught
        assert made <= 2 * budget.EACH / CALL

    trio.run(main)


def test_on_asyncio_other_tasks_run_in_each_call() -> None:
    async def main() -> None:
        loop = running_loop()
        assert loop.pause is loop.checkpoint

    anyio.run(main, backend="asyncio")
