"""Watches on PostgreSQL, in real time: of one runtime, of members, and across a failover.

`test_watches` and `test_clusters` have the cases one by one, in virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from support.postgres import Server, running, url_of, wait_until

from trio_durable import Cluster, DurableRuntime, OwnerLost

from .rooms import Room, Seat

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
"""Seconds for whatever should take milliseconds, on a busy machine."""
ROOMS = [f"room-{n}" for n in range(8)]


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, {}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        with anyio.fail_after(3 * PATIENCE):
            yield stack


async def opened(stack: AsyncExitStack, url: str, **settings: Any) -> DurableRuntime:
    runtime = DurableRuntime(url, objects=[Room], **settings)
    return await stack.enter_async_context(runtime)


async def member(stack: AsyncExitStack, url: str, *, serve: bool = True) -> DurableRuntime:
    # Not Unix sockets: AnyIO's streams on asyncio have an error in a callback of the event loop if
    # data arrives in the pass in which a task that receives is cancelled.
    cluster = Cluster(serve=serve, ttl=2, listen="tcp://127.0.0.1:0")
    return await opened(stack, url, cluster=cluster)


async def seats(stack: AsyncExitStack, runtime: DurableRuntime) -> list[Seat]:
    """A watcher of each room."""
    return [await stack.enter_async_context(Seat(runtime, room)) for room in ROOMS]


async def until(seat: Seat, is_wanted: Callable[[int, list[str]], bool]) -> None:
    """Take snapshots until one is wanted."""
    with anyio.fail_after(PATIENCE):
        while not is_wanted(*await seat.next()):
            pass


async def say(runtime: DurableRuntime, room: str, line: str) -> None:
    """Say something, once at least: it may not be known whether an owner that was lost has."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await runtime.get(Room, room, timeout=PATIENCE).say(line)
            except OwnerLost:
                continue
            return


# --- one runtime ---------------------------------------------------------------------------------


async def test_each_change_is_seen(postgres: str, stack: AsyncExitStack) -> None:
    runtime = await opened(stack, url_of(postgres))
    seat = await stack.enter_async_context(Seat(runtime))
    assert await seat.next() == (0, [])
    for number in range(3):
        await runtime.get(Room, "lobby").say(str(number))
        assert await seat.next() == (number + 1, [str(n) for n in range(number + 1)])
    await runtime.get(Room, "lobby").clear()
    assert await seat.next() == (0, [])
    late = await stack.enter_async_context(Seat(runtime))
    assert await late.next() == (0, [])


async def test_states_are_read_once_more_under_another_lease(
    postgres: str, stack: AsyncExitStack
) -> None:
    # Another node may have written meanwhile, and here a program does.
    runtime = await opened(stack, url_of(postgres))
    await runtime.get(Room, "lobby").say("one")
    await runtime.get(Room, "lobby").say("two")
    seat = await stack.enter_async_context(Seat(runtime))
    assert await seat.next() == (2, ["one", "two"])
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("""UPDATE durable_objects SET revision = 1, state = '{"lines":["one"]}'""")
        admin.execute("DELETE FROM durable_nodes")
    assert await seat.next() == (1, ["one"])


# --- members -------------------------------------------------------------------------------------


async def test_watches_go_on_while_members_come_and_leave(
    postgres: str, stack: AsyncExitStack
) -> None:
    url = url_of(postgres)
    first = await member(stack, url)
    guest = await member(stack, url, serve=False)
    watchers = [*await seats(stack, first), *await seats(stack, guest)]
    for seat in watchers:
        assert await seat.next() == (0, [])
    async with AsyncExitStack() as inner:
        second = await member(inner, url)
        with anyio.fail_after(PATIENCE):
            while second.statistics().shards == 0:
                await anyio.sleep(0.02)
        for room in ROOMS:
            await say(guest, room, "during")
        for seat in watchers:
            await until(seat, lambda revision, lines: lines == ["during"])
    for room in ROOMS:
        await say(guest, room, "after")
    for seat in watchers:
        await until(seat, lambda revision, lines: lines == ["during", "after"])
        revisions = [revision for revision, _ in seat.seen]
        assert revisions == sorted(set(revisions))


async def test_watches_go_on_when_their_owner_is_removed(
    postgres: str, stack: AsyncExitStack
) -> None:
    url = url_of(postgres)
    runtimes = [await member(stack, url) for _ in range(2)]
    guest = await member(stack, url, serve=False)
    watchers = [seat for each in (*runtimes, guest) for seat in await seats(stack, each)]
    for runtime in runtimes:
        for room in ROOMS:
            await say(guest, room, "before")
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute("DELETE FROM durable_nodes WHERE node_id = %s", [runtime.node_id])
        for room in ROOMS:
            await say(guest, room, "after")
    for seat in watchers:
        await until(seat, lambda revision, lines: lines.count("after") >= 2)


@contextmanager
def _servers() -> Iterator[tuple[Server, Server]]:
    """A primary, and a standby that follows it."""
    with running() as primary, running(standby_of=primary) as standby:
        yield primary, standby


def _caught_up(primary: Server, standby: Server) -> None:
    """Wait until the standby has all that the primary has."""
    ((end,),) = primary.execute("SELECT pg_current_wal_lsn()::text")
    has_it = f"SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn"
    wait_until(lambda: standby.execute(has_it) == [(True,)])


def _disconnected(primary: Server) -> None:
    """Wait until the primary has no standby."""
    wait_until(lambda: primary.execute("SELECT count(*) FROM pg_stat_replication") == [(0,)])


async def test_a_failover_that_loses_commits_is_followed(stack: AsyncExitStack) -> None:
    # The standby is asynchronous, and cut off before the last commits.
    primary, standby = stack.enter_context(_servers())
    url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
    runtimes = [await member(stack, url) for _ in range(2)]
    guest = await member(stack, url, serve=False)
    watchers = [seat for each in (*runtimes, guest) for seat in await seats(stack, each)]
    for room in ROOMS:
        await say(guest, room, "kept")
    await anyio.to_thread.run_sync(_caught_up, primary, standby)
    standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
    await anyio.to_thread.run_sync(_disconnected, primary)
    for room in ROOMS:
        await say(guest, room, "lost")
    for seat in watchers:
        await until(seat, lambda revision, lines: "lost" in lines)
    primary.stop()
    await anyio.to_thread.run_sync(standby.promote)
    for seat in watchers:
        await until(seat, lambda revision, lines: lines == ["kept"])
    for room in ROOMS:
        await say(guest, room, "new")
    for seat in watchers:
        await until(seat, lambda revision, lines: "new" in lines and "lost" not in lines)
