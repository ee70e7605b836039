"""Other libraries, called within the process. Each is imported where it is opened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

from .contender import (
    CALLERS,
    ROW,
    SELECT,
    TABLE,
    UPSERT,
    Alarms,
    Counters,
    Parts,
    Place,
    Step,
    connect,
)

_POLLING_INTERVAL = 0.1
"""Seconds between two looks at the table of jobs."""


@asynccontextmanager
async def pykka(_: Place) -> AsyncIterator[Parts]:
    """pykka: an actor for each counter, each with a thread of its own, in memory only."""
    from pykka import ActorRegistry, ThreadingActor

    class Counter(ThreadingActor):
        """The same three fields that ours has."""

        def __init__(self) -> None:
            super().__init__()
            self.count = 0
            self.total = 0
            self.label = "a benchmark's counter"

        def add(self, by: int) -> int:
            self.count += 1
            self.total += by
            return self.total

        def value(self) -> int:
            return self.total

    @cache  # the application has to keep one actor for a name
    def proxy(_: str) -> Any:
        return Counter.start().proxy()

    def increment(key: str) -> Step:
        add = proxy(key).add
        return lambda: add(1).get()

    def value(key: str) -> Step:
        read = proxy(key).value
        return lambda: read().get()

    try:
        yield [Counters(increment, value, blocking=True)]
    finally:
        ActorRegistry.stop_all()


@asynccontextmanager
async def _changes(place: Place) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """A function that adds 1, in a file or on the server by a pool of connections."""
    if place.server is None:
        with closing(connect(place.folder / "counters.db")) as file:

            async def change(key: str) -> None:
                file.execute(UPSERT.format(id="?"), (key,)).fetchone()

            yield change
        return
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(place.server, min_size=4, max_size=16, open=False) as pool:
        async with pool.connection() as connection:
            await connection.execute(TABLE)

        async def change_on_server(key: str) -> None:
            async with pool.connection() as connection:
                await connection.execute(UPSERT.format(id="%s"), (key,))

        yield change_on_server


def _sqlalchemy_url(place: Place, file: str) -> str:
    if place.server is None:
        return f"sqlite:///{place.folder / file}"
    return place.server.replace("postgresql://", "postgresql+psycopg://", 1)


class _Handler:
    """The job of an alarm, which counts what it has done."""

    def __init__(self, change: Callable[[str], Awaitable[None]]) -> None:
        self._change = change
        self._rung = 0

    async def ring(self, key: str) -> None:
        await self._change(key)
        self._rung += 1

    async def handled(self) -> int:
        return self._rung


@asynccontextmanager
async def procrastinate(place: Place) -> AsyncIterator[Parts]:
    """procrastinate: a job for each alarm, in a worker in the same process."""
    from procrastinate import App, PsycopgConnector

    # Two pools of 16 connections: the jobs' and the library's.
    app = App(connector=PsycopgConnector(conninfo=place.server, min_size=4, max_size=16))
    async with _changes(place) as change, app.open_async():
        handler = _Handler(change)
        task = app.task(name="ring")(handler.ring)

        async def schedule(keys: Sequence[str], due_at: datetime) -> None:
            later = task.configure(schedule_at=due_at)
            await later.batch_defer_async(*[{"key": key} for key in keys])

        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(
            app.run_worker_async(
                concurrency=CALLERS,
                # 5 by default, which a scheduled job may be late by.
                fetch_job_polling_interval=_POLLING_INTERVAL,
                install_signal_handlers=False,
            )
        )
        try:
            yield [Alarms(schedule, handler.handled)]
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker


_apscheduler_handler: _Handler


async def apscheduler_job(key: str) -> None:
    """The job of APScheduler, which finds it again by its name."""
    await _apscheduler_handler.ring(key)


@asynccontextmanager
async def apscheduler(place: Place) -> AsyncIterator[Parts]:
    """APScheduler: a job with a date for each alarm, kept by the SQLAlchemy job store.

    On SQLite jobs are in one file, counters in another.
    """
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    global _apscheduler_handler
    async with _changes(place) as change:
        _apscheduler_handler = _Handler(change)
        scheduler = AsyncIOScheduler(
            jobstores={"default": SQLAlchemyJobStore(_sqlalchemy_url(place, "jobs.db"))},
            # The default drops jobs that are more than a second late.
            job_defaults={"misfire_grace_time": None},
            timezone=UTC,
        )

        async def schedule(keys: Sequence[str], due_at: datetime) -> None:
            for key in keys:
                scheduler.add_job(apscheduler_job, "date", run_date=due_at, args=[key])

        scheduler.start()
        try:
            yield [Alarms(schedule, _apscheduler_handler.handled, lead=15.0)]
        finally:
            scheduler.shutdown()


@asynccontextmanager
async def dbos(place: Place) -> AsyncIterator[Parts]:
    """DBOS: a workflow with one transaction for each increment and each alarm."""
    from dbos import DBOS

    # On SQLite, one file for all of it, and few at a time: more wait for each other at its lock.
    url = _sqlalchemy_url(place, "dbos.db")
    parts = await asyncio.to_thread(_launched_dbos, url, CALLERS if place.server else 4)
    try:
        yield parts
    finally:
        await asyncio.to_thread(DBOS.destroy)


def _launched_dbos(url: str, concurrency: int) -> Parts:
    import sqlalchemy
    from dbos import DBOS, SetEnqueueOptions, SQLAlchemyDatasource

    DBOS(config={"name": "compare", "system_database_url": url, "log_level": "ERROR"})
    # The counters are in the same database as the record of the workflows.
    source = SQLAlchemyDatasource.create(url)
    engine = source.engine
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(TABLE))
    upsert, select, row = (
        sqlalchemy.text(statement.format(id=":id")) for statement in (UPSERT, SELECT, ROW)
    )
    rung = 0

    @source.transaction
    def add(key: str) -> int:
        return int(source.sql_session().execute(upsert, {"id": key}).scalar_one())

    @DBOS.workflow()
    def increment(key: str) -> int:
        return add(key)

    @DBOS.workflow()
    def ring(key: str) -> None:
        nonlocal rung
        add(key)
        rung += 1

    def fill(keys: Sequence[str]) -> None:
        with engine.begin() as connection:
            connection.execute(row, [{"id": key} for key in keys])

    def value(key: str) -> Step:
        def step() -> int:
            with engine.connect() as connection:
                return int(connection.execute(select, {"id": key}).scalar_one())

        return step

    async def schedule(keys: Sequence[str], due_at: datetime) -> None:
        def enqueue(key: str) -> None:
            with SetEnqueueOptions(delay_seconds=due_at.timestamp() - time.time()):
                DBOS.enqueue_workflow("alarms", ring, key)

        def enqueue_all() -> None:
            with ThreadPoolExecutor(CALLERS) as threads:
                list(threads.map(enqueue, keys))

        await asyncio.to_thread(enqueue_all)

    async def handled() -> int:
        return rung

    DBOS.launch()
    # 1 by default, which a delayed workflow may be late by.
    DBOS.register_queue(
        "alarms", worker_concurrency=concurrency, polling_interval_sec=_POLLING_INTERVAL
    )
    return [
        Counters(lambda key: lambda: increment(key), value, fill, blocking=True),
        Alarms(schedule, handled, lead=12.0),
    ]
