"""Wrong class bodies and wrong use of instances, as far as annotations can tell."""

from __future__ import annotations

from typing import cast

import attrs

from trio_durable import DurableObject, DurableRuntime, handler


def use(*values: object) -> None:
    """Stands for whatever goes on with the values."""


class Counter(DurableObject):
    count: int = 0
    history: list[int] = attrs.field(factory=list)

    @handler
    def increment(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @handler
    async def describe(self) -> str:
        return str(self.count)

    @handler
    def wrong_state(self) -> None:
        self.count = "1"  # refused
        self.history.append("1")  # refused

    @handler
    async def wrong_context(self) -> None:
        self.ctx.commit()  # refused
        self.ctx.delete(1)  # refused
        self.ctx.object_id = "x"  # refused
        self.ctx.unknown()  # refused
        number: int = self.ctx.object_id  # refused
        use(number)

    @handler
    async def without_await(self) -> int:
        return self.increment()  # refused

    @handler
    def wrong_result(self) -> int:
        return "1"  # refused


def wrong_construction() -> None:
    Counter(count="3")  # refused
    Counter(3)  # refused
    Counter(number=3)  # refused
    Counter(history=["1"])  # refused
    Counter(history=1)  # refused
    use(Counter().number)  # refused


class WrongDefault(DurableObject):
    count: int = "0"  # refused


class WrongDuration(DurableObject, hibernate_after="soon"):  # refused
    pass


class WrongSize(DurableObject, mailbox_size="big"):  # refused
    pass


class WrongHandlers(DurableObject):
    @handler(readonly="yes")  # refused
    def quiet(self) -> None: ...

    @handler(retries=3)  # refused
    def noisy(self) -> None: ...


class Loud(Counter):
    @handler
    def increment(self, by: int = 1) -> int:
        first: str = super().increment.function(by)  # refused
        super().increment.function("1")  # refused
        use(first)
        return super().increment(by)  # refused

    @handler
    async def describe(self) -> str:
        text: int = await super().describe()  # refused
        use(text)
        await super().describe("loudly")  # refused
        return super().describe.function()  # refused


class Changed(Counter):
    @handler
    def increment(self, by: str = "1") -> int:  # refused
        return len(by)


async def wrong_inheritance(runtime: DurableRuntime) -> None:
    loud = runtime.get(Loud, "x")
    await loud.increment("1")  # refused
    counter: Loud = runtime.get(Counter, "x")  # refused
    cast("Counter", counter).describe("x")  # refused
