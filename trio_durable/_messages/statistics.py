"""Counters of the messages of one runtime."""

from __future__ import annotations

import attrs


@attrs.frozen
class OutboxStatistics:
    """A snapshot of an outbox's counters."""

    waiting: int = 0
    """Messages in memory that aren't being delivered; the storage may have more."""
    in_flight: int = 0
    """Messages that are being delivered, until the outcome is durable."""
    delivered: int = 0
    failed: int = 0
    """Attempts that failed, as far as they count."""
    buried: int = 0
    """Messages that have become dead letters."""
