"""procrastinate: a job for each alarm, in a worker in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

import procrastinate
from procrastinate.tasks import Task
from psycopg_pool import AsyncConnectionPool

from benchmarks import postgres_server

from .contender import CALLERS, POLLING_INTERVAL, TABLE, UPSERT, Alarms, Contender

CONNECTIONS = 16
"""In each of two pools: the library's and that of the jobs."""


class _Jobs(Alarms):
    def __init__(self, pool: AsyncConnectionPool) -> None:
        self.task: Task
        self._pool = pool
        self._handled = 0

    async def ring(self, key: str) -> None:
        """What the job does."""
        async with self._pool.connection() as connection:
            await connection.execute(UPSERT.format(id="%s"), (key,))
        self._handled += 1

    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        later = self.task.configure(schedule_at=due_at)
        await later.batch_defer_async(*[{"key": key} for key in keys])

    async def handled(self) -> int:
        return self._handled


class Procrastinate(Contender):
    """With a server of its own."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Jobs]:
        with postgres_server.own(folder) as conninfo:
            async with AsyncExitStack() as stack:
                pool = AsyncConnectionPool(conninfo, min_size=4, max_size=CONNECTIONS, open=False)
                await stack.enter_async_context(pool)
                async with pool.connection() as connection:
                    await connection.execute(TABLE)
                jobs = _Jobs(pool)
                connector = procrastinate.PsycopgConnector(
                    conninfo=conninfo, min_size=4, max_size=CONNECTIONS
                )
                app = procrastinate.App(connector=connector)
                jobs.task = app.task(name="ring")(jobs.ring)
                await stack.enter_async_context(app.open_async())
                await app.schema_manager.apply_schema_async()
                worker = asyncio.create_task(
                    app.run_worker_async(
                        concurrency=CALLERS,
                        # 5 by default, which a scheduled job may be late by.
                        fetch_job_polling_interval=POLLING_INTERVAL,
                        install_signal_handlers=False,
                    )
                )
                try:
                    yield jobs
                finally:
                    worker.cancel()
                    with suppress(asyncio.CancelledError):
                        await worker
