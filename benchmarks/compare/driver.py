"""The workloads, and how a contender is put through them.

Callers are loops of their own that call as fast as they are answered, for a stretch of time. After
that the counters are read: a contender that has lost a change, or made one twice, has no figures.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from benchmarks import loops
from benchmarks.callers import Period, Walk
from benchmarks.objects import object_ids
from benchmarks.postgres import server as postgres
from benchmarks.processes import in_child

from . import syncs
from .catalogue import Entry, entry_named
from .contender import Alarms, Counters, Operation, Parts, Place, Step
from .results import Stretch, WorkloadName

OBJECTS = 1_000
_TIMEOUT = 180
_PATIENCE = 60.0
"""Seconds until alarms that don't come are given up."""
_ATTEMPTS = 3


class WrongCount(Exception):
    """A contender lost a change, or made one twice."""


@attrs.frozen
class Effort:
    """Amount of work done to measure a contender once."""

    seconds: float
    """Of each workload that has callers."""
    alarms: int
    callers: int
    """The number of callers where there are many."""
    workloads: tuple[WorkloadName, ...]


class BlockingWalk(Walk):
    """A caller in a thread of its own."""

    def __init__(self, steps: Sequence[Step], number: int) -> None:
        super().__init__(steps, number)
        self._steps = steps

    async def __call__(self, period: Period) -> None:
        # With a limiter of its own, so that it doesn't wait for the others' threads.
        done = await anyio.to_thread.run_sync(self._walk, period, limiter=anyio.CapacityLimiter(1))
        period.calls += done

    def _walk(self, period: Period) -> int:
        steps, place, stride, size = self._steps, self._place, self._stride, len(self._steps)
        done = 0
        while not period.over:
            steps[place]()
            done += 1
            place = (place + stride) % size
        return done


def put_through(
    entry: Entry, folder: Path, effort: Effort, tracer: Sequence[str] = ()
) -> list[Stretch]:
    """Put a contender through the workloads once, in a fresh interpreter and an empty folder.

    Raises:
        ChildFailed: It broke, or took too long.
    """
    # Short, since the path of a server's socket, which is in there, may not be long.
    with tempfile.TemporaryDirectory(prefix="", dir=folder) as own_folder:
        work = partial(_put_through, entry.name, Path(own_folder), effort)
        return in_child(work, timeout=_TIMEOUT, tracer=tracer)


def _put_through(name: str, folder: Path, effort: Effort) -> list[Stretch]:
    entry = entry_named(name)
    with ExitStack() as stack:
        server = stack.enter_context(postgres.own(folder)) if entry.postgres else None
        return loops.run(entry.loop, lambda: drive(entry.load()(Place(folder, server)), effort))


def count_syncs(entry: Entry, folder: Path, effort: Effort) -> dict[WorkloadName, float]:
    """The syncs of a contender per 1,000 operations of each workload.

    Raises:
        ChildFailed: As `put_through` does.
    """
    log = folder / f"{entry.name}.strace"
    stretches = put_through(entry, folder, effort, syncs.tracer(log))
    times = syncs.times(log.read_text())
    return {
        each.workload: syncs.within(times, each.began, each.ended) / each.operations * 1000
        for each in stretches
    }


async def drive(contender: AbstractAsyncContextManager[Parts], effort: Effort) -> list[Stretch]:
    """Put a contender through all workloads that it can do.

    Raises:
        WrongCount: The changes that it has acknowledged aren't the same as those that are there.
        TimeoutError: Its alarms didn't come.
    """
    async with contender as parts:
        stretches: list[Stretch] = []
        for part in parts:
            if isinstance(part, Alarms):
                if "alarms" in effort.workloads:
                    stretches.append(await _ring(part, effort.alarms))
            elif set(effort.workloads) - {"alarms"}:
                stretches += await _call(part, effort)
        return stretches


async def _call(counters: Counters, effort: Effort) -> list[Stretch]:
    ids = object_ids(OBJECTS)
    increments = [counters.increment(key) for key in ids]
    values = [counters.value(key) for key in ids]

    kind = BlockingWalk if counters.blocking else Walk
    plan: dict[WorkloadName, tuple[Operation, Sequence[Step], int]] = {
        "one": ("add", increments[:1], 1),
        "many": ("add", increments, effort.callers),
        "reads": ("value", values, effort.callers),
    }
    changes = await counters.make(ids)
    stretches = []
    for name, (operation, steps, callers) in plan.items():
        if name not in effort.workloads:
            continue
        call: Callable[[float], Awaitable[int]]
        if counters.drive is None:
            call = partial(_run, [kind(steps, number) for number in range(callers)])
        else:
            call = partial(counters.drive, operation, callers, len(steps))
        before = await call(effort.seconds / 10)
        gc.collect()
        began = time.time()
        calls = await call(effort.seconds)
        stretches.append(Stretch(name, calls, began, time.time()))
        if operation == "add":
            changes += before + calls
    there = 0
    for value in values:
        there += value() if counters.blocking else await value()
    if there != changes:
        raise WrongCount(f"{changes:,} changes were acknowledged, and {there:,} are there")
    return stretches


async def _run(walks: Sequence[Walk], seconds: float) -> int:
    """Let callers call; return the number of their calls."""
    period = Period(seconds)
    await period.run(walks)
    return period.calls


async def _ring(alarms: Alarms, count: int) -> Stretch:
    lead = 1 + alarms.lead * count / 1000
    for attempt in range(_ATTEMPTS):
        handled = await alarms.handled() + count
        due_at = datetime.now(UTC) + timedelta(seconds=lead)
        # Other objects than those that were called, so that none is in memory for that reason.
        await alarms.schedule([f"alarm-{attempt}-{number:06}" for number in range(count)], due_at)
        wait = due_at.timestamp() - time.time()
        gc.collect()
        await anyio.sleep(max(wait, 0))
        with anyio.fail_after(_PATIENCE):
            while await alarms.handled() < handled:
                await anyio.sleep(0.002)
        if wait > 0:
            return Stretch("alarms", count, due_at.timestamp(), time.time())
        # Some were due before the last was set; that is another thing than what is measured.
        lead *= 2
    raise TimeoutError(f"{count} alarms weren't set within {lead / 2:.1f} s")
