"""Faults in the life of a job, with real processes, a real server and the real package."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.job_storage import schema_of
from support.oban_tables import install_tables
from support.postgres import url_of

from trio_durable import DurableObject, DurableRuntime, ObanScheduler, Retry, alarm, handler

from .dying_child import POINTS, Fragile, runtime

oban = pytest.importorskip("oban")

_CHILD = Path(__file__).with_name("dying_child.py")


@contextmanager
def child(postgres: str, point: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that dies at a point, or is killed at the end of the block."""
    command = [sys.executable, str(_CHILD), url_of(postgres), schema_of(postgres), point]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def jobs(postgres: str) -> list[tuple[object, ...]]:
    """The state and the counted failures of each job."""
    with psycopg.connect(postgres) as admin:
        query = b"SELECT state::text, meta->>'failures' FROM oban_jobs ORDER BY id"
        return admin.execute(query).fetchall()


@pytest.mark.parametrize(("point", "rings"), POINTS.items())
def test_a_process_that_dies_leaves_a_job_that_has_its_effect_once(
    postgres: str, point: str, rings: int
) -> None:
    install_tables(postgres)
    with child(postgres, point) as process:
        assert process.wait(timeout=30) == -signal.SIGKILL

    async def main() -> None:
        async with runtime(url_of(postgres), schema_of(postgres)) as it:
            fragile = it.get(Fragile, "a")
            async with asyncio.timeout(20):
                while any(state != "completed" for state, _ in jobs(postgres)):
                    await asyncio.sleep(0.02)
            assert await fragile.count() == rings

    asyncio.run(main())
    assert jobs(postgres) == [("completed", None)] * rings


def test_a_job_whose_owner_is_lost_is_put_back_and_isn_t_counted(postgres: str) -> None:
    install_tables(postgres)

    async def main() -> None:
        async with runtime(url_of(postgres), schema_of(postgres)) as it:
            with child(postgres, "owner") as process:
                await read(process, b"owns\n")
                nodes = {str(n): await it.locate(Fragile, str(n)) for n in range(100)}
                theirs = next(n for n, node in nodes.items() if node.node_id != it.node_id)
                fragile = it.get(Fragile, theirs)
                await fragile.set()
                await read(process, b"began\n")
                assert jobs(postgres) == [("executing", None)]
            async with asyncio.timeout(20):
                while await fragile.count() == 0:
                    await asyncio.sleep(0.02)
            assert await fragile.count() == 1

    asyncio.run(main())
    assert jobs(postgres) == [("completed", None)]


async def read(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == line


class Gate(DurableObject):
    """Its alarm waits in the mailbox while it is called, and fails or not."""

    rings: int = 0

    @handler
    async def hold(self) -> None:
        events["holds"].set()
        await events["release"].wait()

    @handler(readonly=True)
    def count(self) -> int:
        return self.rings

    @alarm
    async def ring(self) -> None:
        events["began"].set()
        await events["end"].wait()
        self.rings += 1

    @alarm(retry=Retry(initial=0.2))
    async def fail(self) -> None:
        events["began"].set()
        await events["end"].wait()
        raise ValueError("on purpose")


events: dict[str, asyncio.Event] = {}


@asynccontextmanager
async def opened(postgres: str) -> AsyncIterator[tuple[Any, DurableRuntime]]:
    """An instance of Oban, and a runtime that has its queue there."""
    events.update({name: asyncio.Event() for name in ("holds", "release", "began", "end")})
    schema = schema_of(postgres)
    pool = await oban.Oban.create_pool(postgres)
    async with oban.Oban(pool=pool, prefix=schema) as instance:
        scheduler = ObanScheduler("durable", instance, prefix=schema)
        async with DurableRuntime(url_of(postgres), objects=[Gate], scheduler=scheduler) as it:
            yield instance, it
    await pool.close()


async def cancel(instance: Any, job_id: int) -> None:
    """Cancel a job that runs, so that its run knows.

    In Oban 0.7.0 the run isn't notified: the handler of the instance takes the action out of the
    message, which it shares with the one of the queue. So the queue's is called here.
    """
    await instance.cancel_job(job_id)
    producer = instance._producers["durable"]
    ((job, _),) = producer._running_jobs.values()
    if not job.cancelled():
        await producer._on_signal("signal", {"action": "pkill", "job_id": job_id})
    assert job.cancelled()


async def until_state(postgres: str, state: str) -> int:
    """Wait until the only job has a state; return its number."""
    query = b"SELECT id FROM oban_jobs WHERE state::text = %s"
    with psycopg.connect(postgres, autocommit=True) as admin:
        async with asyncio.timeout(20):
            while (row := admin.execute(query, [state]).fetchone()) is None:
                await asyncio.sleep(0.01)
    assert isinstance(row[0], int)
    return row[0]


@pytest.mark.parametrize("name", ["ring", "fail"])
def test_a_job_that_is_cancelled_before_its_turn_has_no_turn(postgres: str, name: str) -> None:
    install_tables(postgres)

    async def main() -> None:
        async with opened(postgres) as (instance, it), asyncio.TaskGroup() as tasks:
            gate = it.get(Gate, "a")
            tasks.create_task(gate.hold())
            await events["holds"].wait()
            await it.schedule_alarm(Gate, "a", name, after=0)
            await cancel(instance, await until_state(postgres, "executing"))
            events["release"].set()
            await until_state(postgres, "cancelled")
            assert await gate.count() == 0
            assert not events["began"].is_set()
            assert await it.list_alarms(Gate, "a") == []

    asyncio.run(main())


@pytest.mark.parametrize("name", ["ring", "fail"])
def test_a_job_that_is_cancelled_in_its_turn_has_no_effect_and_no_retry(
    postgres: str, name: str
) -> None:
    install_tables(postgres)

    async def main() -> None:
        async with opened(postgres) as (instance, it):
            await it.schedule_alarm(Gate, "a", name, after=0)
            await events["began"].wait()
            await cancel(instance, await until_state(postgres, "executing"))
            events["end"].set()
            await until_state(postgres, "cancelled")
            assert await it.get(Gate, "a").count() == 0
            assert await it.list_alarms(Gate, "a") == []

    asyncio.run(main())
