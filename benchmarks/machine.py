"""The machine of a run, as the JSON files describe it, and the disk that it writes to."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
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
    """Disk under the databases."""

    filesystem: str
    """Its kind, as far as the system reports it."""
    sync_microseconds: float
    """The median of writing and syncing 4 KiB."""
    slow_sync_microseconds: float
    """The 95th percentile of that."""

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
    """Whether ``folder`` is in memory, where syncs are free and durable figures mean nothing."""
    return filesystem(folder) in _IN_MEMORY


def filesystem(folder: Path) -> str:
    """The kind of filesystem that ``folder`` is on; "unknown" if the system doesn't report it."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    device = folder.stat().st_dev
    found = "unknown"
    for mount in mounts:
        # … major:minor root mountpoint options … - kind source options
        fields, _, source = mount.partition(" - ")
        major, _, minor = fields.split()[2].partition(":")
        if os.makedev(int(major), int(minor)) == device:
            found = source.split()[0]
    return found
