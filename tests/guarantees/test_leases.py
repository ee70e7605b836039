"""Leases: what leaves a runtime that has lost its lease, and how it goes on.

The first part is on a storage in memory whose lease a test ends at any moment, in virtual time.
The last is on real servers.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from support.clock import settle
from support.leases import FakeLease
from support.postgres import Server, running, wait_until

from trio_durable import (
    CallTimeout,
    DurableError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    OwnerLost,
    PersistenceError,
    RuntimeClosed,
    StorageInUse,
    StorageUnavailable,
    alarm,
    current_runtime,
    handler,
)
from trio_durable.storage import ForwardingStorage, ForwardingWriter, Lease, Membership, Writer
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings

Lost = Callable[[Lease, str], object]
ended: list[str] = []
"""What the turns of `Till` that were cancelled have noted."""


class FakeMembership(Membership):
    """Leases that a test ends."""

    def __init__(self) -> None:
        self.current = FakeLease("1")
        self.refusals: list[Exception] = []
        self.joined = 1
        self._lost: Lost | None = None

    @property
    def lease(self) -> Lease:
        return self.current

    def follow(self, post: object, lost: Lost) -> None:
        self._lost = lost

    def rejoin(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.joined += 1
        self.current = FakeLease(str(self.joined))

    def expire(self) -> None:
        """The time of the lease is over, which nothing has noticed yet."""
        self.current.is_over = True

    def lose(self) -> None:
        """The lease is over, and the runtime learns of it."""
        self.expire()
        assert self._lost is not None
        self._lost(self.current, "on purpose")


class _Writer(ForwardingWriter):
    def __init__(self, inner: Writer, membership: Membership) -> None:
        super().__init__(inner)
        self._membership = membership

    @property
    def membership(self) -> Membership:
        return self._membership


class LeasedStorage(ForwardingStorage):
    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.leases = FakeMembership()

    def open_writer(self) -> Writer:
        return _Writer(super().open_writer(), self.leases)


leases: list[FakeMembership] = []
"""Those of the runtime of the test, for its handlers."""


class Till(DurableObject):
    sum: int = 0

    @handler
    def add(self, amount: int) -> int:
        self.sum += amount
        return self.sum

    @handler(readonly=True)
    def read(self) -> int:
        return self.sum

    @handler(readonly=True)
    def read_late(self) -> int:
        leases[0].expire()
        return self.sum

    @handler
    def add_late(self, amount: int) -> int:
        leases[0].expire()
        self.sum += amount
        return self.sum

    @handler
    def same_late(self) -> int:
        leases[0].expire()
        return self.sum

    @handler(readonly=True)
    def raise_late(self) -> None:
        leases[0].expire()
        raise ValueError(self.sum)

    @handler
    async def read_slowly(self) -> int:
        leases[0].expire()
        await anyio.lowlevel.checkpoint()
        return self.sum

    @handler(readonly=True)
    async def raise_slowly(self) -> None:
        await anyio.lowlevel.checkpoint()
        leases[0].expire()
        raise ValueError(self.sum)

    @handler
    async def call_late(self, other: str, name: str) -> None:
        leases[0].expire()
        try:
            till = current_runtime().get(Till, other)
            await (till.add(1) if name == "add" else till.read())
        except OwnerLost:
            ended.append("refused")
            raise
        ended.append("called")

    @handler
    async def wait(self) -> int:
        self.sum += 1
        try:
            await anyio.sleep(1000)
        finally:
            ended.append("cancelled")
        return self.sum

    @handler
    async def resist(self) -> int:
        """A zombie: it goes on after it was cancelled."""
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
            try:
                await current_runtime().get(Till, "other").read()
            except DurableError as error:
                ended.append(type(error).__name__)
        self.sum += 100
        return self.sum

    @alarm
    async def ring(self) -> None:
        ended.append("ring")
        await anyio.sleep(1000 if ended.count("ring") == 1 else 0)
        self.sum += 1000


@pytest.fixture(autouse=True)
def fresh() -> None:
    ended.clear()
    leases.clear()


@asynccontextmanager
async def leased(**options: Any) -> AsyncIterator[tuple[DurableRuntime, FakeMembership]]:
    storage = LeasedStorage()
    leases.append(storage.leases)
    async with DurableRuntime(storage, objects=[Till], runner=InlineRunner, **options) as runtime:
        yield runtime, storage.leases


# --- exits ---------------------------------------------------------------------------------------

EXITS: dict[str, Callable[[DurableRuntime], Any]] = {
    "ungated value": lambda r: r.get(Till, "a").read_late(),
    "gated value": lambda r: r.get(Till, "a").add_late(1),
    "value without a change": lambda r: r.get(Till, "a").same_late(),
    "exception": lambda r: r.get(Till, "a").raise_late(),
    "value of async def": lambda r: r.get(Till, "a").read_slowly(),
    "exception of async def": lambda r: r.get(Till, "a").raise_slowly(),
}


@pytest.mark.anyio
@pytest.mark.parametrize("is_loaded", [True, False], ids=["loaded", "new"])
@pytest.mark.parametrize("name", EXITS)
async def test_nothing_leaves_after_the_end_of_the_lease(name: str, is_loaded: bool) -> None:
    """It ends while the turn runs, and nothing but a check at the exit can notice."""
    async with leased() as (runtime, _):
        if is_loaded:
            await runtime.get(Till, "a").add(10)
        with pytest.raises(OwnerLost, match=r"lost its lease .* it isn't known whether it ran"):
            await EXITS[name](runtime)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["add", "read"])
async def test_a_turn_without_its_lease_calls_nothing(name: str) -> None:
    async with leased() as (runtime, held):
        with pytest.raises(OwnerLost):
            await runtime.get(Till, "a").call_late("b", name)
        held.lose()
        await settle()
        assert ended == ["refused"]
        assert await runtime.get(Till, "b").read() == 0


@pytest.mark.anyio
async def test_operations_are_checked_too() -> None:
    async with leased() as (runtime, held):
        await runtime.get(Till, "a").add(1)
        inner = runtime._opened.group_commit._writer.inner  # type: ignore[union-attr]
        commit = inner.commit

        def late(*args: Any) -> Any:
            done = commit(*args)
            held.expire()
            return done

        inner.commit = late
        works: list[Callable[[], Any]] = [
            lambda: runtime.delete(Till, "a"),
            lambda: runtime.schedule_alarm(Till, "a", "ring", after=1000),
        ]
        for work in works:
            held.current.is_over = False
            with pytest.raises(OwnerLost):
                await work()


# --- deposed -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_runtime_that_is_deposed_gives_up_all_and_joins_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with leased(call_timeout=None) as (runtime, held):
        await runtime.get(Till, "a").add(1)
        await runtime.get(Till, "idle").add(5)
        outcomes: list[str] = []

        async def call(make: Callable[[], Any]) -> None:
            try:
                await make()
            except DurableError as error:
                outcomes.append(type(error).__name__)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, runtime.get(Till, "a").wait)
            await settle()
            for _ in range(3):
                tasks.start_soon(call, partial(runtime.get(Till, "a").add, 1))  # queued
            await settle()
            before = runtime.node_id
            held.lose()
        assert outcomes == ["OwnerLost"] * 4
        assert ended == ["cancelled"]
        assert runtime.whereis(Till, "idle") is None
        assert await runtime.get(Till, "a").read() == 1
        assert await runtime.get(Till, "idle").add(1) == 6
        assert (before, runtime.node_id) == ("1", "2")
        (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert "the lease of this process is over (on purpose)" in warning.getMessage()


@pytest.mark.anyio
async def test_a_turn_that_resists_its_cancellation_changes_and_calls_nothing() -> None:
    async with leased(call_timeout=None) as (runtime, held):
        await runtime.get(Till, "a").add(1)
        async with anyio.create_task_group() as tasks:

            async def resist() -> None:
                with pytest.raises(OwnerLost):
                    await runtime.get(Till, "a").resist()

            tasks.start_soon(resist)
            await settle()
            held.lose()
            await settle()
            assert await runtime.get(Till, "a").add(1) == 2  # beside the zombie
            await anyio.sleep(10)
        assert ended == ["PersistenceError"]
        assert await runtime.get(Till, "a").read() == 2


@pytest.mark.anyio
async def test_a_delivery_of_a_lost_object_is_no_attempt() -> None:
    async with leased() as (runtime, held):
        await runtime.schedule_alarm(Till, "a", "ring", after=1)
        await anyio.sleep(2)
        assert ended == ["ring"]
        held.lose()
        await anyio.sleep(5)
        assert ended == ["ring", "ring"]
        assert await runtime.get(Till, "a").read() == 1000
        assert runtime.statistics().alarms_failed == 0


@pytest.mark.anyio
async def test_calls_wait_for_the_next_lease() -> None:
    async with leased(call_timeout=5) as (runtime, held):
        await runtime.get(Till, "a").add(1)
        held.refusals = [StorageUnavailable("x", "away")] * 3
        began = anyio.current_time()
        held.lose()
        assert await runtime.get(Till, "a").add(1) == 2
        assert anyio.current_time() - began == pytest.approx(0.05 + 0.1 + 0.2, abs=0.01)
        held.refusals = [StorageUnavailable("x", "away")] * 10
        held.lose()
        with pytest.raises(CallTimeout, match=r"has no new one yet\); it did not run: call again"):
            await runtime.get(Till, "a").add(1)
        await anyio.sleep(10)
        assert await runtime.get(Till, "a").add(1) == 3


@pytest.mark.anyio
async def test_a_runtime_that_can_not_join_again_fails_with_the_cause() -> None:
    in_use = StorageInUse("x", "", 4711)

    async def fail() -> None:
        async with leased() as (runtime, held):
            await runtime.get(Till, "a").add(1)
            held.refusals = [in_use]
            held.lose()
            await runtime.closed()
            with pytest.raises(RuntimeClosed):
                await runtime.get(Till, "a").add(1)

    with pytest.raises(RuntimeClosed, match="in use by a runtime of process 4711") as caught:
        await fail()
    assert caught.value.__cause__ is in_use


@pytest.mark.anyio
async def test_leaving_while_calls_wait_for_a_lease_ends_them() -> None:
    async with anyio.create_task_group() as tasks, leased(call_timeout=None) as (runtime, held):
        held.refusals = [StorageUnavailable("x", "away")] * 1000
        held.lose()

        async def call() -> None:
            with pytest.raises(RuntimeClosed):
                await runtime.get(Till, "a").add(1)

        tasks.start_soon(call)
        await settle()


# --- on a server ---------------------------------------------------------------------------------


def storage_at(conninfo: str, ttl: float = 2, **options: Any) -> PostgresStorage:
    storage = PostgresStorage(conninfo, **options)
    storage._node = NodeSettings(ttl=ttl)
    return storage


async def surely(call: Callable[[], Any]) -> Any:
    """The reply, after as many attempts as it takes."""
    with anyio.fail_after(60):
        while True:
            try:
                return await call()
            except (OwnerLost, PersistenceError):
                await anyio.sleep(0.02)


def test_a_runtime_without_a_cluster_excludes_others(
    postgres: str, real_backend: tuple[str, dict[str, Any]]
) -> None:
    async def main() -> None:
        async with DurableRuntime(postgres, objects=[Till]) as runtime:
            await runtime.get(Till, "a").add(1)
            for cluster in (False, True):
                with pytest.raises(StorageInUse, match="by a runtime of this process"):
                    async with DurableRuntime(postgres, objects=[Till], cluster=cluster):
                        pass
            assert await runtime.get(Till, "a").add(1) == 2
        async with DurableRuntime(postgres, objects=[Till]) as runtime:
            assert await runtime.get(Till, "a").read() == 2

    anyio.run(main, backend=real_backend[0], backend_options=real_backend[1])


def test_a_runtime_that_was_removed_joins_again(
    postgres: str, real_backend: tuple[str, dict[str, Any]]
) -> None:
    async def main() -> None:
        async with DurableRuntime(storage_at(postgres), objects=[Till]) as runtime:
            assert await runtime.get(Till, "a").add(1) == 1
            before = runtime.node_id
            with psycopg.connect(postgres, autocommit=True) as admin:
                admin.execute("DELETE FROM durable_nodes")
                # As the next owner has.
                admin.execute(
                    "UPDATE durable_objects SET revision = 2, state = replace(state, '1', '7')"
                )
            with pytest.raises(OwnerLost):
                await runtime.get(Till, "a").add(1)
            assert await surely(lambda: runtime.get(Till, "a").read()) == 7
            assert await runtime.get(Till, "a").add(1) == 8
            assert runtime.node_id != before

    anyio.run(main, backend=real_backend[0], backend_options=real_backend[1])


def test_a_failover_that_lost_commits_is_noticed_before_anything_is_written() -> None:
    """Revisions come round: what is in memory has the revision of what others have stored."""

    async def main(primary: Server, standby: Server) -> None:
        url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
        # The beats are rare, so a save is first to reach the new primary.
        async with DurableRuntime(storage_at(url, ttl=600), objects=[Till]) as runtime:
            till = runtime.get(Till, "a")
            await till.add(1)
            wait_until(lambda: standby.execute("SELECT count(*) FROM durable_objects") == [(1,)])
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
            wait_until(
                lambda: standby.execute("SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)]
            )
            assert await till.add(10) == 11  # lost with the primary
            primary.stop(signal.SIGQUIT)
            standby.promote()
            standby.execute(
                "UPDATE durable_objects SET revision = 2, state = replace(state, '1', '500')"
            )
            assert await surely(partial(till.add, 1)) == 501
            assert await till.read() == 501

    with running() as primary:
        PostgresStorage(primary.url()).open_writer().close()
        with running(standby_of=primary) as standby:
            anyio.run(main, primary, standby, backend="trio")


def test_a_crash_without_durability_drops_what_is_in_memory(fresh_server: Server) -> None:
    """The server restarts its processes, and its commits of late are lost."""

    async def main() -> None:
        storage = storage_at(fresh_server.conninfo(), durability="normal")
        async with DurableRuntime(storage, objects=[Till]) as runtime:
            till = runtime.get(Till, "a")
            assert await till.add(1) == 1
            kill_a_backend(fresh_server)
            with psycopg.connect(fresh_server.conninfo(), autocommit=True) as admin:
                admin.execute("DELETE FROM durable_objects")  # it was lost
            assert await surely(partial(till.add, 1)) == 1
        (state,) = fresh_server.execute("SELECT state FROM durable_objects")
        assert json.loads(state[0])["sum"] == 1

    anyio.run(main, backend="trio")


def kill_a_backend(server: Server) -> None:
    (row,) = server.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'trio_durable writer'"
    )
    os.kill(row[0], signal.SIGKILL)
    wait_until(lambda: has_restarted(server, row[0]))


def has_restarted(server: Server, pid: int) -> bool:
    """True once it serves again, without that backend."""
    try:
        return server.execute(f"SELECT FROM pg_stat_activity WHERE pid = {pid}") == []
    except psycopg.Error:
        return False
