"""A million objects in one file, a hundred thousand in memory, an alarm in each.

Each step is a process of its own, as if the app had been started anew for it.
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
from typing import ParamSpec

import attrs
import trio

from trio_durable import DurableRuntime

from .. import memory
from ..callers import Call, Period, TimedWalk, Walk, call_each
from ..plot import Line, Panel
from .objects import Cell, Stay
from .result import Result, Table, Verdict, in_child
from .samples import percentile, size_of

_CALLERS = 512
_DAY = 86_400.0


@attrs.frozen
class _Plan:
    objects: int
    active: int
    chunk: int
    """Objects between two looks at the clock."""
    seconds: float


_FULL = _Plan(objects=1_000_000, active=100_000, chunk=50_000, seconds=3)
_SHORT = _Plan(objects=50_000, active=5_000, chunk=10_000, seconds=0.5)


@attrs.frozen
class Step:
    """One step, done."""

    rate: float
    """A second."""
    resident_bytes: int
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    rates: tuple[float, ...] = ()
    """Chunk by chunk."""


def measure(folder: Path, short: bool) -> Result:
    """Do it."""
    plan = _SHORT if short else _FULL
    path = folder / "objects.db"
    empty = in_child(_run, _open, folder / "empty.db")
    created = in_child(_run, _create, path, plan)
    created_size = size_of(path)
    opened = in_child(_run, _open, path)
    cold, changes, reads = in_child(_run_calls, path, plan)
    listed = in_child(_run, _list, path, plan)
    reminded = in_child(_run, _remind, path, plan)
    far = in_child(_run, _open, path)
    # The horizon is further away than the next look at the table.
    near = in_child(_run, _open, path, 3 * _DAY)
    counted = _count(path)
    rows = [
        ["create, 512 callers", f"{created.rate:,.0f}/s", f"{created.seconds:,.0f} s", ""],
        ["the file then", f"{created_size / 1e6:,.0f} MB", _each(created_size, plan.objects), ""],
        ["open a runtime on it", _ms(opened.seconds), "", _mb(opened)],
        ["— on an empty file", _ms(empty.seconds), "", _mb(empty)],
        [f"{plan.active:,} first calls at random", *_calls(cold)],
        ["changes of those, 64 callers", *_calls(changes)],
        ["reads of those, 64 callers", *_calls(reads)],
        ["list all ids, 1,000 a page", f"{listed.rate:,.0f}/s", f"{listed.seconds:.1f} s", ""],
        ["an alarm in each, from outside", f"{reminded.rate:,.0f}/s", "", ""],
        ["the file then", f"{size_of(path) / 1e6:,.0f} MB", "", ""],
        ["open, all alarms far away", _ms(far.seconds), "", _mb(far)],
        ["open, all within the horizon", _ms(near.seconds), "", _mb(near)],
        ["trio-durable stats", f"{counted:.1f} s", "", ""],
    ]
    growth = near.resident_bytes - opened.resident_bytes
    return Result(
        title=f"{plan.objects:,} objects in one file",
        tables=[Table(("step", "", "", "resident set"), rows)],
        verdicts=[
            Verdict(
                f"a runtime opens on it within a tenth of a second ({_ms(far.seconds)})",
                far.seconds < 0.1,
            ),
            Verdict(
                f"pending alarms within the horizon take less than 20 MB ({growth / 1e6:.0f} MB)",
                growth < 20e6,
            ),
        ],
        panels=[
            Panel(
                title="Objects created a second, as the file grows",
                x_label="objects in the file",
                lines=[Line("created", _over(created, plan))],
            ),
            Panel(
                title="Alarms set a second, as the table grows",
                x_label="alarms in the file",
                lines=[Line("set", _over(reminded, plan))],
            ),
        ],
        raw={
            "steps": {
                name: attrs.asdict(step)
                for name, step in {
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
                }.items()
            },
            "stats_seconds": counted,
            "file_bytes": created_size,
            "file_bytes_with_alarms": size_of(path),
        },
    )


P = ParamSpec("P")


def _run(does: Callable[P, Awaitable[Step]], *args: P.args, **kwargs: P.kwargs) -> Step:
    return trio.run(partial(does, *args, **kwargs))


def _run_calls(path: Path, plan: _Plan) -> tuple[Step, Step, Step]:
    return trio.run(_call, path, plan)


async def _create(path: Path, plan: _Plan) -> Step:
    async with DurableRuntime(path, objects=[Cell], max_resident=plan.active) as runtime:
        calls = (partial(runtime.get(Cell, _id(n)).add, 1) for n in range(plan.objects))
        return await _in_chunks(calls, plan)


async def _remind(path: Path, plan: _Plan) -> Step:
    some_time = random.Random(7)
    async with DurableRuntime(path, objects=[Cell], max_resident=plan.active) as runtime:
        calls = (
            partial(
                runtime.schedule_alarm,
                Cell,
                _id(n),
                "ring",
                after=some_time.uniform(_DAY, 2 * _DAY),
            )
            for n in range(plan.objects)
        )
        return await _in_chunks(calls, plan)


async def _in_chunks(calls: Iterator[Call], plan: _Plan) -> Step:
    """Make each of the calls once, and tell how fast."""
    rates = []
    began = perf_counter()
    for _ in range(0, plan.objects, plan.chunk):
        chunk_began = perf_counter()
        await call_each(islice(calls, plan.chunk), _CALLERS)
        rates.append(plan.chunk / (perf_counter() - chunk_began))
    seconds = perf_counter() - began
    rate = plan.objects / seconds
    return Step(rate, memory.resident_bytes(), seconds, rates=tuple(rates))


async def _open(path: Path, polling_interval: float = 30.0) -> Step:
    began = perf_counter()
    async with DurableRuntime(path, objects=[Cell], polling_interval=polling_interval) as runtime:
        seconds = perf_counter() - began
        await trio.sleep(1)  # what it reads ahead, it has read by then
        assert runtime.count_objects() == 0
        return Step(0.0, memory.resident_bytes(), seconds)


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
        rate = len(cells) / (perf_counter() - began)
        cold = Step(
            rate, memory.resident_bytes(), 0.0, percentile(latencies, 50), percentile(latencies, 99)
        )
        warm = [
            await _warm([partial(cell.add, 1) for cell in cells], plan),
            await _warm([cell.value for cell in cells], plan),
        ]
        assert runtime.count_objects() == plan.active
    return cold, warm[0], warm[1]


async def _warm(calls: Sequence[Call], plan: _Plan) -> Step:
    gc.collect()
    rate = await Period(plan.seconds).run([Walk(calls, number) for number in range(64)])
    latencies: list[float] = []
    await Period(plan.seconds / 3).run([TimedWalk(calls, n, latencies) for n in range(64)])
    return Step(
        rate, memory.resident_bytes(), 0.0, percentile(latencies, 50), percentile(latencies, 99)
    )


async def _list(path: Path, plan: _Plan) -> Step:
    async with DurableRuntime(path, objects=[Cell]) as runtime:
        began = perf_counter()
        count, last = 0, None
        while page := await runtime.list_objects(Cell, after=last, limit=1000):
            count, last = count + len(page), page[-1]
        seconds = perf_counter() - began
        assert count == plan.objects
        return Step(count / seconds, memory.resident_bytes(), seconds)


def _count(path: Path) -> float:
    """The seconds that `trio-durable stats` takes."""
    began = perf_counter()
    subprocess.run(
        [sys.executable, "-m", "trio_durable", "stats", "-s", str(path)],
        check=True,
        capture_output=True,
    )
    return perf_counter() - began


def _id(number: int) -> str:
    # In no order, as the ids of users are: each new row goes to another page of the index.
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _over(step: Step, plan: _Plan) -> list[tuple[float, float]]:
    return [((number + 1) * plan.chunk, rate) for number, rate in enumerate(step.rates)]


def _calls(step: Step) -> tuple[str, str, str]:
    return (
        f"{step.rate:,.0f}/s",
        f"p50 {step.p50 * 1e3:.2f} ms, p99 {step.p99 * 1e3:.2f} ms",
        _mb(step),
    )


def _each(size: int, count: int) -> str:
    return f"{size / count:.0f} bytes each"


def _mb(step: Step) -> str:
    return f"{step.resident_bytes / 1e6:.0f} MB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
