"""Alarms as jobs of Oban, beside bare jobs and beside the wheel, in one run.

    .venv-python3.12/bin/python -m benchmarks.postgres.oban postgresql:///scratch [JOBS] [ROUNDS]

In an empty database. Each round makes all of these, so that a busy machine is the same for them:

- *bare jobs*: ``JOBS`` jobs that are due at once, whose worker upserts one row, as a job does that
  keeps its own state. At a limit of 50 and of 1,000.
- *alarms*: as many alarms of as many objects that are due at once, whose handler changes a number,
  at the same limits, and by the wheel.
- *lateness*: 100 single alarms, from when each was due to when its handler began; beside bare jobs
  with Oban's stager as it is by default.

The medians of the rounds are printed, and the ratio of the rates within each round. Needs Python
3.12 and the extra ``oban``.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Any

import psycopg

from trio_durable import DurableObject, DurableRuntime, ObanScheduler, alarm
from trio_durable.storage.postgres import PostgresStorage

SINGLE = 100
LIMITS = (50, 1000)
_CLEAN = """
DROP TABLE IF EXISTS bench_rows; CREATE TABLE bench_rows (id text PRIMARY KEY, n bigint NOT NULL);
TRUNCATE oban_jobs
"""
_UPSERT = """
INSERT INTO bench_rows VALUES (%s, 1) ON CONFLICT (id) DO UPDATE SET n = bench_rows.n + 1
"""
_DUE = """
INSERT INTO oban_jobs (queue, worker, args)
SELECT 'bare', %s, jsonb_build_object('id', n::text) FROM generate_series(1, %s) AS n
"""

late: list[float] = []
done = 0
expected = 0
all_done: asyncio.Event


def count(due_at: float | None = None) -> None:
    """Count one more that was handled."""
    global done
    done += 1
    if due_at is not None:
        late.append(time.time() - due_at)
    if done == expected:
        all_done.set()


def expect(jobs: int) -> None:
    """Begin to count."""
    global done, expected, all_done
    done, expected, all_done = 0, jobs, asyncio.Event()
    late.clear()


class Tally(DurableObject, name="BenchTally"):
    """An object whose alarm changes a number."""

    n: int = 0

    @alarm
    def ring(self) -> None:
        """Count."""
        self.n += 1
        current = self.ctx.alarm
        count(None if current is None else current.due_at.timestamp())


class BareJob:
    """A worker that upserts a row."""

    pool: Any = None

    async def process(self, job: Any) -> None:
        """Upsert one row, in a transaction of its own."""
        async with self.pool.connection() as connection:
            await connection.execute(_UPSERT, (job.args["id"],))
        count(job.scheduled_at.timestamp())


def clean(conninfo: str) -> None:
    """Remove all jobs, objects and alarms."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(import_module("oban.schema").install_sql().encode())
        connection.execute(_CLEAN.encode())
        connection.execute(b"DROP TABLE IF EXISTS durable_oban_producers, durable_oban")
        for table in (b"durable_objects", b"durable_alarms"):
            connection.execute(
                b"DO $$ BEGIN TRUNCATE " + table + b"; EXCEPTION WHEN OTHERS THEN NULL; END $$"
            )


async def bare(conninfo: str, jobs: int, limit: int) -> float:
    """The rate of bare jobs."""
    oban = import_module("oban")
    clean(conninfo)
    oban.worker(queue="bare")(BareJob)
    pool = BareJob.pool = await oban.Oban.create_pool(conninfo, max_size=min(limit, 50))
    path = f"{BareJob.__module__}.{BareJob.__qualname__}"
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(_DUE.encode(), (path, jobs))
        expect(jobs)
        began = time.perf_counter()
        async with oban.Oban(pool=pool, queues={"bare": limit}):
            await all_done.wait()
            return jobs / (time.perf_counter() - began)
    finally:
        await pool.close()


async def bare_lateness(conninfo: str) -> list[float]:
    """How late single bare jobs are, in seconds."""
    oban = import_module("oban")
    clean(conninfo)
    oban.worker(queue="bare")(BareJob)
    pool = BareJob.pool = await oban.Oban.create_pool(conninfo)
    try:
        async with oban.Oban(pool=pool, queues={"bare": 50}):
            expect(SINGLE)
            for n in range(SINGLE):
                after = random.uniform(0.5, 5.5)
                job = BareJob.new({"id": str(n)}, scheduled_in=after)  # type: ignore[attr-defined]
                await oban.Oban.get_instance().enqueue(job)
            await all_done.wait()
            return list(late)
    finally:
        await pool.close()


def runtime(conninfo: str, limit: int | None) -> DurableRuntime:
    """A runtime with a queue of Oban, or with the wheel."""
    scheduler = None if limit is None else ObanScheduler("alarms", limit=limit)
    return DurableRuntime(conninfo, objects=[Tally], scheduler=scheduler)


async def alarms(conninfo: str, jobs: int, limit: int | None) -> float:
    """The rate of alarms; by the wheel without a limit."""
    clean(conninfo)
    # Set while no scheduler of the kind runs, so that all are due as it begins.
    async with runtime(conninfo, None) as setter:
        for first in range(0, jobs, 1000):
            async with asyncio.TaskGroup() as tasks:
                for n in range(first, min(first + 1000, jobs)):
                    tasks.create_task(setter.schedule_alarm(Tally, str(n), "ring", after=3600))
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(b"UPDATE durable_alarms SET due_at = 1, available_at = 1")
    if limit is not None:
        from trio_durable.storage.postgres import Jobs

        PostgresStorage(conninfo).move_alarms(Jobs("public", "alarms"))
    expect(jobs)
    began = time.perf_counter()
    async with runtime(conninfo, limit) as it:
        await all_done.wait()
        while it.statistics().alarms_delivered < jobs:  # until their commits are durable
            await asyncio.sleep(0.002)
        return jobs / (time.perf_counter() - began)


async def lateness(conninfo: str, limit: int | None) -> list[float]:
    """How late single alarms are, in seconds."""
    clean(conninfo)
    async with runtime(conninfo, limit) as it:
        expect(SINGLE)
        for n in range(SINGLE):
            after = random.uniform(0.5, 5.5)
            await it.schedule_alarm(Tally, str(n), "ring", after=after)
        await all_done.wait()
        return list(late)


def run(work: Awaitable[Any]) -> Any:
    """Run a part of a round in an event loop of its own."""

    async def main() -> Any:
        return await work

    return asyncio.run(main())


def main(conninfo: str, jobs: int = 10_000, rounds: int = 5) -> None:
    """Run all rounds, and print the figures."""
    parts: dict[str, Callable[[], Awaitable[float]]] = {}
    for limit in LIMITS:
        parts[f"bare jobs, limit {limit}"] = partial(bare, conninfo, jobs, limit)
        parts[f"alarms, limit {limit}"] = partial(alarms, conninfo, jobs, limit)
    parts["alarms, wheel"] = partial(alarms, conninfo, jobs, None)
    rates: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, work in parts.items():
            rates[name].append(run(work()))
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):,.0f}/s")
    for limit in LIMITS:
        pairs = zip(
            rates[f"alarms, limit {limit}"], rates[f"bare jobs, limit {limit}"], strict=True
        )
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        print(f"alarms to bare jobs, limit {limit}: {ratio:.2f}")
    for name, found in (
        ("alarms, Oban", run(lateness(conninfo, 50))),
        ("alarms, wheel", run(lateness(conninfo, None))),
        ("bare jobs", run(bare_lateness(conninfo))),
    ):
        p50, p99 = statistics.median(found), statistics.quantiles(found, n=100)[98]
        print(f"lateness of {name}: p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
