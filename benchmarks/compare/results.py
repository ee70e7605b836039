"""The records that come out."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Seconds since the epoch, for a tracer outside of the process."""
    ended: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / (self.ended - self.began)


@attrs.frozen
class Result:
    """One contender's rates of one workload."""

    contender: str
    workload: WorkloadName
    rate: Sample
    """Operations per second."""
    syncs: float | None = None
    """Per 1,000 operations; None if they weren't counted."""


@attrs.frozen
class Absent:
    """A contender without figures, which broke or isn't installed."""

    contender: str
    reason: str
    failed: bool


def collect(
    contender: str, rounds: Sequence[Sequence[Stretch]], counted: dict[WorkloadName, float]
) -> list[Result]:
    """The results of a contender's rounds."""
    rates = {
        name: [each.rate for stretches in rounds for each in stretches if each.workload == name]
        for name in WORKLOADS
    }
    return [
        Result(contender, name, Sample(of_name), counted.get(name))
        for name, of_name in rates.items()
        if of_name
    ]
