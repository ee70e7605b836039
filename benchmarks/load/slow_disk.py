"""A slow disk: rates and latencies if every transaction takes longer.

All changes that wait during one transaction are in the next, so the rows of a transaction grow with
its duration, and the rate falls far less than the transactions do. The callers bound it: each waits
for one transaction with each change, so a transaction has at most a row of each.
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
from ..measurements import Line, Panel, percentile
from ..objects import Counter, object_ids
from ..processes import in_child
from .parts import Delays, Result, SlowStorage, Table, Verdict

_OBJECTS = 10_000
_TOGETHER = 0.7
"""The least rate of several callers, in rates of one caller times their number, on a disk so slow
that nothing else counts."""


@attrs.frozen
class Cell:
    """Figures of some callers on a disk with some delay."""

    delay: float
    callers: int
    rate: float
    rows: float
    """In a transaction."""
    transaction: float
    """Seconds from one to the next."""
    p50_ms: float
    p99_ms: float


def measure(folder: Path, short: bool) -> Result:
    """Measure all delays with all numbers of callers."""
    delays = (0.0, 0.005) if short else (0.0, 0.001, 0.005, 0.020)
    many = (1, 64, 512) if short else (1, 8, 64, 512, 4096)
    pairs = [(delay, callers) for delay in delays for callers in many]
    work = partial(_measure, folder / "objects.db", pairs, 0.5 if short else 1.5)
    cells = in_child(work)
    titles = {delay: f"+{delay * 1e3:g} ms" if delay else "as it is" for delay in delays}
    rows = []
    for callers in many:
        row = [f"{callers:,}"]
        for cell in (cell for cell in cells if cell.callers == callers):
            row += [f"{cell.rate:,.0f}", f"{cell.rows:,.0f}", f"{cell.p99_ms:.1f}"]
        rows.append(row)
    alone = {cell.delay: cell.rate for cell in cells if cell.callers == 1}
    together = min(
        cell.rate / alone[cell.delay] / cell.callers
        for cell in cells
        if cell.delay >= 0.005 and 8 <= cell.callers <= 64
    )
    headings = [
        head for title in titles.values() for head in (f"{title}: calls/s", "rows", "p99 ms")
    ]
    verdict = (
        "with 5 ms or more, 8 and 64 callers get as many times what one gets as they are, "
        f"times {together:.2f} (bound: {_TOGETHER:g})"
    )

    def panel(title: str, figure: Callable[[Cell], float]) -> Panel:
        lines = [
            Line(name, [(cell.callers, figure(cell)) for cell in cells if cell.delay == delay])
            for delay, name in titles.items()
        ]
        return Panel(title=title, x_label="callers", lines=lines, logarithmic=True)

    return Result(
        title="A slow disk",
        tables=[Table(["callers", *headings], rows)],
        verdicts=[Verdict(verdict, together >= _TOGETHER)],
        panels=[
            panel("Changes per second", lambda cell: cell.rate),
            panel("Rows in a transaction", lambda cell: cell.rows),
            panel("Latency, p99, in ms", lambda cell: cell.p99_ms),
        ],
        raw={"cells": [attrs.asdict(cell) for cell in cells]},
    )


def _measure(path: Path, pairs: list[tuple[float, int]], seconds: float) -> list[Cell]:
    return [trio.run(_cell, path, delay, callers, seconds) for delay, callers in pairs]


async def _cell(path: Path, delay: float, callers: int, seconds: float) -> Cell:
    storage = SlowStorage(SQLiteStorage(path), Delays(per_commit=delay))
    async with DurableRuntime(storage, objects=[Counter]) as runtime:
        calls = [partial(runtime.get(Counter, key).add, 1) for key in object_ids(_OBJECTS)]
        walks = [Walk(calls, number) for number in range(callers)]
        await call_each(calls, 1024)
        await Period(seconds / 3).run(walks)
        gc.collect()
        before = runtime.statistics()
        rate = await Period(seconds).run(walks)
        after = runtime.statistics()
        latencies: list[float] = []
        timed = [TimedWalk(calls, number, latencies) for number in range(callers)]
        await Period(seconds / 2).run(timed)
    rows = (after.commits - before.commits) / (after.transactions - before.transactions)
    p50, p99 = (percentile(latencies, percent) * 1e3 for percent in (50, 99))
    return Cell(delay, callers, rate, rows, rows / rate, p50, p99)
