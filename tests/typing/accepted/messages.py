"""Messages: sent from turns and from outside, with answers, and what a handler sees of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from trio_durable import (
    DeadMessage,
    DurableObject,
    DurableRuntime,
    Message,
    ObjectKey,
    Outgoing,
    Retry,
    SendFailed,
    WaitingMessage,
    handler,
)


class SoldOut(Exception):
    pass


class Stock(DurableObject):
    left: int = 10

    @handler(retry=Retry(attempts=5), expected=SoldOut)
    def reserve(self, count: int = 1, *, note: str = "") -> int:
        self.left -= count
        return self.left

    @handler(retry=Retry())
    async def reserve_slowly(self, count: int) -> bool:
        self.left -= count
        return self.left > 0

    @handler
    def returned(self) -> None:
        message = self.ctx.message
        assert_type(message, Message | None)
        if message is not None:
            assert_type(message.id, str)
            assert_type(message.sender, ObjectKey | None)
            assert_type(message.sent_at, datetime)
            assert_type(message.attempt, int)
            assert_type(message.last_error, str | None)


class Order(DurableObject):
    status: str = "new"

    @handler
    def place(self, sku: str) -> None:
        assert_type(self.ctx.now(), datetime)
        assert_type(self.ctx.send(Stock.reserve, sku), str)
        self.ctx.send(Stock.reserve, sku, 1)
        self.ctx.send(Stock.reserve, sku, count=1, note="soon")
        self.ctx.send(Stock.reserve_slowly, sku, 1)
        self.ctx.send(Stock.returned, sku)
        outgoing = self.ctx.outgoing(reply=Order.reserved, failed=Order.refused)
        assert_type(outgoing, Outgoing[int])
        outgoing.send(Stock.reserve, sku, 1)
        outgoing.send(Stock.reserve_slowly, sku, 1)
        later = self.ctx.outgoing(after=timedelta(hours=1), key="late")
        later.send(Stock.reserve, sku)
        self.ctx.outgoing(at=datetime.now(UTC)).send(Stock.returned, sku)
        self.ctx.outgoing(after=5).send(Order.place, self.ctx.object_id, sku)
        self.ctx.cancel_message("late")

    @handler
    async def give_up(self) -> bool:
        return await self.ctx.cancel_message("late").taken_back()

    @handler
    def reserved(self, left: int) -> None:
        self.status = f"{left} left"

    @handler
    def refused(self, failure: SendFailed) -> None:
        assert_type(failure.id, str)
        assert_type(failure.error, str | None)
        assert_type(failure.attempts, int)
        self.status = f"{failure.receiver}: {failure.handler}"


async def outside(runtime: DurableRuntime) -> None:
    assert_type(await runtime.send(Order.place, "o-1", "tea"), str)
    await runtime.tenant("acme").send(Order.place, "o-1", sku="tea")
    await runtime.settled(Order, "o-1")
    await runtime.settled("Order", "o-1")
    waiting = await runtime.list_messages()
    assert_type(waiting, list[WaitingMessage])
    await runtime.list_messages(Order, "o-1", after=waiting[-1], limit=10)
    assert_type(waiting[0].receiver, ObjectKey)
    assert_type(waiting[0].wake_at, datetime | None)
    dead = await runtime.list_dead_messages(Order)
    assert_type(dead, list[DeadMessage])
    assert_type(dead[0].died_at, datetime)
    assert_type(dead[0].is_overtaken, bool)
    await runtime.list_dead_messages(after=dead[-1])
    assert_type(await runtime.retry_message(dead[0].id), bool)
    assert_type(await runtime.retry_messages("Order"), int)
    assert_type(await runtime.drop_message(dead[0].id), bool)
    assert_type(runtime.statistics().messages_dead, int)
    assert_type(await runtime.outgoing(once="k").send(Order.place, "o-1", "tea"), str)
    await runtime.outgoing(after=timedelta(days=1)).send(Order.place, "o-1", sku="tea")


async def once(runtime: DurableRuntime) -> None:
    assert_type(await runtime.get(Stock, "tea", once="k").reserve(2), int)
    assert_type(await runtime.tenant("acme").get(Stock, "tea", once="k").reserve(2), int)
    assert_type(await runtime.call(Stock, "tea", "reserve", 2, once="k"), object)
    await runtime.get("Stock", "tea", once="k", timeout=5).reserve(2)


class Keen(Stock, remember=timedelta(days=7)):
    @handler
    async def ask(self) -> None:
        assert_type(self.ctx.once_key("stock"), str)
        await self.ctx.runtime.get(Stock, "tea", once=self.ctx.once_key("stock")).reserve(1)
