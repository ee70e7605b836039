"""procrastinate: a job for each alarm, in a worker in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import procrastinate

from .contender import CALLERS, POLLING_INTERVAL, Alarms, Parts, Place
from .rows import changes


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Parts]:
    # Two pools of 16 connections: the jobs' and the library's.
    connector = procrastinate.PsycopgConnector(conninfo=place.server, min_size=4, max_size=16)
    app = procrastinate.App(connector=connector)
    rung = 0
    async with changes(place) as change, app.open_async():

        async def ring(key: str) -> None:
            nonlocal rung
            await change(key)
            rung += 1

        task = app.task(name="ring")(ring)

        async def schedule(keys: Sequence[str], due_at: datetime) -> None:
            later = task.configure(schedule_at=due_at)
            await later.batch_defer_async(*[{"key": key} for key in keys])

        async def handled() -> int:
            return rung

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
            yield [Alarms(schedule, handled)]
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker
