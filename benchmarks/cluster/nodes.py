"""Memory of a node and of a link, and the work that idle nodes make for the database.

All nodes are runtimes of one process, each with connections of its own to one PostgreSQL server,
which is started for them. Memory of a node is the growth of the process while the nodes after the
first few open. Memory of a link is that of Python's allocations, as tracemalloc counts them, while
each of these few calls an object of each of the others, over a link of which both ends are in the
process; the process itself may hardly grow, since it has free memory by then. The database's work
is that of all processes of the server while nothing is called: transactions, and processor time as
Linux counts it. The statistics of PostgreSQL come up to ten seconds late, so a period of idle nodes
should be longer.
"""

from __future__ import annotations

import gc
import os
import tempfile
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import anyio
import attrs
import psycopg

from trio_durable import Cluster, DurableRuntime

from .. import loops
from ..memory import allocated_bytes, obstacle, resident_bytes
from ..objects import Counter, object_ids
from ..postgres import server
from ..processes import in_child
from .owner import settled

_CALLERS = 5
"""The nodes that call all others."""
_CONNECTIONS = 4
"""The most that a node has."""
_TICK = os.sysconf("SC_CLK_TCK")


def measure(counts: Sequence[int], seconds: float, ttl: float) -> None:
    """Print the figures for so many nodes."""
    reason = server.obstacle() or obstacle()
    if reason:
        print(f"nodes are left out: {reason}")
        return
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="cluster-pg-") as name:
            # A new process, whose memory was used by nothing else.
            print(in_child(partial(_measure, Path(name), count, seconds, ttl)), flush=True)


@attrs.frozen
class _Memory:
    """Memory of this process, in bytes."""

    resident: int
    in_blocks: int
    """In Python's allocator."""

    @classmethod
    def now(cls) -> _Memory:
        gc.collect()
        return cls(resident_bytes(), allocated_bytes() or 0)

    def per(self, before: _Memory, count: int) -> str:
        resident = (self.resident - before.resident) / count / 1024
        in_blocks = (self.in_blocks - before.in_blocks) / count / 1024
        return f"{resident:,.1f} KiB resident, {in_blocks:,.1f} KiB in Python's allocator"


@attrs.frozen
class _Work:
    """Work of the database since it began."""

    transactions: int
    seconds: float
    """Processor time."""

    @classmethod
    def so_far(cls, connection: psycopg.Connection[Any]) -> _Work:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database"
            " WHERE datname = current_database()"
        ).fetchone()
        assert row is not None
        pids = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        return cls(int(row[0]), sum(_processor_time(pid) for (pid,) in pids))


def _processor_time(pid: int) -> float:
    # The name, in parentheses, may have spaces in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _measure(folder: Path, count: int, seconds: float, ttl: float) -> str:
    settings = {"max_connections": _CONNECTIONS * count + 20}
    with (
        server.own(folder, **settings) as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        return loops.run("trio", partial(_watch, conninfo, connection, count, seconds, ttl))


async def _watch(
    conninfo: str, connection: psycopg.Connection[Any], count: int, seconds: float, ttl: float
) -> str:
    async with AsyncExitStack() as stack:

        async def add(number: int) -> list[DurableRuntime]:
            nodes = [
                DurableRuntime(
                    conninfo, objects=[Counter], cluster=Cluster(ttl=ttl), call_timeout=60
                )
                for _ in range(number)
            ]
            for node in nodes:
                await stack.enter_async_context(node)
            return nodes

        callers = await add(_CALLERS)
        await settled(callers[0], _CALLERS)
        alone, began = _Memory.now(), perf_counter()
        others = await add(count - _CALLERS)
        await settled(callers[0], count)
        joined, opened = perf_counter() - began, _Memory.now()

        await anyio.sleep(seconds / 2)  # until what the joins have done is counted
        before, used, began = _Work.so_far(connection), process_time(), perf_counter()
        await anyio.sleep(seconds)
        took, used = perf_counter() - began, process_time() - used
        after = _Work.so_far(connection)

        targets = await _one_object_of_each(callers[0], others)
        gc.collect()
        tracemalloc.start()
        for caller in callers:
            for target in targets:
                await caller.get(Counter, target).add(1)
        gc.collect()
        linked, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    links = _CALLERS * len(targets)
    rate = (after.transactions - before.transactions) / took
    busy = (after.seconds - before.seconds) / took
    return (
        f"{count} nodes, TTL {ttl:g} s\n"
        f"  the last {count - _CALLERS} have joined in {joined:.1f} s\n"
        f"  a node: {opened.per(alone, count - _CALLERS)}\n"
        f"  a link, both ends: {linked / links / 1024:,.1f} KiB, of {links} links\n"
        f"  idle, the database: {rate:,.1f} transactions/s, {rate / count:.2f} of a node; "
        f"{1e3 * busy:.1f} ms/s of a processor, {1e6 * busy / count:.0f} µs/s for a node\n"
        f"  idle, the nodes: {1e3 * used / took:.1f} ms/s of a processor, "
        f"{1e6 * used / took / count:.0f} µs/s a node"
    )


async def _one_object_of_each(caller: DurableRuntime, nodes: Sequence[DurableRuntime]) -> list[str]:
    """The id of an object in the memory of each of ``nodes``, which has called it itself."""
    wanted = {node.node_id: node for node in nodes}
    found = []
    for object_id in object_ids(1_000_000):
        if not wanted:
            break
        owner = wanted.pop((await caller.locate(Counter, object_id)).node_id, None)
        if owner is not None:
            await owner.get(Counter, object_id).add(1)
            found.append(object_id)
    return found
