"""The workloads, and how a contender is put through them.

Callers are loops of their own that call as fast as they are answered, for a stretch of time. After
that the counters are read: a contender that has lost a change, or made one twice, has no figures.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from benchmarks.callers import Period, Walk
from benchmarks.objects import object_ids

from .contender import Alarms, Contender, Counters, Step
from .results import Stretch, WorkloadName

OBJECTS = 1_000
_PATIENCE = 60.0
"""Seconds until alarms that don't come are given up."""
_ATTEMPTS = 3


class WrongCount(Exception):
    """A contender lost a change, or made one twice."""


@attrs.frozen
class Effort:
    """How much is done to measure a contender once."""

    seconds: float
    """Of each workload that has callers."""
    alarms: int
    callers: int
    """Where there are many."""
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


async def drive(contender: Contender, folder: Path, effort: Effort) -> list[Stretch]:
    """Put ``contender`` through what it can do of the workloads.

    Raises:
        WrongCount: The changes that it has acknowledged and those that are there aren't the same.
        TimeoutError: Its alarms didn't come.
    """
    async with contender.opened(folder) as opened:
        stretches: list[Stretch] = []
        if isinstance(opened, Counters) and set(effort.workloads) - {"alarms"}:
            stretches += await _call(opened, effort)
        if isinstance(opened, Alarms) and "alarms" in effort.workloads:
            stretches.append(await _ring(opened, effort.alarms))
        return stretches


async def _call(counters: Counters, effort: Effort) -> list[Stretch]:
    ids = object_ids(OBJECTS)
    increments = [counters.increment(key) for key in ids]
    values = [counters.value(key) for key in ids]

    def walks(steps: Sequence[Step], callers: int) -> list[Walk]:
        kind = BlockingWalk if counters.blocking else Walk
        return [kind(steps, number) for number in range(callers)]

    plan: dict[WorkloadName, tuple[Sequence[Step], int]] = {
        "one": (increments[:1], 1),
        "many": (increments, effort.callers),
        "reads": (values, effort.callers),
    }
    changes = await counters.make(ids)
    stretches = []
    for name, (steps, callers) in plan.items():
        if name not in effort.workloads:
            continue
        warm_up = Period(effort.seconds / 10)
        await warm_up.run(walks(steps, callers))
        gc.collect()
        period = Period(effort.seconds)
        began = time.time()
        await period.run(walks(steps, callers))
        stretches.append(Stretch(name, period.calls, began, time.time()))
        if name != "reads":
            changes += warm_up.calls + period.calls
    there = 0
    for value in values:
        there += value() if counters.blocking else await value()
    if there != changes:
        raise WrongCount(f"{changes:,} changes were acknowledged, and {there:,} are there")
    return stretches


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
