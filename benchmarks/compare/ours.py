"""trio_durable, called within the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from benchmarks.alarms import Reminder
from benchmarks.callers import call_each
from benchmarks.objects import Counter
from trio_durable import DurableRuntime, PostgresStorage, SQLiteStorage

from .contender import Alarms, Counters, Parts, Place


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Parts]:
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
