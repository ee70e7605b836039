"""The longest wait of a caller while another process gets half of the objects, and leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

import anyio

from trio_durable import DurableRuntime

from .. import loops
from ..objects import Counter, object_ids
from .owner import databases, left, settled, started


@asynccontextmanager
async def calling(runtime: DurableRuntime, ids: list[str]) -> AsyncIterator[list[float]]:
    """Sixteen callers of many objects; yields the seconds that each call has taken."""
    taken: list[float] = []
    over = False

    async def call(first: int) -> None:
        at = first
        while not over:
            begin = perf_counter()
            await runtime.get(Counter, ids[at % len(ids)]).add(1)
            taken.append(perf_counter() - begin)
            at += 7919

    async with anyio.create_task_group() as tasks:
        for first in range(16):
            tasks.start_soon(call, first * 1009)
        yield taken
        over = True


async def _move(url: str, objects: int) -> None:
    ids = object_ids(objects)
    async with DurableRuntime(
        url, objects=[Counter], cluster=True, max_resident=2 * objects, call_timeout=30
    ) as runtime:
        for begin in range(0, objects, 512):
            async with anyio.create_task_group() as tasks:
                for each in ids[begin : begin + 512]:
                    tasks.start_soon(runtime.get(Counter, each).add, 1)
        async with calling(runtime, ids) as taken:
            await anyio.sleep(1)
            before, began = len(taken), perf_counter()
            process = await started(url)
            await settled(runtime, 2)
            report("joins", taken[before:], perf_counter() - began)
            before, began = len(taken), perf_counter()
            await left(process)
            await settled(runtime, 1)
            report("leaves", taken[before:], perf_counter() - began)


def report(what: str, taken: list[float], seconds: float) -> None:
    taken = sorted(taken)
    print(
        f"a process {what}, {seconds:.1f} s: {len(taken):,} calls without an error, p50 "
        f"{1e3 * taken[len(taken) // 2]:.1f} ms, p99 {1e3 * taken[len(taken) * 99 // 100]:.1f} ms, "
        f"the longest {1e3 * taken[-1]:.0f} ms",
        flush=True,
    )


def measure(objects: int) -> None:
    """Print the waits of callers while objects move to another process and back."""
    with databases(1) as (url,):
        print(f"{objects:,} objects in memory, 16 callers")
        loops.run("trio", partial(_move, url, objects))
