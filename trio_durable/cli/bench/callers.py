"""Many callers at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import cycle
from time import perf_counter

import anyio

Call = Callable[[], Awaitable[object]]


async def calls_per_second(calls: Sequence[Call], callers: int, seconds: float) -> float:
    """Let callers make ``calls`` over and over, each in an order of its own, for so long."""
    done = 0
    orders = [random.sample(calls, len(calls)) for _ in range(callers)]
    began = perf_counter()
    end = began + seconds

    async def caller(order: Sequence[Call]) -> None:
        """Make them in this order, and again, until the time is over."""
        nonlocal done
        for call in cycle(order):
            await call()
            done += 1
            if perf_counter() >= end:
                return

    async with anyio.create_task_group() as tasks:
        for order in orders:
            tasks.start_soon(caller, order)
    return done / (perf_counter() - began)


async def call_each_once(calls: Iterable[Call], callers: int) -> float:
    """Let callers make each of ``calls`` once; how many a second that were."""
    done = 0
    shared = iter(calls)
    began = perf_counter()

    async def caller() -> None:
        """Make the next one that nobody has made, until there is none."""
        nonlocal done
        for call in shared:
            await call()
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(callers):
            tasks.start_soon(caller)
    return done / (perf_counter() - began)
