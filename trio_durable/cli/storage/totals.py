"""Totals over the types of a storage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import attrs

from ...storage import TypeSummary


@attrs.define
class Total:
    """Counts of several types together."""

    objects: int = 0
    state_bytes: int = 0
    pending: int = 0
    overdue: int = 0
    dead: int = 0

    @classmethod
    def of(cls, parts: Iterable[TypeSummary | Total]) -> Self:
        """The sum of ``parts``."""
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
        """The number of alarms, including dead letters."""
        return self.pending + self.overdue + self.dead
