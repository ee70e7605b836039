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

from trio_durable import Cluster, DurableRuntime

from .. import loops
from ..objects import Counter
from ..postgres.server import conninfo, running


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


def command(loop: loops.LoopName, storage: str, ttl: float, release: int = 0) -> list[str]:
    """The command of a process that owns objects until its standard input ends."""
    return [sys.executable, "-m", __name__, loop, storage, str(ttl), str(release)]


@contextmanager
def owner(
    storage: str, loop: loops.LoopName = "trio", ttl: float = 5.0
) -> Iterator[subprocess.Popen[str]]:
    """A process that owns objects; it leaves at the end, if it is there still."""
    with subprocess.Popen(
        command(loop, storage, ttl), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the other process has failed")
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.communicate("")


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
    async with DurableRuntime(storage, objects=[Counter], cluster=cluster) as runtime:
        print(runtime.node_id, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    name, location, lease, number = sys.argv[1:]
    loops.run(cast("loops.LoopName", name), partial(_own, location, float(lease), int(number)))
