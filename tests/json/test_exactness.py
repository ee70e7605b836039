"""State to JSON and back, value by value: exactly, or not at all."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import typing
import zoneinfo
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, TypedDict
from uuid import UUID

import attrs
import pytest
from support.codecs import (
    BERLIN,
    KEY,
    Colour,
    Extras,
    Item,
    Level,
    Mode,
    Money,
    Node,
    Number,
    Options,
    Rights,
    Row,
    Text,
    UserId,
    box,
    codec_of,
    same,
)
from support.ids import stable

from trio_durable import DurableObject, StateEncodeError, StateTooLarge
from trio_durable._json.state import StateCodec


def encoded(annotation: Any, default: Any, value: Any) -> tuple[StateCodec, bytes]:
    cls = box(annotation, default)
    codec = codec_of(cls)
    return codec, codec.encode(KEY, cls(value=value))


def round_trip(annotation: Any, default: Any, value: Any) -> Any:
    codec, state = encoded(annotation, default, value)
    return codec.decode(KEY, state).value


class Pair(enum.Enum):
    BOTH = (1, 2)
    FIRST = (1, None)


class Zone(tzinfo):
    """A time zone of the caller's own."""

    def utcoffset(self, _: object) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _: object) -> None:
        return None

    def tzname(self, _: object) -> str:
        return "own"


# --- tables: what is exact -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2**63 - 1),
        (int, -(2**63)),
        (int, 2**64 - 1),
        (int, True),
        (float, -0.0),
        (float, 5e-324),
        (float, 1.7976931348623157e308),
        (float, 3),
        (float, 2**53),
        (str, "\0"),
        (str, "\u2028\ufeff\U0010ffff"),
        (str, ""),
        (bytes, bytes(range(256))),
        (Decimal, Decimal("1.500")),
        (Decimal, Decimal("-0.00")),
        (Decimal, Decimal("1E+400")),
        (Decimal, Decimal(10) ** 60),
        (UUID, UUID(int=2**128 - 1)),
        (datetime, datetime(1, 1, 1)),
        (datetime, datetime.max.replace(tzinfo=UTC)),
        (datetime, datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))),
        (datetime, datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, seconds=-1)))),
        (datetime, datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "UTC"))),
        (time, time(23, 59, 59, 999999)),
        (time, time(12, tzinfo=UTC)),
        (timedelta, timedelta(days=-1, microseconds=1)),
        (timedelta, timedelta(days=10**8, microseconds=7)),
        (Rights, Rights.READ | Rights.WRITE),
        (Rights, Rights(0)),
        (Level, Level.HIGH),
        (Mode, Mode.ON),
        (tuple, (1, "a", None)),
        (tuple[int], (1,)),
        (set, {1, "a", None}),
        (frozenset[frozenset[int]], frozenset({frozenset({1}), frozenset()})),
        (set[int | str], {1, "1"}),
        (set[tuple[int, str | None]], {(1, None), (1, "a"), (0, None)}),
        (dict[int, str], {1: "a", -(2**70): "b"}),
        (dict[Level, int], {Level.LOW: 1}),
        (dict[Colour, int], {Colour.DEEP: 1, Colour.RED: 2}),
        (dict[Decimal, int], {Decimal("1.50"): 1}),
        (dict[datetime, int], {datetime(2024, 1, 1, tzinfo=UTC): 1}),
        (dict[str, int], {"$type": 1, "value": 2}),
        (dict[str, Any] | list[int], {"$type": "list", "value": [1]}),
        (dict[str, Any] | None, {"$type": "list", "value": [1]}),
        (Any, {"$type": "list", "value": [1]}),
        (int | float, 1.0),
        (int | float, 1),
        (bool | int | str, True),
        (date | datetime, datetime(2024, 1, 1)),
        (date | datetime, date(2024, 1, 1)),
        (Mode | str, Mode.ON),
        (Mode | str, "on"),
        (Level | int, 1),
        (Level | int | None, Level.LOW),
        (list[int] | set[int], {1}),
        (Optional["Node"], Node(1, [Node(2)], Node(3))),
        (Options, {"size": 1, "colour": Colour.RED}),
        (list[Any], [[[[[]]]], {"a": {"b": [None]}}]),
        (Literal[1, True], True),
        (Literal[1, True], 1),
        (Literal[0, False], False),
        (Literal[0], 0),
        (Literal[Colour.RED, "x"], Colour.RED),
        (int | str | None, True),
        (datetime, datetime(2024, 10, 27, 2, 30, fold=1)),
        (datetime, datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)),
        (datetime, datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)),
        (datetime, datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))),
        (time, time(2, 30, fold=1)),
        (time, time(2, 30, tzinfo=BERLIN)),
        (deque[int], deque([1, 2])),
        (OrderedDict[str, int], OrderedDict(b=1, a=2)),
        (dict[tuple[int, str], int], {(1, "a"): 1, (2, "b"): 2}),
        (dict[bool, str], {True: "yes", False: "no"}),
        (dict[bytes, str], {b"\0": "a"}),
        (dict[Literal[1, 2], str], {2: "a"}),
        (Pair, Pair.BOTH),
    ],
    ids=stable,
)
def test_exact(annotation: Any, value: Any) -> None:
    cls = box(annotation, value)
    assert same(codec_of(cls).decode(KEY, codec_of(cls).encode(KEY, cls())).value, value)


circle: list[Any] = []


circle.append([circle])

deep: list[Any] = []


for _ in range(600):
    deep = [deep]

ring = Node(1)


ring.children.append(ring)


@pytest.mark.parametrize(
    ("annotation", "default", "value", "place", "word"),
    [
        (float, 0.0, math.nan, "value", "nan"),
        (float, 0.0, math.inf, "value", "inf"),
        (float, 0.0, -math.inf, "value", "-inf"),
        (float, 0.0, 2**53 + 1, "value", "int"),
        (float, 0.0, True, "value", "bool"),
        (list[float], [], [1.0, math.nan], "value[1]", "nan"),
        (Any, None, {"a": [math.nan]}, "value['a'][0]", "nan"),
        (int, 0, 2**64, "value", "64-bit"),
        (int, 0, -(2**63) - 1, "value", "64-bit"),
        (list[int], [], [1, 2**64], "value[1]", "64-bit"),
        (Any, None, 2**64, "value", "64-bit"),
        (int, 0, 1.0, "value", "float"),
        (int, 0, "1", "value", "str"),
        (int, 0, None, "value", "NoneType"),
        (int, 0, Number(1), "value", "Number"),
        (int, 0, Level.LOW, "value", "Level"),
        (bool, False, 1, "value", "int"),
        (str, "", Text("a"), "value", "Text"),
        (str, "", Mode.ON, "value", "Mode"),
        (str, "", b"a", "value", "bytes"),
        (str, "", "\ud800", "value", "surrogates"),
        (list[str], [], ["a", "\udfff"], "value[1]", "surrogates"),
        (dict[str, int], {}, {"\ud800": 1}, "value", "surrogates"),
        (list[str], [], ["a", Text("b")], "value[1]", "Text"),
        (bytes, b"", bytearray(b"a"), "value", "bytearray"),
        (Decimal, Decimal(0), Decimal("NaN"), "value", "NaN"),
        (Decimal, Decimal(0), Decimal("sNaN"), "value", "sNaN"),
        (Decimal, Decimal(0), Decimal("-Infinity"), "value", "Infinity"),
        (Decimal, Decimal(0), 1, "value", "int"),
        (timedelta, timedelta(), timedelta.max, "value", "64-bit"),
        (datetime, datetime.min, datetime(2024, 1, 1, tzinfo=Zone()), "value", "astimezone(UTC)"),
        (
            datetime,
            datetime.min,
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
            "value",
            "named offset",
        ),
        (datetime, datetime.min, date(2024, 1, 1), "value", "date"),
        (date, date.min, datetime(2024, 1, 1), "value", "datetime"),
        (Colour, Colour.RED, "red", "value", "str"),
        (Level, Level.LOW, 1, "value", "int"),
        (list[int], [], (1,), "value", "tuple"),
        (tuple[int, ...], (), [1], "value", "list"),
        (tuple[int, str], (1, ""), (1,), "value", "1 items instead of 2"),
        (tuple[int, str], (1, ""), (1, 2), "value[1]", "int"),
        (tuple[int, str], (1, ""), Row(1), "value", "Row"),
        (Row, Row(1), (1, ""), "value", "tuple"),
        (Row, Row(1), Row(1, None), "value[1]", "NoneType"),  # type: ignore[arg-type]
        (set[int], set(), frozenset({1}), "value", "frozenset"),
        (dict[str, int], {}, OrderedDict(a=1), "value", "OrderedDict"),
        (dict[str, int], {}, {1: 1}, "value[1]", "int"),
        (dict[int, int], {}, {True: 1}, "value[True]", "bool"),
        (dict[str, list[int]], {}, {"a": [1, None]}, "value['a'][1]", "NoneType"),
        (Any, None, (1,), "value", "tuple"),
        (Any, None, {1}, "value", "set"),
        (Any, None, {1: "a"}, "value", "not a str"),
        (Any, None, [Text("a")], "value[0]", "Text"),
        (Any, None, Decimal(1), "value", "Decimal"),
        (Any, None, deep, "value", ""),
        (Item, Item(""), Item("", tags={1}), "value.tags[0]", "int"),  # type: ignore[arg-type]
        (Item, Item(""), {"name": ""}, "value", "dict"),
        (Item, Item(""), None, "value", "NoneType"),
        (list[Node], [], [Node(1, [Node("2")])], "value[0].children[0].value", "str"),  # type: ignore[arg-type]
        (Money, Money(Decimal(1)), Money(Decimal(1), "GBP"), "value.currency", "GBP"),  # type: ignore[arg-type]
        (Options, {"colour": Colour.RED, "size": 1}, {"size": 1}, "value", "lacks colour"),
        (
            Options,
            {"colour": Colour.RED, "size": 1},
            {"colour": Colour.RED, "size": 1, "more": 2},
            "value",
            "'more'",
        ),
        (Literal["a", 1], "a", True, "value", "not one of"),
        (Literal["a", 1], "a", "b", "value", "not one of"),
        (int | str, 1, 1.0, "value", "float"),
        (int | None, 1, "1", "value", "str"),
        (str | UUID | None, "", True, "value", "bool"),
        (float | str, 1.0, math.nan, "value", "nan"),
        (list[int] | int, 1, ["a"], "value[0]", "str"),
        (list[int] | int, 1, {}, "value", "dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refused(annotation: Any, default: Any, value: Any, place: str, word: str) -> None:
    cls = box(annotation, default)
    codec = codec_of(cls)
    with pytest.raises(StateEncodeError) as caught:
        codec.encode(KEY, cls(value=value))
    assert caught.value.field == place
    assert caught.value.key == KEY
    assert word in caught.value.problem
    assert len(caught.value.problem) < 1_000


@pytest.mark.parametrize("annotation", [Any, list[list[Any]], list[Any]])
def test_lists_that_contain_themselves(annotation: Any) -> None:
    cls = box(annotation, [])
    with pytest.raises(StateEncodeError, match="contains itself") as caught:
        codec_of(cls).encode(KEY, cls(value=circle))
    assert caught.value.field.startswith("value")


@pytest.mark.parametrize(("annotation", "value"), [(Any, circle), (Node, ring)])
def test_the_place_in_a_circle_is_short(annotation: Any, value: Any) -> None:
    cls = box(annotation | None, None)
    with pytest.raises(StateEncodeError, match="contains itself") as caught:
        codec_of(cls).encode(KEY, cls(value=value))
    assert caught.value.field.startswith("value")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", [datetime, time])
def test_offsets_below_a_second(kind: type[datetime | time]) -> None:
    zone = timezone(timedelta(microseconds=1))
    value = time(12, tzinfo=zone) if kind is time else datetime(2024, 1, 1, tzinfo=zone)
    cls = box(kind, kind.min)
    codec = codec_of(cls)
    try:
        state = codec.encode(KEY, cls(value=value))
    except StateEncodeError:
        return
    assert same(codec.decode(KEY, state).value, value)


def test_annotations_that_cannot_be_hashed() -> None:
    assert round_trip(Annotated[list[int], []], [], [1]) == [1]


@dataclasses.dataclass
class Loose:
    """A dataclass takes attributes that it never declared."""

    a: int = 1


@attrs.define
class Short:
    items: list[int] = attrs.field(factory=list, validator=attrs.validators.max_len(2))


def test_combined_flags_as_keys() -> None:
    cls = box(dict[Rights, int], {})
    codec = codec_of(cls)
    value = {Rights.READ | Rights.WRITE: 1}
    state = codec.encode(KEY, cls(value=value))
    assert state.startswith(b'{"value":{"3":1},"$as":')
    assert codec.decode(KEY, state).value == value


def test_undeclared_attributes_of_parts() -> None:
    value = Loose()
    value.extra = 1  # type: ignore[attr-defined]
    with pytest.raises(StateEncodeError):
        encoded(Loose, Loose(), value)


@pytest.mark.parametrize("nested", [False, True])
def test_what_a_validator_will_refuse_is_not_stored(nested: bool) -> None:
    if nested:
        cls = box(Short, Short())
        instance = cls()
        instance.value.items.extend([1, 2, 3])
    else:
        cls = box(list[int], [], validator=attrs.validators.max_len(2))
        instance = cls()
        instance.value.extend([1, 2, 3])
    codec = codec_of(cls)
    try:
        state = codec.encode(KEY, instance)
    except StateEncodeError:
        return
    codec.decode(KEY, state)


def test_a_typed_dict_in_a_union() -> None:
    value = {"note": "x"}
    cls = box(Extras | int, 1)
    codec = codec_of(cls)
    assert codec.decode(KEY, codec.encode(KEY, cls(value=value))).value == value


class Partial(TypedDict):
    must: int
    may: typing.NotRequired[int]


def test_keys_that_are_not_required() -> None:
    assert round_trip(Partial, {"must": 1}, {"must": 2}) == {"must": 2}


# --- undeclared attributes, limits ---------------------------------------------------------------


class Live(DurableObject):
    count: int = 0


def test_undeclared_attributes_of_a_live_object() -> None:
    live = Live()
    live.__dict__["ctx"] = object()
    codec = codec_of(Live)
    assert codec.encode(KEY, live) == b'{"count":0,"$as":{}}'
    live.total = 3  # type: ignore[attr-defined]
    with pytest.raises(StateEncodeError) as caught:
        codec.encode(KEY, live)
    assert caught.value.field == "total"
    assert "`total: int = …`" in caught.value.problem


def test_undeclared_attributes_of_a_detached_object() -> None:
    detached = Live()
    detached.total = 3  # type: ignore[attr-defined]
    with pytest.raises(StateEncodeError):
        codec_of(Live).encode(KEY, detached)


def test_deleted_attributes() -> None:
    instance = Live()
    del instance.count
    with pytest.raises(StateEncodeError) as caught:
        codec_of(Live).encode(KEY, instance)
    assert caught.value.field == "count"


def test_the_size_limit() -> None:
    cls = box(str, "")
    rest = len(b'{"value":"","$as":{}}')
    fits, over = "x" * (100 - rest), "x" * (101 - rest)
    codec = codec_of(cls, max_size=100)
    codec.check_size(KEY, codec.encode_fields(KEY, cls(value=fits)))
    with pytest.raises(StateTooLarge) as caught:
        codec.check_size(KEY, codec.encode_fields(KEY, cls(value=over)))
    assert (caught.value.size, caught.value.limit) == (101, 100)
    # The limit counts bytes, not characters.
    with pytest.raises(StateTooLarge):
        codec.check_size(KEY, codec.encode_fields(KEY, cls(value="é" * 50)))


def test_what_is_stored_looks_like_its_class() -> None:
    class Cart(DurableObject):
        items: list[Item] = attrs.field(factory=list)
        owner: UserId | None = None
        choice: Colour | int = 1
        _secret: bytes = b""

    cart = Cart(items=[Item("a", Decimal("1.50"), {"y", "x"})], choice=Colour.RED, _secret=b"\xff")
    assert json.loads(codec_of(Cart).encode(KEY, cart)) == {
        "items": [{"name": "a", "price": "1.50", "tags": ["x", "y"], "_hidden": 0}],
        "owner": None,
        "choice": {"$type": "Colour", "value": "red"},
        "_secret": "/w==",
        "$as": {
            "items": ["list", ["class", "Item"]],
            "choice": ["|", [], ["enum", "Colour"]],
            "_secret": "bytes",
            "$": {"Item": {"price": "Decimal", "tags": ["set", "json"]}},
        },
    }
