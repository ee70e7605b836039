"""Scenarios of alarms that aren't rates beside a limit's rate."""

from __future__ import annotations

import statistics
from pathlib import Path

import attrs

from . import loops, memory
from .alarms import calls_beside_a_backlog, lateness, make_table, resident_with, start_up
from .loops import LoopName
from .measurements import Measurement, Sample
from .scenario import Effort, Scenario

_ALARMS = 1000
_BACKLOG = 100_000
_WITHIN = 30.0
"""Seconds until alarms that are due soon are due, so that none is while they are measured."""
_BEYOND = 365 * 86400.0


def _percentile(values: list[float], percentile: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]


@attrs.frozen(kw_only=True)
class Lateness(Scenario):
    """How long after its time an alarm's handler begins, on a loop that is otherwise idle."""

    percentile: int
    loop: LoopName

    @property
    def title(self) -> str:
        return f"p{self.percentile}, {self.loop}"

    def obstacle(self) -> str | None:
        return loops.obstacle(self.loop)

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        rounds = []
        for number in range(effort.rounds):
            own = folder / str(number)
            own.mkdir()
            rounds.append(_percentile(lateness(self.loop, own, _ALARMS), self.percentile) * 1e3)
        return Measurement(
            name=self.name,
            group=self.group,
            title=self.title,
            ours=Sample(tuple(rounds)),
            unit=" ms",
            target=self.target,
            headline=self.headline,
        )


@attrs.frozen(kw_only=True)
class Backlog(Scenario):
    """How long calls take while a backlog of alarms is worked off, beside without one."""

    loop: LoopName

    @property
    def title(self) -> str:
        return f"beside a backlog, {self.loop}"

    def obstacle(self) -> str | None:
        return loops.obstacle(self.loop)

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        with_, without, rates = [], [], []
        for number in range(effort.rounds):
            own = folder / str(number)
            own.mkdir()
            seconds = 5 * effort.seconds
            alone, beside, rate = calls_beside_a_backlog(self.loop, own, _BACKLOG, seconds)
            with_.append(_percentile(beside, 99) * 1e3)
            without.append(_percentile(alone, 99) * 1e3)
            rates.append(rate)
        return Measurement(
            name=self.name,
            group=self.group,
            title=self.title,
            ours=Sample(tuple(with_)),
            unit=" ms",
            limit_title="the same calls without alarms",
            limit=Sample(tuple(without)),
            headline=self.headline,
            details={"alarms_per_second": statistics.median(rates)},
        )


@attrs.frozen(kw_only=True)
class StartUp(Scenario):
    """Opening a runtime, beside opening one with no alarms. On trio."""

    @property
    def title(self) -> str:
        return "opening a runtime, many alarms beyond the horizon"

    def obstacle(self) -> str | None:
        return None

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        few, many = folder / "few.db", folder / "many.db"
        make_table(few, 1, _BEYOND, _BEYOND)
        make_table(many, effort.alarms_beyond, _BEYOND, _BEYOND)
        for path in (few, many):
            start_up(path)
        pairs = [(start_up(many) * 1e3, start_up(few) * 1e3) for _ in range(4 * effort.rounds)]
        return Measurement(
            name=self.name,
            group=self.group,
            title=self.title,
            ours=Sample(tuple(ours for ours, _ in pairs)),
            unit=" ms",
            limit_title="with one",
            limit=Sample(tuple(limit for _, limit in pairs)),
            target=self.target,
            headline=self.headline,
            details={"alarms": effort.alarms_beyond},
        )


@attrs.frozen(kw_only=True)
class ManyAlarms(Scenario):
    """What the process grows by when it opens a table with many alarms. On trio."""

    within: bool
    """Whether they are due soon."""

    @property
    def title(self) -> str:
        if self.within:
            return "memory, many alarms within the horizon"
        return "memory, many alarms beyond the horizon"

    def obstacle(self) -> str | None:
        return memory.obstacle()

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        path = folder / "alarms.db"
        alarms = effort.alarms_within if self.within else effort.alarms_beyond
        ahead = _WITHIN if self.within else _BEYOND
        make_table(path, alarms, ahead, ahead)
        return Measurement(
            name=self.name,
            group=self.group,
            title=self.title,
            ours=Sample((resident_with(path),)),
            unit=" B",
            headline=self.headline,
            details={"alarms": alarms},
        )
