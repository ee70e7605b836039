"""Messages from turns and from outside: delivery, order, failures, answers, and refusals."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import FunctionType

import anyio
import attrs
import pytest

from trio_durable import (
    CommitRefused,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    InvalidMessage,
    MemoryStorage,
    Message,
    NotInTurn,
    ObjectKey,
    ReadonlyViolation,
    Retry,
    SendFailed,
    TooManyMessages,
    handler,
)
from trio_durable._outbox import deliverer

pytestmark = pytest.mark.anyio


class SoldOut(Exception):
    pass


class Stock(DurableObject):
    left: int = 3
    seen: list[str] = attrs.field(factory=list)
    attempts: int = 0

    @handler(retry=Retry(initial=1, attempts=3), expected=(SoldOut,))
    def reserve(self, count: int) -> int:
        if count > self.left:
            raise SoldOut(f"{self.left} left")
        self.left -= count
        return self.left

    @handler
    def note(self, text: str, *more: str, mark: str = "") -> None:
        self.seen = [*self.seen, text + "".join(more) + mark]

    @handler(retry=Retry(initial=1, attempts=3))
    def fail(self, times: int) -> None:
        message = self.ctx.message
        assert message is not None
        seen.append(message)
        if message.attempt <= times:
            raise ValueError(f"attempt {message.attempt}")
        self.attempts = message.attempt

    @handler
    def remove(self) -> None:
        self.ctx.delete()

    @handler
    async def commit_first(self) -> None:
        self.left -= 1
        await self.ctx.commit()

    @handler(readonly=True)
    def count(self) -> int:
        return self.left

    @handler(readonly=True)
    def texts(self) -> list[str]:
        return self.seen

    @handler
    async def ask_the_unknown(self) -> None:
        await self.ctx.runtime.call("NoSuchType", "a", "ask")

    @handler
    def echo(self) -> None:
        self.left += 1
        self.ctx.send(Stock.echo, self.ctx.object_id)


class Clock(DurableObject):
    ticks: int = 0

    @handler
    def tick(self, more: int) -> None:
        self.ticks += 1
        if more:
            again = self.ctx.outgoing(after=timedelta(seconds=10), key="next")
            again.send(Clock.tick, self.ctx.object_id, more - 1)

    @handler
    async def stop(self) -> bool:
        return await self.ctx.cancel_message("next").taken_back()

    @handler(readonly=True)
    def count(self) -> int:
        return self.ticks


class Order(DurableObject):
    status: str = "new"

    @handler
    def place(self, sku: str, count: int = 1) -> None:
        self.status = "placed"
        outgoing = self.ctx.outgoing(reply=Order.reserved, failed=Order.refused)
        outgoing.send(Stock.reserve, sku, count)

    @handler
    def reserved(self, left: int) -> None:
        self.status = f"ready, {left} left"

    @handler
    def refused(self, failure: SendFailed) -> None:
        self.status = f"refused by {failure.receiver}: {failure.error} ({failure.attempts})"

    @handler
    def tell(self, sku: str, texts: list[str]) -> None:
        for text in texts:
            self.ctx.send(Stock.note, sku, text)

    @handler
    def tell_and_fail(self, sku: str) -> None:
        self.ctx.send(Stock.note, sku, "never")
        raise KeyError(sku)

    @handler
    def remind(self, sku: str, text: str, seconds: float) -> None:
        after = timedelta(seconds=seconds)
        self.ctx.outgoing(after=after, key="reminder").send(Stock.note, sku, text)

    @handler
    def forget(self) -> None:
        self.ctx.cancel_message("reminder")

    @handler
    async def forget_truly(self) -> bool:
        return await self.ctx.cancel_message("reminder").taken_back()

    @handler
    def ask_to_fail(self, sku: str, times: int) -> None:
        self.ctx.outgoing(failed=Order.refused).send(Stock.fail, sku, times)
        self.ctx.send(Stock.note, sku, "after")

    @handler
    def flood(self, sku: str, count: int) -> None:
        for number in range(count):
            self.ctx.send(Stock.note, sku, str(number))

    @handler(readonly=True)
    def read_and_send(self, sku: str) -> None:
        self.ctx.send(Stock.note, sku, "never")

    @handler
    def send_to_reader(self, sku: str) -> None:
        self.ctx.send(Stock.count, sku)

    @handler
    async def send_from_outside(self, sku: str) -> None:
        await self.ctx.runtime.send(Stock.note, sku, "never")

    @handler(readonly=True)
    def state(self) -> str:
        return self.status


seen: list[Message] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


@pytest.fixture(params=["memory", "sqlite"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DurableRuntime]:
    storage = MemoryStorage() if request.param == "memory" else tmp_path / "app.db"
    objects = [Order, Stock, Clock]
    async with DurableRuntime(storage, objects=objects, runner=InlineRunner) as runtime:
        yield runtime


async def texts(runtime: DurableRuntime, sku: str = "tea") -> list[str]:
    await runtime.settled(Stock, sku)
    return await runtime.get(Stock, sku).texts()


async def test_a_message_is_handled_and_its_result_answered(runtime: DurableRuntime) -> None:
    await runtime.get(Order, "o-1").place("tea")
    await runtime.settled(Stock, "tea")
    await runtime.settled(Order, "o-1")
    assert await runtime.get(Order, "o-1").state() == "ready, 2 left"


async def test_an_expected_error_is_an_answer_at_once(runtime: DurableRuntime) -> None:
    await runtime.get(Order, "o-1").place("tea", 7)
    await runtime.settled(Stock, "tea")
    await runtime.settled(Order, "o-1")
    status = await runtime.get(Order, "o-1").state()
    assert status == "refused by Stock/tea: SoldOut: 3 left (1)"


async def test_messages_of_one_sender_are_handled_in_order(runtime: DurableRuntime) -> None:
    order, expected = runtime.get(Order, "o-1"), [str(number) for number in range(100)]
    for begin in range(0, 100, 10):
        await order.tell("tea", expected[begin : begin + 10])
    assert await texts(runtime) == expected


async def test_a_turn_that_raises_sends_nothing(runtime: DurableRuntime) -> None:
    with pytest.raises(KeyError):
        await runtime.get(Order, "o-1").tell_and_fail("tea")
    await runtime.get(Order, "o-1").tell("tea", ["later"])
    assert await texts(runtime) == ["later"]


async def test_a_message_from_outside_is_durable_when_send_returns() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[Order]) as runtime:
        message_id = await runtime.send(Stock.note, "tea", "a", "b", mark="!")
        assert len(message_id) == 16
    async with DurableRuntime(storage, objects=[Stock]) as runtime:
        assert await texts(runtime) == ["ab!"]


async def test_what_was_sent_before_a_restart_comes_before_what_is_sent_later() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[Order]) as runtime:
        await runtime.get(Order, "o-1").tell("tea", ["a"])
    async with DurableRuntime(storage, objects=[Order, Stock]) as runtime:
        await runtime.get(Order, "o-1").tell("tea", ["b"])
        await runtime.get(Order, "o-1").tell("tea", ["c"])
        assert await texts(runtime) == ["a", "b", "c"]


async def test_a_message_that_fails_is_tried_again_and_holds_its_lane(
    runtime: DurableRuntime,
) -> None:
    await runtime.get(Order, "o-1").ask_to_fail("tea", 2)
    await runtime.get(Order, "o-2").tell("tea", ["other"])
    assert await texts(runtime) == ["other"]
    await anyio.sleep(10)
    assert await texts(runtime) == ["other", "after"]
    assert [message.attempt for message in seen] == [1, 2, 3]
    assert seen[1].last_error == "ValueError: attempt 1"
    assert len({message.id for message in seen}) == 1
    assert (await runtime.get_state(Stock, "tea")).attempts == 3


async def test_a_message_without_attempts_left_is_dead_and_its_lane_goes_on(
    runtime: DurableRuntime,
) -> None:
    await runtime.get(Order, "o-1").ask_to_fail("tea", 9)
    await anyio.sleep(10)
    assert await texts(runtime) == ["after"]
    await runtime.settled(Order, "o-1")
    status = await runtime.get(Order, "o-1").state()
    assert status == "refused by Stock/tea: ValueError: attempt 3 (3)"


async def test_a_delayed_message_comes_at_its_time_and_can_be_replaced(
    runtime: DurableRuntime,
) -> None:
    order = runtime.get(Order, "o-1")
    await order.remind("tea", "first", 60)
    await order.remind("tea", "second", 90)
    await anyio.sleep(89)
    assert await texts(runtime) == []
    await anyio.sleep(2)
    assert await texts(runtime) == ["second"]


async def test_a_message_can_be_taken_back(runtime: DurableRuntime) -> None:
    order = runtime.get(Order, "o-1")
    assert not await order.forget_truly()
    await order.remind("tea", "first", 60)
    assert await order.forget_truly()
    assert not await order.forget_truly()
    await order.remind("tea", "second", 60)
    await order.forget()
    await anyio.sleep(61)
    assert await texts(runtime) == []


async def test_a_turn_of_a_message_refuses_a_commit_in_the_middle(
    runtime: DurableRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await runtime.send(Stock.commit_first, "tea")
    await runtime.settled(Stock, "tea")
    assert await runtime.get(Stock, "tea").count() == 3
    await runtime.get(Stock, "tea").commit_first()
    assert await runtime.get(Stock, "tea").count() == 2
    assert CommitRefused.__name__ in caplog.text


async def test_what_waits_for_a_deleted_object_is_dead(runtime: DurableRuntime) -> None:
    await runtime.get(Order, "o-1").ask_to_fail("tea", 2)
    await runtime.settled(Stock, "tea")
    await runtime.get(Stock, "tea").remove()
    await anyio.sleep(10)
    assert await texts(runtime) == []
    assert [message.attempt for message in seen] == [1]


async def test_a_turn_sends_a_thousand_messages_and_no_more(runtime: DurableRuntime) -> None:
    order = runtime.get(Order, "o-1")
    with pytest.raises(
        TooManyMessages, match=r"message note to Stock\('tea'\): a turn may send 1,000"
    ):
        await order.flood("tea", 1001)
    assert await texts(runtime) == []
    await order.flood("tea", 1000)
    assert await texts(runtime) == [str(number) for number in range(1000)]


async def test_what_can_not_be_sent_is_refused_by_name(runtime: DurableRuntime) -> None:
    order = runtime.get(Order, "o-1")
    with pytest.raises(ReadonlyViolation):
        await order.read_and_send("tea")
    with pytest.raises(InvalidMessage, match=r"count to Stock\('tea'\): the handler is read-only"):
        await order.send_to_reader("tea")
    with pytest.raises(InvalidMessage, match=r"use self\.ctx\.send\(\)"):
        await order.send_from_outside("tea")
    with pytest.raises(InvalidMessage, match="the argument text: 7 is of type int, not str"):
        await runtime.send(Stock.note, "tea", 7)  # type: ignore[arg-type]
    with pytest.raises(InvalidMessage, match="over the limit of 65,536"):
        await runtime.send(Stock.note, "tea", "x" * 70_000)
    with pytest.raises(InvalidMessage, match=r"it is no handler; name it by its class"):
        await runtime.send(print, "tea")  # type: ignore[arg-type]
    assert await texts(runtime) == []


async def test_nothing_is_sent_outside_of_a_turn(runtime: DurableRuntime) -> None:
    kept = []

    class Leaky(DurableObject):
        @handler
        def leak(self) -> None:
            kept.append(self.ctx)

    async with DurableRuntime(MemoryStorage(), objects=[Leaky]) as other:
        await other.get(Leaky, "a").leak()
        with pytest.raises(NotInTurn):
            kept[0].send(Stock.note, "tea", "never")


async def test_waiting_and_dead_messages_are_listed_retried_and_dropped(
    runtime: DurableRuntime,
) -> None:
    order = runtime.get(Order, "o-1")
    await order.remind("tea", "later", 3600)
    [waiting] = await runtime.list_messages()
    assert (waiting.receiver, waiting.handler) == (ObjectKey("Stock", "tea"), "note")
    assert waiting.arguments == {"text": "later"}
    assert waiting.sender == ObjectKey("Order", "o-1")
    assert waiting.wake_at is not None
    assert await runtime.list_messages(Order) == []
    await order.place("tea", 5)
    await order.place("tea", 6)
    await runtime.settled(Stock, "tea")
    first, second = await runtime.list_dead_messages(Stock)
    assert (first.arguments, first.last_error) == ({"count": 5}, "SoldOut: 3 left")
    assert await runtime.list_dead_messages(Stock, after=first) == [second]
    assert await runtime.list_dead_messages(limit=1) == [first]
    assert await runtime.drop_message(first.id)
    assert not await runtime.drop_message(first.id)
    assert not await runtime.retry_message(first.id)
    assert not await runtime.retry_message("no id")
    assert await runtime.retry_messages(Stock) == 1
    await runtime.settled(Stock, "tea")
    [again] = await runtime.list_dead_messages(Stock)
    assert again.id == second.id
    statistics = runtime.statistics()
    assert (statistics.messages_dead, statistics.messages_failed) == (3, 3)


async def test_an_unknown_type_that_a_handler_calls_is_not_the_receivers(
    runtime: DurableRuntime,
) -> None:
    await runtime.send(Stock.ask_the_unknown, "tea")
    await runtime.settled(Stock, "tea")
    [waiting] = await runtime.list_messages(Stock)
    assert waiting.failures == 1
    await runtime.send(Stock.note, "tea", "goes on")
    assert await texts(runtime) == ["goes on"]


async def test_a_message_to_oneself_is_followed_by_one_under_its_key(
    runtime: DurableRuntime,
) -> None:
    clock = runtime.get(Clock, "wall")
    await clock.tick(2)
    for ticks in (2, 3, 3):
        await anyio.sleep(11)
        assert await clock.count() == ticks
    assert runtime.statistics().messages_failed == 0


async def test_a_message_to_oneself_is_taken_back(runtime: DurableRuntime) -> None:
    clock = runtime.get(Clock, "wall")
    await clock.tick(2)
    assert await clock.stop()
    assert await runtime.list_messages(Clock) == []
    assert not await clock.stop()


async def test_a_circle_of_messages_ends(
    runtime: DurableRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "MAX_HOPS", 20)
    await runtime.send(Stock.echo, "tea")
    await runtime.settled(Stock, "tea")
    assert await runtime.get(Stock, "tea").count() == 3 + 20
    [dead] = await runtime.list_dead_messages(Stock)
    assert dead.last_error == "it is the 20th in succession"


def ours_alive() -> int:
    """Number of living instances of the library's types, and of its functions' closures."""
    # `isinstance` would ask the hostile objects of other tests for their class.
    owners = (one if type(one) is FunctionType else type(one) for one in gc.get_objects())
    return sum(str(owner.__module__).startswith("trio_durable.") for owner in owners)


async def test_deliveries_leave_no_cycles_to_the_garbage_collector() -> None:
    async with DurableRuntime(MemoryStorage(), objects=[Order, Stock]) as runtime:
        order = runtime.get(Order, "o-1")
        await order.tell("tea", ["warm-up"])
        await runtime.settled(Stock, "tea")
        gc.collect()
        gc.disable()
        try:
            before = ours_alive()
            for _ in range(50):
                await order.tell("tea", ["x"])
                await runtime.settled(Stock, "tea")
            # Not the number that a collection frees: it may free other tests' garbage, too.
            assert ours_alive() < before + 100  # timeouts of ended calls
        finally:
            gc.enable()
