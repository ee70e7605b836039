"""Calls of another process at the object's owner: on the spot, or from the mailbox."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import attrs
import pytest
from support.clock import settle
from support.tasks import calls

from trio_durable import CallTimeout, Cluster, DurableObject, InlineRunner, OwnerLost, handler
from trio_durable._activations.services import Services
from trio_durable._cluster.call_codec import HandlerCodec

from .shared_memory import Node, Rows, node

pytestmark = pytest.mark.anyio

place: ContextVar[str] = ContextVar("place", default="nowhere")


class Served(DurableObject, name="ServiceServed"):
    log: list[str] = attrs.field(factory=list)

    @handler
    def note(self, text: str) -> int:
        self.log.append(text)
        return len(self.log)

    @handler
    def note_and_fail(self, text: str) -> None:
        self.log.append(text)
        raise ValueError(text)

    @handler
    async def note_and_fail_later(self, text: str) -> None:
        self.log.append(text)
        raise ValueError(text)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.log

    @handler
    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @handler
    def move(self, to: str) -> str:
        before = place.get()
        place.set(to)
        return before

    @handler
    def leave(self, how: str) -> None:
        self.log.append(how)
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[how]

    @handler
    async def leave_later(self, how: str) -> None:
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[how]


@asynccontextmanager
async def owner_and_client(**settings: Any) -> AsyncIterator[tuple[Node, Node]]:
    rows = Rows()
    async with (
        node(rows, objects=[Served], cluster=Cluster(**settings)) as owner,
        node(rows, objects=[Served], cluster=Cluster(serve=False)) as client,
    ):
        yield owner, client


async def test_calls_have_their_turns_in_order_whether_the_object_is_busy_or_open() -> None:
    async with owner_and_client() as (_, client), calls() as group:
        away = client.runtime.get(Served, "a")
        assert await away.note("on the spot") == 1
        group.start(away.wait, 2)
        await settle()
        first = group.start(away.note, "queued")
        await settle()
        second = group.start(away.note, "behind it")
        await settle()
        assert not first.done
        await anyio.sleep(3)
        assert (first.value, second.value) == (2, 3)
        assert await away.note("on the spot again") == 4
        assert await away.read() == ["on the spot", "queued", "behind it", "on the spot again"]


async def test_each_call_has_a_context_of_its_own() -> None:
    async with owner_and_client() as (_, client):
        away = client.runtime.get(Served, "a")
        assert [await away.move(each) for each in ("a", "b", "c")] == ["nowhere"] * 3


async def test_a_turn_that_fails_on_the_spot_is_rolled_back() -> None:
    async with owner_and_client() as (_, client):
        away = client.runtime.get(Served, "a")
        await away.note("kept")
        with pytest.raises(ValueError, match="lost"):
            await away.note_and_fail("lost")
        assert await away.read() == ["kept"]


@pytest.mark.parametrize("name", ["leave", "leave_later"])
@pytest.mark.parametrize("how", ["exit", "interrupt"])
async def test_an_exit_in_a_turn_ends_the_owner_and_not_the_caller(
    name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C would do nothing if the caller in the other process got it."""
    exits: list[BaseException] = []
    monkeypatch.setattr(Services, "exit", lambda _, error: exits.append(error))
    async with owner_and_client() as (_, client):
        away = client.runtime.get(Served, "a")
        await away.note("kept")
        with pytest.raises(OwnerLost):
            await client.runtime.call(Served, "a", name, how)
        assert [type(each) for each in exits] in ([SystemExit], [KeyboardInterrupt])
        assert await away.read() == ["kept"]


async def test_a_reply_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[object] = []
    encode = HandlerCodec.encode_reply

    def counted(self: HandlerCodec, key: Any, result: object) -> bytes:
        replies.append(result)
        return encode(self, key, result)

    monkeypatch.setattr(HandlerCodec, "encode_reply", counted)
    async with owner_and_client() as (_, client):
        away = client.runtime.get(Served, "a")
        await away.note("a")
        await away.wait(0)
        assert await away.read() == ["a"]
    assert replies == [1, None, ["a"]]


async def test_a_queued_call_whose_caller_has_gone_takes_no_place() -> None:
    async with owner_and_client(max_calls=2) as (_, client), calls() as group:
        one = client.runtime.get(Served, "a", timeout=None)
        group.start(one.wait, 1000)
        await settle()
        with anyio.move_on_after(1):
            await one.note("never")
        assert await client.runtime.get(Served, "b", timeout=5).note("b") == 1


async def test_a_change_that_is_not_durable_takes_no_place_without_its_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its turn has ended, and its reply would be for no one."""
    async with owner_and_client(max_calls=1) as (_, client):
        one, other = client.runtime.get(Served, "a"), client.runtime.get(Served, "b", timeout=5)
        await one.note("durable")
        held: deque[Callable[[], object]] = deque()
        with monkeypatch.context() as patch:
            patch.setattr(InlineRunner, "post", lambda _, job: held.append(job))
            with anyio.move_on_after(1):
                await client.runtime.get(Served, "a", timeout=None).note("not durable")
        assert held
        with pytest.raises(CallTimeout):
            await one.read()  # it waits for the commit
        for job in held:
            job()
        assert await other.note("b") == 1
        assert await one.read() == ["durable", "not durable"]


@pytest.mark.parametrize("name", ["note_and_fail", "note_and_fail_later"])
async def test_an_exception_waits_for_the_changes_that_it_tells_of(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the spot as well as from the mailbox."""
    async with owner_and_client() as (_, client), calls() as group:
        away = client.runtime.get(Served, "a")
        await away.note("durable")
        held: deque[Callable[[], object]] = deque()
        with monkeypatch.context() as patch:
            patch.setattr(InlineRunner, "post", lambda _, job: held.append(job))
            group.start(away.note, "not durable")
            await settle()
            failing = group.start(client.runtime.call, Served, "a", name, "told")
            await settle()
        assert held
        assert not failing.done
        for job in held:
            job()
        await failing.wait()
        assert isinstance(failing.error, ValueError)
        assert await away.read() == ["durable", "not durable"]
