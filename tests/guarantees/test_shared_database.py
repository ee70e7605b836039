"""Runtimes on one PostgreSQL database, and faults of its server.

Two runtimes beside each other are nodes of a group, which a user can't make: what the rows
themselves refuse must hold without the lease of a single owner, too.

Virtual time needs all work in the event loop's thread: tests in which time matters use the inline
runner, and tests that stop a server use threads.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from crash.child import run_child
from crash.test_kills import CHILD, Heard, Row, check
from support.clock import settle
from support.postgres import Server, url_of
from support.proxy import Proxy, proxied

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    OwnerLost,
    PersistenceError,
    Retry,
    StaleObject,
    alarm,
    handler,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings

RIVAL = Path(__file__).parents[1] / "support" / "rival_child.py"


class Counter(DurableObject, hibernate_after=10):
    count: int = 0
    rings: int = 0

    @handler
    def increment(self) -> int:
        self.count += 1
        return self.count

    @handler(readonly=True)
    def read(self) -> int:
        return self.count

    @handler
    def delete(self) -> None:
        self.ctx.delete()

    @handler
    def set_ring(self, after: float) -> None:
        self.ctx.schedule_alarm("ring", after=after)

    @alarm(retry=Retry(initial=1))
    def ring(self) -> None:
        rung.append(self.ctx.object_id)
        self.rings += 1

    @handler(readonly=True)
    def heard(self) -> int:
        return self.rings


rung: list[str] = []


@pytest.fixture(autouse=True)
def quiet() -> None:
    rung.clear()


def beside(conninfo: str) -> PostgresStorage:
    """A storage whose runtime is a node beside others."""
    storage = PostgresStorage(conninfo)
    storage._node = NodeSettings(group="default")
    return storage


@asynccontextmanager
async def inline(conninfo: str, **options: Any) -> AsyncIterator[DurableRuntime]:
    async with DurableRuntime(
        beside(conninfo), objects=[Counter], runner=InlineRunner, **options
    ) as runtime:
        yield runtime


@asynccontextmanager
async def two_runtimes(conninfo: str) -> AsyncIterator[tuple[DurableRuntime, DurableRuntime]]:
    async with inline(conninfo) as one, inline(conninfo) as other:
        yield one, other


# --- two runtimes --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_one_runtime_stores_the_other_loads(postgres: str) -> None:
    async with two_runtimes(postgres) as (one, other):
        assert await one.get(Counter, "a").increment() == 1
        assert await other.get(Counter, "a").increment() == 2
        assert await one.list_objects(Counter) == ["a"]


@pytest.mark.anyio
async def test_the_stale_one_is_told_so_and_goes_on_with_what_is_stored(postgres: str) -> None:
    async with two_runtimes(postgres) as (one, other):
        assert await one.get(Counter, "a").increment() == 1
        assert await other.get(Counter, "a").increment() == 2
        with pytest.raises(StaleObject) as caught:
            await one.get(Counter, "a").increment()
        assert caught.value.revision == 1
        assert await one.get(Counter, "a").increment() == 3
        with pytest.raises(StaleObject):
            await other.get(Counter, "a").increment()
        assert await other.get(Counter, "a").read() == 3


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["handler", "outside"])
async def test_an_object_that_the_other_runtime_replaced_is_not_overwritten(
    postgres: str, how: str
) -> None:
    """The new one has the revision that the stale one knows; what differs is the epoch."""
    async with two_runtimes(postgres) as (one, other):
        stale, fresh = one.get(Counter, "a"), other.get(Counter, "a")
        assert await stale.increment() == 1
        assert await fresh.read() == 1
        if how == "handler":
            await fresh.delete()
        else:
            await other.delete(Counter, "a")
        assert await fresh.increment() == 1
        assert one.whereis(Counter, "a").revision == 1  # type: ignore[union-attr]
        assert other.whereis(Counter, "a").revision == 1  # type: ignore[union-attr]
        with pytest.raises(StaleObject):
            await stale.increment()
        assert await fresh.increment() == 2
        assert await stale.increment() == 3


@pytest.mark.anyio
async def test_a_deletion_of_what_the_other_runtime_replaced_is_refused(postgres: str) -> None:
    async with two_runtimes(postgres) as (one, other):
        await one.get(Counter, "a").increment()
        await other.delete(Counter, "a")
        await other.get(Counter, "a").increment()
        with pytest.raises(StaleObject):
            await one.get(Counter, "a").delete()
        assert await other.get(Counter, "a").increment() == 2


@pytest.mark.anyio
async def test_an_object_keeps_its_epoch_over_hibernation_reload_and_tenants(
    postgres: str,
) -> None:
    async with inline(postgres) as runtime:
        for home in (runtime, runtime.tenant("acme")):
            for expected in range(1, 4):
                assert await home.get(Counter, "a").increment() == expected
                await home.stop(Counter, "a")
            await home.delete(Counter, "a")
            assert await home.get(Counter, "a").increment() == 1
            assert await home.get(Counter, "a").increment() == 2


@pytest.mark.anyio
async def test_alarms_fire_once_between_two_runtimes(postgres: str) -> None:
    ids = [f"{n:02}" for n in range(40)]
    async with two_runtimes(postgres) as (one, other):
        for n, object_id in enumerate(ids):
            await (one if n % 2 else other).get(Counter, object_id).set_ring(60)
        # Both know of all of them: what the other has set is found when they look in the table.
        await anyio.sleep(120)
        await settle()
    assert sorted(rung) == ids


@pytest.mark.anyio
async def test_the_alarms_of_a_runtime_that_is_gone_fire_in_the_other(postgres: str) -> None:
    async with inline(postgres) as one:
        async with inline(postgres) as other:
            await other.get(Counter, "a").set_ring(60)
        await anyio.sleep(120)
        assert rung == ["a"]
        assert await one.get(Counter, "a").heard() == 1


@pytest.mark.anyio
async def test_the_claims_of_a_runtime_that_died_run_out(postgres: str) -> None:
    storage = beside(postgres)
    async with inline(postgres, claim_ttl=60) as runtime:
        await runtime.get(Counter, "a").set_ring(60)
        await runtime.stop(Counter, "a")
        with closing(storage.open_writer()) as dead, closing(storage.open_reader()) as reader:
            (due,) = reader.due_alarms(2**62, None, 9, ())
            assert dead.claim([due.key], 4711, due.available_at, due.available_at + 50_000_000)
        await anyio.sleep(100)
        assert rung == []
        await anyio.sleep(60)
        assert rung == ["a"]


# --- several processes ---------------------------------------------------------------------------


def test_processes_that_share_objects_lose_nothing_and_double_nothing(postgres: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, str(RIVAL), url_of(postgres), name, "15"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    told = {}
    for name, child in zip(("one", "two"), children, strict=True):
        said, errors = child.communicate()
        assert child.returncode == 0, errors
        told[name] = int(said)
    with psycopg.connect(postgres) as connection:
        rows = connection.execute("SELECT revision, state FROM durable_objects").fetchall()
        (left,) = connection.execute("SELECT count(*) FROM durable_alarms").fetchone() or (0,)
    states = [json.loads(state) for _, state in rows]
    by: Tally[str] = Tally()
    for state in states:
        by.update(state["by"])
    assert by == told
    assert sum(state["count"] for state in states) == sum(told.values())
    # Each alarm that fired was set by a call since the one before, and counted once.
    assert all(state["rings"] <= state["count"] for state in states)
    assert left <= len(states)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_killed_again_and_again(postgres: str, backend: str) -> None:
    rng = random.Random(backend)
    heard = Heard()
    rows: dict[str, Row] = {}
    for run in range(3):
        run_child(rng.choice([20, 100, 400]), heard.line, CHILD, url_of(postgres), backend, run)
        found = stored(postgres)
        check(rows, found, heard)
        rows = found
    assert len(heard.acknowledged) > 20


def stored(conninfo: str) -> dict[str, Row]:
    """What another program sees, once nothing of the killed process is under way any more."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        others = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'trio_durable%'"
        )
        connection.execute(others)
        rows = connection.execute("SELECT object_id, revision, state FROM durable_objects")
        return {object_id: row_of(revision, state) for object_id, revision, state in rows}


def row_of(revision: int, state: bytes) -> Row:
    fields = json.loads(state)
    assert fields.pop("$as") == {}
    return Row(revision, **fields)


# --- faults under a runtime ----------------------------------------------------------------------


@pytest.fixture
def proxy(fresh_server: Server) -> Iterator[Proxy]:
    with proxied(fresh_server.socket) as proxy:
        yield proxy


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_commit_with_an_unknown_outcome_drops_the_object(
    proxy: Proxy, real_backend: tuple[str, dict[str, Any]], lost: str
) -> None:
    async def main() -> None:
        async with DurableRuntime(proxy.url(), objects=[Counter]) as runtime:
            counter = runtime.get(Counter, "a")
            assert await counter.increment() == 1
            proxy.lose_next(lost, connection=1)  # the writer's
            with pytest.raises(PersistenceError, match="the outcome of the change is unknown"):
                await counter.increment()
            # The next call begins with what is stored, whatever that is.
            applied = lost == "reply"
            assert await counter.read() == 1 + applied
            assert await counter.increment() == 2 + applied

    anyio.run(main, backend=real_backend[0], backend_options=real_backend[1])


def test_servers_that_restart_under_load_lose_nothing_that_was_acknowledged(
    fresh_server: Server, real_backend: tuple[str, dict[str, Any]]
) -> None:
    acknowledged: Tally[str] = Tally()
    unknown: Tally[str] = Tally()

    async def caller(runtime: DurableRuntime, object_id: str, ended: anyio.Event) -> None:
        counter = runtime.get(Counter, object_id, timeout=None)
        while not ended.is_set():
            try:
                await counter.increment()
                acknowledged[object_id] += 1
            except (PersistenceError, OwnerLost):
                unknown[object_id] += 1

    async def main() -> None:
        ended = anyio.Event()
        async with (
            DurableRuntime(PostgresStorage(fresh_server.conninfo()), objects=[Counter]) as runtime,
            anyio.create_task_group() as tasks,
        ):
            for n in range(12):
                tasks.start_soon(caller, runtime, f"{n % 6}", ended)
            for how in ("SIGINT", "SIGQUIT"):
                before = acknowledged.total()
                while acknowledged.total() < before + 200:
                    await anyio.sleep(0.005)
                await anyio.to_thread.run_sync(restart, fresh_server, how)
            before = acknowledged.total()
            while acknowledged.total() < before + 200:
                await anyio.sleep(0.005)
            ended.set()

    anyio.run(main, backend=real_backend[0], backend_options=real_backend[1])
    with psycopg.connect(fresh_server.conninfo()) as connection:
        rows = connection.execute("SELECT object_id, state FROM durable_objects").fetchall()
    assert len(rows) == 6
    for object_id, state in rows:
        count = json.loads(state)["count"]
        low = acknowledged[object_id]
        assert low <= count <= low + unknown[object_id]


def restart(server: Server, how: str) -> None:
    server.stop(signal.Signals[how])
    server.start()
