"""The runtime's own methods."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import assert_type

from trio_durable import (
    ActivationInfo,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    Objects,
    SQLiteStorage,
    Tenant,
    handler,
)
from trio_durable.testing import assert_persisted


class Cart(DurableObject):
    total: int = 0

    @handler
    def add(self, price: int) -> int:
        self.total += price
        return self.total


async def opened(path: Path) -> None:
    async with DurableRuntime("carts.db") as runtime:
        assert_type(runtime, DurableRuntime)
    async with DurableRuntime(
        path,
        objects=[Cart],
        durability="normal",
        call_timeout=timedelta(seconds=1),
        grace_period=0.5,
        runner=InlineRunner,
    ):
        pass
    DurableRuntime(MemoryStorage(), call_timeout=None)
    DurableRuntime(SQLiteStorage(path))


async def used(runtime: DurableRuntime) -> None:
    cart = await runtime.get_state(Cart, "c")
    assert_type(cart, Cart)
    assert_type(cart.total, int)
    assert_type(await runtime.get_state("Cart", "c"), DurableObject)
    await runtime.put_state(Cart, "c", Cart(total=3))
    await runtime.put_state("Cart", "c", cart)
    await runtime.put_state(Cart, "c", Cart(), expected=(0, None))

    assert_type(await runtime.ensure_started(Cart, "c"), ActivationInfo)
    info = runtime.whereis("Cart", "c")
    assert_type(info, ActivationInfo | None)
    if info is not None:
        assert_type(info.mailbox_depth, int)
    assert_type(await runtime.exists(Cart, "c"), bool)
    await runtime.delete(Cart, "c")
    await runtime.stop(Cart, "c")
    assert_type(await runtime.list_objects(Cart, after="b", limit=10), list[str])
    assert_type(runtime.count_objects(), int)
    assert_type(runtime.statistics().commits, int)


async def tenants(runtime: DurableRuntime) -> None:
    acme = runtime.tenant("acme")
    assert_type(acme, Tenant)
    assert_type(acme.get(Cart, "c"), Cart)
    assert_type(acme.root, DurableRuntime)
    assert_type(acme.name, str)
    assert_type(await runtime.list_tenants(after="a", limit=10), list[str])
    assert_type(await runtime.drop_tenant("acme"), bool)
    await assert_persisted(acme, Cart, "c")
    either: Objects = acme
    either = runtime
    assert_type(either.root, DurableRuntime)
