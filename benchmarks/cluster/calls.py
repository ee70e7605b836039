"""Calls that are forwarded to another process, beside local ones and a bare framed socket."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from trio_durable import Cluster, DurableRuntime

from .. import link, loops
from ..objects import Counter, object_ids
from .owner import databases, owner
from .rounds import MANY, Call, Effort, medians, rates, ratio

_READS = {1: 0.75, MANY: 0.65}
_CHANGES = {1: None, MANY: 0.6}


def measure(effort: Effort) -> None:
    """Print the rates on each storage and event loop."""
    with databases(1) as (url,), tempfile.TemporaryDirectory(prefix="cluster-") as name:
        folder = Path(name)
        for loop in effort.loops():
            with link.server(loop, folder):
                for kind, shared in (("SQLite", str(folder / f"{loop}.db")), ("PostgreSQL", url)):
                    print(f"{kind}, {loop}")
                    alone = str(folder / f"{loop}-alone.db")
                    with owner(shared, loop):
                        loops.run(loop, partial(_compare, shared, alone, folder, effort))


async def _compare(shared: str, alone: str, link_folder: Path, effort: Effort) -> None:
    client = Cluster(serve=False)
    ids = object_ids(MANY)
    async with (
        DurableRuntime(shared, objects=[Counter], cluster=client) as guest,
        DurableRuntime(alone, objects=[Counter]) as local,
        link.bare_callers(link_folder) as bare,
    ):
        away = [guest.get(Counter, each) for each in ids]
        here = [local.get(Counter, each) for each in ids]
        calls: dict[str, Call] = {
            "bare socket": lambda _: bare(),
            "read away": lambda n: away[n].value(),
            "change away": lambda n: away[n].add(1),
            "change here": lambda n: here[n].add(1),
            "read here": lambda n: here[n].value(),
        }
        for callers in (1, MANY):
            found = await rates(calls, callers, effort)
            print(f"  {callers:3} in flight: {medians(found)}")
            print(f"      {ratio(found, 'read away', 'bare socket', _READS[callers])}")
            print(
                f"      {ratio(found, 'change away', 'change here', _CHANGES[callers])}", flush=True
            )
