"""Ten minutes of everything at once: does the process stay as it is?

Objects are called at random out of ten times as many as may stay in memory, so that all the time
some hibernate, some are evicted and others come from the disk. Among the calls are changes, reads,
turns with a stop in them, alarms that are set and go off, calls that fail and calls whose callers
give up. Once a second the process and its files are looked at.

Memory is flat if what it grows by, as the slope of a line through the samples (least squares),
comes to less than `KEPT` bytes for each call, or to less than one `ARENA` in all, which is what
Python's allocator takes at a time. It counts after a fifth of the time, and twenty calls for each
object that may stay in memory: until then caches and the heap fill. The smallest thing that Python
could leak with each call takes thirty times as much.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import anyio
import attrs
import trio

from trio_durable import DurableRuntime, RuntimeStatistics

from ..objects import object_ids
from ..plot import Line, Panel
from ..workloads import make_file
from .objects import Cell
from .result import Result, Table, Verdict, in_child
from .samples import Sample, since, slope, take

KEPT = 1.0
"""Bytes that a call may leave behind."""
ARENA = 2**20
_WARM_UP = 0.2
"""The share of the time in which caches fill, at the least."""
_WARM_UP_CALLS = 20
"""Calls for each object in memory in which they do, at the least."""


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


def measure(folder: Path, short: bool) -> Result:
    """Do it."""
    return in_child(_measure, folder / "objects.db", _SHORT if short else _FULL)


def _measure(path: Path, plan: _Plan) -> Result:
    make_file(path, plan.stored, Cell)
    load = _Load(plan, path)
    trio.run(load.run)
    return load.result()


class _Load:
    def __init__(self, plan: _Plan, path: Path) -> None:
        self._plan = plan
        self._path = path
        self._ids = object_ids(plan.stored)
        self._random = random.Random(7)
        self._samples: list[Sample] = []
        self._calls = 0
        self._failed = 0
        self._cancelled = 0
        self._statistics: RuntimeStatistics | None = None
        kinds: dict[Callable[[Cell], Awaitable[object]], int] = {
            lambda cell: cell.add(1): 50,
            lambda cell: cell.value(): 20,
            lambda cell: cell.linger(): 10,
            lambda cell: cell.remind(self._random.uniform(0.1, 20)): 10,
            self._fail: 5,
            self._give_up: 5,
        }
        self._mix = [kind for kind, share in kinds.items() for _ in range(share)]

    async def run(self) -> None:
        plan = self._plan
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
                self._samples.append(take(at, self._path, runtime.count_objects(), self._calls))
            self._statistics = runtime.statistics()
            nursery.cancel_scope.cancel()

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

    def result(self) -> Result:
        samples = self._samples
        warm = _WARM_UP_CALLS * self._plan.resident
        counted = [
            sample
            for sample in since(samples, _WARM_UP * self._plan.seconds)
            if sample.calls >= warm
        ]
        per_second = slope([(s.at, s.resident_bytes) for s in counted])
        rate = (counted[-1].calls - counted[0].calls) / (counted[-1].at - counted[0].at)
        kept = per_second / rate
        of_calls = self._statistics
        assert of_calls is not None
        mean = sum(s.resident_bytes for s in counted) / len(counted)
        last = counted[-1]
        return Result(
            title=f"{self._plan.seconds / 60:g} minutes of steady load",
            tables=[
                Table(
                    ("what", "slope per minute", "least", "most", "at the end"),
                    [
                        _row("resident set, KB", counted, lambda s: s.resident_bytes / 1024),
                        _row("trio tasks", counted, lambda s: s.tasks),
                        _row("objects of the gc", counted, lambda s: s.gc_objects),
                        _row("durable objects in memory", counted, lambda s: s.resident_objects),
                        _row("WAL, KB", counted, lambda s: s.wal_bytes / 1024),
                        _row("file, KB", counted, lambda s: s.file_bytes / 1024),
                    ],
                ),
                Table(
                    ("calls", "a second", "failed", "given up", "alarms", "rows", "transactions"),
                    [
                        [
                            f"{last.calls:,}",
                            f"{rate:,.0f}",
                            f"{self._failed:,}",
                            f"{self._cancelled:,}",
                            f"{of_calls.alarms_delivered:,}",
                            f"{of_calls.commits:,}",
                            f"{of_calls.transactions:,}",
                        ]
                    ],
                ),
            ],
            verdicts=[
                Verdict(
                    f"memory is flat: {per_second * 60 / 1024:+.1f} KB a minute at {rate:,.0f} "
                    f"calls/s, which is {kept:+.3f} bytes a call, of {mean / 1e6:.0f} MB "
                    f"(bound: {KEPT:g} byte a call, or 1 MiB in all)",
                    kept <= KEPT or per_second * (last.at - counted[0].at) <= ARENA,
                ),
                Verdict(
                    f"never more than {self._plan.resident:,} idle objects stay in memory",
                    max(s.resident_objects for s in samples)
                    <= self._plan.resident + self._plan.callers + of_calls.alarms_in_flight,
                ),
            ],
            panels=[
                _panel("Resident set", " MB", samples, lambda s: s.resident_bytes / 1e6),
                _panel("Durable objects in memory", "", samples, lambda s: s.resident_objects),
                _panel("Objects of the garbage collector", "", samples, lambda s: s.gc_objects),
                _panel("Tasks", "", samples, lambda s: s.tasks),
                _panel("WAL", " MB", samples, lambda s: s.wal_bytes / 1e6),
                _panel("File", " MB", samples, lambda s: s.file_bytes / 1e6),
            ],
            raw={"samples": [attrs.asdict(sample) for sample in samples]},
        )


Figure = Callable[[Sample], float]


def _row(what: str, samples: list[Sample], figure: Figure) -> list[str]:
    values = [figure(sample) for sample in samples]
    per_minute = slope([(s.at / 60, figure(s)) for s in samples])
    return [
        what,
        f"{per_minute:+,.1f}",
        f"{min(values):,.0f}",
        f"{max(values):,.0f}",
        f"{values[-1]:,.0f}",
    ]


def _panel(title: str, unit: str, samples: list[Sample], figure: Figure) -> Panel:
    line = Line(title, [(sample.at, figure(sample)) for sample in samples])
    return Panel(title=title, unit=unit, x_label="seconds", lines=[line])
