"""Objects of several tenants, in one runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs

from trio_durable import (
    CallCycle,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectKey,
    Objects,
    Retry,
    alarm,
    current_runtime,
    handler,
)
from trio_durable.testing import get_persisted_state


class Cart(DurableObject, hibernate_after=10, call_timeout=60):
    """Its items, and what it does with others."""

    items: list[str] = attrs.field(factory=list)

    @handler
    def add(self, item: str) -> list[str]:
        self.items.append(item)
        return self.items

    @handler
    async def add_slowly(self, item: str, seconds: float = 1) -> list[str]:
        await anyio.sleep(seconds)
        self.items.append(item)
        return self.items

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.items

    @handler
    def remind(self, name: str, after: float) -> None:
        self.ctx.schedule_alarm(name, after=after, payload=name)

    @handler
    def clear(self) -> None:
        self.ctx.delete()

    @handler(readonly=True)
    def where(self) -> tuple[ObjectKey, str, str, str]:
        """The key, and the runtime as its context, the current one and the root have it."""
        return (
            self.ctx.key,
            repr(self.ctx.runtime),
            repr(current_runtime()),
            repr(self.ctx.runtime.root),
        )

    @handler(readonly=True)
    async def where_async(self) -> tuple[ObjectKey, str, str, str]:
        return self.where.function()

    @handler
    async def add_to(self, other: str, item: str, how: str) -> list[str]:
        """Add to another cart of the same tenant, in one of the ways that there are."""
        ways: dict[str, Callable[[], Any]] = {
            "context": lambda: self.ctx.runtime.get(Cart, other).add(item),
            "by name": lambda: self.ctx.runtime.call("Cart", other, "add", item),
            "class": lambda: Cart.add(other, item),
            "current": lambda: current_runtime().get(Cart, other).add(item),
        }
        found: list[str] = await ways[how]()
        return found

    @handler
    async def add_at(self, tenant: str, other: str, item: str) -> list[str]:
        """Add to a cart of somebody else."""
        root = self.ctx.runtime.root
        objects: Objects = root.tenant(tenant) if tenant else root
        return await objects.get(Cart, other).add(item)

    @handler
    async def follow(self, path: list[tuple[str, str]]) -> int:
        """Call along a path of tenants and ids."""
        if not path:
            return 1
        (tenant, other), *rest = path
        root = self.ctx.runtime.root
        objects: Objects = root.tenant(tenant) if tenant else root
        return 1 + await objects.get(Cart, other).follow(rest)

    @handler
    async def drop(self, tenant: str, first: float = 0) -> bool:
        await anyio.sleep(first)
        return await self.ctx.runtime.root.drop_tenant(tenant)

    @handler
    async def ask_to_drop(self, tenant: str, other: str) -> bool:
        return await self.ctx.runtime.root.get(Cart, other).drop(tenant)

    @handler
    async def sleep_and_add(self, seconds: float, other: str) -> list[str]:
        await anyio.sleep(seconds)
        return await self.ctx.runtime.get(Cart, other).add("from another")

    @handler
    async def sleep_and_follow(self, seconds: float, other: str) -> str:
        """Call somebody without a tenant, after a while."""
        await anyio.sleep(seconds)
        try:
            await self.ctx.runtime.root.get(Cart, other).read()
        except CallCycle as error:
            return str(error)
        return "no circle"

    @handler
    async def commit_and_sleep(self, item: str) -> None:
        self.items.append(item)
        await self.ctx.commit()
        await anyio.sleep(1)
        self.items.append(f"{item} later")

    @alarm
    def ring(self) -> None:
        assert self.ctx.alarm is not None
        self.items.append(f"ring {self.ctx.alarm.key.tenant or '-'}")
        rung.append(str(self.ctx.key))

    @alarm
    async def ring_slowly(self) -> None:
        await anyio.sleep(2)
        self.items.append("rung slowly")
        rung.append(str(self.ctx.key))

    @alarm(retry=Retry(attempts=1))
    def fail(self) -> None:
        rung.append(str(self.ctx.key))
        raise KeyError(self.ctx.object_id)


class Strict(DurableObject, hibernate_after=10):
    """Whose calls fail in many ways."""

    value: float = 0.0

    def after_load(self) -> None:
        if self.ctx.object_id == "unlucky":
            raise KeyError("bad luck")

    @handler
    def spoil(self) -> None:
        self.value = float("nan")

    @handler(readonly=True)
    def cheat(self) -> None:
        self.value += 1

    @handler(readonly=True)
    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @handler
    def write(self, value: float) -> None:
        self.value = value

    @handler
    def remind(self, name: str) -> None:
        self.ctx.schedule_alarm(name, after=1)


rung: list[str] = []
"""Whose alarms went off, in order."""


@asynccontextmanager
async def opened(storage: object = ":memory:", **options: Any) -> AsyncIterator[DurableRuntime]:
    """A runtime in whose tests virtual time may pass, whatever its storage."""
    async with DurableRuntime(
        storage,  # type: ignore[arg-type]
        runner=InlineRunner,
        objects=[Cart, Strict],
        **options,
    ) as runtime:
        yield runtime


def everybody(runtime: DurableRuntime) -> list[Objects]:
    """The runtime and two tenants of it."""
    return [runtime, runtime.tenant("acme"), runtime.tenant("beta")]


async def stored(objects: Objects, object_id: str = "a") -> list[str] | None:
    """What the storage has of a cart."""
    state = await get_persisted_state(objects, Cart, object_id)
    return None if state is None else state.items
