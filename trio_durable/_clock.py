"""Wall time."""

from __future__ import annotations

import time


def wall_time() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000
