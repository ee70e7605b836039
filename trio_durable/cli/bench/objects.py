"""The durable objects of the benchmark. They are stored in temporary files only."""

from __future__ import annotations

from datetime import UTC, datetime

from ... import DurableObject, alarm, handler


class Tally(DurableObject, name="trio_durable.bench.Tally"):
    """An object with little state."""

    count: int = 0
    label: str = "the label of a small object"

    @handler
    def add(self) -> int:
        """Change the state."""
        self.count += 1
        return self.count

    @handler(readonly=True)
    def value(self) -> int:
        """Read the state."""
        return self.count


class Reminder(DurableObject, name="trio_durable.bench.Reminder"):
    """Records the delay of its alarm."""

    seconds_late: float = 0.0

    @alarm
    def ring(self) -> None:
        """Record the delay."""
        assert self.ctx.alarm is not None
        self.seconds_late = (datetime.now(UTC) - self.ctx.alarm.due_at).total_seconds()
        lateness.append(self.seconds_late)


lateness: list[float] = []
"""Seconds of delay of each handled alarm."""
