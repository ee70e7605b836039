"""Messages with wrong receivers, arguments, answers or options."""

from __future__ import annotations

from trio_durable import DurableObject, DurableRuntime, SendFailed, handler


class Stock(DurableObject):
    left: int = 10

    @handler
    def reserve(self, count: int) -> int:
        self.left -= count
        return self.left

    def plain(self) -> None:
        self.left = 0

    @handler(retry=5)  # refused
    def renew(self) -> None:
        self.left = 10


class Order(DurableObject):
    status: str = "new"

    @handler
    def place(self, sku: str) -> None:
        self.ctx.send(Stock.reserve, sku)  # refused
        self.ctx.send(Stock.reserve, sku, "one")  # refused
        self.ctx.send(Stock.reserve, sku, 1, 2)  # refused
        self.ctx.send(Stock.reserve, sku, number=1)  # refused
        self.ctx.send(Stock.reserve, 5, 1)  # refused
        self.ctx.send("reserve", sku, 1)  # refused
        self.ctx.outgoing(reply=Order.reserved).send(Stock.reserve, sku, 1)  # refused
        self.ctx.outgoing(failed=Order.reserved)  # refused
        self.ctx.outgoing(after="soon")  # refused
        self.ctx.outgoing(key=5)  # refused
        self.ctx.message.id.upper()  # refused

    @handler
    def reserved(self, name: str) -> None:
        self.status = name

    @handler
    def refused(self, failure: SendFailed) -> None:
        failure.attempts = 5  # refused


async def outside(runtime: DurableRuntime) -> None:
    await runtime.send(Order.place, "o-1")  # refused
    await runtime.send(Order.place, "o-1", 5)  # refused
    await runtime.retry_message(5)  # refused
    await runtime.drop_message()  # refused
    await runtime.outgoing(once=5).send(Order.place, "o-1", "tea")  # refused
    await runtime.outgoing(once="k").send(Order.place, "o-1", 5)  # refused
    await runtime.get(Stock, "tea", once=5).reserve(1)  # refused
    await runtime.get(Stock, "tea", once="k").reserve("one")  # refused
    await runtime.call(Stock, "tea", "reserve", 1, once=5)  # refused


class Wrong(DurableObject, remember="long"):  # refused
    pass
