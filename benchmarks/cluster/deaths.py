"""The longest silence for callers when the process with their objects dies or stops."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from time import perf_counter

import anyio

from trio_durable import Cluster, DurableError, DurableRuntime

from .. import loops
from ..objects import Counter, object_ids
from .owner import databases, owner, settled


def measure(rounds: int) -> None:
    """Print the median and the greatest silence after a death and a stop."""
    with databases(1) as (url,), tempfile.TemporaryDirectory(prefix="cluster-") as name:
        for kind in ("SQLite", "PostgreSQL"):
            for how in (signal.SIGKILL, signal.SIGSTOP):
                if kind == "SQLite" and how is signal.SIGSTOP:
                    continue  # its lock can't be overruled
                found = []
                for number in range(rounds):
                    storage = url if kind == "PostgreSQL" else f"{name}/{number}.db"
                    with owner(storage, ttl=2.0) as process:
                        found.append(loops.run("trio", partial(_survive, storage, process, how)))
                        process.kill()
                found.sort()
                print(
                    f"{kind}, {how.name}: p50 {1e3 * statistics.median(found):,.0f} ms, max "
                    f"{1e3 * found[-1]:,.0f} ms of {rounds}",
                    flush=True,
                )


async def _silence(runtime: DurableRuntime, ids: list[str], harm: Callable[[], object]) -> float:
    """The longest time in which no call of a caller ends, around ``harm``."""
    longest = 0.0
    harmed = anyio.Event()

    async def call(each: str) -> None:
        nonlocal longest
        last, succeeded = perf_counter(), 0
        while succeeded < 50:
            try:
                await runtime.get(Counter, each).add(1)
            except DurableError:
                continue
            now = perf_counter()
            if harmed.is_set():
                longest = max(longest, now - last)
                succeeded += 1
            last = now

    async with anyio.create_task_group() as tasks:
        for each in ids:
            tasks.start_soon(call, each)
        await anyio.sleep(0.5)
        harmed.set()
        harm()
    return longest


async def _survive(storage: str, process: subprocess.Popen[str], how: signal.Signals) -> float:
    async with DurableRuntime(
        storage, objects=[Counter], cluster=Cluster(ttl=2), call_timeout=10
    ) as runtime:
        await settled(runtime, 2)
        ids = object_ids(16)
        return await _silence(runtime, ids, lambda: os.kill(process.pid, how))
