"""Types that people expect to work as fields: each of their values comes back as it was."""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv6Network
from pathlib import Path, PurePath
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Self,
    TypedDict,
    TypeVar,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
import typing_extensions as te

from trio_durable import BigInt

from .snapshot import same
from .workbench import durable, made, workbench

pytestmark = pytest.mark.anyio

T = TypeVar("T")
D = te.TypeVar("D", default=int)
UserId = NewType("UserId", str)
OrderId = NewType("OrderId", int)


class Colour(enum.Enum):
    RED = (255, 0, 0)
    BLUE = (0, 0, 255)


class Answer(enum.Enum):
    YES = True
    NO = False


class Mode(enum.Enum):
    A = "a"
    B = "b"


Json = te.TypeAliasType("Json", "bool | int | float | str | list[Json] | dict[str, Json] | None")
Tree = te.TypeAliasType("Tree", "dict[str, Tree] | int")
Pair = te.TypeAliasType("Pair", tuple[T, T], type_params=(T,))


@attrs.define
class Page(Generic[T]):
    items: list[T] = attrs.field(factory=list)
    next: Page[T] | None = None


@dataclasses.dataclass
class Box(Generic[D]):
    value: D | None = None


@attrs.define
class Node:
    value: int = 0
    kids: list[Self] = attrs.field(factory=list)

    @cached_property
    def size(self) -> int:
        return 1 + len(self.kids)


class Row(NamedTuple, Generic[T]):
    a: T
    b: int = 0


class Opt(TypedDict, Generic[T]):
    x: T
    y: NotRequired[int]


class Extra(te.TypedDict, extra_items=int):  # type: ignore[call-arg]
    name: str


@attrs.define
class Names:
    """Fields with names that generated code uses."""

    cl: int = 0
    converter: int = 1
    cls: int = 2
    data: int = 3
    value: int = 4
    taken: int = 5
    places: int = 6
    form: int = 7
    layout: int = 8
    new: int = 9
    failed: int = 10
    expected: int = 11
    error: int = 12
    attributes: int = 13
    h0: int = 14
    f0: int = 15
    d0: int = 16
    v: int = 17
    t: int = 18
    attributes_of: int = 19
    RecursionError: int = 20
    type: int = 21
    KeyError: int = 22
    Exception: int = 23
    len: int = 24
    id: int = 25
    instance: int = 27
    read: int = 28
    write: int = 29
    copy: int = 30
    part: int = 31


@attrs.define
class Al:
    _secret: int = attrs.field(default=3, alias="secret")


B = ZoneInfo("Europe/Berlin")
CASES = [
    (Json, {"a": [1, None, {"b": 2.5}]}),
    (Tree, {"a": {"b": 1}}),
    (Pair[int], (1, 2)),
    (Page[int], Page([1], Page([2]))),
    (Box[str], Box("x")),
    (Box, Box(3)),
    (Node, Node(1, [Node(2)])),  # type: ignore[list-item]
    (Literal["auto"] | int, "auto"),
    (Literal["auto"] | int, 7),
    (Literal[Mode.A, "x"], Mode.A),
    (Literal[Mode.A, "x"], "x"),
    (UserId | OrderId, "u"),
    (UserId | OrderId, 7),
    (Annotated[int, "x"] | str, 3),
    (float | str, 1),
    (float | str, 1.0),
    (float | str, "1"),
    (Sequence[str], ()),
    (Sequence[str], ("a",)),
    (Sequence[str], ["a"]),
    (AbstractSet[int], {1, 2}),
    (AbstractSet[int], frozenset({1})),
    (deque[int], deque([1, 2], maxlen=3)),
    (deque[int], deque([1])),
    (defaultdict[str, list[int]], defaultdict(list, a=[1])),
    (Counter[str], Counter("aab")),
    (OrderedDict[str, int], OrderedDict(b=1, a=2)),
    (Mapping[str, int], {"a": 1}),
    (Mapping[str, int], OrderedDict(a=1)),
    (Path, Path("a/b")),
    (PurePath, PurePath("a")),
    (IPv4Address, IPv4Address("127.0.0.1")),
    (IPv6Network, IPv6Network("::/64")),
    (IPv4Interface, IPv4Interface("10.0.0.1/8")),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=B, fold=1)),
    (datetime, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
    (ZoneInfo, B),
    (dict[tuple[int, str], int], {(1, "a"): 1}),
    (dict[bool, int], {True: 1, False: 2}),
    (dict[Literal[1, 2], str], {1: "a"}),
    (dict[tuple[UUID, date], int], {(UUID(int=1), date(2024, 1, 1)): 1}),
    (dict[Annotated[UUID, "x"], int], {UUID(int=1): 1}),
    (dict[Colour, int], {Colour.RED: 1}),
    (dict[Answer, int], {Answer.NO: 1}),
    (Colour, Colour.BLUE),
    (Answer, Answer.NO),
    (Row[int], Row(1, 2)),
    (Row[str], Row("x")),
    (Opt[int], {"x": 1}),
    (Opt[int], {"x": 1, "y": 2}),
    (Extra, {"name": "a", "more": 1}),
    (Names, Names()),
    (Al, Al(secret=5)),
    (BigInt, 2**70),
    (list[BigInt], [2**70, -1]),
    (BigInt | None, 2**64),
    (dict[BigInt, int], {2**70: 1}),
    (te.ReadOnly[int], 3),
    (Final[int], 3),
    (Literal["a", None], None),  # noqa: PYI061
    (list[Page[int] | Box[int]], [Page([1]), Box(1)]),
    (Any, [1, {"a": None}]),
    (object, [1]),
]


@pytest.mark.parametrize(("annotation", "value"), CASES, ids=str)
async def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    cls = durable({"value": (annotation, lambda: value)})
    async with workbench(None, cls) as bench:
        await bench.store(made(cls, value=value))
        assert same((await bench.load(cls)).value, value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695")
async def test_the_syntax_of_type_parameters() -> None:
    module: dict[str, Any] = {"__name__": __name__}
    exec(PEP_695, module)
    cls = module["Shelf"]
    async with workbench(None, cls) as bench:
        await bench.store(module["SHELF"]())
        assert same(await bench.load(cls), module["SHELF"]())


PEP_695 = """
import attrs
from trio_durable import DurableObject

type Json = None | bool | int | float | str | list[Json] | dict[str, Json]
type Pair[A, B = A] = tuple[A, B]
@attrs.define
class Page[T]:
    items: list[T]
    next: Page[T] | None = None
class Repo[T](DurableObject):
    pages: dict[str, Page[T]] = attrs.field(factory=dict)
class Shelf(Repo[Pair[int]]):
    notes: Json = None
SHELF = lambda: Shelf(pages={"a": Page([(1, 2)], Page([]))}, notes={"x": [1, {"y": None}]})
"""
if sys.version_info < (3, 13):  # PEP 696
    PEP_695 = PEP_695.replace("B = A", "B").replace("Pair[int]", "Pair[int, int]")
