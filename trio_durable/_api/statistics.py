"""Counters of a runtime."""

from __future__ import annotations

import attrs


@attrs.frozen
class RuntimeStatistics:
    """A snapshot of a runtime's load, and of its work since it opened."""

    objects: int
    """Objects in memory, hibernated ones included."""
    busy: int
    """Objects that load or run an ``async def`` turn right now."""
    transactions: int
    """Transactions since the runtime opened."""
    commits: int
    """Object commits in these transactions; more than one per transaction if callers overlap."""
    alarms_waiting: int
    """Alarms in memory, due soon or overdue; the storage may hold more."""
    alarms_in_flight: int
    """Alarms whose handlers run, or wait for their turn or their commit."""
    alarms_delivered: int
    """Alarms handled since the runtime opened."""
    alarms_failed: int
    """Failed attempts to handle an alarm."""
    log_bytes: int | None
    """Bytes of the write-ahead log of an SQLite file, as of a second before the latest commit; None
    for other storages. Above 16 MiB, a long read keeps SQLite from starting it over."""
