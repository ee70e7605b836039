"""Declared types of all kinds, and a codec for a class with one field of such a type."""

from __future__ import annotations

import copy
import dataclasses
import enum
import itertools
import zoneinfo
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NewType, TypedDict

import attrs
from hypothesis import strategies as st

from trio_durable import DurableObject, ObjectKey
from trio_durable._api.durable_object import state_form
from trio_durable._json.state import StateCodec

KEY = ObjectKey("Box", "b")
counter = itertools.count()


class Colour(enum.Enum):
    RED = "red"
    DEEP = 1


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    ON = "on"
    OFF = "off"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.define
class Item:
    name: str
    price: Decimal = Decimal("0.00")
    tags: set[str] = attrs.field(factory=set)
    _hidden: int = 0


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Address:
    street: str
    number: int | None = None
    since: date = date(2000, 1, 1)
    lines: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: Literal["EUR", "USD"] = "EUR"


@attrs.define
class Node:
    value: int
    children: list[Node] = attrs.field(factory=list)
    other: Node | None = None


class Row(NamedTuple):
    number: int
    label: str = ""


class Options(TypedDict):
    colour: Colour
    size: int


class Extras(TypedDict, total=False):
    note: str
    amounts: list[Decimal]


UserId = NewType("UserId", str)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


def parts(value: datetime | time) -> list[object]:
    return [value.replace(tzinfo=None), value.fold, value.utcoffset(), value.tzname()]


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types at every depth: 1, True and 1.0 are three things."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, Decimal):
        return repr(left) == repr(right)
    if isinstance(left, (datetime, time)):
        return parts(left) == parts(right)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(any(same(a, b) for b in right) for a in left)
    if attrs.has(type(left)):
        names = [field.name for field in attrs.fields(type(left))]
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right)


def box(annotation: Any, default: Any, **options: Any) -> type[Any]:
    """A durable object class with one field, ``value``."""
    body = {
        "__annotations__": {"value": annotation},
        "value": attrs.field(factory=lambda: copy.deepcopy(default), **options),
    }
    return type(f"Box{next(counter)}", (DurableObject,), body)


def codec_of(cls: type[Any], **options: Any) -> StateCodec:
    return StateCodec(state_form(cls), **options)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
integers = st.integers(-(2**63), 2**64 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False)

items = st.builds(
    Item, name=texts, price=decimals, tags=st.sets(texts, max_size=3), hidden=integers
)

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def stored_as_type(annotation: Any, value: Any) -> bytes:
    """The state of an object whose field has a value of a type."""
    cls = box(annotation, value)
    return codec_of(cls).encode(KEY, cls())


def reread(stored: Any, present: Any, value: Any, default: Any) -> Any:
    """A value that a field of one type stored, as a field of another type reads it.

    It is checked that the value is written again.
    """
    codec = codec_of(box(present, default))
    instance = codec.decode(KEY, stored_as_type(stored, value))
    again = codec.encode(KEY, instance)
    assert same(codec.decode(KEY, again).value, instance.value)
    return instance.value
