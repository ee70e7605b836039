"""Calls of objects in the process that owns them, in a cluster and without one."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from trio_durable import DurableRuntime

from .. import loops
from ..objects import Counter, object_ids
from .owner import databases
from .rounds import MANY, Call, Effort, medians, rates, ratio

_BOUND = 0.97


def measure(effort: Effort) -> None:
    """Print the rates on each storage and event loop."""
    with databases(2) as urls, tempfile.TemporaryDirectory(prefix="cluster-") as name:
        for loop in effort.loops():
            paths = [str(Path(name, f"{loop}-{each}.db")) for each in ("shared", "alone")]
            for kind, (shared, alone) in (("SQLite", paths), ("PostgreSQL", urls)):
                print(f"{kind}, {loop}")
                loops.run(loop, partial(_compare, shared, alone, effort))


async def _compare(shared: str, alone: str, effort: Effort) -> None:
    async with (
        DurableRuntime(shared, objects=[Counter], cluster=True) as member,
        DurableRuntime(alone, objects=[Counter]) as single,
    ):
        ways = {"in a cluster": _calls(member), "without": _calls(single)}
        for operation in ways["without"]:
            for callers in (1, MANY):
                calls = {way: kinds[operation] for way, kinds in ways.items()}
                found = await rates(calls, callers, effort)
                print(f"  {operation}, {callers} in flight: {medians(found)}")
                print(f"      {ratio(found, 'in a cluster', 'without', _BOUND)}", flush=True)


def _calls(runtime: DurableRuntime) -> dict[str, Call]:
    counters = [runtime.get(Counter, each) for each in object_ids(MANY)]
    return {
        "read, def": lambda n: counters[n].value(),
        "read, async def": lambda n: counters[n].value_async(),
        "change, def": lambda n: counters[n].add(1),
        "change, async def": lambda n: counters[n].add_async(1),
    }
