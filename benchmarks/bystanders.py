"""Bystanders: how far calls that wait for nothing hold up the other tasks of a program.

Readers call objects that are in memory, beside a task that sleeps for a millisecond again and
again, or beside one that does nothing but yield. Rounds with the budget of calls under Trio
(`trio_durable._eventloop.budget`) and with a checkpoint in each call alternate in one process.

```console
$ python -m benchmarks.bystanders
```
"""

from __future__ import annotations

import argparse
import gc
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, get_args

import anyio
import attrs
from rich.console import Console
from rich.table import Table

from trio_durable import DurableRuntime, MemoryStorage

from . import loops
from .loops import LoopName
from .measurements import Sample, percentile
from .objects import Counter, object_ids

Bystander = Literal["none", "sleeper", "ticker"]
Yielding = Literal["budget", "checkpoint"]
READERS = (1, 64, 1000)
_NAP = 0.001


@attrs.define
class Shares:
    """Counts of one round."""

    calls: list[int]
    """Of each reader."""
    seconds: float = 0.0
    ticks: int = 0
    late: list[float] = attrs.field(factory=list)
    """Seconds by which the sleeper woke after its time."""
    over: bool = False


async def _read(shares: Shares, number: int, call: Callable[[], Awaitable[object]]) -> None:
    done = 0
    while not shares.over:
        await call()
        done += 1
    shares.calls[number] = done


async def _tick(shares: Shares) -> None:
    while not shares.over:
        await anyio.lowlevel.checkpoint()
        shares.ticks += 1


async def _nap(shares: Shares) -> None:
    while not shares.over:
        due = anyio.current_time() + _NAP
        await anyio.sleep_until(due)
        shares.late.append(anyio.current_time() - due)


async def _round(readers: int, bystander: Bystander, seconds: float, yielding: Yielding) -> Shares:
    async with DurableRuntime(MemoryStorage(), objects=[Counter]) as runtime:
        loop = runtime._opened.loop  # type: ignore[union-attr]
        if yielding == "checkpoint":
            loop.pause = loop.checkpoint
        calls = [runtime.get(Counter, key).value for key in object_ids(readers)]
        for call in calls:
            await call()
        shares = Shares([0] * readers)
        gc.collect()
        async with anyio.create_task_group() as group:
            began = anyio.current_time()
            for number, call in enumerate(calls):
                group.start_soon(_read, shares, number, call)
            if bystander == "ticker":
                group.start_soon(_tick, shares)
            elif bystander == "sleeper":
                group.start_soon(_nap, shares)
            await anyio.sleep(seconds)
            shares.over = True
        shares.seconds = anyio.current_time() - began
    return shares


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bystanders", description=__doc__)
    parser.add_argument("--loop", choices=get_args(LoopName), default="trio")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each round")
    arguments = parser.parse_args()
    yieldings: tuple[Yielding, ...] = get_args(Yielding)
    if arguments.loop != "trio":
        yieldings = ("checkpoint",)
    table = Table()
    for title in ("readers", "yields by", "reads/s", "least / most", "woken late p99", "ticks/s"):
        table.add_column(title, justify="right")
    for readers in READERS:
        rates: dict[Yielding, list[float]] = defaultdict(list)
        fair, late, ticks = defaultdict(list), defaultdict(list), defaultdict(list)
        for _ in range(arguments.rounds):
            for yielding in yieldings:
                run = partial(_round, readers, seconds=arguments.seconds, yielding=yielding)
                alone = loops.run(arguments.loop, partial(run, bystander="none"))
                beside = loops.run(arguments.loop, partial(run, bystander="sleeper"))
                ticking = loops.run(arguments.loop, partial(run, bystander="ticker"))
                rates[yielding].append(sum(alone.calls) / alone.seconds)
                fair[yielding].append(min(alone.calls) / max(alone.calls))
                late[yielding].append(percentile(beside.late, 99) * 1e3)
                ticks[yielding].append(ticking.ticks / ticking.seconds)
        for yielding in yieldings:
            table.add_row(
                f"{readers:,}",
                yielding,
                f"{Sample(rates[yielding]).median:,.0f}",
                f"{Sample(fair[yielding]).median:.2f}",
                f"{Sample(late[yielding]).median:.2f} ms",
                f"{Sample(ticks[yielding]).median:,.0f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
