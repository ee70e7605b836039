"""Structs of msgspec in state: exact, through slots and constructor."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import anyio
import attrs
import msgspec
import pytest
from exactness.snapshot import same
from support.codecs import KEY, box, codec_of

from trio_durable import (
    DefinitionError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    StateDecodeError,
    StateEncodeError,
    alarm,
    handler,
)
from trio_durable._json.lookup import form_of
from trio_durable._json.structs import StructForm

T = TypeVar("T")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Point(msgspec.Struct, frozen=True, cache_hash=True):
    x: int
    y: int = 0


class Order(msgspec.Struct, rename="camel", tag="order", kw_only=True):
    total_price: Decimal = Decimal("1.50")
    placed_at: datetime | None = None
    tags: set[str] = msgspec.field(default_factory=set)
    points: list[Point] = []
    size: Annotated[int, msgspec.Meta(gt=0)] = 1


class Row(msgspec.Struct, array_like=True):
    at: datetime
    next: Row | None = None


class Page(msgspec.Struct, Generic[T]):
    items: list[T]
    last: T | None = None


class Shape(msgspec.Struct, dict=True, weakref=True):
    side: int = 1

    @cached_property
    def area(self) -> int:
        return self.side**2


class Sorted(msgspec.Struct):
    values: list[int]

    def __post_init__(self) -> None:
        self.values.sort()


@attrs.define
class Item:
    at: datetime = NOON


def stored(annotation: Any, value: Any) -> tuple[Any, bytes]:
    """``value``, read from what was written for it, and what was written."""
    cls = box(annotation, value)
    codec = codec_of(cls)
    state = codec.encode(KEY, cls(value=value))
    return codec.decode(KEY, state).value, state


# --- exact ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Point, Point(1, 2)),
        (Order, Order(tags={"b", "a"}, points=[Point(1), Point(2)], placed_at=NOON)),
        (Row, Row(NOON, Row(NOON))),
        (Page[datetime], Page([NOON], NOON)),
        (Page[Page[Decimal]], Page([Page([Decimal("1.0")])])),
        (list[Point], [Point(1), Point(1)]),
        (dict[str, Order], {"a": Order()}),
        (Point | None, None),
        (Point | None, Point(3)),
        (Point | Row | Item, Row(NOON)),
        (Point | Row | Item, Item()),
        (tuple[Point, ...], (Point(1),)),
        (set[Point], {Point(1), Point(2)}),
        (Sorted, Sorted([3, 1])),
    ],
)
def test_a_struct_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    read, state = stored(annotation, value)
    assert same(read, value)
    assert stored(annotation, read)[1] == state


def test_fields_are_stored_by_their_names_in_python() -> None:
    _, state = stored(Order, Order(placed_at=NOON))
    assert state.startswith(
        b'{"value":{"total_price":"1.50","placed_at":"2030-01-01T12:00:00+00:00","tags":[],'
        b'"points":[],"size":1}'
    )


def test_the_cached_hash_of_a_struct_is_not_state() -> None:
    point = Point(1)
    hash(point)
    read, _ = stored(Point, point)
    assert hash(read) == hash(point)


def test_a_struct_is_read_through_its_slots() -> None:
    class Loud(msgspec.Struct):
        x: int = 1

        def __getattribute__(self, name: str) -> Any:
            return 2 if name == "x" else super().__getattribute__(name)

    _, state = stored(Loud, Loud())
    assert state.startswith(b'{"value":{"x":1}')


def test_values_of_cached_properties_are_not_stored() -> None:
    shape = Shape(3)
    assert shape.area == 9
    read, state = stored(Shape, shape)
    assert state.startswith(b'{"value":{"side":3}')
    assert vars(read) == {}


# --- refused -------------------------------------------------------------------------------------


def test_a_value_of_another_type_than_the_field_is_refused() -> None:
    cls = box(Point | None, None)
    with pytest.raises(StateEncodeError, match=r"value\.x") as caught:
        codec_of(cls).encode(KEY, cls(value=Point("1")))  # type: ignore[arg-type]
    assert "'1' is of type str, not int" in str(caught.value)


def test_an_undeclared_attribute_is_refused() -> None:
    shape = Shape()
    cls = box(Shape, Shape())
    shape.colour = "red"  # type: ignore[attr-defined]
    with pytest.raises(StateEncodeError, match="colour"):
        codec_of(cls).encode(KEY, cls(value=shape))


def test_a_subclass_is_refused() -> None:
    class Special(Row):
        pass

    cls = box(Row, Row(NOON))
    with pytest.raises(StateEncodeError, match="Special, not Row"):
        codec_of(cls).encode(KEY, cls(value=Special(NOON)))


def test_a_field_that_is_not_set_is_refused() -> None:
    row = Row(NOON)
    del row.at
    cls = box(Row, Row(NOON))
    with pytest.raises(StateEncodeError, match="isn't set"):
        codec_of(cls).encode(KEY, cls(value=row))


class Counting(msgspec.Struct):
    made: int = 0

    def __post_init__(self) -> None:
        self.made += 1


def test_a_value_that_its_constructor_would_change_is_refused() -> None:
    cls = box(Counting | None, None)
    with pytest.raises(StateEncodeError, match=r"Counting\(made=1\) would be read back as"):
        codec_of(cls).encode(KEY, cls(value=Counting()))


def test_a_value_that_its_constructor_would_refuse_is_refused() -> None:
    class Positive(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            if self.x < 1:
                raise ValueError("not positive")

    positive = Positive(1)
    positive.x = 0
    cls = box(Positive | None, None)
    with pytest.raises(StateEncodeError, match=r"it can't be read back: .*not positive"):
        codec_of(cls).encode(KEY, cls(value=positive))


def test_changing_a_struct_on_write_doesnt_reach_the_live_value() -> None:
    live = Sorted([1])
    live.values = [3, 1]  # the constructor would have sorted them
    cls = box(Sorted | None, None)
    with pytest.raises(StateEncodeError, match="would be read back"):
        codec_of(cls).encode(KEY, cls(value=live))
    assert live.values == [3, 1]


def test_a_type_without_exact_json_is_refused_by_the_class_statement() -> None:
    class Bad(msgspec.Struct):
        x: list[complex]

    with pytest.raises(DefinitionError, match="complex"):
        codec_of(box(Bad | None, None))


def test_a_type_variable_without_a_type_is_refused() -> None:
    with pytest.raises(DefinitionError, match="type variable"):
        box(Page, None)


# --- other releases ------------------------------------------------------------------------------


def test_a_missing_field_gets_its_default() -> None:
    read = form_of(Order).read({"size": 4}, [])
    assert same(read, Order(size=4))
    assert read.tags is not form_of(Order).read({}, []).tags


def test_a_default_that_differs_each_time_is_noted() -> None:
    class Stamped(msgspec.Struct):
        at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
        n: list[int] = []

    taken: list[str] = []
    form_of(Stamped).read({}, taken)
    assert taken == ["at"]


def test_a_struct_as_a_factory_is_the_same_each_time() -> None:
    class Plain(DurableObject):
        order: Order = attrs.field(factory=Order)

    class Counted(DurableObject):
        counting: Sorted = attrs.field(factory=lambda: Sorted([]))

    assert codec_of(Plain).default_fields is not None
    assert codec_of(Counted).default_fields is None


def test_a_missing_required_field_is_refused() -> None:
    codec = codec_of(box(Point | None, None))
    with pytest.raises(StateDecodeError, match=r"value\.x.*missing"):
        codec.decode(KEY, b'{"value":{"y":1}}')


def test_a_field_of_a_struct_may_change_its_type() -> None:
    class Before(msgspec.Struct):
        when: str
        note: int

    class After(msgspec.Struct):
        when: datetime
        note: int | None

    Before.__name__ = After.__name__ = "Entry"
    old, new = box(Before | None, None), box(After | None, None)
    old_codec, new_codec = codec_of(old), codec_of(new)
    state = old_codec.encode(KEY, old(value=Before(NOON.isoformat(), 1)))
    assert same(new_codec.decode(KEY, state).value, After(NOON, 1))
    other = old_codec.encode(KEY, old(value=Before("noon", 1)))
    with pytest.raises(StateDecodeError, match="noon"):
        new_codec.decode(KEY, other)


def test_a_struct_may_become_an_attrs_class_of_its_name() -> None:
    @attrs.define
    class Moved:
        x: int
        y: int

    Moved.__name__ = "Point"
    old, new = box(Point | None, None), box(Moved | None, None)
    state = codec_of(old).encode(KEY, old(value=Point(1, 2)))
    assert same(codec_of(new).decode(KEY, state).value, Moved(1, 2))


def test_plain_json_from_outside_is_converted_by_msgspec() -> None:
    form = form_of(Order)
    assert isinstance(form, StructForm)
    data = {"type": "order", "totalPrice": "2.5", "placedAt": "2030-01-01T12:00:00Z"}
    assert same(form.validated(data), Order(total_price=Decimal("2.5"), placed_at=NOON))
    with pytest.raises(ValueError, match="size"):
        form.validated({"type": "order", "size": 0})


# --- with a runtime ------------------------------------------------------------------------------


class Shop(DurableObject):
    last: Point | Order | Item | None = None
    orders: dict[str, Order] = attrs.field(factory=dict)
    due: Order | None = None

    @handler
    def place(self, name: str, order: Order) -> Order:
        self.orders[name] = self.last = order
        return order

    @handler
    def remind(self, order: Order) -> None:
        self.ctx.schedule_alarm("paid", after=10, payload=order)

    @alarm
    def paid(self) -> None:
        assert self.ctx.alarm is not None
        self.due = self.ctx.alarm.payload_as(Order)

    @handler(readonly=True)
    def state(self) -> tuple[Any, dict[str, Order], Order | None]:
        return self.last, self.orders, self.due


@pytest.mark.anyio
async def test_structs_are_arguments_replies_state_and_payloads(tmp_path: Path) -> None:
    order = Order(points=[Point(1)], placed_at=NOON)
    path = tmp_path / "app.db"
    async with DurableRuntime(path, objects=[Shop], runner=InlineRunner) as runtime:
        shop = runtime.get(Shop, "a")
        assert same(await shop.place("first", order), order)
        await shop.remind(order)
        await anyio.sleep(20)
    async with DurableRuntime(path, objects=[Shop], runner=InlineRunner) as runtime:
        last, orders, due = await runtime.get(Shop, "a").state()
        assert same(last, order)
        assert same(orders, {"first": order})
        assert same(due, order)
