"""A queue of Oban passes the suite for schedulers, with a real server and the real package."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import attrs
import pytest
from anyio import to_thread
from support.job_storage import schema_of
from support.oban_tables import install_tables

from trio_durable import ObjectKey
from trio_durable._eventloop.loop import Loop
from trio_durable._eventloop.runner import Job, Runner
from trio_durable.scheduler import Scheduler
from trio_durable.scheduler._oban.making import attempts_of, make_scheduler
from trio_durable.scheduler.oban import ObanScheduler
from trio_durable.storage import Commit, Storage
from trio_durable.storage.postgres import MAX_ATTEMPTS, Jobs, PostgresStorage
from trio_durable.testing.scheduler_conformance import SchedulerConformance, SchedulerParts
from trio_durable.testing.scheduler_conformance._bench import TYPE, Bench

from .virtual_time import ServerClock, VirtualLoop, install_clock, tell_listeners_apart

if sys.version_info < (3, 12):
    pytest.skip("Oban needs Python 3.12", allow_module_level=True)
pytest.importorskip("oban")


OTHER_CLOCK = pytest.mark.skip(reason="the clock that decides is the server's")


class OneThread(Runner):
    """Runs the jobs of all nodes in a thread, one after the other, each after its latency.

    Args:
        loop: The event loop.
        start: Starts a task.
        latency: The seconds that the next job takes.
    """

    limiters: dict[object, anyio.CapacityLimiter]

    def __init__(
        self,
        loop: Loop,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
        latency: Callable[[], float],
    ) -> None:
        super().__init__(loop, "test")
        self._start = start
        self._latency = latency
        self._jobs: deque[Job] = deque()
        self._runs = False

    def post(self, job: Job) -> None:
        self._jobs.append(job)
        if not self._runs:
            self._runs = True
            self._start(self._run_jobs)

    async def _run_jobs(self) -> None:
        limiter = self.limiters.setdefault(self._loop.token, anyio.CapacityLimiter(1))
        while self._jobs:
            await anyio.sleep(self._latency())
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.jobs += 1
            try:
                await to_thread.run_sync(self._jobs.popleft(), limiter=limiter)
            finally:
                loop.jobs -= 1
        self._runs = False

    def stop(self) -> None:
        """Nothing to stop."""


class TestObanScheduler(SchedulerConformance):
    polling_interval = 6.0
    claim_ttl = 12.0
    lateness = 0.4
    unhandled_pause = 5.0

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {"loop_factory": VirtualLoop}

    @pytest.fixture(autouse=True)
    def one_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        OneThread.limiters = {}
        tell_listeners_apart(monkeypatch)
        suite, delivery = "trio_durable.testing.scheduler_conformance", "trio_durable.scheduler"
        monkeypatch.setattr(f"{suite}._bench.SlowRunner", OneThread)
        monkeypatch.setattr(f"{suite}._crashes.LONG", 16.0)
        monkeypatch.setattr(f"{delivery}._delivery.suspects.PROBATION_SECONDS", 8.0)
        monkeypatch.setattr(f"{delivery}._oban.instance.STAGER_SECONDS", 0.2)
        pause = f"{delivery}._delivery.deliverer.UNHANDLED_SECONDS"
        monkeypatch.setattr(pause, self.unhandled_pause)

    @pytest.fixture
    def storage(self, postgres: str, request: pytest.FixtureRequest) -> Iterator[Storage]:
        schema = schema_of(postgres)
        install_clock(postgres, schema)
        self.clock: ServerClock | None = None
        self.may_bounce = "unknown_types" in request.node.name
        self.conninfo = postgres.replace(schema, f"{schema},pg_catalog")
        install_tables(self.conninfo)
        self.schema, self.nodes = schema, 0
        self.settings = ObanScheduler("durable", prefix=schema)
        self.storage_ = PostgresStorage(self.conninfo)
        self.destinations: list[Any] = []
        self.storage_.keep_alarms_as_jobs(Jobs(schema, "durable", self.attempts))
        if "tenant" in request.node.name:  # to make one takes longer than the test's first alarm
            writer = PostgresStorage(self.conninfo).open_writer()
            keys = [ObjectKey("Other", "a", tenant) for tenant in ("t", "u")]
            writer.commit([Commit(key, 0, b"{}") for key in keys], 0)
            writer.close()
        yield self.storage_
        if self.clock is not None:
            self.clock.close()

    @OTHER_CLOCK
    async def test_an_alarm_is_due_when_the_clock_is_set_forward(self, bench: Bench) -> None:
        """Not so."""

    @OTHER_CLOCK
    async def test_an_alarm_is_not_due_when_the_clock_is_set_back(self, bench: Bench) -> None:
        """Not so."""

    def attempts(self, key: Any) -> int:
        if not self.destinations:
            return MAX_ATTEMPTS
        return attempts_of(self.destinations[-1].retry_of(key))

    def make_scheduler(self, parts: SchedulerParts) -> Scheduler:
        if self.clock is None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            start = parts.clock.now() - round(loop.time() * 1e6)
            self.clock = ServerClock(self.conninfo, self.schema, loop, start)
        self.nodes += 1
        self.destinations.append(parts.destination)
        assert isinstance(parts.storage, PostgresStorage)
        settings = self.settings
        if parts.destination.obstacle(TYPE) is not None and not self.may_bounce:
            # As applications should have it. Which process fetches a job of one queue is chance.
            settings = attrs.evolve(settings, queue="other")
        return make_scheduler(
            settings,
            parts.storage,
            f"node-{self.nodes}",
            parts.loop,
            parts.clock,
            parts.group_commit,
            parts.runner,
            parts.reader,
            parts.destination,
            polling_interval=self.polling_interval,
            claim_ttl=self.claim_ttl,
        )
