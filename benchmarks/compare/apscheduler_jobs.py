"""APScheduler: a job with a date for each alarm, kept by the SQLAlchemy job store.

Jobs are found again by the name of their function, so their function and all that it needs belong
to the module. On SQLite jobs are in one file, counters in another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from .contender import Alarms, Parts, Place
from .rows import changes, sqlalchemy_url

_change: Callable[[str], Awaitable[None]]
_handled = 0


async def ring(key: str) -> None:
    """The job."""
    global _handled
    await _change(key)
    _handled += 1


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Parts]:
    global _change
    async with changes(place) as _change:
        scheduler = AsyncIOScheduler(
            jobstores={"default": SQLAlchemyJobStore(sqlalchemy_url(place, "jobs.db"))},
            # The default drops jobs that are more than a second late.
            job_defaults={"misfire_grace_time": None},
            timezone=UTC,
        )

        async def schedule(keys: Sequence[str], due_at: datetime) -> None:
            for key in keys:
                scheduler.add_job(ring, "date", run_date=due_at, args=[key])

        async def handled() -> int:
            return _handled

        scheduler.start()
        try:
            yield [Alarms(schedule, handled, lead=15.0)]
        finally:
            scheduler.shutdown()
