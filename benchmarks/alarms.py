"""Alarms: lateness, many at once, the cost of setting one, and their memory."""

from __future__ import annotations

import gc
import heapq
import random
import sqlite3
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter, time
from typing import Literal, get_args

import anyio
import anyio.lowlevel
import attrs

from trio_durable import DurableObject, DurableRuntime, alarm, handler
from trio_durable.scheduler import TimingWheel

from . import loops, memory
from .callers import Walk, call_each, paced_latencies
from .loops import LoopName
from .measurements import Effort, Figures, Sample, percentile
from .objects import object_ids
from .workloads import OnLoop, StorageName, Workload, rate_of, storage_in

AlarmChange = Literal["set", "cancel"]
CHANGES: tuple[AlarmChange, ...] = get_args(AlarmChange)
WheelStep = Literal["insert", "cancel"]
STEPS: tuple[WheelStep, ...] = get_args(WheelStep)

_AHEAD = 0.2
_FAR = timedelta(days=365)
_BACKLOG = 100_000
_WITHIN = 30.0
"""Seconds until alarms that are due soon are due, so that none is while they are measured."""
_BEYOND = 365 * 86400.0


class Caller(DurableObject):
    """An object that is called beside a backlog of another type's alarms."""

    count: int = 0

    @handler
    def touch(self) -> int:
        """A change by a call."""
        self.count += 1
        return self.count


class Reminder(Caller, hibernate_after=3600):
    """An object of two fields with an alarm."""

    label: str = "a benchmark's reminder"

    @handler(readonly=True)
    def value(self) -> int:
        """A read."""
        return self.count

    @alarm
    def ring(self) -> None:
        """A change by an alarm."""
        self.count += 1


class Punctual(DurableObject):
    """Notes how late its alarm is, outside of its state."""

    @alarm
    def ring(self) -> None:
        """Note it."""
        assert self.ctx.alarm is not None
        _lateness.append(time() - self.ctx.alarm.due_at.timestamp())


_lateness: list[float] = []


def lateness(percent: int, loop: LoopName, folder: Path, effort: Effort) -> Figures:
    """How long after its time an alarm's handler begins, on a loop that is otherwise idle."""

    async def main(path: Path, count: int = 1000) -> float:
        _lateness.clear()
        async with DurableRuntime(path, objects=[Punctual]) as runtime:
            for number in range(count):
                await runtime.schedule_alarm(Punctual, str(number), "ring", after=_AHEAD)
                await anyio.sleep(0.002)
            await _delivered(runtime, count)
        return percentile(_lateness, percent) * 1e3

    paths = [folder / f"lateness-{number}.db" for number in range(effort.rounds)]
    return Figures(Sample(loops.run(loop, partial(main, path)) for path in paths))


async def _delivered(runtime: DurableRuntime, count: int) -> None:
    with anyio.fail_after(120):
        while runtime.statistics().alarms_delivered < count:
            await anyio.sleep(0.001)


@attrs.frozen
class AlarmsAtOnce(OnLoop):
    """Alarms of as many objects, all due at the same time."""

    objects: int
    warm: bool
    """The objects are in memory."""
    storage: StorageName = "sqlite"

    @property
    def title(self) -> str:
        where = "warm" if self.warm else "cold"
        return f"{self.objects:,} due at once in as many objects, {where}, {self.loop}"

    def _runtime(self, folder: Path) -> DurableRuntime:
        return DurableRuntime(storage_in(folder, self.storage), objects=[Reminder])

    def prepare(self, folder: Path) -> None:
        async def main() -> None:
            async with self._runtime(folder) as runtime:
                ids = object_ids(self.objects)
                await call_each(runtime.get(Reminder, object_id).touch for object_id in ids)

        loops.run(self.loop, main)

    def rate(self, folder: Path, seconds: float) -> float:
        async def main() -> float:
            async with self._runtime(folder) as runtime:
                ids = object_ids(self.objects)
                if self.warm:
                    await call_each(runtime.get(Reminder, object_id).value for object_id in ids)
                wait = await self._set(runtime, ids)
                if self.warm:
                    before = runtime.statistics().alarms_delivered
                    await anyio.sleep(wait)
                    return await self._work_off(runtime, before)
            # Cold: closed before they are due, and opened after.
            await anyio.sleep(wait)
            gc.collect()
            async with self._runtime(folder) as runtime:
                return await self._work_off(runtime, 0)

        return loops.run(self.loop, main)

    async def _set(self, runtime: DurableRuntime, ids: Sequence[str]) -> float:
        """Set all alarms, and return the seconds until they are due.

        On a slow disk the first are due before the last are set, which counts for nothing: they
        are delivered, and set once more, further ahead.
        """
        for ahead in (2, 4, 8, 16, 32):
            before = runtime.statistics().alarms_delivered
            due_at = datetime.now(UTC) + timedelta(seconds=ahead)
            await call_each(
                partial(runtime.schedule_alarm, Reminder, object_id, "ring", at=due_at)
                for object_id in random.sample(ids, self.objects)
            )
            gc.collect()
            wait = due_at.timestamp() - time()
            if wait > 0:
                return wait
            await _delivered(runtime, before + self.objects)
        raise RuntimeError("setting the alarms takes longer than half a minute")

    async def _work_off(self, runtime: DurableRuntime, before: int) -> float:
        began = perf_counter()
        await _delivered(runtime, before + self.objects)
        return self.objects / (perf_counter() - began)


@attrs.frozen
class AlarmChanges(OnLoop):
    """Alarms set or cancelled from outside, of objects that aren't running."""

    operation: AlarmChange
    callers: int

    @property
    def title(self) -> str:
        return f"{self.operation} from outside, {self.callers} callers, {self.loop}"

    def rate(self, folder: Path, seconds: float) -> float:
        async def main() -> float:
            async with DurableRuntime(folder / "alarms.db", objects=[Reminder]) as runtime:
                change: Callable[..., Awaitable[object]] = runtime.cancel_alarm
                if self.operation == "set":
                    change = partial(runtime.schedule_alarm, after=_FAR)
                ids = object_ids(10_000)
                calls = [partial(change, Reminder, object_id, "ring") for object_id in ids]
                return await rate_of([Walk(calls, n) for n in range(self.callers)], seconds)

        return loops.run(self.loop, main)


_NOW = 1_700_000_000_000


def _entries() -> list[tuple[tuple[str, str, str], int]]:
    """Alarms within a minute, in random order."""
    draw = random.Random(1)
    ids = object_ids(200_000)
    return [(("Reminder", key, "ring"), _NOW + draw.randrange(60_000)) for key in ids]


@attrs.frozen
class WheelOperations(Workload):
    """Keys put into a timing wheel, or taken out of one that is full."""

    operation: WheelStep

    @property
    def title(self) -> str:
        return f"timing wheel, {self.operation}"

    def rate(self, folder: Path, seconds: float) -> float:
        entries = _entries()
        wheel: TimingWheel[tuple[str, str, str]] = TimingWheel(_NOW)
        began = perf_counter()
        for key, due in entries:
            wheel.insert(key, due)
        if self.operation == "cancel":
            began = perf_counter()
            for key, _ in entries:
                wheel.cancel(key)
        return len(entries) / (perf_counter() - began)


@attrs.frozen
class HeapOperations(Workload):
    """The same with heapq, where a cancelled key stays until it comes to the top."""

    operation: WheelStep

    @property
    def title(self) -> str:
        if self.operation == "insert":
            return "heapq.heappush"
        return "heapq.heappop, since what was cancelled must be popped"

    def rate(self, folder: Path, seconds: float) -> float:
        entries = [(due, key) for key, due in _entries()]
        heap: list[tuple[int, tuple[str, str, str]]] = []
        began = perf_counter()
        for entry in entries:
            heapq.heappush(heap, entry)
        if self.operation == "cancel":
            began = perf_counter()
            while heap:
                heapq.heappop(heap)
        return len(entries) / (perf_counter() - began)


# --- large tables --------------------------------------------------------------------------------


def make_table(path: Path, rows: int, due_in: float, spread: float) -> None:
    """Make a file with so many alarms, due from ``due_in`` seconds from now on."""

    async def main() -> None:
        async with DurableRuntime(path, objects=[Reminder]):
            pass

    loops.run("trio", main)
    first = round((time() + due_in) * 1e6)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            """
            WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number LIMIT ?)
            INSERT INTO durable_alarms (type_name, object_id, name, due_at, available_at)
            SELECT 'Reminder', printf('object-%08d', n), 'ring',
                ? + n * ?, ? + n * ? FROM number
            """,
            (rows, first, round(spread * 1e6 / rows), first, round(spread * 1e6 / rows)),
        )


def start_up(folder: Path, effort: Effort) -> Figures:
    """Opening a runtime with many alarms beyond the horizon, and with one; on trio."""

    async def main(path: Path) -> float:
        began = perf_counter()
        async with DurableRuntime(path, objects=[Reminder]) as runtime:
            # So that the runtime's own look at the table is before this one.
            await anyio.lowlevel.checkpoint()
            await runtime.list_alarms(Reminder, "object-00000000")
        return (perf_counter() - began) * 1e3

    few, many = folder / "few.db", folder / "many.db"
    make_table(few, 1, _BEYOND, _BEYOND)
    make_table(many, effort.alarms_beyond, _BEYOND, _BEYOND)
    ours: list[float] = []
    limit: list[float] = []
    for number in range(4 * effort.rounds + 1):
        # The first of each doesn't count.
        for path, times in ((many, ours), (few, limit)):
            duration = loops.run("trio", partial(main, path))
            if number:
                times.append(duration)
    return Figures(Sample(ours), Sample(limit), details={"alarms": effort.alarms_beyond})


def memory_with_many(within: bool, folder: Path, effort: Effort) -> Figures:
    """Growth of the process when it opens a table with many alarms; on trio."""
    path = folder / "alarms.db"
    alarms = effort.alarms_within if within else effort.alarms_beyond
    ahead = _WITHIN if within else _BEYOND
    make_table(path, alarms, ahead, ahead)

    async def main() -> float:
        gc.collect()
        before = memory.resident_bytes()
        async with DurableRuntime(path, objects=[Reminder]) as runtime:
            known = -1
            with anyio.fail_after(60):
                while runtime.statistics().alarms_waiting != known:
                    known = runtime.statistics().alarms_waiting
                    await anyio.sleep(0.3)
            gc.collect()
            return float(memory.resident_bytes() - before)

    return Figures(Sample([loops.run("trio", main)]), details={"alarms": alarms})


def beside_backlog(loop: LoopName, folder: Path, effort: Effort) -> Figures:
    """Durations of calls during and without the delivery of a backlog of alarms.

    16 callers change objects of their own, each a hundred times a second at most, so that calls
    leave time for alarms.
    """
    seconds = 5 * effort.seconds

    async def main(path: Path) -> tuple[float, float, float]:
        # First without: a runtime leaves alarms of types that it doesn't serve alone.
        async with DurableRuntime(path, objects=[Caller]) as runtime:
            alone = await _paced_calls(runtime, seconds)
        async with DurableRuntime(path, objects=[Caller, Reminder]) as runtime:
            began = perf_counter()
            beside = await _paced_calls(runtime, seconds)
            delivered = runtime.statistics().alarms_delivered
            if delivered >= _BACKLOG:
                raise RuntimeError("the backlog was gone before the calls were")
            rate = delivered / (perf_counter() - began)
        return percentile(beside, 99) * 1e3, percentile(alone, 99) * 1e3, rate

    rounds = []
    for number in range(effort.rounds):
        path = folder / f"backlog-{number}.db"
        make_table(path, _BACKLOG, -3600, 1800)
        rounds.append(loops.run(loop, partial(main, path)))
    ours, limit, rates = zip(*rounds, strict=True)
    details = {"alarms_per_second": statistics.median(rates)}
    return Figures(Sample(ours), Sample(limit), details=details)


async def _paced_calls(runtime: DurableRuntime, seconds: float) -> list[float]:
    calls = [runtime.get(Caller, str(number)).touch for number in range(16)]
    return await paced_latencies(calls, seconds)
