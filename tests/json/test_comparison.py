"""Comparison of values by their storage."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from trio_durable._json.comparison import is_same, storage_of
from trio_durable._json.errors import Unfit


class Colour(Enum):
    RED = 1
    BLUE = 2


@attrs.define(eq=False)
class Slots:
    x: Any = 0


@attrs.define(slots=False)
class Lenient:
    x: Any = 0

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    @cached_property
    def double(self) -> Any:
        return self.x * 2


class Items(list[Any]):
    note: str = ""


class Model(pydantic.BaseModel):
    secret: pydantic.SecretStr = pydantic.SecretStr("")
    _p: int = 0


class Struct(msgspec.Struct):
    x: Any = 0


class CountingIterator:
    """A class in Python over storage in C: ``memoryview`` can't be pickled."""

    def __init__(self) -> None:
        self.view = memoryview(b"x")


def noted(text: str) -> Items:
    items = Items([1])
    items.note = text
    return items


def with_private(value: int) -> Model:
    model = Model()
    model._p = value
    return model


def circle() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("a", b"a"),
        (Decimal("1.0"), Decimal("1.00")),
        (datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=UTC)),
        (datetime(2030, 1, 1), datetime(2030, 1, 1, fold=1)),
        ([1], (1,)),
        ([1, 2], [2, 1]),
        ({1, 2}, {1, 3}),
        ({1}, frozenset({1})),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, OrderedDict(a=1)),
        (Counter(), {}),
        (defaultdict(list), defaultdict(set)),
        (deque([1]), deque([1], maxlen=2)),
        (Colour.RED, Colour.BLUE),
        (Colour.RED, 1),
        (int, str),
        (Slots(1), Slots(True)),
        (Lenient(1), Lenient(2)),
        (noted("a"), noted("b")),
        (Model(secret=pydantic.SecretStr("a")), Model(secret=pydantic.SecretStr("b"))),
        (with_private(1), with_private(2)),
        (Struct(1), Struct(2)),
        (Fraction(1, 2), Fraction(1, 3)),
        (Fraction(1), 1),
        (pydantic.AnyUrl("http://a.b"), pydantic.AnyUrl("http://a.c")),
        (bytearray(b"a"), bytearray(b"b")),
        ([[1], 2], [[1], [2]]),
        (circle(), [1, [1, 2]]),
    ],
)
def test_two_values_that_differ_in_storage_are_not_the_same(one: Any, other: Any) -> None:
    assert not is_same(one, other)
    assert is_same(one, one)
    assert is_same(other, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({1, "a", None}, {None, "a", 1}),
        (Slots([1]), Slots([1])),
        (Fraction(2, 4), Fraction(1, 2)),
        (circle(), circle()),
        (pydantic.AnyUrl("http://a.b"), pydantic.AnyUrl("http://a.b/")),
        pytest.param(10**5000, 10**5000, id="an int of 5,000 digits"),
        (noted("a"), noted("a")),
    ],
)
def test_two_values_with_the_same_storage_are_the_same(one: Any, other: Any) -> None:
    assert is_same(one, other)


def test_caches_are_no_part_of_a_value() -> None:
    one, other = Lenient(1), Lenient(1)
    assert one.double == 2
    assert is_same(one, other)


def test_a_value_that_has_no_reduction_is_refused() -> None:
    with pytest.raises(Unfit, match="lock can't be compared"):
        is_same(threading.Lock(), threading.Lock())
    with pytest.raises(Unfit, match="memoryview"):
        is_same(CountingIterator(), CountingIterator())


def test_mutable_objects_are_counted_once_for_each_place() -> None:
    inner: list[int] = []
    slots = Slots(inner)
    places: list[int] = []
    storage_of([slots, inner, Fraction(1), (1, 2), "a"], places)
    assert places.count(id(inner)) == 2
    assert places.count(id(slots)) == 1
    assert len(places) == 4  # and the list around them


def test_storage_needs_no_code_of_the_class() -> None:
    class Hostile:
        x = 1

        def __init__(self) -> None:
            self.y = 1

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    assert is_same(Hostile(), Hostile())
