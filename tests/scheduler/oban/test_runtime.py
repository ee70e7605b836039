"""Runtimes whose alarms are jobs of Oban, with a real server and the real package."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import psycopg
import pytest
import uvloop
from support.job_storage import schema_of
from support.oban_tables import install_tables
from support.postgres import url_of

from trio_durable import Cluster, DurableObject, DurableRuntime, Retry, alarm, handler
from trio_durable.scheduler.oban import ObanScheduler
from trio_durable.testing import drain_alarms, fire_alarm

oban = pytest.importorskip("oban")

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


@pytest.fixture
def acknowledged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The state in each acknowledgement of Oban's own."""
    states: list[str] = []
    query = import_module("oban._query").Query
    inner = query.ack_jobs

    async def recorded(self: Any, acks: list[Any]) -> Any:
        states.extend(ack.state for ack in acks)
        return await inner(self, acks)

    monkeypatch.setattr(query, "ack_jobs", recorded)
    return states


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_alarms_ring_fail_and_are_revived_and_fired(
    runtime: DurableRuntime,
    postgres: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
    acknowledged: list[str],
) -> None:
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

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    # The end of a run that ended well is stored once.
    assert acknowledged == ["retryable", "retryable"]
    query = b"SELECT state::text, attempt, max_attempts, meta FROM oban_jobs ORDER BY id"
    with psycopg.connect(postgres) as admin:
        once: tuple[object, ...] = ("completed", 1, 12, {})
        thrice = ("completed", 3, 14, {"last_error": "ValueError: on purpose"})
        assert admin.execute(query).fetchall() == [once, once, thrice, once]
        assert admin.execute(b"SELECT * FROM oban_producers").fetchall() == []
        assert admin.execute(b"SELECT * FROM durable_oban_producers").fetchall() == []


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


def test_the_application_s_own_instance_runs_the_queue_beside_its_own(postgres: str) -> None:
    """Its leader prunes and rescues, and its own jobs are untouched."""
    install_tables(postgres)
    schema, ran = schema_of(postgres), []

    class AppWorker:
        async def process(self, job: Any) -> None:
            ran.append(job.args["n"])

    oban.worker(queue="app")(AppWorker)

    async def main() -> None:
        pool = await oban.Oban.create_pool(postgres)
        settings = {"lifeline": {"interval": 0.1}, "pruner": {"interval": 0.1}}
        async with oban.Oban(pool=pool, prefix=schema, queues={"app": 2}, **settings) as instance:
            scheduler = ObanScheduler("durable", instance, prefix=schema)
            async with DurableRuntime(url_of(postgres), objects=[Bell], scheduler=scheduler) as it:
                assert instance.is_leader
                for n in range(20):
                    await instance.enqueue(AppWorker.new({"n": n}))  # type: ignore[attr-defined]
                    await it.get(Bell, str(n)).ring_after(0)
                for n in range(20):
                    await rings(it.get(Bell, str(n)), 1)
                dead = it.get(Bell, "dead")
                await dead.fail(yes=True)
                await dead.ring_after(0)
                await until(lambda: has_dead(it))
                await asyncio.sleep(0.3)  # for its leader to prune and to rescue
                assert await has_dead(it)
            assert instance.check_queue("durable") is None
            assert instance.check_queue("app") is not None
        await pool.close()

    asyncio.run(main())
    assert sorted(ran) == list(range(20))
    query = b"SELECT queue, state::text, count(*) FROM oban_jobs GROUP BY 1, 2 ORDER BY 1, 2"
    with psycopg.connect(postgres) as admin:
        assert admin.execute(query).fetchall() == [
            ("app", "completed", 20),
            ("durable", "completed", 20),
            ("durable", "discarded", 1),
        ]


async def has_dead(runtime: DurableRuntime) -> bool:
    return bool(await runtime.list_dead_letters(Bell))


def test_a_job_may_run_in_any_member_of_a_cluster(postgres: str) -> None:
    install_tables(postgres)
    schema = schema_of(postgres)

    def member() -> DurableRuntime:
        scheduler = ObanScheduler("durable", prefix=schema)
        return DurableRuntime(
            url_of(postgres), objects=[Bell], scheduler=scheduler, cluster=Cluster(ttl=2)
        )

    async def main() -> None:
        async with member() as one, member() as other:

            async def is_divided() -> bool:
                return one.statistics().shards > 0 < other.statistics().shards

            await until(is_divided)
            for n in range(60):
                await one.get(Bell, str(n)).ring_after(0)
            for n in range(60):
                await rings(other.get(Bell, str(n)), 1)
            assert one.statistics().alarms_delivered > 0 < other.statistics().alarms_delivered
            bad = one.get(Bell, "bad")
            await bad.fail(yes=True)
            await bad.ring_after(0)
            await until(lambda: has_dead(one))
            assert one.statistics().alarms_failed + other.statistics().alarms_failed == 2

    asyncio.run(main())
    query = b"SELECT state::text, count(*), count(DISTINCT attempted_by[2]) FROM oban_jobs "
    with psycopg.connect(postgres) as admin:
        found = admin.execute(query + b"GROUP BY 1 ORDER BY 1").fetchall()
    assert found == [("completed", 60, 2), ("discarded", 1, 1)]


class Clock(DurableObject):
    """Its alarm recurs."""

    ticks: int = 0

    @handler
    def start(self) -> None:
        self.ctx.schedule_alarm("tick")
        self.ctx.schedule_alarm("twice", after=1000)

    @alarm(every=timedelta(seconds=1), missed="skip")
    def tick(self) -> None:
        self.ticks += 1

    @alarm
    def twice(self) -> None:
        if self.ticks < 100:
            self.ticks = 100
            self.ctx.schedule_alarm("twice", after=1000)

    @handler(readonly=True)
    def count(self) -> int:
        return self.ticks


def test_alarms_recur_and_are_drained_listed_and_cancelled_also_those_of_tenants(
    postgres: str,
) -> None:
    install_tables(postgres)
    scheduler = ObanScheduler("durable", prefix=schema_of(postgres))

    async def main() -> None:
        async with DurableRuntime(url_of(postgres), objects=[Clock], scheduler=scheduler) as it:
            tenant = it.tenant("acme")
            for objects in (it, tenant):
                clock = objects.get(Clock, "a")
                await clock.start()
                names = [each.name for each in await objects.list_alarms(Clock, "a")]
                assert sorted(names) == ["tick", "twice"]
                assert await drain_alarms(objects, Clock, "a") == 2
                async with asyncio.timeout(20):
                    while await clock.count() < 101:
                        await asyncio.sleep(0.05)
            await it.cancel_alarm(Clock, "a", "tick")
            assert await it.list_alarms(Clock, "a") == []
            await it.drop_tenant("acme")
            await it.schedule_alarm(Clock, "a", "twice", after=1000)

    asyncio.run(main())
    query = b"SELECT DISTINCT args->>'tenant' FROM oban_jobs"
    with psycopg.connect(postgres) as admin:
        assert admin.execute(query).fetchall() == [("",)]
    # The command finds out by itself that alarms are jobs.
    listed = ("alarms", "-s", url_of(postgres), "--json")
    assert statuses(command(*listed)) == {"tick": "stopped", "twice": "pending"}
    command("alarms", "cancel", "-s", url_of(postgres), "Clock", "a", "twice")
    assert statuses(command(*listed)) == {"tick": "stopped"}


def statuses(lines: str) -> dict[str, str]:
    """The status of each alarm, by name."""
    return {each["name"]: each["status"] for each in map(json.loads, lines.splitlines())}


def command(*args: str) -> str:
    """The output of the command line."""
    run = subprocess.run(
        [sys.executable, "-m", "trio_durable", *args], check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout
