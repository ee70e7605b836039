"""Many callers at once, for a while: the driver of every concurrent workload."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from time import perf_counter
from typing import Any

import anyio

Call = Callable[[], Awaitable[object]]
Caller = Callable[["Period"], Coroutine[Any, Any, None]]


class Period:
    """A stretch of time in which callers call, with the number of their calls.

    Callers run loops of their own, so that a bare one isn't slowed by the needs of others: each
    looks at ``over`` before a call and adds its calls to ``calls`` at its end.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self.calls = 0
        self._seconds = seconds

    async def run(self, callers: Sequence[Caller]) -> float:
        """Let ``callers`` call until the time is over; return the calls per second of all."""
        async with anyio.create_task_group() as timing:
            timing.start_soon(self._end)
            began = perf_counter()
            async with anyio.create_task_group() as calling:
                for caller in callers:
                    calling.start_soon(caller, self)
            elapsed = perf_counter() - began
            # They may have run out of calls before the time was over.
            timing.cancel_scope.cancel()
        return self.calls / elapsed

    async def _end(self) -> None:
        await anyio.sleep(self._seconds)
        self.over = True


class Walk:
    """One caller, which walks over all objects with a stride of its own.

    Callers start at different places and meet rarely, but do meet, as they would in an app.
    """

    def __init__(self, calls: Sequence[Call], number: int) -> None:
        self._calls = calls
        self._place = number * 7919 % len(calls)
        self._stride = _stride(number, len(calls))

    async def __call__(self, period: Period) -> None:
        calls, place, stride, size = self._calls, self._place, self._stride, len(self._calls)
        done = 0
        while not period.over:
            await calls[place]()
            done += 1
            place = (place + stride) % size
        period.calls += done


class TimedWalk(Walk):
    """The same, noting how long each call took.

    Args:
        calls: See `Walk`.
        number: See `Walk`.
        latencies: The list to append to, in seconds.
        rest: Awaited after each call, outside of its time.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        number: int,
        latencies: list[float],
        rest: Call | None = None,
    ) -> None:
        super().__init__(calls, number)
        self._latencies = latencies
        self._rest = rest

    async def __call__(self, period: Period) -> None:
        place = self._place
        while not period.over:
            began = perf_counter()
            await self._calls[place]()
            self._latencies.append(perf_counter() - began)
            if self._rest is not None:
                await self._rest()
            period.calls += 1
            place = (place + self._stride) % len(self._calls)


class Queue:
    """A caller that takes its next call from an iterator shared by all, until it is exhausted."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._calls = iter(calls)

    async def __call__(self, period: Period) -> None:
        done = 0
        for call in self._calls:
            await call()
            done += 1
            if period.over:
                break
        period.calls += done


async def paced_latencies(calls: Sequence[Call], seconds: float) -> list[float]:
    """Durations of calls by a caller each, who makes a hundred a second at most, in seconds."""
    latencies: list[float] = []
    end = perf_counter() + seconds

    async def caller(call: Call) -> None:
        await call()
        while (began := perf_counter()) < end:
            await call()
            latencies.append(perf_counter() - began)
            await anyio.sleep(random.uniform(0.005, 0.015))

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(caller, call)
    return latencies


async def call_each(calls: Iterable[Call], callers: int = 64) -> None:
    """Make each of ``calls`` once."""
    queue = Queue(calls)
    period = Period(math.inf)
    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(queue, period)


def _stride(number: int, size: int) -> int:
    """A step of the caller's own that leads over all of ``size`` places."""
    stride = 2 * number + 1
    while math.gcd(stride, size) > 1:
        stride += 2
    return stride
