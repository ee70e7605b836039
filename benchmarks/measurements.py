"""Records of the benchmarks: scenarios, figures, targets with verdicts, and plots."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import attrs


@attrs.frozen
class Effort:
    """Amount of work done to measure one scenario."""

    rounds: int
    seconds: float
    """Duration of each workload in each round."""
    memory_objects: int
    alarms_within: int
    """Alarms that are due soon, where many of these are."""
    alarms_beyond: int
    """Alarms that are due much later, where many of these are."""


FULL = Effort(5, 0.4, memory_objects=100_000, alarms_within=1_000_000, alarms_beyond=10_000_000)
SHORT = Effort(3, 0.2, memory_objects=20_000, alarms_within=100_000, alarms_beyond=200_000)


def _as_tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


@attrs.frozen
class Sample:
    """One figure, taken in several rounds."""

    rounds: tuple[float, ...] = attrs.field(converter=_as_tuple)
    median: float = attrs.field(init=False)
    low: float = attrs.field(init=False)
    high: float = attrs.field(init=False)

    @median.default
    def _median(self) -> float:
        return statistics.median(self.rounds)

    @low.default
    def _low(self) -> float:
        return min(self.rounds)

    @high.default
    def _high(self) -> float:
        return max(self.rounds)

    def over(self, other: Sample) -> Sample:
        """The ratio to ``other``, round by round, since rounds drift together."""
        return Sample(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    """That percentile of ``values``; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


@attrs.frozen
class Target:
    """Bound that a scenario should keep."""

    of: Literal["ratio", "most", "rate", "bytes", "ms"]
    """The least ratio to the limit or the greatest, the least rate, the most bytes or time."""
    bound: float

    def __str__(self) -> str:
        form = {
            "ratio": "≥ {:.2f}x",
            "most": "≤ {:.2f}x",
            "rate": "≥ {:,.0f}/s",
            "bytes": "≤ {:,.0f} B",
            "ms": "≤ {:g} ms",
        }[self.of]
        return form.format(self.bound)


@attrs.frozen
class Figures:
    """Results of measuring one scenario."""

    ours: Sample
    limit: Sample | None = None
    latency: dict[Literal["p50", "p99"], float] | None = None
    """Of single calls, in seconds."""
    details: dict[str, float] = attrs.field(factory=dict)

    @property
    def ratio(self) -> Sample | None:
        """Ratio of our figure to the limit's."""
        return None if self.limit is None else self.ours.over(self.limit)


@attrs.frozen(kw_only=True)
class Scenario:
    """One line of the report."""

    name: str
    group: str = ""
    title: str
    """Description within the group."""
    work: Callable[[Path, Effort], Figures]
    """Measures it, with files in a folder, in a process used for nothing else."""
    obstacle: Callable[[], str | None] = lambda: None
    """The reason that it can't be measured here, or None."""
    unit: Literal["/s", " B", " ms"] = "/s"
    limit_title: str = ""
    target: Target | None = None
    headline: bool = False
    """Part of the short run and of the chart."""


@attrs.frozen
class Outcome:
    """A scenario with its figures, or with the reason that there are none."""

    scenario: Scenario
    figures: Figures | None
    reason: str = ""
    failed: bool = False
    """It broke, rather than not being possible here."""

    @property
    def met(self) -> bool | None:
        """Verdict on the target; None without one."""
        target, figures = self.scenario.target, self.figures
        if target is None or figures is None:
            return None
        reached = figures.ratio if target.of in ("ratio", "most") else figures.ours
        if reached is None:
            return False
        if target.of in ("ratio", "rate"):
            return reached.median >= target.bound
        return reached.median <= target.bound

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {True: "met", False: "MISSED", None: ""}[self.met]

    def as_record(self) -> dict[str, object]:
        """Entry of the JSON file: raw rounds, and all that follows from them."""
        scenario, figures = self.scenario, self.figures
        record = {"name": scenario.name, "group": scenario.group, "title": scenario.title}
        if figures is None:
            return {**record, "reason": self.reason, "failed": self.failed}
        return {
            **record,
            **attrs.asdict(figures),
            "ratio": figures.ratio and attrs.asdict(figures.ratio),
            "unit": scenario.unit,
            "limit_title": scenario.limit_title,
            "target": scenario.target and attrs.asdict(scenario.target),
            "headline": scenario.headline,
            "met": self.met,
        }


@attrs.frozen
class Line:
    """Points that are joined by a line."""

    label: str
    points: Sequence[tuple[float, float]]


@attrs.frozen(kw_only=True)
class Panel:
    """Lines over one axis. Scales begin at 0, or are logarithmic."""

    title: str
    x_label: str
    lines: Sequence[Line]
    unit: str = ""
    """Unit of the values, in each label of their scale."""
    logarithmic: bool = False
