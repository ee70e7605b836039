"""Handles as arguments and results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import orjson
import pytest

from trio_durable import (
    ArgumentError,
    DefinitionError,
    DurableObject,
    DurableRuntime,
    MemoryStorage,
    ObjectKey,
    ReplyDecodeError,
    ReplyError,
    handler,
)
from trio_durable._api.registry import TypeRegistry
from trio_durable._cluster.call_codec import CallCodec, HandlerCodec
from trio_durable._cluster.handles import Handles

pytestmark = pytest.mark.anyio
KEY = ObjectKey("Cart", "a")


class Order(DurableObject, name="handles.Order"):
    @handler
    def pay(self) -> None: ...


class Express(Order, name="handles.Express"): ...


@attrs.define
class Receipt:
    order: Order
    number: int = 0


class Cart(DurableObject, name="handles.Cart"):
    @handler
    def merge(self, other: Self, /) -> Self:
        return other

    @handler
    def orders(self, orders: list[Order], by_name: Mapping[str, Order | None]) -> Receipt:
        return Receipt(orders[0])

    @handler
    def any_of(self, value: Order | Cart | None) -> Order | Cart | None:
        return value

    @handler
    def or_id(self, value: Order | str | Receipt | dict[str, Any]) -> Order | str | None:
        return None

    @handler
    def anything(self, value: Any) -> Any:
        return value


def key() -> ObjectKey:
    return KEY


class Side:
    """One runtime, as a process of a cluster has it."""

    def __init__(self, runtime: DurableRuntime) -> None:
        self.runtime = runtime
        self.registry: TypeRegistry = runtime._registry
        handles: Handles = self.registry
        self._codec = CallCodec(self.registry.calls(Cart).object_type, handles)

    def codec(self, name: str) -> HandlerCodec:
        return self._codec.handler(name)


@asynccontextmanager
async def two_sides() -> AsyncIterator[tuple[Side, Side]]:
    async with (
        DurableRuntime(MemoryStorage()) as one,
        DurableRuntime(MemoryStorage()) as other,
    ):
        yield Side(one), Side(other)


def sent(here: Side, there: Side, name: str, *args: Any) -> tuple[Any, ...]:
    data = orjson.loads(here.codec(name).encode_arguments(key, args, {}))
    return there.codec(name).decode_arguments(key, data)[0]


async def test_a_handle_arrives_as_one_of_the_receiving_runtime() -> None:
    async with two_sides() as (here, there):
        handle = here.runtime.get(Cart, "b", timeout=2.5)
        (arrived,) = sent(here, there, "merge", handle)
        assert arrived == there.runtime.get(Cart, "b")
        assert arrived != handle
        assert arrived._timeout == 2.5
        reply = orjson.loads(here.codec("merge").encode_reply(KEY, handle))
        assert there.codec("merge").decode_reply(lambda: KEY, reply) == there.runtime.get(Cart, "b")


async def test_a_handle_of_a_tenant_stays_one() -> None:
    async with two_sides() as (here, there):
        (arrived,) = sent(here, there, "merge", here.runtime.tenant("acme").get(Cart, "b"))
        assert arrived == there.runtime.tenant("acme").get(Cart, "b")


async def test_handles_stand_in_other_values() -> None:
    async with two_sides() as (here, there):

        def order(side: Side, object_id: str) -> Order:
            return side.runtime.get(Order, object_id)

        express = here.runtime.get(Express, "e")
        arrived = sent(
            here, there, "orders", [order(here, "1"), express], {"x": order(here, "2"), "y": None}
        )
        assert arrived[0] == [order(there, "1"), there.runtime.get(Express, "e")]
        assert arrived[1] == {"x": order(there, "2"), "y": None}
        reply = here.codec("orders").encode_reply(KEY, Receipt(order(here, "1"), 3))
        received = there.codec("orders").decode_reply(lambda: KEY, orjson.loads(reply))
        assert (received.order, received.number) == (order(there, "1"), 3)


@pytest.mark.parametrize("name", ["any_of", "or_id"])
async def test_handles_stand_beside_other_types(name: str) -> None:
    async with two_sides() as (here, there):
        order, cart = here.runtime.get(Order, "1"), here.runtime.get(Cart, "1")
        assert sent(here, there, name, order) == (there.runtime.get(Order, "1"),)
        if name == "any_of":
            assert sent(here, there, name, cart) == (there.runtime.get(Cart, "1"),)
            assert sent(here, there, name, None) == (None,)
            return
        looks_tagged = {"$type": "#handel", "value": ["Order", "1", None]}
        for value in ("1", "", {"a": 1}, looks_tagged):
            assert sent(here, there, name, value) == (value,)
        (receipt,) = sent(here, there, name, Receipt(order))
        assert receipt.order == there.runtime.get(Order, "1")


async def test_the_callee_of_this_process_gets_the_same() -> None:
    async with two_sides() as (here, _):
        for name in ("merge", "any_of"):
            handle = here.runtime.get(Cart, "b")
            assert here.codec(name).local_arguments(key, (handle,), {}) == ((handle,), {})
            assert here.codec(name).local_reply(KEY, handle) == handle


async def test_other_handles_are_refused_by_name() -> None:
    async with two_sides() as (here, there):
        order = here.runtime.get(Order, "1")
        refused = [
            ("merge", order, r"it is a handle of handles.Order, not a handle of Cart"),
            ("merge", Cart(), r"of type Cart, not handle of Cart"),
            ("merge", there.runtime.get(Cart, "b"), r"is one of another runtime; give the type"),
            ("any_of", "1", r"of type str, not handle of Order or Cart"),
            ("anything", order, r"of type OrderHandle, which isn't plain JSON; declare its type"),
        ]
        for name, value, problem in refused:
            with pytest.raises(ArgumentError, match=problem):
                here.codec(name).encode_arguments(key, (value,), {})
            with pytest.raises(ArgumentError, match=problem):
                here.codec(name).local_arguments(key, (value,), {})
            with pytest.raises(ReplyError, match=problem):
                here.codec(name).encode_reply(KEY, value)


async def test_an_object_that_looks_like_a_sent_handle_is_refused() -> None:
    async with two_sides() as (here, _):
        value = {"$type": "#handle", "value": "x"}
        codecs = CallCodec(here.registry.calls(Tagged).object_type, here.registry)
        with pytest.raises(ArgumentError, match="would be read as a handle"):
            codecs.handler("put").encode_arguments(key, (value,), {})


class Tagged(DurableObject, name="handles.Tagged"):
    @handler
    def put(self, value: Order | dict[str, str]) -> None: ...


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        ["Cart"],
        ["Cart", "b"],
        ["Cart", 1, None],
        ["Cart", "b", "x"],
        ["Nobody", "b", None],
        ["Order", "b", None],
    ],
)
async def test_data_that_is_no_handle_is_refused(data: Any) -> None:
    async with two_sides() as (here, _):
        codec = here.codec("merge")
        declaration = orjson.loads(codec.encode_reply(KEY, here.runtime.get(Cart, "b")))[1]
        with pytest.raises(ReplyDecodeError):
            codec.decode_reply(lambda: KEY, [data, declaration])


class Keys(DurableObject, name="handles.Keys"):
    @handler
    def put(self, orders: dict[Order, int]) -> None: ...


async def test_a_handle_is_no_key() -> None:
    async with DurableRuntime(MemoryStorage()) as runtime:
        calls = runtime._registry.calls(Keys)
        with pytest.raises(DefinitionError, match=r"Keys.put: its parameter orders can't be sent"):
            CallCodec(calls.object_type, runtime._registry)
