"""Types that members of a union may have, with values that look like values of other types."""

from __future__ import annotations

import dataclasses
import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

import trio_durable

from .annotations import BIG_INT

T = TypeVar("T")
BERLIN = ZoneInfo("Europe/Berlin")
ID = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


class Colour(enum.Enum):
    RED = "red"
    FIRST = 1


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    ON = "on"
    RED = "red"


class Grade(enum.Enum):
    """An enum that takes any value for one of its members."""

    GOOD = "good"
    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> Grade:
        return cls.GOOD


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.define
class Item:
    name: str = ""
    price: Decimal = Decimal(0)


@attrs.frozen
class Note:
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Money:
    amount: int = 0
    currency: Literal["EUR", "USD"] = "EUR"


@attrs.define
class Box(Generic[T]):
    value: T


class Row(NamedTuple):
    number: int
    label: str = ""


class Span(NamedTuple):
    first: int
    last: int


class Options(TypedDict):
    name: str


UserId = NewType("UserId", str)


@attrs.frozen
class Member:
    """A type, and a function that makes values of it."""

    name: str
    annotation: Any
    make: Callable[[], list[Any]]


TEXTS = (
    *("", "a", "1", "01", "0", "1.5", "1.50", "-0", "red", "on", "auto", "true", "null"),
    *("YQ==", "YR==", "password", "2024-01-01", "2024-01-01T00:00:00", "20240101", "00:00:00"),
    *("2024-01-01T00:00:00+00:00", "2024-01-01T00:00:00Z", "127.0.0.1", "a/b", "a//b", "["),
    *(str(ID), str(ID).upper(), ID.hex, str(2**70), "2024-01-01T00:00:00+01:00[Europe/Berlin]"),
)

MEMBERS: list[Member] = [
    Member("bool", bool, lambda: [False, True]),
    Member("int", int, lambda: [0, 1, 2, True, -(2**63), 2**63, 1_704_067_200_000_000]),
    Member("float", float, lambda: [0.0, -0.0, 1.5, 1.0, 1, 2**53]),
    Member("str", str, lambda: list(TEXTS)),
    Member("bytes", bytes, lambda: [b"", b"a", bytes(range(256))]),
    Member(
        "datetime",
        datetime,
        lambda: [
            datetime(2024, 1, 1),
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(2024, 1, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=1, seconds=61))),
        ],
    ),
    Member("date", date, lambda: [date(2024, 1, 1)]),
    Member("time", time, lambda: [time(0), time(12, 30, tzinfo=UTC)]),
    Member("timedelta", timedelta, lambda: [timedelta(0), timedelta(microseconds=1)]),
    Member("Decimal", Decimal, lambda: [Decimal("1.50"), Decimal(1), Decimal("-0")]),
    Member("UUID", UUID, lambda: [UUID(str(ID))]),
    Member("Colour", Colour, lambda: [Colour.RED, Colour.FIRST]),
    Member("Level", Level, lambda: [Level.LOW]),
    Member("Mode", Mode, lambda: [Mode.RED]),
    Member("Grade", Grade, lambda: [Grade.GOOD, Grade.RED]),
    Member("Rights", Rights, lambda: [Rights.READ, Rights.READ | Rights.WRITE]),
    Member("Literal", Literal["auto", 1], lambda: ["auto", 1]),
    Member("LiteralBool", Literal[True, "red"], lambda: [True, "red"]),
    Member("list[int]", list[int], lambda: [[], [1], [3, 1, 1], [1, 2]]),
    Member("list[str]", list[str], lambda: [[], ["a"], ["b", "a"], ["1"]]),
    Member("tuple[int, ...]", tuple[int, ...], lambda: [(), (1, 2), (3, 1, 1)]),
    Member("tuple[int, str]", tuple[int, str], lambda: [(1, "a"), (1, "")]),
    Member("set[int]", set[int], lambda: [set(), {1, 2}, {10, 9}]),
    Member("frozenset[str]", frozenset[str], lambda: [frozenset(), frozenset({"b", "a"})]),
    Member("dict[str, int]", dict[str, int], lambda: [{}, {"1": 1}, {"1": 1, "01": 2}]),
    Member("dict[int, str]", dict[int, str], lambda: [{}, {1: "a", -1: "b"}]),
    Member(
        "dict[str, Any]",
        dict[str, Any],
        lambda: [{}, {"$type": "bytes", "value": "YQ=="}, {"name": "a"}, {"name": "a", "more": 1}],
    ),
    Member("Item", Item, lambda: [Item(), Item("a", Decimal("1.50"))]),
    Member("Note", Note, lambda: [Note("a")]),
    Member("Money", Money, lambda: [Money(1)]),
    Member("Box[int]", Box[int], lambda: [Box(1)]),
    Member("Row", Row, lambda: [Row(1, "a")]),
    Member("Span", Span, lambda: [Span(1, 2)]),
    Member("Options", Options, lambda: [{"name": "a"}]),
    Member("list[Item]", list[Item], lambda: [[], [Item("a")]]),
    Member("UserId", UserId, lambda: ["a"]),
    Member("Annotated", Annotated[int, "seconds"], lambda: [1]),
    Member("deque[int]", deque[int], lambda: [deque(), deque([3, 1, 1])]),
    Member("Sequence[int]", Sequence[int], lambda: [[1], (1,)]),
    Member("Path", Path, lambda: [Path("a/b")]),
    Member("Any", Any, lambda: [None, 1, "a", [1, "a"], {"name": "a"}]),
    Member("IPv4Address", IPv4Address, lambda: [IPv4Address("127.0.0.1")]),
]

if hasattr(trio_durable, "BigInt"):
    MEMBERS.append(Member("BigInt", BIG_INT, lambda: [0, 1, 2**70]))

NASTY: list[Callable[[], Any]] = [
    lambda: None,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: 2**53 + 1,
    lambda: 2**64,
    lambda: 2**70,
    lambda: Decimal("NaN"),
    lambda: "\ud800",
    lambda: datetime(2024, 10, 27, 2, 30, fold=1),
    lambda: datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    lambda: datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC")),
    lambda: datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    lambda: time(2, 30, fold=1),
    lambda: timedelta.max,
    lambda: bytearray(b"a"),
    lambda: 1j,
    lambda: deque([1], 1),
    lambda: [1.0],
    lambda: [True],
    lambda: (1, 2.0),
    lambda: {1: 1},
    lambda: {True: "a"},
    lambda: Box("a"),
    lambda: Item(1),  # type: ignore[arg-type]
    lambda: Row(True, "a"),
]
"""Values that few declarations hold."""


def all_values() -> Iterator[tuple[str, Any]]:
    """All values of all members, and the nasty ones, with the names of their members."""
    for member in MEMBERS:
        for value in member.make():
            yield member.name, value
    for make in NASTY:
        yield "nasty", make()
