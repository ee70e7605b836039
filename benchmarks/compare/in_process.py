"""trio_durable, called within the process, and Python without a library, for scale."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime
from functools import partial
from typing import Any

from benchmarks.alarms import Reminder
from benchmarks.callers import call_each
from benchmarks.objects import Counter
from trio_durable import DurableRuntime, PostgresStorage, SQLiteStorage

from .contender import SELECT, UPSERT, Alarms, Counters, Parts, Place, Step, connect


@asynccontextmanager
async def ours(place: Place) -> AsyncIterator[Parts]:
    server, file = place.server, place.folder / "objects.db"
    storage = PostgresStorage(server) if server else SQLiteStorage(file)
    async with DurableRuntime(storage, objects=[Counter, Reminder]) as runtime:

        async def schedule(keys: Sequence[str], due_at: datetime) -> None:
            await call_each(
                partial(runtime.schedule_alarm, Reminder, key, "ring", at=due_at) for key in keys
            )

        async def handled() -> int:
            return runtime.statistics().alarms_delivered

        yield [
            Counters(
                increment=lambda key: partial(runtime.get(Counter, key).add, 1),
                value=lambda key: runtime.get(Counter, key).value,
            ),
            Alarms(schedule, handled),
        ]


@asynccontextmanager
async def dictionary(_: Place) -> AsyncIterator[Parts]:
    """A module's dictionary with a lock for each key."""
    totals: defaultdict[str, int] = defaultdict(int)
    locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def increment(key: str) -> int:
        async with locks[key]:
            await asyncio.sleep(0)  # as an application would that does something there
            totals[key] += 1
            return totals[key]

    async def value(key: str) -> int:
        await asyncio.sleep(0)
        return totals[key]

    yield [Counters(lambda key: partial(increment, key), lambda key: partial(value, key))]


@asynccontextmanager
async def raw_sqlite(place: Place) -> AsyncIterator[Parts]:
    """sqlite3 in the event loop's thread, a transaction for each increment."""
    with closing(connect(place.folder / "counters.db")) as connection:

        def stepping(statement: str, key: str) -> Step:
            async def step() -> Any:
                await asyncio.sleep(0)  # others have their turn between two statements
                return connection.execute(statement, (key,)).fetchone()[0]

            return step

        yield [
            Counters(
                increment=partial(stepping, UPSERT.format(id="?")),
                value=partial(stepping, SELECT.format(id="?")),
            )
        ]
