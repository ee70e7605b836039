"""Calls through handles, through the class and by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, assert_type

from trio_durable import (
    Client,
    DurableObject,
    DurableRuntime,
    Handle,
    Objects,
    current_runtime,
    handler,
)


class RateLimiter(DurableObject, hibernate_after=300, shutdown_after=timedelta(hours=1)):
    requests: int = 0
    window_start: datetime | None = None

    @handler
    def check(self, limit: int) -> bool:
        self.requests += 1
        return self.requests <= limit

    @handler
    async def reserve(self, amount: int = 1, *, note: str = "") -> list[str]:
        self.requests += amount
        return [note]

    @handler(readonly=True)
    def used(self) -> int:
        return self.requests

    @handler(readonly=True)
    async def window(self) -> datetime | None:
        return self.window_start

    @handler
    def reset(self) -> None:
        self.requests = 0

    @handler
    def tally(self, /, *names: str, **counts: int) -> dict[str, int]:
        return {**dict.fromkeys(names, 0), **counts}


async def through_a_handle(runtime: DurableRuntime) -> None:
    limiter = runtime.get(RateLimiter, "user-123")
    assert_type(limiter, RateLimiter)

    assert_type(await limiter.check(10), bool)
    assert_type(await limiter.check(limit=10), bool)
    assert_type(await limiter.reserve(), list[str])
    assert_type(await limiter.reserve(2, note="for two"), list[str])
    assert_type(await limiter.used(), int)
    assert_type(await limiter.window(), datetime | None)
    assert_type(await limiter.tally("a", "b", c=1), dict[str, int])
    await limiter.reset()


async def through_the_class() -> None:
    assert_type(await RateLimiter.check("user-123", 10), bool)
    assert_type(await RateLimiter.check("user-123", limit=10), bool)
    assert_type(await RateLimiter.reserve("user-123", note="for one"), list[str])
    assert_type(await RateLimiter.used("user-123"), int)
    assert_type(await RateLimiter.window("user-123"), datetime | None)
    await RateLimiter.reset("user-123")


async def by_name(runtime: DurableRuntime) -> None:
    assert_type(await runtime.call(RateLimiter, "user-123", "check", 10), object)
    assert_type(await runtime.call("RateLimiter", "user-123", "check", limit=10), object)
    handle = runtime.get("RateLimiter", "user-123")
    assert_type(handle, Handle)
    assert_type(await handle.check(10), object)


async def with_timeouts(runtime: DurableRuntime) -> None:
    patient = runtime.get(RateLimiter, "user-123", timeout=None)
    hasty = runtime.get(RateLimiter, "user-123", timeout=timedelta(milliseconds=50))
    hastier = runtime.get(RateLimiter, "user-123", timeout=0.01)
    assert_type([patient, hasty, hastier], list[RateLimiter])


async def passed_on(runtime: DurableRuntime) -> None:
    limiter = runtime.get(RateLimiter, "user-123")
    coroutine: Coroutine[Any, Any, bool] = limiter.check(10)
    awaitable: Awaitable[bool] = limiter.check(10)
    function: Callable[[int], Awaitable[bool]] = limiter.check
    client: Client[[int], bool] = RateLimiter.check
    assert_type(await coroutine, bool)
    assert_type(await awaitable, bool)
    assert_type(await function(10), bool)
    assert_type(await client("user-123", 10), bool)


async def from_the_context() -> None:
    assert_type(current_runtime(), Objects)
    assert_type(await current_runtime().get(RateLimiter, "user-123").used(), int)
