"""Counters of a runtime, and the objects that keep it busy."""

from __future__ import annotations

import attrs

from .._activations.info import BusyObject

NAMED = 5
"""How many objects a snapshot names in each order."""


@attrs.frozen
class RuntimeStatistics:
    """A snapshot of a runtime's load, and of its work since it opened."""

    objects: int
    """Objects in memory, hibernated ones included."""
    busy: int
    """Objects that load, run an ``async def`` turn, or have calls waiting right now."""
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
    messages_waiting: int
    """Messages in memory that wait for their turns; the storage may hold more."""
    messages_in_flight: int
    """Messages whose handlers run, or wait for their turn or their commit."""
    messages_delivered: int
    """Messages handled since the runtime opened."""
    messages_failed: int
    """Failed attempts to handle a message."""
    messages_dead: int
    """Messages that have become dead letters since the runtime opened."""
    busiest: tuple[BusyObject, ...]
    """The five objects with the most requests in their mailboxes, the fullest first; objects that
    nothing waits for are left out."""
    slowest: tuple[BusyObject, ...]
    """The five objects that have been busy for longest with one load or turn, the longest first."""
    shards: int
    """The parts of all objects that live in this process; 1 for a runtime alone, or on a file."""
    calls_forwarded: int
    """Requests that were sent to other processes of a cluster, each attempt counted."""
    log_bytes: int | None
    """Bytes of the write-ahead log of an SQLite file, as of a second before the latest commit; None
    for other storages. Above 16 MiB, a long read keeps SQLite from starting it over."""
    control_problem: str | None
    """The reason that commands of ``trio-durable`` can't reach this runtime while it is open; None
    if they can."""
