"""The records that come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import attrs

from benchmarks.measurements import Sample

WorkloadName = Literal["one", "many", "reads", "alarms"]
WORKLOADS: tuple[WorkloadName, ...] = get_args(WorkloadName)

TITLES: dict[WorkloadName, str] = {
    "one": "increments, 1 caller",
    "many": "increments, 64 callers x 1,000 objects",
    "reads": "reads, 64 callers x 1,000 objects",
    "alarms": "alarms due at once, each with a durable change",
}


@attrs.frozen
class Stretch:
    """One workload, done once."""

    workload: WorkloadName
    operations: int
    began: float
    """Seconds since the epoch, for who watches from outside."""
    ended: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / (self.ended - self.began)


@attrs.frozen
class Result:
    """What one contender made of one workload."""

    contender: str
    workload: WorkloadName
    rate: Sample
    """Operations per second."""
    syncs: float | None = None
    """Per 1,000 operations; None if they weren't counted."""


@attrs.frozen
class Absent:
    """A contender that gave no figures."""

    contender: str
    reason: str
    failed: bool
    """It broke, rather than not being installed."""


def collect(
    contender: str, rounds: Sequence[Sequence[Stretch]], counted: dict[WorkloadName, float]
) -> list[Result]:
    """The results of a contender's rounds."""
    return [
        Result(contender, name, Sample(rates), counted.get(name))
        for name in WORKLOADS
        if (rates := tuple(_rates(name, rounds)))
    ]


def _rates(name: WorkloadName, rounds: Sequence[Sequence[Stretch]]) -> Iterable[float]:
    return (
        stretch.rate for stretches in rounds for stretch in stretches if stretch.workload == name
    )


def as_record(result: Result) -> dict[str, object]:
    """What the JSON file says of a result."""
    return {
        "contender": result.contender,
        "workload": result.workload,
        "per_second": {
            "median": round(result.rate.median, 1),
            "low": round(result.rate.low, 1),
            "high": round(result.rate.high, 1),
        },
        "syncs_per_1000": None if result.syncs is None else round(result.syncs, 1),
    }
