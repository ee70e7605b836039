"""Watchers: how far they hold up the callers that change the objects they watch.

Callers change objects, alone and beside many watchers, in rounds that alternate in one process. The
watchers are divided evenly among the objects; with one object, all of them and all callers share
it. The memory of a watcher is that of its task, its watch and its share of the cells.

```console
$ python -m benchmarks.watchers
```
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import anyio
import attrs
from rich.console import Console
from rich.table import Table

from trio_durable import DurableRuntime, MemoryStorage, SQLiteStorage, Storage

from . import loops
from .callers import Period, TimedWalk, call_each
from .loops import LoopName
from .measurements import Sample, percentile
from .memory import allocated_bytes
from .objects import Counter, object_ids

StorageName = Literal["memory", "sqlite"]
OBJECTS = (1_000, 1)
RATE, LATENCY = 0.7, 3.0
"""The callers' rate beside watchers, in terms of their rate alone, at least; and their p99, at
most."""


@attrs.frozen
class Outcome:
    """The figures of one round."""

    rate: float
    """Changes a second."""
    p99: float
    """Seconds of a change."""
    seen: float
    """Snapshots a second that watchers took."""
    memory: float
    """Bytes of a watcher, in Python's allocator."""


class Watchers:
    """The tasks that watch.

    Args:
        runtime: The runtime.
        ids: The objects.
        count: The number of watchers.
    """

    def __init__(self, runtime: DurableRuntime, ids: list[str], count: int) -> None:
        self._runtime = runtime
        self._ids = ids
        self._count = count
        self._waiting = count
        self.has_begun = anyio.Event()
        self.seen = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as group:
            for number in range(self._count):
                group.start_soon(self._watch, self._ids[number % len(self._ids)])
            if not self._count:
                self.has_begun.set()

    async def _watch(self, object_id: str) -> None:
        async with self._runtime.watch(Counter, object_id) as snapshots:
            await anext(snapshots)
            self._waiting -= 1
            if not self._waiting:
                self.has_begun.set()
            async for _ in snapshots:
                self.seen += 1


def _storage(name: StorageName, folder: Path) -> Storage:
    return SQLiteStorage(folder / "objects.db") if name == "sqlite" else MemoryStorage()


async def _round(
    storage: StorageName, objects: int, watchers: int, callers: int, seconds: float
) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        async with DurableRuntime(_storage(storage, Path(folder)), objects=[Counter]) as runtime:
            ids = object_ids(objects)
            calls = [partial(runtime.get(Counter, each).add, 1) for each in ids]
            await call_each(calls)
            watching = Watchers(runtime, ids, watchers)
            latencies: list[float] = []
            gc.collect()
            before = allocated_bytes() or 0
            async with anyio.create_task_group() as group:
                group.start_soon(watching.run)
                await watching.has_begun.wait()
                gc.collect()
                memory = ((allocated_bytes() or 0) - before) / max(watchers, 1)
                walks = [TimedWalk(calls, number, latencies) for number in range(callers)]
                await Period(0.1).run(walks)
                latencies.clear()
                seen = watching.seen
                rate = await Period(seconds).run(walks)
                seen = watching.seen - seen
                group.cancel_scope.cancel()
            return Outcome(rate, percentile(latencies, 99), seen / seconds, memory)


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watchers", description=__doc__)
    parser.add_argument("--loop", choices=get_args(LoopName), default="trio")
    parser.add_argument("--storage", choices=get_args(StorageName), default="sqlite")
    parser.add_argument("--watchers", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round")
    given = parser.parse_args()
    table = Table()
    for title in ("objects", "alone", "beside", "ratio", "p99", "ratio", "seen/s", "bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    missed = False
    for objects in OBJECTS:
        found: dict[int, list[Outcome]] = defaultdict(list)
        for _ in range(given.rounds):
            for watchers in (0, given.watchers):
                run = partial(
                    _round, given.storage, objects, watchers, given.callers, given.seconds
                )
                found[watchers].append(loops.run(given.loop, run))
        alone, beside = found[0], found[given.watchers]
        rates = [Sample(each.rate for each in some) for some in (alone, beside)]
        p99s = [Sample(each.p99 for each in some) for some in (alone, beside)]
        rate, p99 = rates[1].over(rates[0]).median, p99s[1].over(p99s[0]).median
        missed = missed or rate < RATE or p99 > LATENCY
        table.add_row(
            f"{objects:,}",
            *(f"{each.median:,.0f}" for each in rates),
            f"{rate:.2f} (≥ {RATE})",
            f"{p99s[1].median * 1e3:.2f} ms",
            f"{p99:.2f} (≤ {LATENCY})",
            f"{Sample(each.seen for each in beside).median:,.0f}",
            f"{Sample(each.memory for each in beside).median:,.0f}",
        )
    Console().print(table)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
