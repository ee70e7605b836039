"""Sums of what is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import attrs

from ...storage import TypeSummary


@attrs.define
class Total:
    """What is kept of several types together."""

    objects: int = 0
    state_bytes: int = 0
    pending: int = 0
    overdue: int = 0
    dead: int = 0

    @classmethod
    def of(cls, parts: Iterable[TypeSummary | Total]) -> Self:
        """The sum."""
        total = cls()
        for part in parts:
            total.objects += part.objects
            total.state_bytes += part.state_bytes
            total.pending += part.pending
            total.overdue += part.overdue
            total.dead += part.dead
        return total

    @property
    def alarms(self) -> int:
        """All alarms, dead letters too."""
        return self.pending + self.overdue + self.dead
