"""Concurrent callers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import cycle
from time import perf_counter

import anyio

Call = Callable[[], Awaitable[object]]


async def calls_per_second(calls: Sequence[Call], callers: int, seconds: float) -> float:
    """Measure callers that repeat ``calls``, each in its own random order, for ``seconds``."""
    done = 0
    orders = [random.sample(calls, len(calls)) for _ in range(callers)]
    began = perf_counter()
    end = began + seconds

    async def caller(order: Sequence[Call]) -> None:
        """Repeat the calls in this order until the time is over."""
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
    """Measure callers that make each of ``calls`` once, and return the calls per second."""
    done = 0
    shared = iter(calls)
    began = perf_counter()

    async def caller() -> None:
        """Make calls from the shared iterator until it is exhausted."""
        nonlocal done
        for call in shared:
            await call()
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(callers):
            tasks.start_soon(caller)
    return done / (perf_counter() - began)
