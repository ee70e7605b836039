"""What a scenario is, and how much is done to measure one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import attrs

from .measurements import Measurement, Target


@attrs.frozen
class Effort:
    """How much is done to measure one scenario."""

    rounds: int
    seconds: float
    """Of each workload in each round."""
    memory_objects: int
    alarms_within: int
    """Alarms that are due soon, where many of these are."""
    alarms_beyond: int
    """Alarms that are due much later, where many of these are."""


FULL = Effort(
    rounds=5,
    seconds=0.4,
    memory_objects=100_000,
    alarms_within=1_000_000,
    alarms_beyond=10_000_000,
)
SHORT = Effort(
    rounds=3, seconds=0.2, memory_objects=20_000, alarms_within=100_000, alarms_beyond=200_000
)


@attrs.frozen(kw_only=True)
class Scenario(ABC):
    """One line of the report."""

    name: str
    group: str
    target: Target | None = None
    headline: bool = False
    """In the short run and in the chart."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, within its group."""

    @abstractmethod
    def obstacle(self) -> str | None:
        """Why it can't be measured here, or None if it can."""

    @abstractmethod
    def measure(self, folder: Path, effort: Effort) -> Measurement:
        """Measure it, with its files in ``folder``, in a process used for nothing else."""
