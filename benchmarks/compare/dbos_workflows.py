"""DBOS: a workflow with one transaction for each increment and each alarm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy
from dbos import DBOS, SetEnqueueOptions, SQLAlchemyDatasource

from benchmarks import postgres_server

from .contender import (
    CALLERS,
    POLLING_INTERVAL,
    ROW,
    SELECT,
    TABLE,
    UPSERT,
    Alarms,
    Contender,
    Counters,
    Step,
)

_QUEUE = "alarms"


class _Workflows(Counters, Alarms):
    blocking = True
    lead = 12.0

    def __init__(self, url: str, concurrency: int) -> None:
        DBOS(config={"name": "compare", "system_database_url": url, "log_level": "ERROR"})
        # The counters are in the same database as what the workflows have done.
        source = SQLAlchemyDatasource.create(url)
        with source.engine.begin() as connection:
            connection.execute(sqlalchemy.text(TABLE))
        upsert = sqlalchemy.text(UPSERT.format(id=":id"))

        @source.transaction
        def add(key: str) -> int:
            return int(source.sql_session().execute(upsert, {"id": key}).scalar_one())

        @DBOS.workflow()
        def increment(key: str) -> int:
            return add(key)

        @DBOS.workflow()
        def ring(key: str) -> None:
            add(key)
            self._handled += 1

        self._engine = source.engine
        self._increment, self._ring = increment, ring
        self._select = sqlalchemy.text(SELECT.format(id=":id"))
        self._handled = 0
        DBOS.launch()
        # 1 by default, which a delayed workflow may be late by.
        DBOS.register_queue(
            _QUEUE, worker_concurrency=concurrency, polling_interval_sec=POLLING_INTERVAL
        )

    async def make(self, keys: Sequence[str]) -> int:
        # It keeps none in memory, so there is no need for a workflow to make each.
        with self._engine.begin() as connection:
            row = sqlalchemy.text(ROW.format(id=":id"))
            connection.execute(row, [{"id": key} for key in keys])
        return 0

    def increment(self, key: str) -> Step:
        return lambda: self._increment(key)

    def value(self, key: str) -> Step:
        def step() -> int:
            with self._engine.connect() as connection:
                return int(connection.execute(self._select, {"id": key}).scalar_one())

        return step

    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        def enqueue(key: str) -> None:
            with SetEnqueueOptions(delay_seconds=due_at.timestamp() - time.time()):
                DBOS.enqueue_workflow(_QUEUE, self._ring, key)

        def enqueue_all() -> None:
            with ThreadPoolExecutor(CALLERS) as threads:
                list(threads.map(enqueue, keys))

        await asyncio.to_thread(enqueue_all)

    async def handled(self) -> int:
        return self._handled


class OnSQLite(Contender):
    """One file for all of it, and few at a time: more get in each other's way at its lock."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Workflows]:
        async with _opened(f"sqlite:///{folder / 'dbos.db'}", 4) as workflows:
            yield workflows


class OnPostgres(Contender):
    """With a server of its own."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Workflows]:
        with postgres_server.own(folder) as conninfo:
            url = conninfo.replace("postgresql://", "postgresql+psycopg://", 1)
            async with _opened(url, CALLERS) as workflows:
                yield workflows


@asynccontextmanager
async def _opened(url: str, concurrency: int) -> AsyncIterator[_Workflows]:
    workflows = await asyncio.to_thread(_Workflows, url, concurrency)
    try:
        yield workflows
    finally:
        await asyncio.to_thread(DBOS.destroy)
