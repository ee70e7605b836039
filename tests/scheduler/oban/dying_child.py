"""A process that dies at a point in the life of an alarm that is a job of Oban.

    python dying_child.py CONNINFO PREFIX POINT

POINT is one of ``POINTS``, or ``owner``: the process then owns an object, runs no jobs of its own,
and waits in the object's handler until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Any

from trio_durable import Cluster, DurableObject, DurableRuntime, ObanScheduler, alarm, handler
from trio_durable.storage import Commit
from trio_durable.storage.postgres._job_queue import JobQueue
from trio_durable.storage.postgres._writer import PostgresWriter

POINTS = {
    "before the commit that sets it": 0,
    "before the notification": 1,
    "before the commit of its turn": 1,
    "before Oban's acknowledgement": 1,
}
"""Each point, with the number of effects in the end."""
TTL = 2.0


class Fragile(DurableObject, name="Fragile"):
    rings: int = 0

    @handler
    def set(self, after: float = 0.0) -> None:
        self.ctx.schedule_alarm("ring", after=after)

    @handler(readonly=True)
    def count(self) -> int:
        return self.rings

    @alarm
    async def ring(self) -> None:
        if "owner" in sys.argv:
            print("began", flush=True)  # noqa: T201  # for the test
            await asyncio.sleep(3600)
        self.rings += 1


def runtime(conninfo: str, prefix: str, instance: Any = None) -> DurableRuntime:
    """A member of a cluster whose alarms are jobs."""
    return DurableRuntime(
        conninfo,
        objects=[Fragile],
        scheduler=ObanScheduler("durable", instance, prefix=prefix),
        cluster=Cluster(ttl=TTL),
    )


def die() -> None:
    """End as by a crash."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_commit(of: Callable[[Commit], bool]) -> None:
    """Die before the first commit of a kind."""
    commit = PostgresWriter.commit

    def dying(self: PostgresWriter, batch: Sequence[Commit], now: int) -> Collection[int]:
        if any(map(of, batch)):
            die()
        return commit(self, batch, now)

    PostgresWriter.commit = dying  # type: ignore[method-assign]


def die_at(point: str) -> None:
    """Die when a point is reached."""
    if point == "before the commit that sets it":
        die_in_commit(lambda commit: bool(commit.alarms and commit.alarms.changed))
    elif point == "before the notification":
        JobQueue.stage = lambda self: die()  # type: ignore[method-assign]
    elif point == "before the commit of its turn":
        die_in_commit(lambda commit: bool(commit.alarms and commit.alarms.acknowledged))
    else:
        producer = import_module("oban._producer").Producer
        execute = producer._execute

        async def dying(self: Any, job: Any) -> None:
            await execute(self, job)
            die()

        producer._execute = dying


async def main(conninfo: str, prefix: str, point: str) -> None:
    if point != "owner":
        async with runtime(conninfo, prefix) as it:
            die_at(point)
            await it.get(Fragile, "a").set()
            await asyncio.sleep(3600)
        return
    make_oban = import_module("oban").Oban
    pool = await make_oban.create_pool(conninfo)
    async with (
        make_oban(pool=pool, prefix=prefix, node="child", leadership=False) as instance,
        runtime(conninfo, prefix, instance) as it,
    ):
        while (queue := instance.check_queue("durable")) is None or queue.paused:
            await asyncio.sleep(0.01)
        await instance.pause_queue("durable", node="child")
        while not (instance.check_queue("durable").paused and it.statistics().shards):
            await asyncio.sleep(0.01)
        print("owns", flush=True)  # noqa: T201  # for the test
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
