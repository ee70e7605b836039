"""State that another declaration wrote: the table of changed types, and what is refused."""

from __future__ import annotations

import enum
import json
from collections import Counter, OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import attrs
import pytest
from support.codecs import (
    KEY,
    Colour,
    Level,
    Mode,
    Rights,
    Row,
    box,
    codec_of,
    reread,
    same,
    stored_as_type,
)
from support.ids import stable

from trio_durable import BigInt, DurableObject, StateDecodeError, stored_as, upgrade

NOON = datetime(2024, 1, 1, 12)
ONE = UUID(int=1)


class Fruit(enum.Enum):
    APPLE = "apple"
    PEAR = "pear"


class Sized(enum.Enum):
    ONE = 1


class Falling(enum.Enum):
    """An enum that takes any value for one of its members."""

    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Falling:
        return cls.OTHER


class Pair(NamedTuple):
    first: int
    second: int


class Options(TypedDict):
    size: int
    at: datetime
    note: NotRequired[str]


@attrs.define
class Settings:
    size: int
    at: datetime
    note: str = "none"


@attrs.define
class Item:
    name: str
    at: datetime = NOON


@stored_as("Item")
@attrs.define
class LongerItem:
    name: str
    at: datetime = NOON
    amount: Decimal = Decimal(1)


@stored_as("Thing", former=("Item",))
@attrs.define
class Thing:
    name: str
    at: datetime = NOON


@attrs.define
class Node:
    value: int | str
    at: datetime = NOON
    next: Node | None = None


@stored_as("Node")
@attrs.define
class NodeOfDates:
    value: int | str
    at: datetime | date = NOON
    next: NodeOfDates | None = None


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "present", "value", "read"),
    [
        (int, float, 3, 3),
        (bool, int, True, True),
        (int, int | None, 3, 3),
        (UUID, UUID | None, ONE, ONE),
        (UUID | None, UUID, ONE, ONE),
        (int | None, int, 3, 3),
        (float, int, 3, 3),
        # text
        (str, Decimal, "1.50", Decimal("1.50")),
        (Decimal, str, Decimal("1.50"), "1.50"),
        (str, UUID, str(ONE), ONE),
        (UUID, str, ONE, str(ONE)),
        (str, datetime, "2024-01-01T12:00:00", NOON),
        (datetime, str, NOON, "2024-01-01T12:00:00"),
        (str, date, "2024-01-01", date(2024, 1, 1)),
        (date, str, date(2024, 1, 1), "2024-01-01"),
        (str, time, "12:00:00", time(12)),
        (time, str, time(12), "12:00:00"),
        (str, Path, "a/b", Path("a/b")),
        (Path, str, Path("a/b"), "a/b"),
        (str, IPv4Address, "127.0.0.1", IPv4Address("127.0.0.1")),
        (IPv4Address, str, IPv4Address("127.0.0.1"), "127.0.0.1"),
        (str, BigInt, str(10**30), 10**30),
        (BigInt, str, 10**30, str(10**30)),
        (int, BigInt, 7, 7),
        (BigInt, int, 7, 7),
        (str, Literal["a", "b"], "a", "a"),
        (Literal["a", "b"], str, "a", "a"),
        # enums
        (str, Fruit, "apple", Fruit.APPLE),
        (Fruit, str, Fruit.APPLE, "apple"),
        (int, Sized, 1, Sized.ONE),
        (Sized, int, Sized.ONE, 1),
        (int, Level, 2, Level.HIGH),
        (str, Mode, "on", Mode.ON),
        (int, Rights, 3, Rights.READ | Rights.WRITE),
        (Fruit, Literal["apple"], Fruit.APPLE, "apple"),
        (Literal["apple"], Fruit, "apple", Fruit.APPLE),
        # sequences
        (list[int], tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], list[int], (1, 2), [1, 2]),
        (list[UUID], deque[UUID], [ONE], deque([ONE])),
        (deque[UUID], list[UUID], deque([ONE]), [ONE]),
        (deque[int], tuple[int, ...], deque([1]), (1,)),
        (tuple[int, int], Pair, (1, 2), Pair(1, 2)),
        (Pair, tuple[int, int], Pair(1, 2), (1, 2)),
        (list[int], Pair, [1, 2], Pair(1, 2)),
        (list[str], list[UUID], [str(ONE)], [ONE]),
        (list[int], list[float], [1], [1]),
        (set[int], list[int], {2, 1}, [1, 2]),
        (frozenset[UUID], tuple[UUID, ...], frozenset({ONE}), (ONE,)),
        (list[int], set[int], [1, 2], {1, 2}),
        (set[int], frozenset[int], {1}, frozenset({1})),
        # mappings
        (dict[str, int], dict[int, int], {"1": 1, "-2": 2}, {1: 1, -2: 2}),
        (dict[int, int], dict[str, int], {1: 1}, {"1": 1}),
        (dict[str, int], dict[UUID, int], {str(ONE): 1}, {ONE: 1}),
        (dict[UUID, int], dict[str, int], {ONE: 1}, {str(ONE): 1}),
        (dict[str, int], OrderedDict[str, int], {"a": 1}, OrderedDict(a=1)),
        (Counter[str], dict[str, int], Counter(a=1), {"a": 1}),
        (dict[str, int], Counter[str], {"a": 1}, Counter(a=1)),
        (dict[str, Any], Options, {"size": 1, "at": "2024-01-01T12:00:00"},
         {"size": 1, "at": NOON}),
        (Options, Settings, {"size": 1, "at": NOON, "note": "a"}, Settings(1, NOON, "a")),
        (Options, Settings, {"size": 1, "at": NOON}, Settings(1, NOON, "none")),
        (Settings, Options, Settings(1, NOON, "a"), {"size": 1, "at": NOON, "note": "a"}),
        (Item, LongerItem, Item("a"), LongerItem("a")),
        (LongerItem, Item, LongerItem("a"), Item("a")),
        (Item, Thing, Item("a"), Thing("a")),
        # unions
        (UUID, UUID | int, ONE, ONE),
        (UUID | int, UUID, ONE, ONE),
        (int | UUID, int | UUID | datetime, ONE, ONE),
        (UUID | datetime, UUID | str, NOON, "2024-01-01T12:00:00"),
        (list[UUID], list[UUID | int], [ONE], [ONE]),
        (Item, Item | int, Item("a"), Item("a")),
        (str, str | UUID, str(ONE), str(ONE)),  # a str stays one
        (dict[str, UUID], dict[str, UUID | None], {"a": ONE}, {"a": ONE}),
        (Item | int, Thing | int, Item("a"), Thing("a")),
        (Node, NodeOfDates, Node(1, next=Node("2")), NodeOfDates(1, next=NodeOfDates("2"))),
    ],
    ids=stable,
)  # fmt: skip
def test_values_that_are_read(stored: Any, present: Any, value: Any, read: Any) -> None:
    assert same(reread(stored, present, value, read), read)


@pytest.mark.parametrize(
    ("stored", "present", "value", "default"),
    [
        (float, int, 3.0, 0),
        (float, int, 0.5, 0),
        (int, bool, 1, False),
        (int, str, 1, ""),
        (str, int, "1", 0),
        (int | None, int, None, 0),
        # text that isn't canonical
        (str, Decimal, " 1", Decimal(0)),
        (str, UUID, str(UUID(int=2**128 - 1)).upper(), ONE),
        (str, datetime, "2024-01-01", NOON),
        (str, datetime, "20240101T120000", NOON),
        (str, date, "20240101", date.min),
        (str, time, "12:00", time()),
        (str, Path, "a//b", Path()),
        (str, BigInt, "01", 0),
        (str, Literal["a"], "b", "a"),
        # of another kind
        (bytes, str, b"a", ""),
        (str, bytes, "YR==", b""),
        (str, bytes, "YQ==", b""),
        (timedelta, int, timedelta(1), 0),
        (int, timedelta, 1, timedelta()),
        (date, datetime, date(2024, 1, 1), NOON),
        (datetime, date, NOON, date.min),
        (UUID, datetime, ONE, NOON),
        (UUID, Any, ONE, None),
        (Item, Any, Item("a"), None),
        (set[int], Any, {1}, None),
        (str, Falling, "gone", Falling.OTHER),
        (int, Sized, 2, Sized.ONE),
        (bool, Sized, True, Sized.ONE),
        (Fruit, Colour, Fruit.APPLE, Colour.RED),
        # order, count and names
        (list[int], set[int], [2, 1], set()),
        (list[int], set[int], [1, 1], set()),
        (list[int], Pair, [1], Pair(0, 0)),
        (list[int], Pair, [1, 2, 3], Pair(0, 0)),
        (tuple[int, int, int], Pair, (1, 2, 3), Pair(0, 0)),
        (list[int], dict[str, int], [], {}),
        (dict[str, int], list[int], {}, []),
        (list[tuple[str, int]], dict[str, int], [("a", 1)], {}),
        (dict[str, int], dict[int, int], {"01": 1}, {}),
        (dict[str, int], dict[int, int], {"a": 1}, {}),
        (dict[str, Any], Options, {"size": 1}, {"size": 1, "at": NOON}),
        (dict[str, Any], Options, {"size": 1, "at": "2024-01-01T12:00:00", "x": 1},
         {"size": 1, "at": NOON}),
        (Settings, Item, Settings(1, NOON), Item("")),
        (Settings, dict[str, Any], Settings(1, NOON), {}),
        (Item | int, UUID | int, Item("a"), 1),
    ],
    ids=stable,
)  # fmt: skip
def test_values_that_are_refused(stored: Any, present: Any, value: Any, default: Any) -> None:
    codec = codec_of(box(present, default))
    state = stored_as_type(stored, value)
    with pytest.raises(StateDecodeError) as caught:
        codec.decode(KEY, state)
    assert caught.value.field == "value"


def test_a_value_is_read_as_the_type_that_wrote_it() -> None:
    # The text of both is alike, and only the declaration tells them apart.
    assert same(reread(UUID | datetime, datetime | UUID | str, NOON, ""), NOON)
    assert same(reread(str | int, datetime | str, "2024-01-01T12:00:00", ""), "2024-01-01T12:00:00")
    assert same(reread(datetime, datetime | str, NOON, ""), NOON)
    assert same(reread(str, datetime | str, "2024-01-01T12:00:00", NOON), "2024-01-01T12:00:00")
    assert same(reread(timedelta, timedelta | int, timedelta(1), 0), timedelta(1))
    assert same(reread(int, timedelta | int, 7, timedelta()), 7)


# --- rows without a declaration ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "data", "read"),
    [
        (datetime, "2024-01-01T12:00:00+00:00", NOON.replace(tzinfo=UTC)),
        (list[UUID], [str(ONE)], [ONE]),
        (UUID | int, {"$type": "UUID", "value": str(ONE)}, ONE),
        (UUID | int, str(ONE), ONE),
        (UUID | str, str(ONE), str(ONE)),
        (timedelta | int, 7, 7),
        (Item | int, {"name": "a", "at": "2024-01-01T12:00:00"}, Item("a")),
        (Node, {"value": 1, "next": {"value": "2"}}, Node(1, next=Node("2"))),
        (list[Node | int], [{"$type": "Node", "value": {"value": 1}}], [Node(1)]),
        (Row, [1], Row(1)),
        (bytes, "YQ==", b"a"),
    ],
    ids=stable,
)
def test_rows_of_earlier_releases(present: Any, data: Any, read: Any) -> None:
    codec = codec_of(box(present, read))
    assert same(codec.decode(KEY, json.dumps({"value": data}).encode()).value, read)


@pytest.mark.parametrize(
    ("present", "data", "default"),
    [
        (datetime, "2024-01-01", NOON),
        (bytes, "YR==", b""),
        (UUID | datetime, "noon", NOON),
        (Item | Thing, {"name": "a", "at": "2024-01-01T12:00:00"}, Item("")),  # of which one?
        (Item, {"gone": 1}, Item("")),
        (set[int], [2, 1], set()),
    ],
    ids=stable,
)
def test_rows_that_no_earlier_release_wrote(present: Any, data: Any, default: Any) -> None:
    codec = codec_of(box(present, default))
    with pytest.raises(StateDecodeError):
        codec.decode(KEY, json.dumps({"value": data}).encode())


# --- the recorded declaration --------------------------------------------------------------------


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        1,
        "json",
        [],
        {"value": 1},
        {"value": None},
        {"value": []},
        {"value": ["list"]},
        {"value": ["list", "int", "int"]},
        {"value": ["class", "Gone"]},
        {"value": ["class", 1]},
        {"value": ["dict", "str"]},
        {"value": ["|", "UUID"]},
        {"value": ["enum", []]},
        {"value": ["unheard", "of"]},
        {"$": []},
        {"$": {"Item": "json"}},
        {"$": {"Item": ["NamedTuple", "x"]}},
        {"$": {"Item": ["TypedDict", []]}},
        {"value": ["list", {"x": 1}]},
    ],
    ids=str,
)
def test_members_that_are_no_declaration(recorded: Any) -> None:
    codec = codec_of(box(UUID | None, None))
    row = json.dumps({"value": None, "$as": recorded}).encode()
    if recorded is None:  # as in a row without a declaration
        assert codec.decode(KEY, row).value is None
        return
    with pytest.raises(StateDecodeError) as caught:
        codec.decode(KEY, row)
    assert caught.value.place == "$.$as"
    assert "is not a declaration of state" in caught.value.problem


def test_types_that_a_later_release_may_have_are_refused_by_their_name() -> None:
    codec = codec_of(box(UUID, ONE))
    with pytest.raises(StateDecodeError, match="was written as Fraction"):
        codec.decode(KEY, b'{"value":"1/3","$as":{"value":"Fraction"}}')


def test_a_state_in_other_formatting_is_read() -> None:
    cls = box(UUID, ONE)
    codec = codec_of(cls)
    pretty = json.dumps(json.loads(codec.encode(KEY, cls())), indent=2, sort_keys=True)
    assert codec.decode(KEY, pretty.encode()) == cls()


class Before(DurableObject, name="Upgraded"):
    at: datetime = NOON
    title: str = str(ONE)
    count: int = 1


class After(DurableObject, name="Upgraded", schema=2):
    at: datetime | str = ""
    title: str | UUID = ""
    count: timedelta = timedelta()

    @upgrade(from_schema=1)
    @staticmethod
    def to_microseconds(state: dict[str, Any]) -> dict[str, Any]:
        assert "$as" not in state
        return {**state, "count": state["count"] * 5}


def test_fields_that_an_upgrade_leaves_alone_keep_their_type() -> None:
    row = codec_of(Before).encode(KEY, Before())
    state = codec_of(After, schema=2, upgrades=After.__durable_definition__.upgrades).decode(
        KEY, row
    )
    # The upgrade wrote the count, so it is of the present type; the others are what they were.
    assert same([state.at, state.title, state.count], [NOON, str(ONE), timedelta(microseconds=5)])


def test_many_declarations_are_read_one_after_the_other() -> None:
    codec = codec_of(box(UUID, ONE))
    for number in range(200):
        row = json.dumps(
            {"value": str(ONE), "$as": {"value": "UUID", f"gone{number}": "UUID"}}
        ).encode()
        assert codec.decode(KEY, row).value == ONE
    assert len(codec._others) <= 64


def test_an_int_of_an_old_row_may_have_been_a_number_or_what_is_written_as_one() -> None:
    codec = codec_of(box(timedelta | BigInt, timedelta()))
    with pytest.raises(StateDecodeError, match="fits more than one part"):
        codec.decode(KEY, b'{"value":0}')
    assert codec_of(box(datetime | BigInt, NOON)).decode(KEY, b'{"value":0}').value == 0
