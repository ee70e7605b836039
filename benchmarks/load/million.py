"""A million objects in one file, a hundred thousand in memory, an alarm in each.

Each step is a process of its own, as if the app had been started again for it.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TypeVar, TypeVarTuple

import attrs
import trio

from trio_durable import DurableRuntime

from .. import memory
from ..callers import Call, Period, TimedWalk, Walk, call_each
from ..measurements import Line, Panel, percentile
from ..processes import in_child
from .parts import Cell, Result, Table, Verdict, size_of

_CALLERS = 512
_DAY = 86_400.0


class Stay(Cell, name="Cell", hibernate_after=3600):
    """The same objects, for a process in which they stay active."""


@attrs.frozen
class _Plan:
    objects: int
    active: int
    chunk: int
    """Objects between two readings of the clock."""
    seconds: float


_FULL = _Plan(objects=1_000_000, active=100_000, chunk=50_000, seconds=3)
_SHORT = _Plan(objects=50_000, active=5_000, chunk=10_000, seconds=0.5)


@attrs.frozen
class Step:
    """One step, done."""

    rate: float
    """A second."""
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    rates: tuple[float, ...] = ()
    """Chunk by chunk."""
    resident_bytes: int = attrs.field(factory=memory.resident_bytes)
    """When the step was done."""

    @classmethod
    def of(cls, rate: float, latencies: Sequence[float]) -> Step:
        return cls(rate, 0.0, percentile(latencies, 50), percentile(latencies, 99))

    @property
    def mb(self) -> str:
        return f"{self.resident_bytes / 1e6:.0f} MB"

    @property
    def ms(self) -> str:
        return f"{self.seconds * 1e3:.1f} ms"


Ts = TypeVarTuple("Ts")
R = TypeVar("R")


def _run(function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
    return in_child(partial(trio.run, function, *args))


def measure(folder: Path, short: bool) -> Result:
    """Measure all steps, one after the other."""
    plan = _SHORT if short else _FULL
    path = folder / "objects.db"
    empty = _run(_open, folder / "empty.db")
    created = _run(_create, path, plan)
    created_size = size_of(path)
    opened = _run(_open, path)
    cold, changes, reads = _run(_call, path, plan)
    listed = _run(_list, path, plan)
    reminded = _run(_remind, path, plan)
    far = _run(_open, path)
    # The horizon is further away than the next look at the table.
    near = _run(_open, path, 3 * _DAY)
    began = perf_counter()
    command = [sys.executable, "-m", "trio_durable", "stats", "-s", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    counted = perf_counter() - began
    each = f"{created_size / plan.objects:.0f} bytes each"
    rows = [
        ["create, 512 callers", f"{created.rate:,.0f}/s", f"{created.seconds:,.0f} s", ""],
        ["the file then", f"{created_size / 1e6:,.0f} MB", each, ""],
        ["open a runtime on it", opened.ms, "", opened.mb],
        ["— on an empty file", empty.ms, "", empty.mb],
        [f"{plan.active:,} first calls at random", *_calls(cold)],
        ["changes of those, 64 callers", *_calls(changes)],
        ["reads of those, 64 callers", *_calls(reads)],
        ["list all ids, 1,000 a page", f"{listed.rate:,.0f}/s", f"{listed.seconds:.1f} s", ""],
        ["an alarm in each, from outside", f"{reminded.rate:,.0f}/s", "", ""],
        ["the file then", f"{size_of(path) / 1e6:,.0f} MB", "", ""],
        ["open, all alarms far away", far.ms, "", far.mb],
        ["open, all within the horizon", near.ms, "", near.mb],
        ["trio-durable stats", f"{counted:.1f} s", "", ""],
    ]
    growth = near.resident_bytes - opened.resident_bytes
    steps = {
        "empty": empty,
        "created": created,
        "opened": opened,
        "cold": cold,
        "changes": changes,
        "reads": reads,
        "listed": listed,
        "reminded": reminded,
        "far": far,
        "near": near,
    }
    return Result(
        title=f"{plan.objects:,} objects in one file",
        tables=[Table(("step", "", "", "resident set"), rows)],
        verdicts=[
            Verdict(
                f"a runtime opens on it within a tenth of a second ({far.ms})", far.seconds < 0.1
            ),
            Verdict(
                f"pending alarms within the horizon take less than 20 MB ({growth / 1e6:.0f} MB)",
                growth < 20e6,
            ),
        ],
        panels=[
            _panel("Objects created a second, as the file grows", "objects", created, plan),
            _panel("Alarms set a second, as the table grows", "alarms", reminded, plan),
        ],
        raw={
            "steps": {name: attrs.asdict(step) for name, step in steps.items()},
            "stats_seconds": counted,
            "file_bytes": created_size,
            "file_bytes_with_alarms": size_of(path),
        },
    )


async def _create(path: Path, plan: _Plan) -> Step:
    async with DurableRuntime(path, objects=[Cell], max_resident=plan.active) as runtime:
        calls = (partial(runtime.get(Cell, _id(n)).add, 1) for n in range(plan.objects))
        return await _in_chunks(calls, plan)


async def _remind(path: Path, plan: _Plan) -> Step:
    some_time = random.Random(7)
    async with DurableRuntime(path, objects=[Cell], max_resident=plan.active) as runtime:

        def setting(number: int) -> Call:
            after = some_time.uniform(_DAY, 2 * _DAY)
            return partial(runtime.schedule_alarm, Cell, _id(number), "ring", after=after)

        return await _in_chunks(map(setting, range(plan.objects)), plan)


async def _in_chunks(calls: Iterator[Call], plan: _Plan) -> Step:
    """Make each of the calls once, timed in chunks."""
    rates = []
    began = perf_counter()
    for _ in range(0, plan.objects, plan.chunk):
        chunk_began = perf_counter()
        await call_each(islice(calls, plan.chunk), _CALLERS)
        rates.append(plan.chunk / (perf_counter() - chunk_began))
    seconds = perf_counter() - began
    return Step(plan.objects / seconds, seconds, rates=tuple(rates))


async def _open(path: Path, polling_interval: float = 30.0) -> Step:
    began = perf_counter()
    async with DurableRuntime(path, objects=[Cell], polling_interval=polling_interval) as runtime:
        seconds = perf_counter() - began
        await trio.sleep(1)  # its reading ahead is done by then
        assert runtime.count_objects() == 0
        return Step(0.0, seconds)


async def _call(path: Path, plan: _Plan) -> tuple[Step, Step, Step]:
    chosen = random.Random(7).sample(range(plan.objects), plan.active)
    async with DurableRuntime(path, objects=[Stay], max_resident=plan.active) as runtime:
        cells = [runtime.get(Stay, _id(number)) for number in chosen]
        latencies: list[float] = []

        async def first(cell: Stay) -> None:
            began = perf_counter()
            await cell.value()
            latencies.append(perf_counter() - began)

        began = perf_counter()
        await call_each([partial(first, cell) for cell in cells], 64)
        cold = Step.of(len(cells) / (perf_counter() - began), latencies)
        changes = await _warm([partial(cell.add, 1) for cell in cells], plan)
        reads = await _warm([cell.value for cell in cells], plan)
        assert runtime.count_objects() == plan.active
    return cold, changes, reads


async def _warm(calls: Sequence[Call], plan: _Plan) -> Step:
    gc.collect()
    rate = await Period(plan.seconds).run([Walk(calls, number) for number in range(64)])
    latencies: list[float] = []
    await Period(plan.seconds / 3).run([TimedWalk(calls, n, latencies) for n in range(64)])
    return Step.of(rate, latencies)


async def _list(path: Path, plan: _Plan) -> Step:
    async with DurableRuntime(path, objects=[Cell]) as runtime:
        began = perf_counter()
        count, last = 0, None
        while page := await runtime.list_objects(Cell, after=last, limit=1000):
            count, last = count + len(page), page[-1]
        seconds = perf_counter() - began
        assert count == plan.objects
        return Step(count / seconds, seconds)


def _id(number: int) -> str:
    # In no order, as the ids of users are: each new row goes to another page of the index.
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _panel(title: str, what: str, step: Step, plan: _Plan) -> Panel:
    points = [((number + 1) * plan.chunk, rate) for number, rate in enumerate(step.rates)]
    return Panel(title=title, x_label=f"{what} in the file", lines=[Line(what, points)])


def _calls(step: Step) -> tuple[str, str, str]:
    latencies = f"p50 {step.p50 * 1e3:.2f} ms, p99 {step.p99 * 1e3:.2f} ms"
    return f"{step.rate:,.0f}/s", latencies, step.mb
