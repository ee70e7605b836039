"""A process that shares a database with others like it: all call the same counters.

    python rival_child.py STORAGE NAME CALLS

Of several that have a counter in memory only one can save; the others hear `StaleObject` and
repeat the call on what is stored. At the end the number of calls that were acknowledged goes to
standard output. The counters note who was acknowledged, so that what is stored can be compared.
"""

from __future__ import annotations

import random
import sys

import anyio
import attrs

from trio_durable import DurableObject, DurableRuntime, StaleObject, alarm, handler
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings

OBJECTS = 5
CALLERS = 8


class Shared(DurableObject, call_timeout=60):
    count: int = 0
    by: dict[str, int] = attrs.field(factory=dict)
    rings: int = 0

    @handler
    def increment(self, name: str) -> int:
        self.count += 1
        self.by[name] = self.by.get(name, 0) + 1
        self.ctx.schedule_alarm("ring", after=0)
        return self.count

    @handler
    def forget(self) -> None:
        """Begin anew, at revision 1, so that revisions alone would not tell."""
        self.ctx.delete()

    @alarm
    def ring(self) -> None:
        self.rings += 1


async def caller(runtime: DurableRuntime, name: str, calls: int, rng: random.Random) -> None:
    for _ in range(calls):
        shared = runtime.get(Shared, f"shared-{rng.randrange(OBJECTS)}")
        while True:
            try:
                await shared.increment(name)
                break
            except StaleObject:
                await anyio.sleep(rng.random() * 0.01)


async def main(storage: str, name: str, calls: int) -> None:
    side = PostgresStorage(storage)
    side._node = NodeSettings(group="default")
    async with DurableRuntime(side, objects=[Shared], polling_interval=0.1) as runtime:
        async with anyio.create_task_group() as tasks:
            for number in range(CALLERS):
                tasks.start_soon(caller, runtime, name, calls, random.Random(f"{name} {number}"))
        sys.stdout.write(f"{CALLERS * calls}\n")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), backend="trio")
