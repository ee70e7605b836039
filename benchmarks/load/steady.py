"""Ten minutes of everything at once, with flat memory.

Objects are called at random out of ten times as many as may stay in memory, so that all the time
some hibernate, some are evicted and others come from the disk. Among the calls are changes, reads,
turns with a checkpoint in them, alarms that are set and ring, calls that fail and calls that are
cancelled. The process and its files are sampled once a second.

Memory is flat if its growth, as the slope of a line through the samples (least squares), is less
than `KEPT` bytes for each call, or less than one `ARENA` in all, the unit of Python's allocator. It
counts after a fifth of the time, and twenty calls for each object that may stay in memory: until
then caches and the heap fill. The smallest leak with each call would take thirty times as much.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

import anyio
import attrs
import trio

from trio_durable import DurableRuntime

from .. import memory
from ..measurements import Line, Panel
from ..objects import object_ids
from ..processes import in_child
from ..workloads import make_file
from .parts import Cell, Result, Table, Verdict, size_of

KEPT = 1.0
"""Bytes that a call may leave behind."""
ARENA = 2**20
_WARM_UP = 0.2
"""The least share of the time in which caches fill."""
_WARM_UP_CALLS = 20
"""The least number of calls for each object in memory in which they do."""


@attrs.frozen
class _Plan:
    seconds: float
    stored: int
    resident: int
    callers: int = 32
    pause: float = 0.008
    """Seconds between two calls of a caller: there is time for other things, as in an app."""


_FULL = _Plan(seconds=600, stored=200_000, resident=20_000)
_SHORT = _Plan(seconds=20, stored=20_000, resident=2_000)


@attrs.frozen
class Sample:
    """The process and its files at one moment."""

    at: float
    """Seconds since the load began."""
    calls: int
    """Since the load began."""
    figures: Sequence[float]
    """In the order of `_FIGURES`."""


_FIGURES = {
    "Resident set": (" MB", "resident set, KB", 1e6 / 1024),
    "Durable objects in memory": ("", "durable objects in memory", 1.0),
    "Objects of the garbage collector": ("", "objects of the gc", 1.0),
    "Tasks": ("", "trio tasks", 1.0),
    "WAL": (" MB", "WAL, KB", 1e6 / 1024),
    "File": (" MB", "file, KB", 1e6 / 1024),
}
"""Title of the panel: its unit, the name in the table, and how many of the table's unit that is."""


def measure(folder: Path, short: bool) -> Result:
    """Run the load in a process of its own."""
    return in_child(partial(_measure, folder / "objects.db", _SHORT if short else _FULL))


def _measure(path: Path, plan: _Plan) -> Result:
    make_file(path, plan.stored, Cell)
    return trio.run(_Load(plan, path).run)


class _Load:
    def __init__(self, plan: _Plan, path: Path) -> None:
        self._plan = plan
        self._path = path
        self._ids = object_ids(plan.stored)
        self._random = random.Random(7)
        self._calls = 0
        self._failed = 0
        self._cancelled = 0
        kinds: dict[Callable[[Cell], Awaitable[object]], int] = {
            lambda cell: cell.add(1): 50,
            lambda cell: cell.value(): 20,
            lambda cell: cell.linger(): 10,
            lambda cell: cell.remind(self._random.uniform(0.1, 20)): 10,
            self._fail: 5,
            self._give_up: 5,
        }
        self._mix = [kind for kind, share in kinds.items() for _ in range(share)]

    async def run(self) -> Result:
        plan = self._plan
        samples: list[Sample] = []
        async with (
            DurableRuntime(self._path, objects=[Cell], max_resident=plan.resident) as runtime,
            trio.open_nursery() as nursery,
        ):
            for _ in range(plan.callers):
                nursery.start_soon(self._call, runtime)
            began = perf_counter()
            for second in range(1, round(plan.seconds) + 1):
                await trio.sleep(began + second - perf_counter())
                at = perf_counter() - began
                figures = [
                    memory.resident_bytes() / 1e6,
                    runtime.count_objects(),
                    len(gc.get_objects()),
                    trio.lowlevel.current_statistics().tasks_living,
                    size_of(self._path.with_name(self._path.name + "-wal")) / 1e6,
                    size_of(self._path) / 1e6,
                ]
                samples.append(Sample(at, self._calls, figures))
            totals = runtime.statistics()
            nursery.cancel_scope.cancel()
        others = [totals.alarms_delivered, totals.commits, totals.transactions]
        most = plan.resident + plan.callers + totals.alarms_in_flight
        return self._result(samples, others, most)

    async def _call(self, runtime: DurableRuntime) -> None:
        while True:
            cell = runtime.get(Cell, self._random.choice(self._ids))
            await self._random.choice(self._mix)(cell)
            self._calls += 1
            await trio.sleep(self._random.expovariate(1 / self._plan.pause))

    async def _fail(self, cell: Cell) -> None:
        with suppress(ZeroDivisionError):
            await cell.fail()
        self._failed += 1

    async def _give_up(self, cell: Cell) -> None:
        with anyio.move_on_after(self._random.uniform(0, 0.002)) as scope:
            await cell.linger()
        self._cancelled += scope.cancelled_caught

    def _result(self, samples: list[Sample], others: list[int], most: int) -> Result:
        plan = self._plan
        counted = [
            sample
            for sample in samples
            if sample.at >= _WARM_UP * plan.seconds
            and sample.calls >= _WARM_UP_CALLS * plan.resident
        ]
        if len(counted) < 2:
            raise RuntimeError(f"{samples[-1].calls:,} calls are too few to fill the caches")
        first, last = counted[0], counted[-1]
        resident = [(sample.at, sample.figures[0] * 1e6) for sample in counted]
        per_second = slope(resident)
        rate = (last.calls - first.calls) / (last.at - first.at)
        kept = per_second / rate
        mean = statistics.mean(size for _, size in resident)
        calls = [f"{last.calls:,}", f"{rate:,.0f}"]
        calls += [f"{number:,}" for number in (self._failed, self._cancelled, *others)]
        return Result(
            title=f"{plan.seconds / 60:g} minutes of steady load",
            tables=[
                Table(
                    ("what", "slope per minute", "least", "most", "at the end"),
                    [
                        _row(name, [(s.at / 60, s.figures[number] * scale) for s in counted])
                        for number, (_, name, scale) in enumerate(_FIGURES.values())
                    ],
                ),
                Table(
                    ("calls", "a second", "failed", "given up", "alarms", "rows", "transactions"),
                    [calls],
                ),
            ],
            verdicts=[
                Verdict(
                    f"memory is flat: {per_second * 60 / 1024:+.1f} KB a minute at {rate:,.0f} "
                    f"calls/s, which is {kept:+.3f} bytes a call, of {mean / 1e6:.0f} MB "
                    f"(bound: {KEPT:g} byte a call, or 1 MiB in all)",
                    kept <= KEPT or per_second * (last.at - first.at) <= ARENA,
                ),
                Verdict(
                    f"never more than {plan.resident:,} idle objects stay in memory",
                    max(sample.figures[1] for sample in samples) <= most,
                ),
            ],
            panels=[
                Panel(
                    title=title,
                    unit=unit,
                    x_label="seconds",
                    lines=[Line(title, [(s.at, s.figures[number]) for s in samples])],
                )
                for number, (title, (unit, _, _)) in enumerate(_FIGURES.items())
            ],
            raw={"calls": [sample.calls for sample in samples]},
        )


def _row(name: str, points: Sequence[tuple[float, float]]) -> list[str]:
    values = [value for _, value in points]
    figures = (min(values), max(values), values[-1])
    return [name, f"{slope(points):+,.1f}", *(f"{figure:,.0f}" for figure in figures)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The growth of y for each of x, by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope
