"""APScheduler: a job with a date for each alarm, kept by the SQLAlchemy job store.

Jobs are found again by the name of their function, so what they need is in this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from psycopg_pool import AsyncConnectionPool

from benchmarks import postgres_server

from .contender import TABLE, UPSERT, Alarms, Contender
from .plain import connect

_change: Callable[[str], Awaitable[None]]
_handled = 0


async def ring(key: str) -> None:
    """What the job does."""
    global _handled
    await _change(key)
    _handled += 1


class _Jobs(Alarms):
    lead = 15.0

    def __init__(self, scheduler: AsyncIOScheduler) -> None:
        self._scheduler = scheduler

    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        for key in keys:
            self._scheduler.add_job(ring, "date", run_date=due_at, args=[key])

    async def handled(self) -> int:
        return _handled


class OnSQLite(Contender):
    """Jobs in one file, counters in another."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Jobs]:
        with closing(connect(folder / "counters.db")) as connection:

            async def change(key: str) -> None:
                connection.execute(UPSERT.format(id="?"), (key,)).fetchone()

            async with _opened(f"sqlite:///{folder / 'jobs.db'}", change) as jobs:
                yield jobs


class OnPostgres(Contender):
    """With a server of its own."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Jobs]:
        with postgres_server.own(folder) as conninfo:
            async with AsyncConnectionPool(conninfo, min_size=4, max_size=16, open=False) as pool:
                async with pool.connection() as connection:
                    await connection.execute(TABLE)

                async def change(key: str) -> None:
                    async with pool.connection() as connection:
                        await connection.execute(UPSERT.format(id="%s"), (key,))

                url = conninfo.replace("postgresql://", "postgresql+psycopg://", 1)
                async with _opened(url, change) as jobs:
                    yield jobs


@asynccontextmanager
async def _opened(url: str, change: Callable[[str], Awaitable[None]]) -> AsyncIterator[_Jobs]:
    global _change
    _change = change
    scheduler = AsyncIOScheduler(
        jobstores={"default": SQLAlchemyJobStore(url)},
        # The default drops jobs that are more than a second late.
        job_defaults={"misfire_grace_time": None},
        timezone=UTC,
    )
    scheduler.start()
    try:
        yield _Jobs(scheduler)
    finally:
        scheduler.shutdown()
