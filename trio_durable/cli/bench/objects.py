"""The durable objects that are measured. Their names are stored nowhere but in temporary files."""

from __future__ import annotations

from datetime import UTC, datetime

from ... import DurableObject, alarm, handler


class Tally(DurableObject, name="trio_durable.bench.Tally"):
    """State as small apps have it."""

    count: int = 0
    label: str = "what a small object has"

    @handler
    def add(self) -> int:
        """A change."""
        self.count += 1
        return self.count

    @handler(readonly=True)
    def value(self) -> int:
        """A call that changes nothing."""
        return self.count


class Reminder(DurableObject, name="trio_durable.bench.Reminder"):
    """Notes how late its alarm is."""

    seconds_late: float = 0.0

    @alarm
    def ring(self) -> None:
        """Note it."""
        assert self.ctx.alarm is not None
        self.seconds_late = (datetime.now(UTC) - self.ctx.alarm.due_at).total_seconds()
        lateness.append(self.seconds_late)


lateness: list[float] = []
"""Of each alarm that has been handled."""
