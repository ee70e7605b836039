"""Messages in a cluster on PostgreSQL, between members in one event loop, in real time.

`test_member_messages` has the cases one by one, with rows in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import attrs
import psycopg
import pytest
from support.postgres import url_of

from trio_durable import Cluster, DurableObject, DurableRuntime, handler
from trio_durable._outbox.inbox import DEPTH
from trio_durable.storage.postgres._shard_function import shard_of

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
"""Seconds for whatever should take milliseconds, on a busy machine."""
IDS = [f"o{n}" for n in range(200)]


class Mail(DurableObject, name="PostgresMail"):
    texts: list[str] = attrs.field(factory=list)

    @handler
    def add(self, text: str) -> None:
        self.texts.append(text)

    @handler
    def forward(self, to: str, texts: list[str]) -> None:
        for text in texts:
            self.ctx.send(Mail.add, to, text)

    @handler
    def forward_held(self, to: str, texts: list[str]) -> None:
        for text in texts:
            self.ctx.send(Mail.add_held, to, text)

    @handler
    async def add_held(self, text: str) -> None:
        if text == held.text:
            held.attempts.append(self.ctx.runtime)
            held.has_begun.set()
            await held.may_end.wait()
        self.texts.append(text)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.texts


class Held:
    """A message whose turn waits for its test, wherever it is."""

    def __init__(self) -> None:
        self.text = "3"
        self.attempts: list[object] = []
        self.has_begun = anyio.Event()
        self.may_end = anyio.Event()


held: Held


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, {}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    global held
    held = Held()
    async with AsyncExitStack() as stack:
        with anyio.fail_after(2 * PATIENCE):
            yield stack


async def member(stack: AsyncExitStack, conninfo: str, **settings: Any) -> DurableRuntime:
    cluster = Cluster(**settings)
    runtime = DurableRuntime(url_of(conninfo), objects=[Mail], cluster=cluster)
    return await stack.enter_async_context(runtime)


async def read(runtime: DurableRuntime, object_id: str, count: int) -> list[str]:
    """What an object has got, when it is so much."""
    with anyio.fail_after(PATIENCE):
        while len(texts := await runtime.get(Mail, object_id).read()) < count:
            await anyio.sleep(0.02)
    return texts


async def id_of(runtime: DurableRuntime, conninfo: str) -> str:
    """The id of an object that a member owns, once the shards are divided."""
    with psycopg.connect(conninfo, autocommit=True) as admin, anyio.fail_after(PATIENCE):
        while True:
            rows = admin.execute("SELECT shard, owner FROM durable_shards").fetchall()
            owners: dict[int, object] = dict(rows)
            mine = [n for n, owner in owners.items() if str(owner) == runtime.node_id]
            if 2 * len(mine) == len(owners):
                break
            await anyio.sleep(0.02)
    return next(each for each in IDS if shard_of(each, len(owners)) in mine)


async def test_a_process_without_the_objects_sends_and_waits(
    postgres: str, stack: AsyncExitStack
) -> None:
    await member(stack, postgres)
    guest = await member(stack, postgres, serve=False)
    await guest.send(Mail.add, "ada", "from outside")
    await guest.settled(Mail, "ada")
    await guest.get(Mail, "bob").forward("ada", ["from a turn"])
    await guest.settled(Mail, "ada")
    assert await guest.get(Mail, "ada").read() == ["from outside", "from a turn"]


async def test_members_send_to_each_other_in_order(postgres: str, stack: AsyncExitStack) -> None:
    one, other = [await member(stack, postgres) for _ in range(2)]
    here, there = await id_of(one, postgres), await id_of(other, postgres)
    texts = [str(n) for n in range(3 * DEPTH)]
    await one.get(Mail, here).forward(there, texts)
    await one.get(Mail, there).forward(here, texts)
    assert await read(one, there, len(texts)) == texts
    assert await read(one, here, len(texts)) == texts


async def test_the_next_owner_delivers_the_rest_of_a_lane(
    postgres: str, stack: AsyncExitStack
) -> None:
    one = await member(stack, postgres)
    async with AsyncExitStack() as inner:
        other = await member(inner, postgres)
        here, there = await id_of(one, postgres), await id_of(other, postgres)
        texts = [str(n) for n in range(2 * DEPTH)]
        await one.get(Mail, here).forward_held(there, texts)
        await held.has_begun.wait()
        held.may_end.set()
    assert await read(one, there, len(texts)) == texts


async def test_a_deposed_owner_acknowledges_nothing(postgres: str, stack: AsyncExitStack) -> None:
    one, other = [await member(stack, postgres) for _ in range(2)]
    here, there = await id_of(one, postgres), await id_of(other, postgres)
    texts = [str(n) for n in range(6)]
    await one.get(Mail, here).forward_held(there, texts)
    await held.has_begun.wait()
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("DELETE FROM durable_nodes WHERE node_id = %s", [other.node_id])
        before = held.attempts[:]
        held.may_end.set()  # its turn ends as if nothing had happened
    assert before == [other]
    assert await read(one, there, len(texts)) == texts
    assert held.attempts[0] is other
    assert len(held.attempts) >= 2  # the effect of the first one was lost with its message's
