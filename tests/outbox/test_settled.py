"""Waiting until an object is settled ends with what settles it, and not at the next look."""

from __future__ import annotations

import anyio
import pytest

from trio_durable import DurableRuntime, InlineRunner, MemoryStorage
from trio_durable._outbox.inbox import DEPTH

from .test_sleeping_lanes import Customer, Till, crowd, opened

pytestmark = pytest.mark.anyio


async def settled_at_once(runtime: DurableRuntime, till: str = "t") -> None:
    began = anyio.current_time()
    await runtime.settled(Till, till)
    assert anyio.current_time() == began


async def test_an_object_without_messages_is_settled_once_the_receivers_are_known() -> None:
    async with opened(MemoryStorage()) as runtime:
        await settled_at_once(runtime)


async def test_an_object_is_settled_once_all_that_sleeps_was_read() -> None:
    storage = MemoryStorage()
    async with opened(storage) as runtime:
        await crowd(runtime, count=3)
    async with opened(storage) as runtime:
        await settled_at_once(runtime)


async def test_an_object_is_settled_once_the_end_of_its_lane_was_read() -> None:
    storage = MemoryStorage()
    async with DurableRuntime(storage, objects=[Customer], runner=InlineRunner) as runtime:
        for number in range(DEPTH):
            await runtime.get(Customer, "z").pay("t", f"{number}")
    async with opened(storage) as runtime:
        await settled_at_once(runtime)
        assert len(await runtime.get(Till, "t").texts()) == DEPTH
