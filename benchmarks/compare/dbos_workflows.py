"""DBOS: a workflow with one transaction for each increment and each alarm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime

import sqlalchemy
from dbos import DBOS, SetEnqueueOptions, SQLAlchemyDatasource

from .contender import CALLERS, POLLING_INTERVAL, Alarms, Counters, Parts, Place, Step
from .rows import ROW, SELECT, TABLE, UPSERT, sqlalchemy_url

_QUEUE = "alarms"


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Parts]:
    # On SQLite, one file for all of it, and few at a time: more wait for each other at its lock.
    url = sqlalchemy_url(place, "dbos.db")
    parts = await asyncio.to_thread(_launched, url, CALLERS if place.server else 4)
    try:
        yield parts
    finally:
        await asyncio.to_thread(DBOS.destroy)


def _launched(url: str, concurrency: int) -> Parts:
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
                DBOS.enqueue_workflow(_QUEUE, ring, key)

        def enqueue_all() -> None:
            with ThreadPoolExecutor(CALLERS) as threads:
                list(threads.map(enqueue, keys))

        await asyncio.to_thread(enqueue_all)

    async def handled() -> int:
        return rung

    DBOS.launch()
    # 1 by default, which a delayed workflow may be late by.
    DBOS.register_queue(
        _QUEUE, worker_concurrency=concurrency, polling_interval_sec=POLLING_INTERVAL
    )
    return [
        Counters(lambda key: lambda: increment(key), value, fill, blocking=True),
        Alarms(schedule, handled, lead=12.0),
    ]
