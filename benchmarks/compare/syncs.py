"""The number of syncs by a process and its children, counted by strace."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from bisect import bisect
from collections.abc import Sequence
from functools import cache
from pathlib import Path

CALLS = ("fsync", "fdatasync", "sync_file_range", "msync", "syncfs", "sync")
_LINE = re.compile(rf"^\d+\s+(\d+\.\d+) (?:{'|'.join(CALLS)})\(", re.MULTILINE)


@cache
def obstacle() -> str | None:
    """The reason that they can't be counted here, or None."""
    if shutil.which("strace") is None:
        return "there is no strace"
    with tempfile.TemporaryDirectory() as folder:
        trial = [*tracer(Path(folder) / "log"), "true"]
        done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"strace can't trace: {done.stderr.strip()}"


def tracer(log: Path) -> list[str]:
    """A prefix of a command that writes its syncs to ``log``.

    Only these system calls are traced, so that the command is about as fast as without.
    """
    calls = f"trace={','.join(CALLS)}"
    return ["strace", "--follow-forks", "--seccomp-bpf", "-qq", "-ttt", "-e", calls, "-o", str(log)]


def times(log: str) -> list[float]:
    """The times of syncs, in seconds since the epoch, in order."""
    return sorted(float(time) for time in _LINE.findall(log))


def within(times: Sequence[float], began: float, ended: float) -> int:
    """The number of ``times`` between the two."""
    return bisect(times, ended) - bisect(times, began)
