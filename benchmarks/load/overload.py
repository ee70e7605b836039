"""More calls than can be done, which arrive by a schedule.

Calls wait for no other call, as requests from the internet do, and arrive at two to ten times the
rate that callers reach who wait for their replies. Three things are overloaded, each of which is
slow enough that the rest isn't:

- *one object*, whose handler takes two milliseconds;
- *the disk*, which takes a millisecond for each object that is saved, under calls that change
  other objects each time;
- *loads*, which take a millisecond for each object, under calls that read other objects each
  time.

The bounds: the rate stays near that without the overload, memory stays bounded, and a second later
nearly all calls are served again. The table has the latency of calls that are served and refused.
"""

from __future__ import annotations

import random
from collections import Counter as Counts
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal, get_args

import attrs
import trio

from trio_durable import CallTimeout, DurableRuntime, MailboxFull, Overloaded, SQLiteStorage

from .. import memory
from ..measurements import Line, Panel, percentile
from ..processes import in_child
from .parts import Cell, Delays, Result, SlowStorage, Table, Verdict

Kind = Literal["one object", "the disk", "loads"]
Call = Callable[[], Awaitable[object]]

KEPT = 0.8
"""The share of the capacity that must be left under overload."""
MEMORY = 100e6
"""Bytes by which the resident set may grow, at any rate of arrivals."""
WELL = 0.9
"""The share of callers that must be served again soon after."""
_TIMEOUT = 5.0
_TICK = 0.25
_RESIDENT = 1_000
_DELAYS = {
    "one object": Delays(),
    "the disk": Delays(per_row=0.001),
    "loads": Delays(per_loaded=0.001),
}


@attrs.frozen
class _Plan:
    factors: tuple[int, ...]
    calm: float
    """Seconds in which to find the capacity."""
    storm: float
    after: float


_FULL = _Plan(factors=(2, 5, 10), calm=2, storm=14, after=4)
_SHORT = _Plan(factors=(5,), calm=1.5, storm=10, after=2)


@attrs.define
class Tick:
    """The events of a quarter of a second, which ends ``at`` seconds after the overload began."""

    at: float
    resident_bytes: int = 0
    waiting: int = 0
    """Callers without an answer yet."""
    objects: int = 0
    outcomes: Counts[str] = attrs.field(factory=Counts)
    latencies: list[float] = attrs.field(factory=list)
    """Of calls that were served."""
    told_after: list[float] = attrs.field(factory=list)
    """Of calls that were not."""
    arrived: int = 0
    turned_away: int = 0
    """Arrivals of this tick that were not served, then or later."""


@attrs.frozen
class Run:
    """One kind of overload at one rate."""

    kind: Kind
    factor: int
    capacity: float
    before_bytes: int
    storm: list[Tick]
    after: list[Tick]

    @property
    def ticks(self) -> list[Tick]:
        return self.storm + self.after

    @property
    def settled(self) -> list[Tick]:
        """The second half of the overload, when all queues and caches have filled."""
        return self.storm[len(self.storm) // 2 :]

    def share(self, ticks: list[Tick]) -> float:
        """The share of the capacity that was served."""
        done = sum(tick.outcomes["done"] for tick in ticks)
        return done / (len(ticks) * _TICK) / self.capacity

    @property
    def kept(self) -> float:
        """The share of the capacity that was left."""
        return self.share(self.settled)

    def served(self) -> list[tuple[float, float]]:
        """The share of the capacity that was served in the two seconds before each moment."""
        ticks, window = self.ticks, round(2 / _TICK)
        ends = range(window, len(ticks) + 1)
        return [(ticks[end - 1].at, self.share(ticks[end - window : end])) for end in ends]

    @property
    def growth(self) -> list[int]:
        """Bytes by which the process had grown after each tick."""
        return [tick.resident_bytes - self.before_bytes for tick in self.ticks]

    @property
    def grown(self) -> int:
        """The greatest growth."""
        return max(self.growth)

    @property
    def recovered(self) -> float:
        """The share served of the calls later than a second after the overload."""
        ticks = [tick for tick in self.after if tick.at > self.storm[-1].at + 1]
        return 1 - sum(t.turned_away for t in ticks) / sum(t.arrived for t in ticks)


def measure(folder: Path, short: bool) -> Result:
    """Run each kind of overload at each rate."""
    plan, kinds = _SHORT if short else _FULL, get_args(Kind)
    runs = [
        in_child(partial(_run, folder / f"{kind} {factor}.db", plan, kind, factor))
        for kind in kinds
        for factor in plan.factors
    ]
    bounds = {
        f"{KEPT:.0%} of the capacity is left": all(run.kept >= KEPT for run in runs),
        f"memory grows by less than {MEMORY / 1e6:.0f} MB": all(run.grown < MEMORY for run in runs),
        f"of those who come a second later or more, {WELL:.0%} are served": all(
            run.recovered >= WELL for run in runs
        ),
    }
    return Result(
        title="Overload",
        tables=[Table(_HEADINGS, [_row(run) for run in runs])],
        verdicts=[Verdict(text, holds) for text, holds in bounds.items()],
        panels=[panel for kind in kinds for panel in _panels(kind, runs)],
        raw={"runs": [_record(run) for run in runs]},
    )


def _run(path: Path, plan: _Plan, kind: Kind, factor: int) -> Run:
    return trio.run(_Storm(path, plan, kind, factor).run)


class _Storm:
    def __init__(self, path: Path, plan: _Plan, kind: Kind, factor: int) -> None:
        self._storage = SlowStorage(SQLiteStorage(path), _DELAYS[kind])
        self._plan = plan
        self._kind = kind
        self._factor = factor
        self._random = random.Random(7)
        self._waiting = 0
        self._tick = Tick(0)

    async def run(self) -> Run:
        plan = self._plan
        async with DurableRuntime(self._storage, objects=[Cell], max_resident=_RESIDENT) as runtime:
            patient = self._calls(runtime, None)
            await self._closed_loop(patient, plan.calm / 3)
            capacity = await self._closed_loop(patient, plan.calm)
            before = memory.resident_bytes()
            async with trio.open_nursery() as nursery:
                arrivals = partial(self._open_loop, nursery, runtime, trio.current_time())
                storm = await arrivals(self._factor * capacity, plan.storm)
                after = await arrivals(capacity / 2, plan.after)
                nursery.cancel_scope.cancel()
        return Run(self._kind, self._factor, capacity, before, storm, after)

    def _calls(self, runtime: DurableRuntime, timeout: float | None) -> Call:
        get = partial(runtime.get, Cell, timeout=timeout)
        if self._kind == "one object":
            return lambda: get("the one").take(0.002)
        if self._kind == "the disk":
            return lambda: get(self._new_id()).add(1)
        return lambda: get(self._new_id()).value()

    def _new_id(self) -> str:
        return f"{self._random.getrandbits(64):016x}"

    async def _closed_loop(self, call: Call, seconds: float) -> float:
        """The calls per second of callers that wait for their replies."""
        done = 0

        async def caller() -> None:
            nonlocal done
            while trio.current_time() < end:
                await call()
                done += 1

        began = perf_counter()
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(256):
                nursery.start_soon(caller)
        return done / (perf_counter() - began)

    async def _open_loop(
        self,
        nursery: trio.Nursery,
        runtime: DurableRuntime,
        origin: float,
        rate: float,
        seconds: float,
    ) -> list[Tick]:
        """Let calls arrive at a rate, even if those before them still wait."""
        call, ticks = self._calls(runtime, _TIMEOUT), []
        began = trio.current_time()
        arrived = 0
        for number in range(1, round(seconds / _TICK) + 1):
            self._tick = Tick(began + number * _TICK - origin)
            while (now := trio.current_time()) < began + number * _TICK:
                due = round((now - began) * rate)
                for _ in range(due - arrived):
                    nursery.start_soon(self._arrive, call)
                arrived = due
                await trio.sleep(0.002)
            self._tick.resident_bytes = memory.resident_bytes()
            self._tick.waiting = self._waiting
            self._tick.objects = runtime.count_objects()
            ticks.append(self._tick)
        return ticks

    async def _arrive(self, call: Call) -> None:
        began = trio.current_time()
        arrival = self._tick
        arrival.arrived += 1
        self._waiting += 1
        outcome = "done"
        try:
            await call()
        except (Overloaded, MailboxFull):
            outcome = "refused"
        except CallTimeout:
            outcome = "timed out"
        finally:
            self._waiting -= 1
        took = trio.current_time() - began
        self._tick.outcomes[outcome] += 1
        if outcome == "done":
            self._tick.latencies.append(took)
        else:
            self._tick.told_after.append(took)
            arrival.turned_away += 1


_HEADINGS = (
    "overloaded",
    "capacity/s",
    "offered",
    "served/s",
    "of capacity",
    "served after p50 / p99",
    "refused/s",
    "after p50",
    "timed out/s",
    "waiting at most",
    "memory",
    "served after it",
)


def _row(run: Run) -> list[str]:
    seconds = len(run.settled) * _TICK
    latencies = [latency for tick in run.settled for latency in tick.latencies]
    told = [after for tick in run.settled for after in tick.told_after]
    outcomes = sum((tick.outcomes for tick in run.settled), Counts[str]())
    return [
        run.kind,
        f"{run.capacity:,.0f}",
        f"{run.factor} x",
        f"{outcomes['done'] / seconds:,.0f}",
        f"{run.kept:.2f}",
        f"{percentile(latencies, 50):.2f} / {percentile(latencies, 99):.2f} s",
        f"{outcomes['refused'] / seconds:,.0f}",
        f"{percentile(told, 50):.3f} s",
        f"{outcomes['timed out'] / seconds:,.0f}",
        f"{max(tick.waiting for tick in run.storm):,}",
        f"{run.grown / 1e6:+.0f} MB",
        f"{run.recovered:.1%}",
    ]


def _panels(kind: Kind, runs: list[Run]) -> list[Panel]:
    served, grown = [], []
    for run in (run for run in runs if run.kind == kind):
        served.append(Line(f"{run.factor} x", run.served()))
        points = zip(run.ticks, run.growth, strict=True)
        grown.append(Line(f"{run.factor} x", [(t.at, max(size, 0) / 1e6) for t, size in points]))
    return [
        Panel(title=f"{kind}: calls served, of the capacity", x_label="seconds", lines=served),
        Panel(title=f"{kind}: memory it grew by", x_label="seconds", unit=" MB", lines=grown),
    ]


def _record(run: Run) -> dict[str, object]:
    names = ("at", "waiting", "arrived", "turned_away", "objects")
    ticks = [
        {**{name: getattr(tick, name) for name in names}, "resident_bytes": size, **tick.outcomes}
        for tick, size in zip(run.ticks, run.growth, strict=True)
    ]
    return {"kind": run.kind, "factor": run.factor, "capacity": run.capacity, "ticks": ticks}
