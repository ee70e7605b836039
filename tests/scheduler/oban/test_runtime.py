"""Runtimes whose alarms are jobs of Oban, with a real server and the real package."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from support.job_storage import schema_of
from support.oban_tables import install_tables
from support.postgres import url_of

from trio_durable import DurableObject, DurableRuntime, Retry, alarm, handler
from trio_durable.scheduler.oban import ObanScheduler
from trio_durable.testing import fire_alarm

pytest.importorskip("oban")

Admin = psycopg.Connection[tuple[object, ...]]


class Bell(DurableObject):
    rings: int = 0
    failing: bool = False

    @handler
    def ring_after(self, seconds: float) -> None:
        self.ctx.schedule_alarm("ring", after=seconds, payload={"n": 1})

    @handler
    def fail(self, *, yes: bool) -> None:
        self.failing = yes

    @handler(readonly=True)
    def count(self) -> int:
        return self.rings

    @alarm(retry=Retry(initial=0.05, maximum=0.05, attempts=2))
    def ring(self) -> None:
        if self.failing:
            raise ValueError("on purpose")
        self.rings += 1


@pytest.fixture
def runtime(postgres: str) -> DurableRuntime:
    install_tables(postgres)
    scheduler = ObanScheduler("durable", prefix=schema_of(postgres))
    return DurableRuntime(url_of(postgres), objects=[Bell], scheduler=scheduler)


async def rings(bell: Bell, count: int) -> None:
    async with asyncio.timeout(10):
        while await bell.count() < count:
            await asyncio.sleep(0.01)


def test_alarms_ring_fail_and_are_revived_and_fired(runtime: DurableRuntime, postgres: str) -> None:
    async def main() -> None:
        async with runtime:
            bell = runtime.get(Bell, "a")
            await bell.ring_after(0)
            await rings(bell, 1)
            await bell.ring_after(0.3)
            await rings(bell, 2)
            await bell.fail(yes=True)
            await bell.ring_after(0)
            async with asyncio.timeout(10):
                while not await runtime.list_dead_letters(Bell):
                    await asyncio.sleep(0.01)
            await bell.fail(yes=False)
            assert await runtime.retry_alarm(Bell, "a", "ring")
            await rings(bell, 3)
            await bell.ring_after(1000)
            await fire_alarm(runtime, Bell, "a", "ring")
            assert await bell.count() == 4
            assert runtime.statistics().alarms_delivered == 4

    asyncio.run(main())
    query = b"SELECT state::text, attempt, max_attempts, meta FROM oban_jobs ORDER BY id"
    with psycopg.connect(postgres) as admin:
        once: tuple[object, ...] = ("completed", 1, 12, {})
        thrice = ("completed", 3, 14, {"last_error": "ValueError: on purpose"})
        assert admin.execute(query).fetchall() == [once, once, thrice, once]
        assert admin.execute(b"SELECT * FROM oban_producers").fetchall() == []
        assert admin.execute(b"SELECT * FROM durable_oban_producers").fetchall() == []
