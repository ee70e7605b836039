"""Names of test cases that are the same in every process, as pytest-xdist needs them."""

from __future__ import annotations

import re


def stable(value: object) -> str:
    """``repr`` without addresses, and with sets in order."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({', '.join(sorted(map(stable, value)))})"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
