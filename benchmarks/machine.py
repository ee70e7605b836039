"""The machine of a run, as the JSON files describe it, and the disk that it writes to."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import attrs

_IN_MEMORY = ("tmpfs", "ramfs")
_SYNCS = 200


def describe() -> dict[str, object]:
    """The machine, the interpreter and the libraries."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "trio": version("trio"),
        "trio_durable": version("trio-durable"),
    }


@attrs.frozen
class Disk:
    """Disk under the databases, with the median and the 95th percentile of its syncs."""

    filesystem: str
    sync_microseconds: float
    """Of writing and syncing 4 KiB."""
    slow_sync_microseconds: float

    def __str__(self) -> str:
        return (
            f"{self.filesystem}, writing and syncing 4 KiB takes {self.sync_microseconds:,.0f} µs "
            f"(p95 {self.slow_sync_microseconds:,.0f} µs)"
        )


def probe(folder: Path) -> Disk:
    """Time syncs on the disk of ``folder``."""
    sync = getattr(os, "fdatasync", os.fsync)
    times = []
    path = folder / "probe"
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            began = perf_counter()
            file.write(bytes(4096))
            sync(file.fileno())
            times.append((perf_counter() - began) * 1e6)
    path.unlink()
    return Disk(filesystem(folder), statistics.median(times), statistics.quantiles(times, n=20)[-1])


def is_in_memory(folder: Path) -> bool:
    """True for a folder in memory, where syncs are free and durable figures mean nothing."""
    return filesystem(folder) in _IN_MEMORY


def filesystem(folder: Path) -> str:
    """The kind of filesystem that ``folder`` is on; "unknown" if the system doesn't report it."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.split()[-1]
