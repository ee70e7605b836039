"""The oracle tells apart what Python's own comparison takes for the same, and runs no code."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import pytest

from .snapshot import same, sharing, snapshot


class Pair(NamedTuple):
    left: Any
    right: Any


@attrs.define
class Hostile:
    value: Any

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Plain:
    value: Any


@attrs.define
class Cached:
    value: int

    @cached_property
    def double(self) -> int:
        return 2 * self.value


@attrs.frozen
class Frozen:
    value: Any


class Text(str):
    __slots__ = ()


class Items(list[int]):
    pass


BERLIN = ZoneInfo("Europe/Berlin")
LATE = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)


class Oops(Exception):
    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value


class EqualType(type):
    """Classes that are equal to all others."""

    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return 1


DIFFERENT: list[tuple[object, object]] = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    ("a", Text("a")),
    ([1], Items([1])),
    (Items([1]), Items([2])),
    ((1, 2), Pair(1, 2)),
    ([1], (1,)),
    ({1}, frozenset({1})),
    ({1, 2}, {1}),
    ({1: 0, 2: 0}, {2: 0, 1: 0}),
    (deque([1]), deque([1], 3)),
    (defaultdict(list), defaultdict(int)),
    (defaultdict(list, a=[1]), defaultdict(list, a=[2])),
    (Oops(1), Oops(2)),
    (EqualType("First", (), {})(), EqualType("Second", (), {})()),
    (EqualType("First", (), {})(), []),
    ({}, OrderedDict()),
    (Decimal("1.5"), Decimal("1.50")),
    (LATE, LATE.replace(fold=1)),
    (LATE, LATE.replace(tzinfo=timezone(timedelta(hours=2)))),
    (LATE.replace(tzinfo=UTC), LATE.replace(tzinfo=ZoneInfo("UTC"))),
    (Hostile(1), Hostile(2)),
    (Plain([1]), Plain((1,))),
    (Plain(1), Hostile(1)),
    (2**70, 2**70 + 1),
]


@pytest.mark.parametrize(("left", "right"), DIFFERENT, ids=lambda value: type(value).__name__)
def test_two_values_that_differ_have_two_snapshots(left: object, right: object) -> None:
    assert not same(left, right)
    assert not same([left], [right])
    assert same(left, left)


def test_an_attribute_that_is_not_declared_is_seen() -> None:
    plain = Plain(1)
    before = snapshot(plain)
    vars(plain)["more"] = 1
    assert snapshot(plain) != before


def test_an_unset_slot_is_seen() -> None:
    hostile = Hostile(None)
    before = snapshot(hostile)
    Hostile.__dict__["value"].__delete__(hostile)
    assert snapshot(hostile) != before


def test_caches_are_no_part_of_a_value() -> None:
    cached = Cached(1)
    before = snapshot(cached)
    assert cached.double == 2
    assert snapshot(cached) == before


def test_not_a_number_is_itself() -> None:
    assert same([float("nan")], [float("nan")])


def test_sharing_is_seen_in_places_and_is_no_part_of_a_snapshot() -> None:
    inner: list[int] = []
    shared, apart = Pair(inner, {"a": inner}), Pair([], {"a": []})
    assert same(shared, apart)
    assert sharing(shared) == {("[0]", "[1]['a']")}
    assert sharing(apart) == frozenset()
    assert sharing([(), (), "a", "a"]) == frozenset()


@pytest.mark.parametrize("immutable", [Pair(1, 2), Frozen(1), (1, 2), LATE, frozenset({1})])
def test_an_immutable_object_may_stand_in_two_places(immutable: object) -> None:
    assert sharing([immutable, immutable]) == frozenset()


def test_a_mutable_part_of_an_immutable_object_may_not() -> None:
    frozen, pair = Frozen([]), Pair([], 1)
    assert sharing([frozen, frozen]) == {("[0].value", "[1].value")}
    assert sharing([pair, pair]) == {("[0][0]", "[1][0]")}
    plain = Plain(1)
    assert sharing([plain, plain]) == {("[0]", "[1]")}


def test_a_circle_ends() -> None:
    circle: list[object] = []
    circle.append([circle])
    assert snapshot(circle) == ("list", (("list", (("circle", "2"),)),))
