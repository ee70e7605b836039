"""A process of a cluster that runs jobs, for tests that kill it.

    python killed_child.py CONNINFO PREFIX

It prints a line when it is open, and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from trio_durable import Cluster, DurableObject, DurableRuntime, ObanScheduler, alarm


class Tally(DurableObject, name="KilledTally"):
    rings: int = 0

    @alarm
    async def ring(self) -> None:
        await asyncio.sleep(0.02)
        self.rings += 1


def runtime(conninfo: str, prefix: str) -> DurableRuntime:
    """A member of the cluster."""
    return DurableRuntime(
        conninfo,
        objects=[Tally],
        scheduler=ObanScheduler("durable", limit=50, prefix=prefix),
        cluster=Cluster(ttl=2),
    )


async def main(conninfo: str, prefix: str) -> None:
    async with runtime(conninfo, prefix):
        print("open", flush=True)  # noqa: T201  # for the test
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
