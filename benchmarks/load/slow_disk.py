"""A slow disk: what callers get where every transaction takes a while longer.

All that waits during one transaction goes into the next, so the rows of a transaction grow with
what it takes, and the rate falls far less than the transactions do. What bounds it are the callers:
each waits for one transaction with each change, so no more than all of them are in one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_durable import DurableRuntime, SQLiteStorage

from ..callers import Period, TimedWalk, Walk, call_each
from ..objects import Counter, object_ids
from ..plot import Line, Panel
from .result import Result, Table, Verdict, in_child
from .samples import percentile
from .slow import Delays, SlowStorage

_OBJECTS = 10_000
_TOGETHER = 0.7
"""How many times as much callers get as one does, of their number, where the disk is so slow that
nothing else counts."""


@attrs.frozen
class Cell:
    """What so many callers get on so slow a disk."""

    delay: float
    callers: int
    rate: float
    rows: float
    """In a transaction."""
    transaction: float
    """Seconds from one to the next."""
    p50: float
    p99: float


def measure(folder: Path, short: bool) -> Result:
    """Do it."""
    delays = (0.0, 0.005) if short else (0.0, 0.001, 0.005, 0.020)
    many = (1, 64, 512) if short else (1, 8, 64, 512, 4096)
    seconds = 0.5 if short else 1.5
    cells = in_child(_measure, folder / "objects.db", delays, many, seconds)
    rows = []
    for callers in many:
        row = [f"{callers:,}"]
        for cell in (cell for cell in cells if cell.callers == callers):
            row += [f"{cell.rate:,.0f}", f"{cell.rows:,.0f}", f"{cell.p99 * 1e3:.1f}"]
        rows.append(row)
    titles = [_title(delay) for delay in delays]
    alone = {cell.delay: cell.rate for cell in cells if cell.callers == 1}
    together = min(
        cell.rate / alone[cell.delay] / cell.callers
        for cell in cells
        if cell.delay >= 0.005 and 8 <= cell.callers <= 64
    )
    return Result(
        title="A slow disk",
        tables=[
            Table(
                (
                    "callers",
                    *(head for title in titles for head in (f"{title}: calls/s", "rows", "p99 ms")),
                ),
                rows,
            )
        ],
        verdicts=[
            Verdict(
                "with 5 ms or more, 8 and 64 callers get as many times what one gets as they are, "
                f"times {together:.2f} (bound: {_TOGETHER:g})",
                together >= _TOGETHER,
            )
        ],
        panels=[
            _panel("Changes per second", cells, titles, lambda cell: cell.rate),
            _panel("Rows in a transaction", cells, titles, lambda cell: cell.rows),
            _panel("Latency, p99, in ms", cells, titles, lambda cell: cell.p99 * 1e3),
        ],
        raw={"cells": [attrs.asdict(cell) for cell in cells]},
    )


def _measure(
    path: Path, delays: tuple[float, ...], many: tuple[int, ...], seconds: float
) -> list[Cell]:
    return [trio.run(_cell, path, delay, callers, seconds) for delay in delays for callers in many]


async def _cell(path: Path, delay: float, callers: int, seconds: float) -> Cell:
    storage = SlowStorage(SQLiteStorage(path), Delays(per_commit=delay))
    async with DurableRuntime(storage, objects=[Counter]) as runtime:
        calls = [partial(runtime.get(Counter, key).add, 1) for key in object_ids(_OBJECTS)]
        await call_each(calls, 1024)
        await Period(seconds / 3).run([Walk(calls, number) for number in range(callers)])
        gc.collect()
        before = runtime.statistics()
        rate = await Period(seconds).run([Walk(calls, number) for number in range(callers)])
        after = runtime.statistics()
        latencies: list[float] = []
        timed = [TimedWalk(calls, number, latencies) for number in range(callers)]
        await Period(seconds / 2).run(timed)
    transactions = after.transactions - before.transactions
    commits = after.commits - before.commits
    return Cell(
        delay,
        callers,
        rate,
        commits / transactions,
        commits / transactions / rate,
        percentile(latencies, 50),
        percentile(latencies, 99),
    )


Figure = Callable[[Cell], float]


def _title(delay: float) -> str:
    return f"+{delay * 1e3:g} ms" if delay else "as it is"


def _panel(title: str, cells: list[Cell], titles: list[str], figure: Figure) -> Panel:
    delays = sorted({cell.delay for cell in cells})
    lines = [
        Line(name, [(cell.callers, figure(cell)) for cell in cells if cell.delay == delay])
        for name, delay in zip(titles, delays, strict=True)
    ]
    return Panel(
        title=title, x_label="callers", lines=lines, logarithmic_x=True, logarithmic_y=True
    )
