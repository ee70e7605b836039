"""Processes that say what they were told, and may be killed in the middle of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable


def run_child(lines: int | None, hear: Callable[[str], object], *arguments: object) -> None:
    """Run a Python process, and ``hear`` its lines; kill it after so many, or let it end."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            for _ in range(lines or 0):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                hear(line)
        finally:
            if lines is not None:
                process.kill()
        # What it said between our last look and its death is as binding.
        for line in process.stdout:
            hear(line)
        assert process.stderr.read() == ""
