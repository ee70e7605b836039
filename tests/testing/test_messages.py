"""Messages in tests: those of one turn, those that wait, and delivering all that is due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InvalidMessage,
    MemoryStorage,
    Retry,
    handler,
)
from trio_durable._outbox import paging
from trio_durable.testing import (
    assert_message_waiting,
    assert_persisted,
    assert_sent,
    drain_messages,
    perform_handler,
    refute_message_waiting,
    refute_sent,
)

pytestmark = pytest.mark.anyio


class Shelf(DurableObject, name="testing.Shelf"):
    taken: int = 0

    @handler
    def take(self, count: int = 1, *, note: str = "") -> None:
        self.taken += count

    @handler(retry=Retry(initial=10, factor=1, attempts=2))
    def fail(self) -> None:
        raise KeyError("on purpose")

    @handler
    def echo(self) -> None:
        self.taken += 1
        self.ctx.send(Shelf.echo, self.ctx.object_id)


class Basket(DurableObject, name="testing.Basket"):
    @handler
    def order(self, *shelves: str) -> None:
        for shelf in shelves:
            self.ctx.send(Basket.relay, "relay", shelf, 2)

    @handler
    def relay(self, shelf: str, count: int) -> None:
        self.ctx.send(Shelf.take, shelf, count, note="relayed")

    @handler
    def remind(self, shelf: str, seconds: float = 300) -> None:
        self.ctx.outgoing(after=timedelta(seconds=seconds)).send(Shelf.take, shelf, 7)

    @handler
    def provoke(self, shelf: str) -> None:
        self.ctx.send(Shelf.fail, shelf)
        self.ctx.send(Shelf.take, shelf)


@asynccontextmanager
async def a_runtime() -> AsyncIterator[DurableRuntime]:
    async with DurableRuntime(":memory:", objects=[Shelf, Basket]) as runtime:
        yield runtime


# --- one turn ------------------------------------------------------------------------------------


async def test_a_sent_message_is_found_by_the_arguments_that_are_given() -> None:
    turn = await perform_handler(Basket(), "relay", "a", 2)
    assert assert_sent(turn, Shelf.take, "a") is turn.sent[0]
    assert_sent(turn, Shelf.take, "a", 2)
    assert_sent(turn, Shelf.take, "a", note="relayed")
    assert_sent(turn, Shelf.take, "a", count=2, note="relayed")
    with pytest.raises(AssertionError) as caught:
        assert_sent(turn, Shelf.take, "a", 3)
    assert str(caught.value) == (
        "expected the turn to send testing.Shelf('a').take(count=3); "
        "it sent testing.Shelf('a').take(2, note='relayed')"
    )
    with pytest.raises(AssertionError, match=r"send testing\.Shelf\('b'\)\.take\(\)"):
        assert_sent(turn, Shelf.take, "b")
    with pytest.raises(AssertionError):
        assert_sent(turn, Shelf.fail, "a")


async def test_a_default_is_an_argument_too() -> None:
    turn = await perform_handler(Basket(), "provoke", "a")
    assert assert_sent(turn, Shelf.take, "a", 1, note="") is turn.sent[1]


async def test_no_message_to_a_handler_is_sent() -> None:
    turn = await perform_handler(Basket(), "order", "a")
    refute_sent(turn, Shelf.take)
    refute_sent(turn, Basket.relay, "a")
    with pytest.raises(AssertionError) as caught:
        refute_sent(turn, Basket.relay)
    assert str(caught.value) == (
        "expected the turn to send nothing to relay of any testing.Basket; "
        "it sent testing.Basket('relay').relay('a', 2)"
    )
    with pytest.raises(AssertionError, match=r"relay of testing\.Basket\('relay'\)"):
        refute_sent(turn, Basket.relay, "relay")
    none = await perform_handler(Basket(), "order")
    with pytest.raises(AssertionError, match="it sent no message"):
        assert_sent(none, Basket.relay, "relay")


async def test_what_is_no_handler_or_no_argument_is_refused() -> None:
    turn = await perform_handler(Basket(), "order", "a")
    with pytest.raises(InvalidMessage):
        assert_sent(turn, len, "a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="colour"):
        assert_sent(turn, Shelf.take, "a", colour="red")


# --- delivering what is due ----------------------------------------------------------------------


async def test_draining_delivers_what_deliveries_send_too() -> None:
    async with a_runtime() as runtime:
        await runtime.get(Basket, "a").order("x", "y", "x")
        drained = await drain_messages(runtime)
        assert (drained.delivered, drained.failed, drained.dead) == (6, 0, 0)
        assert drained.waiting == ()
        await assert_persisted(runtime, Shelf, "x", taken=4)
        await assert_persisted(runtime, Shelf, "y", taken=2)
        assert (await drain_messages(runtime)).delivered == 0


async def test_draining_reads_what_waited_before_the_runtime_opened() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[Basket]) as runtime:
        await runtime.get(Basket, "a").relay("x", 3)
        left = await drain_messages(runtime)  # it doesn't serve the receiver
        assert [message.handler for message in left.waiting] == ["take"]
    async with DurableRuntime(storage, objects=[Shelf]) as runtime:
        assert (await drain_messages(runtime)).delivered == 1
        await assert_persisted(runtime, Shelf, "x", taken=3)


@pytest.mark.parametrize("seconds", [None, 1])
async def test_draining_waits_for_what_is_still_to_be_read(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    monkeypatch.setattr(paging, "PAGE", 1)
    storage, receivers = MemoryStorage(), 6
    async with DurableRuntime(storage, objects=[Basket]) as runtime:
        for number in range(receivers):
            if seconds is None:
                await runtime.get(Basket, "a").relay(str(number), 3)
            else:
                await runtime.get(Basket, "a").remind(str(number), seconds)
        await drain_messages(runtime)
    await anyio.sleep(1)
    async with DurableRuntime(storage, objects=[Shelf]) as runtime:
        drained = await drain_messages(runtime)
        assert (drained.delivered, drained.waiting) == (receivers, ())


async def test_draining_says_what_sleeps() -> None:
    async with a_runtime() as runtime:
        await runtime.get(Basket, "a").remind("x")
        await runtime.get(Basket, "a").provoke("y")
        drained = await drain_messages(runtime)
        assert (drained.delivered, drained.failed, drained.dead) == (0, 1, 0)
        delayed, failed, behind = drained.waiting
        assert (delayed.receiver.object_id, delayed.failures) == ("x", 0)
        assert delayed.wake_at is not None
        assert (failed.handler, failed.failures) == ("fail", 1)
        assert failed.last_error == "KeyError: 'on purpose'"
        assert (behind.handler, behind.wake_at) == ("take", None)
        await anyio.sleep(11)
        later = await drain_messages(runtime)
        assert [message.receiver.object_id for message in later.waiting] == ["x"]
        await anyio.sleep(300)
        assert (await drain_messages(runtime)).waiting == ()
        await assert_persisted(runtime, Shelf, "x", taken=7)
        await assert_persisted(runtime, Shelf, "y", taken=1)
        [dead] = await runtime.list_dead_messages()
        assert dead.handler == "fail"


async def test_messages_that_never_end_are_reported() -> None:
    async with a_runtime() as runtime:
        await runtime.send(Shelf.echo, "a")
        with pytest.raises(AssertionError) as caught:
            await drain_messages(runtime, max_deliveries=20)
        assert str(caught.value).startswith(
            "expected no message to be due after 20 deliveries; messages that wait: testing.Shelf"
        )
        with pytest.raises(ValueError, match="max_deliveries"):
            await drain_messages(runtime, max_deliveries=0)


# --- what waits ----------------------------------------------------------------------------------


async def test_a_waiting_message_is_found_by_its_arguments() -> None:
    async with a_runtime() as runtime:
        await refute_message_waiting(runtime, Shelf.take, "x")
        with pytest.raises(AssertionError, match="to wait; no message waits"):
            await assert_message_waiting(runtime, Shelf.take, "x")
        await runtime.get(Basket, "a").remind("x")
        found = await assert_message_waiting(runtime, Shelf.take, "x", 7, note="")
        assert found.sender is not None
        assert found.sender.object_id == "a"
        await assert_message_waiting(runtime, Shelf.take, "x")
        await refute_message_waiting(runtime, Shelf.take, "y")
        await refute_message_waiting(runtime, Shelf.fail, "x")
        with pytest.raises(AssertionError) as caught:
            await assert_message_waiting(runtime, Shelf.take, "x", 8)
        assert str(caught.value) == (
            "expected testing.Shelf('x').take(count=8) to wait; "
            "messages that wait: testing.Shelf('x').take(count=7) (in 300 s)"
        )
        with pytest.raises(AssertionError, match=r"no message to take of testing\.Shelf\('x'\)"):
            await refute_message_waiting(runtime, Shelf.take, "x")


async def test_draining_without_time_passing_leaves_what_is_due_later() -> None:
    async with a_runtime() as runtime:
        began = anyio.current_time()
        await runtime.get(Basket, "a").remind("x")
        await drain_messages(runtime)
        assert anyio.current_time() == began


async def test_stored_messages_are_counted_by_type() -> None:
    async with a_runtime() as runtime:
        assert await runtime.count_messages() == []
        await runtime.get(Basket, "a").remind("x")
        await runtime.get(Basket, "a").provoke("y")
        await drain_messages(runtime)
        await anyio.sleep(11)
        await drain_messages(runtime)
        [counts] = await runtime.count_messages()
        assert (counts.type_name, counts.waiting, counts.dead) == ("testing.Shelf", 1, 1)
        [waiting] = await runtime.list_messages()
        assert counts.oldest == waiting.sent_at
