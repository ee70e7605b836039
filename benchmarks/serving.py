"""Programs of the benchmarks that run beside them, until their standard input ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .processes import ChildFailed


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program for the block, which prints a line when it is ready, as `serve` does.

    Raises:
        ChildFailed: It ended before it was ready.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ChildFailed(f"{module} ended before it was ready")
        yield process
        if process.poll() is None:
            process.communicate("")


async def serve() -> None:
    """Say that this program is ready, and return when its standard input ends."""
    print("ready", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
