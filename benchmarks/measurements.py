"""What comes out: samples, targets and whether they were met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import attrs


@attrs.frozen
class Sample:
    """One figure, taken in several rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        """The lowest round."""
        return min(self.rounds)

    @property
    def high(self) -> float:
        """The highest round."""
        return max(self.rounds)

    def over(self, other: Sample) -> Sample:
        """The ratio to ``other``, round by round, since rounds drift together."""
        return Sample(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))


@attrs.frozen
class Latency:
    """How long single calls took, in seconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, latencies: Sequence[float]) -> Latency:
        """The percentiles of ``latencies``."""
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        return cls(cuts[49], cuts[98])


@attrs.frozen
class Target:
    """What is to be reached."""

    of: Literal["ratio", "most", "rate", "bytes", "ms"]
    """A least ratio to the limit or a most, a least rate per second, a most of bytes or time."""
    bound: float

    def __str__(self) -> str:
        if self.of == "ratio":
            return f"≥ {self.bound:.2f}x"
        if self.of == "most":
            return f"≤ {self.bound:.2f}x"
        if self.of == "rate":
            return f"≥ {self.bound:,.0f}/s"
        if self.of == "ms":
            return f"≤ {self.bound:g} ms"
        return f"≤ {self.bound:,.0f} B"


@attrs.frozen
class Measurement:
    """One scenario, measured."""

    name: str
    group: str
    title: str
    ours: Sample
    unit: Literal["/s", " B", " ms"] = "/s"
    limit_title: str = ""
    limit: Sample | None = None
    target: Target | None = None
    latency: Latency | None = None
    headline: bool = False
    details: dict[str, float] = attrs.field(factory=dict)

    @property
    def ratio(self) -> Sample | None:
        """Ours to the limit."""
        return None if self.limit is None else self.ours.over(self.limit)

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None if there is none."""
        if self.target is None:
            return None
        if self.target.of in ("bytes", "ms"):
            return self.ours.median <= self.target.bound
        if self.target.of == "most":
            return self.ratio is not None and self.ratio.median <= self.target.bound
        reached = self.ours if self.target.of == "rate" else self.ratio
        return reached is not None and reached.median >= self.target.bound

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {True: "met", False: "MISSED", None: ""}[self.met]


@attrs.frozen
class Unmeasured:
    """A scenario that gave no figures."""

    name: str
    group: str
    title: str
    reason: str
    failed: bool
    """It broke, rather than not being possible here."""


Outcome = Measurement | Unmeasured


def as_record(outcome: Outcome) -> dict[str, object]:
    """What the JSON file says of an outcome: the raw rounds and all that follows from them."""
    if isinstance(outcome, Unmeasured):
        return attrs.asdict(outcome)
    record = attrs.asdict(outcome)
    samples = {"ours": outcome.ours, "limit": outcome.limit, "ratio": outcome.ratio}
    for name, sample in samples.items():
        record[name] = sample and {
            "median": sample.median,
            "low": sample.low,
            "high": sample.high,
            "rounds": list(sample.rounds),
        }
    record["met"] = outcome.met
    return record
