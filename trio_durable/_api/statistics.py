"""Counters of a runtime."""

from __future__ import annotations

import attrs


@attrs.frozen
class RuntimeStatistics:
    """A snapshot of what a runtime does and did."""

    objects: int
    """Objects in memory, hibernated ones included."""
    busy: int
    """Objects that load or run an ``async def`` turn right now."""
    transactions: int
    """Transactions since the runtime opened."""
    commits: int
    """Object commits in these; more than transactions when callers come together."""
    alarms_waiting: int
    """Alarms in memory, due soon or overdue; there may be more in the storage."""
    alarms_in_flight: int
    """Alarms whose handlers run, or wait for their turn or their commit."""
    alarms_delivered: int
    """Alarms handled since the runtime opened."""
    alarms_failed: int
    """Attempts to handle one that failed."""
