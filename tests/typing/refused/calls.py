"""Wrong calls, wrong results."""

from __future__ import annotations

from datetime import timedelta

from trio_durable import DurableObject, DurableRuntime, definition_of, handler


def use(*values: object) -> None:
    """Stands for whatever goes on with the values."""


class RateLimiter(DurableObject):
    requests: int = 0

    @handler
    def check(self, limit: int) -> bool:
        return self.requests < limit

    @handler
    async def reserve(self, amount: int = 1, *, note: str = "") -> list[str]:
        return [note] * amount

    @handler(readonly=True)
    def used(self) -> int:
        return self.requests

    @handler
    def reset(self) -> None:
        self.requests = 0


class Other(DurableObject):
    count: int = 0


async def wrong_arguments(runtime: DurableRuntime) -> None:
    limiter = runtime.get(RateLimiter, "user-123")
    await limiter.check()  # refused
    await limiter.check("10")  # refused
    await limiter.check(1, 2)  # refused
    await limiter.check(most=1)  # refused
    await limiter.reserve(1, "for two")  # refused
    await limiter.reserve(note=2)  # refused
    await limiter.used(1)  # refused
    await RateLimiter.check(10)  # refused
    await RateLimiter.check("user-123")  # refused
    await RateLimiter.check("user-123", "10")  # refused
    await RateLimiter.check(object_id="user-123", limit=10)  # refused
    await RateLimiter.used("user-123", 1)  # refused


async def wrong_use_of_results(runtime: DurableRuntime) -> None:
    limiter = runtime.get(RateLimiter, "user-123")
    allowed: str = await limiter.check(10)  # refused
    names: list[int] = await limiter.reserve()  # refused
    used: str = await RateLimiter.used("user-123")  # refused
    (await limiter.used()).upper()  # refused
    by_name: int = await runtime.call("RateLimiter", "user-123", "used")  # refused
    use(allowed, names, used, by_name)


async def forgotten_awaits(runtime: DurableRuntime) -> None:
    limiter = runtime.get(RateLimiter, "user-123")
    limiter.reset()  # refused
    limiter.check(10)  # refused
    RateLimiter.reset("user-123")  # refused
    runtime.call(RateLimiter, "user-123", "reset")  # refused
    runtime.delete(RateLimiter, "user-123")  # refused
    used: int = limiter.used()  # refused
    use(used, limiter.used() == 3)  # refused
    use(limiter.used() + 1)  # refused
    use(list(limiter.reserve()))  # refused


async def unknown_names(runtime: DurableRuntime) -> None:
    limiter = runtime.get(RateLimiter, "user-123")
    await limiter.chek(10)  # refused
    await RateLimiter.chek("user-123", 10)  # refused
    use(limiter.limit)  # refused


async def wrong_use_of_the_runtime(runtime: DurableRuntime) -> None:
    runtime.get(RateLimiter)  # refused
    runtime.get(RateLimiter, 123)  # refused
    runtime.get(int, "user-123")  # refused
    runtime.get(RateLimiter(), "user-123")  # refused
    runtime.get(RateLimiter, "user-123", timeout="5")  # refused
    state: Other = await runtime.get_state(RateLimiter, "user-123")  # refused
    missing: int = (await runtime.get_state(RateLimiter, "user-123")).used_up  # refused
    await runtime.call(RateLimiter, "user-123", RateLimiter.check, 10)  # refused
    depth: int = runtime.whereis(RateLimiter, "user-123").mailbox_depth  # refused
    definition_of("RateLimiter")  # refused
    DurableRuntime("x.db", durability="none")  # refused
    DurableRuntime("x.db", call_timeout="5")  # refused
    DurableRuntime("x.db", polling=timedelta(seconds=5))  # refused
    DurableRuntime("x.db", objects=["RateLimiter"])  # refused
    use(state, missing, depth)
