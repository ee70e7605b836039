"""Plain JSON as the arguments of calls by name."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from trio_durable import ArgumentError, DurableObject, DurableRuntime, handler, make_converter

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@attrs.define
class Item:
    name: str
    price: Decimal = Decimal(0)
    added: datetime | None = None
    count: int = attrs.field(default=1, validator=attrs.validators.gt(0))


@dataclasses.dataclass
class Note:
    text: str


class Row(NamedTuple):
    number: int
    label: str = ""


class Options(TypedDict):
    item: Item


class Basket(DurableObject):
    log: list[str] = attrs.field(factory=list)

    @handler(readonly=True)
    def one(self, item: Item) -> Any:
        return item

    @handler(readonly=True)
    def many(self, items: list[Item], /, *, notes: dict[str, Note] | None = None) -> Any:
        return items, notes

    @handler(readonly=True)
    def either(self, thing: Item | Note | dict[str, int] | None) -> Any:
        return thing

    @handler(readonly=True)
    def row(self, row: Row, options: Options) -> Any:
        return row, options

    @handler(readonly=True)
    def plain(self, data: dict[str, Any], *rest: Any, **more: Any) -> Any:
        return data, rest, more

    @handler(readonly=True)
    def unknown(self, thing: Undefined) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return thing


class Repository(DurableObject, Generic[T]):
    @handler(readonly=True)
    def add(self, item: T) -> Any:
        return item


class Items(Repository[Item]): ...


async def call(name: str, *args: Any, **kwargs: Any) -> Any:
    async with DurableRuntime(":memory:") as runtime:
        return await runtime.call(Basket, "a", name, *args, **kwargs)


async def test_a_model_is_made_from_plain_json() -> None:
    data = {"name": "tea", "price": "1.50", "added": "2024-01-01T00:00:00Z"}
    tea = Item("tea", Decimal("1.50"), datetime(2024, 1, 1, tzinfo=UTC))
    assert await call("one", data) == tea
    assert await call("one", item=data) == tea
    assert await call("many", [data, {"name": "milk"}]) == ([tea, Item("milk")], None)
    notes = {"a": {"text": "hot"}}
    assert await call("many", [], notes=notes) == ([], {"a": Note("hot")})
    assert await call("row", [1, "x"], {"item": {"name": "tea"}}) == (
        Row(1, "x"),
        {"item": Item("tea")},
    )


async def test_the_only_member_that_fits_is_made() -> None:
    assert await call("either", {"text": "hot"}) == Note("hot")
    assert await call("either", {"name": "tea"}) == Item("tea")
    assert await call("either", {"a": 1}) == {"a": 1}
    assert await call("either", None) is None


async def test_a_model_that_is_given_stays() -> None:
    assert await call("one", Item("tea")) == Item("tea")
    assert await call("many", [Item("tea")]) == ([Item("tea")], None)
    assert await call("either", Note("hot")) == Note("hot")
    data = {"a": [1], "b": {"name": "tea"}}
    assert await call("plain", data, [1], more={"x": 1}) == (data, ([1],), {"more": {"x": 1}})
    assert await call("unknown", {"name": "tea"}) == {"name": "tea"}


@pytest.mark.parametrize(
    ("name", "args", "problem"),
    [
        ("one", ({"name": 1},), "the argument item.name: 1 is of type int, not str"),
        ("one", ({"name": "a", "colour": "red"},), "the argument item: colour is no field of Item"),
        ("one", ({},), "the argument item: name is missing"),
        ("one", ({"name": "a", "count": 0},), "the argument item.count: ValueError"),
        ("many", ([{"name": "a"}, {"name": 2}],), "the argument items[1].name: 2 is of type int"),
        ("row", ([1, 2], {"item": {"name": "a"}}), "the argument row[1]: 2 is of type int"),
    ],
)
async def test_json_that_does_not_fit(name: str, args: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        await call(name, *args)
    assert problem in str(caught.value)
    assert "Basket('a')" in str(caught.value)


async def test_the_models_of_generic_and_local_classes() -> None:
    @attrs.define
    class Local:
        n: int

    class Box(DurableObject):
        @handler(readonly=True)
        def put(self, local: Local) -> Any:
            return local.n

    async with DurableRuntime(":memory:") as runtime:
        assert await runtime.call(Items, "a", "add", {"name": "tea"}) == Item("tea")
        assert await runtime.call(Repository[Note], "a", "add", {"text": "x"}) == Note("x")
        assert await runtime.call(Box, "a", "put", {"n": 3}) == 3


@attrs.define
class Recipe:
    butter: Fraction


class Kitchen(DurableObject):
    @handler(readonly=True)
    def cook(self, recipe: Recipe) -> Any:
        return recipe


async def test_the_runtimes_converter_reads_the_parts_of_a_model() -> None:
    converter = make_converter()
    converter.register_unstructure_hook(Fraction, str)
    converter.register_structure_hook(Fraction, lambda text, _: Fraction(text))
    async with DurableRuntime(":memory:", converter=converter) as runtime:
        cooked = await runtime.call(Kitchen, "a", "cook", {"butter": "1/2"})
        assert cooked == Recipe(Fraction(1, 2))


class Address(pydantic.BaseModel):
    street: str
    number: int = 0


class Point(msgspec.Struct):
    x: int


class Map(DurableObject):
    @handler(readonly=True)
    def show(self, address: Address, points: list[Point]) -> Any:
        return address, points


async def test_models_of_other_libraries_check_what_enters() -> None:
    async with DurableRuntime(":memory:") as runtime:
        shown = await runtime.call(Map, "a", "show", {"street": "x", "number": "7"}, [{"x": 1}])
        assert shown == (Address(street="x", number=7), [Point(1)])
        with pytest.raises(ArgumentError, match=r"(?s)the argument address: .*number"):
            await runtime.call(Map, "a", "show", {"street": "x", "number": "y"}, [])
        with pytest.raises(ArgumentError, match=r"(?s)the argument points\[0\]: .*x"):
            await runtime.call(Map, "a", "show", {"street": "x"}, [{"x": "y"}])
