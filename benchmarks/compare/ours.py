"""trio_durable, called within the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from benchmarks import postgres_server
from benchmarks.alarms import Reminder
from benchmarks.callers import call_each
from benchmarks.objects import Counter
from trio_durable import DurableRuntime, PostgresStorage, SQLiteStorage, Storage

from .contender import Alarms, Contender, Counters, Step


class _Objects(Counters, Alarms):
    def __init__(self, runtime: DurableRuntime) -> None:
        self._runtime = runtime

    def increment(self, key: str) -> Step:
        return partial(self._runtime.get(Counter, key).add, 1)

    def value(self, key: str) -> Step:
        return self._runtime.get(Counter, key).value

    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        await call_each(
            partial(self._runtime.schedule_alarm, Reminder, key, "ring", at=due_at) for key in keys
        )

    async def handled(self) -> int:
        return self._runtime.statistics().alarms_delivered


class OnSQLite(Contender):
    """On asyncio."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Objects]:
        async with _opened(SQLiteStorage(folder / "objects.db")) as objects:
            yield objects


class OnSQLiteAndTrio(OnSQLite):
    """The same on Trio."""

    loop = "trio"


class OnPostgres(Contender):
    """On asyncio, with a server of its own."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Objects]:
        with postgres_server.own(folder) as conninfo:
            async with _opened(PostgresStorage(conninfo)) as objects:
                yield objects


@asynccontextmanager
async def _opened(storage: Storage) -> AsyncIterator[_Objects]:
    async with DurableRuntime(storage, objects=[Counter, Reminder]) as runtime:
        yield _Objects(runtime)
