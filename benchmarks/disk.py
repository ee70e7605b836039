"""The folder that is written to, and what its disk makes of a sync."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from time import perf_counter

import attrs

_IN_MEMORY = ("tmpfs", "ramfs")
_SYNCS = 200


@attrs.frozen
class Disk:
    """Where the databases are."""

    filesystem: str
    """Its kind, as far as the system tells."""
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
    """Find out about the disk of ``folder``."""
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
    """Whether a sync costs nothing there, so that durable figures mean nothing."""
    return filesystem(folder) in _IN_MEMORY


def filesystem(folder: Path) -> str:
    """The kind of filesystem that ``folder`` is on; "unknown" where the system doesn't tell."""
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
