"""Deadlines: each waiter expires at its own, unless its result has arrived."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from support.clock import block, settle
from support.tasks import calls

from trio_durable._eventloop.loop import CallbackWaiter, Expired, Waiter
from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.timeouts import Deadlines

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def open_deadlines() -> AsyncIterator[Deadlines]:
    deadlines = Deadlines(running_loop())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.run)
        await settle()
        yield deadlines
        tasks.cancel_scope.cancel()


class Recorded(CallbackWaiter):
    """Notes when it ended, and how often it was looked at."""

    __slots__ = ("_ended", "ended_at")

    looks = 0

    def __init__(self) -> None:
        super().__init__(self._note)
        self.ended_at: float | None = None

    @property
    def ended(self) -> bool:
        Recorded.looks += 1
        return self._ended

    @ended.setter
    def ended(self, ended: bool) -> None:
        self._ended = ended

    def _note(self, _: Waiter) -> None:
        self.ended_at = anyio.current_time()


@pytest.mark.parametrize("distinct", [1, 10, 32, 33, 500])
async def test_each_waiter_expires_at_its_deadline(distinct: int) -> None:
    timeouts = [1 + number / distinct for number in range(distinct)] * (500 // distinct)
    random.Random(distinct).shuffle(timeouts)
    async with open_deadlines() as deadlines:
        expected: dict[Recorded, float] = {}
        for timeout in timeouts:
            waiter = Recorded()
            expected[waiter] = anyio.current_time() + timeout
            deadlines.watch(waiter, anyio.current_time(), timeout)
            await anyio.sleep(0.01)
        await anyio.sleep(2)
        for waiter, deadline in expected.items():
            assert waiter.ended_at == pytest.approx(deadline, abs=1e-6)


async def test_waiters_that_ended_in_time_stay_ended() -> None:
    async with open_deadlines() as deadlines:
        waiters = [Recorded() for _ in range(5_000)]
        for number, waiter in enumerate(waiters):
            deadlines.watch(waiter, anyio.current_time(), 1 + number / 5_000)
            if number % 50:
                waiter.settle()
        await anyio.sleep(3)
        ended = [waiter.ended_at for waiter in waiters]
        assert ended == [
            pytest.approx(0 if number % 50 else 1 + number / 5_000, abs=1e-6)
            for number in range(5_000)
        ]


async def test_distinct_timeouts_cost_no_more_each_the_more_there_are() -> None:
    async def looks_for(count: int) -> int:
        async with open_deadlines() as deadlines:
            Recorded.looks = 0
            for number in range(count):
                deadlines.watch(Recorded(), anyio.current_time(), 1 + number / count)
            await anyio.sleep(3)
            return Recorded.looks

    assert await looks_for(1_600) < 2.5 * await looks_for(800)


@pytest.mark.parametrize("at_its_deadline", [False, True])
async def test_a_result_that_arrived_while_the_loop_was_blocked_is_no_timeout(
    at_its_deadline: bool,
) -> None:
    loop = running_loop()
    async with open_deadlines() as deadlines, calls() as group:
        for _ in range(30):  # trio runs what is ready in any order
            waiter = loop.waiter()
            deadlines.watch(waiter, loop.now(), 5)
            outcome = group.start(waiter.wait)
            await anyio.sleep(5 if at_its_deadline else 1)
            block(10)
            loop.call_soon_threadsafe(waiter.settle, "in time")  # as by a storage's thread
            await outcome.wait()
            assert outcome.value == "in time"


async def test_a_waiter_whose_result_has_not_arrived_expires_after_a_blocked_loop() -> None:
    loop = running_loop()
    async with open_deadlines() as deadlines, calls() as group:
        waiter = loop.waiter()
        deadlines.watch(waiter, loop.now(), 5)
        outcome = group.start(waiter.wait)
        await anyio.sleep(1)
        block(10)
        await outcome.wait()
        assert isinstance(outcome.error, Expired)
        assert anyio.current_time() == pytest.approx(11, abs=1e-6)


@pytest.mark.parametrize("error", [MemoryError(), SystemExit(1)], ids=repr)
async def test_an_error_in_the_making_of_one_error_stops_no_other_waiter(
    error: BaseException,
) -> None:
    def fail() -> BaseException:
        raise error

    async with open_deadlines() as deadlines:
        odd, same_time, later = Recorded(), Recorded(), Recorded()
        odd.expiry = fail
        for waiter, timeout in ((odd, 1), (same_time, 1), (later, 2)):
            deadlines.watch(waiter, anyio.current_time(), timeout)
        await anyio.sleep(3)
        assert odd.error is error
        assert isinstance(same_time.error, Expired)
        assert isinstance(later.error, Expired)


@pytest.mark.parametrize("timeout", [1, 2])
@pytest.mark.parametrize("distinct", [1, 33])
async def test_an_expiry_may_watch_another_waiter(timeout: float, distinct: int) -> None:
    async with open_deadlines() as deadlines:
        for number in range(1, distinct):
            deadlines.watch(Recorded(), anyio.current_time(), 100 + number)
        second = Recorded()
        first = CallbackWaiter(
            lambda _: deadlines.watch(second, anyio.current_time(), timeout),
        )
        began = anyio.current_time()
        deadlines.watch(first, began, 1)
        await anyio.sleep(5)
        assert second.ended_at == pytest.approx(began + 1 + timeout, abs=1e-6)


@pytest.mark.parametrize("distinct", [1, 33])
async def test_an_expiry_that_has_ended_ones_removed_drops_no_other(distinct: int) -> None:
    async with open_deadlines() as deadlines:
        for number in range(1, distinct):
            deadlines.watch(Recorded(), anyio.current_time(), 100 + number)

        def watch_many(_waiter: Waiter) -> None:
            for _ in range(3000):
                ended = Recorded()
                ended.ended = True
                deadlines.watch(ended, anyio.current_time(), 1)

        began = anyio.current_time()
        deadlines.watch(CallbackWaiter(watch_many), began, 1)
        other = Recorded()
        deadlines.watch(other, began, 1)
        await anyio.sleep(5)
        assert other.ended_at == pytest.approx(began + 1, abs=1e-6)
