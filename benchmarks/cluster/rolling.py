"""A rolling deployment: each process gives way to one of the next release, while callers call."""

from __future__ import annotations

from time import perf_counter

import anyio
import psycopg
from anyio.abc import Process

from trio_durable import Cluster, DurableRuntime

from .. import loops
from ..objects import Counter, object_ids
from .moves import calling, report
from .owner import databases, left, settled, started

_PROCESSES = 4
_OBJECTS = 20_000


def _terms(url: str) -> dict[int, int]:
    """How often each shard has changed its owner."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT shard, term FROM durable_shards").fetchall())


async def _roll(url: str) -> None:
    old = [await started(url, 1) for _ in range(_PROCESSES)]
    async with DurableRuntime(
        url, objects=[Counter], cluster=Cluster(serve=False), call_timeout=30
    ) as client:
        await settled(client, _PROCESSES)
        before = await anyio.to_thread.run_sync(_terms, url)
        new: list[Process] = []
        async with calling(client, object_ids(_OBJECTS)) as taken:
            await anyio.sleep(1)
            begin, began = len(taken), perf_counter()
            for process in old:
                new.append(await started(url, 2))
                await left(process)
            await settled(client, _PROCESSES)
            report(
                f"gives way to another, {_PROCESSES} times", taken[begin:], perf_counter() - began
            )
        after = await anyio.to_thread.run_sync(_terms, url)
        moves = [after[shard] - term for shard, term in before.items()]
        mean = sum(moves) / len(moves)
        print(f"each shard has moved {max(moves)} times at most, {mean:.2f} on average")
        for process in new:
            await left(process)


def measure() -> None:
    """Print the waits of callers, and the moves of shards."""
    with databases(1) as (url,):
        loops.run("trio", lambda: _roll(url))
