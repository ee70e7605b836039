"""Another process that owns objects, on a file or database that both open."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import anyio
from anyio.abc import Process

from trio_durable import Cluster, DurableRuntime

from .. import loops
from ..objects import Counter
from ..postgres.server import conninfo, running
from ..serving import serve, serving


@contextmanager
def databases(count: int) -> Iterator[list[str]]:
    """The connection strings of so many empty databases of one server."""
    with (
        tempfile.TemporaryDirectory(prefix="cluster-pg-") as name,
        running(Path(name)) as server,
        ExitStack() as stack,
    ):
        folders = [Path(name, f"cluster{number}") for number in range(count)]
        for folder in folders:
            folder.mkdir()
            stack.enter_context(server.schema(folder))
        yield [conninfo(folder) for folder in folders]


def _arguments(loop: loops.LoopName, storage: str, ttl: float, release: int) -> list[str]:
    return [loop, storage, str(ttl), str(release)]


@contextmanager
def owner(
    storage: str, loop: loops.LoopName = "trio", ttl: float = 5.0
) -> Iterator[subprocess.Popen[str]]:
    """A process that owns objects; it leaves at the end, if it is there still."""
    with serving(__name__, *_arguments(loop, storage, ttl, 0)) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)


async def started(storage: str, release: int = 0) -> Process:
    """Start a process that owns objects, and return when it is ready."""
    command = [sys.executable, "-m", __name__, *_arguments("trio", storage, 5, release)]
    process = await anyio.open_process(command, stderr=None)
    assert process.stdout is not None
    await process.stdout.receive()
    return process


async def left(process: Process) -> None:
    """Let a process leave, and return when it has ended."""
    assert process.stdin is not None
    await process.stdin.aclose()
    await process.wait()


async def settled(runtime: DurableRuntime, members: int) -> None:
    """Wait until the members have equal shares; on a file one has all."""
    while True:
        nodes = [each for each in await runtime.list_nodes() if each.serves]
        shards = [each.shards for each in nodes]
        if len(nodes) == members and (max(shards) - min(shards) <= 1 or sum(shards) == 1):
            return
        await anyio.sleep(0.05)


async def _own(storage: str, ttl: float, release: int) -> None:
    cluster = Cluster(ttl=ttl, release=release)
    async with DurableRuntime(storage, objects=[Counter], cluster=cluster):
        await serve()


if __name__ == "__main__":
    name, location, lease, number = sys.argv[1:]
    loops.run(cast("loops.LoopName", name), partial(_own, location, float(lease), int(number)))
