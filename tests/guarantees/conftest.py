from __future__ import annotations

from .alarms.bench import fresh_bench
from .alarms.desk import fresh_desk
from .counters import fresh_counters

__all__ = ["fresh_bench", "fresh_counters", "fresh_desk"]  # fixtures for all
