"""How much memory the process has, by two measures."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

_STATM = Path("/proc/self/statm")
_IN_BLOCKS = re.compile(r"bytes in allocated blocks\s*=\s*([\d,]+)")


def obstacle() -> str | None:
    """Why memory can't be measured here, or None if it can."""
    return None if _STATM.exists() else f"there is no {_STATM} here"


def resident_bytes() -> int:
    """What the process occupies of the machine's memory, which is what users pay for."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allocated_bytes() -> int | None:
    """What Python's small-object allocator has handed out: a check, free of fragmentation.

    Blocks above 512 bytes, such as the tables of large dictionaries, aren't in it. None where the
    interpreter doesn't tell.
    """
    report: object = getattr(sys, "_debugmallocstats", None)
    if not callable(report):
        return None
    # The interpreter writes it to the file descriptor of stderr, below Python's own stream.
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            report()
            os.dup2(stderr, 2)
            file.seek(0)
            found = _IN_BLOCKS.search(file.read().decode())
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return int(found[1].replace(",", "")) if found else None
