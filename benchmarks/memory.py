"""Memory of the process, by two measures, and its growth per object."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import anyio

from trio_durable import DurableRuntime

from .callers import call_each
from .objects import Counter, SleepyCounter

Status = Literal["active", "hibernated"]

_STATM = Path("/proc/self/statm")
_IN_BLOCKS = re.compile(r"bytes in allocated blocks\s*=\s*([\d,]+)")


def obstacle() -> str | None:
    """The reason that memory can't be measured here, or None."""
    return None if _STATM.exists() else f"there is no {_STATM} here"


def resident_bytes() -> int:
    """The resident set of the process: the part of the machine's memory that it occupies."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allocated_bytes() -> int | None:
    """Bytes in use of Python's small-object allocator: a check that ignores fragmentation.

    Blocks above 512 bytes, such as the tables of large dictionaries, aren't counted. None if the
    interpreter doesn't report it.
    """
    report: Callable[[], None] | None = getattr(sys, "_debugmallocstats", None)
    if report is None:
        return None
    # The interpreter writes it to the file descriptor of stderr, below Python's own stream.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 2)
            report()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        found = _IN_BLOCKS.search(file.read().decode())
    return int(found[1].replace(",", "")) if found else None


async def bytes_per_object(count: int, path: Path, status: Status) -> tuple[float, float | None]:
    """The growth of the process per object in ``status``: resident, and in Python's allocator.

    A tenth as many objects come first and are not counted, so that growth that happens only once
    (SQLite's page caches, the first tables) isn't, either.
    """
    cls = SleepyCounter if status == "hibernated" else Counter
    async with DurableRuntime(path, objects=[cls]) as runtime:
        await _fill(runtime, cls, "before", count // 10, status)
        resident, allocated = resident_bytes(), allocated_bytes()
        await _fill(runtime, cls, "counted", count, status)
        resident = resident_bytes() - resident
        after = allocated_bytes()
    in_blocks = None if allocated is None or after is None else (after - allocated) / count
    return resident / count, in_blocks


async def _fill(
    runtime: DurableRuntime, cls: type[Counter], prefix: str, count: int, status: Status
) -> None:
    """Call ``count`` new objects once, and wait until they are in ``status``."""
    await call_each(
        partial(runtime.get(cls, f"{prefix}-{number:07}").add, 1) for number in range(count)
    )
    samples = [f"{prefix}-{number:07}" for number in (*range(0, count, 100), count - 1)]
    with anyio.fail_after(60):
        for object_id in samples:
            while True:
                info = runtime.whereis(cls, object_id)
                if info is None:
                    raise RuntimeError(f"{object_id} left memory while it was measured")
                if info.status == status:
                    break
                await anyio.sleep(0.05)
    gc.collect()
