"""Passing by value."""

from __future__ import annotations

import contextvars
import threading
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ids import stable

from trio_durable._activations.by_value import copied, is_atom


class Colour(Enum):
    RED = "red"


@attrs.define
class Item:
    name: str
    tags: list[str] = attrs.field(factory=list)


@attrs.frozen
class Frozen:
    """Immutable itself, but not what it holds."""

    tags: list[str]


class Text(str):
    """A str that carries something mutable along."""

    notes: list[str]


def vars_of(item: Any) -> list[object]:
    return [getattr(item, field.name) for field in attrs.fields(type(item))]


def mutables(value: object) -> dict[int, object]:
    """Every object in ``value`` that can be changed, by its identity."""
    found: dict[int, object] = {}

    def visit(item: object) -> None:
        if isinstance(item, (list, dict, set, deque, bytearray)) or attrs.has(type(item)):
            if id(item) in found:
                return
            found[id(item)] = item
        if isinstance(item, dict):
            for key, value in item.items():
                visit(key)
                visit(value)
        elif isinstance(item, (list, tuple, set, frozenset, deque)):
            for value in item:
                visit(value)
        elif attrs.has(type(item)):
            for part in vars_of(item):
                visit(part)

    visit(value)
    return found


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.datetimes(timezones=st.sampled_from([None, UTC])),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.just(Colour.RED),
)

values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(scalars, st.builds(bytearray, st.binary(max_size=3)), st.builds(Item, st.text())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(OrderedDict),
        st.sets(scalars, max_size=3),
        st.builds(lambda value: Item("x", value), st.lists(inner, max_size=2)),
        st.builds(Frozen, st.lists(inner, max_size=2)),
        # The same object twice.
        st.builds(lambda value: [value, (value,)], inner),
    ),
    max_leaves=12,
)


@given(values)
def test_a_copy_is_equal_and_shares_nothing_mutable(value: Any) -> None:
    copy = copied(value)
    assert copy == value
    assert type(copy) is type(value)
    assert mutables(copy).keys().isdisjoint(mutables(value).keys())


@given(values)
def test_a_copy_has_as_many_mutable_parts(value: Any) -> None:
    # What was one object in two places is one object in the copy, too.
    assert len(mutables(copied(value))) == len(mutables(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        2.5,
        1j,
        "text",
        b"bytes",
        datetime(2024, 1, 1, tzinfo=UTC),
        date(2024, 1, 1),
        time(12),
        timedelta(1),
        Decimal("1.50"),
        UUID(int=1),
        ...,
    ],
    ids=repr,
)
def test_what_cannot_change_is_not_copied(value: object) -> None:
    assert is_atom(value)
    assert copied(value) is value
    assert copied((value, value)) == (value, value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        set(),
        (),
        ([],),
        bytearray(),
        Colour.RED,
        Item("x"),
        Text("x"),
        lambda: None,
    ],
    ids=stable,
)
def test_what_is_no_atom(value: object) -> None:
    assert not is_atom(value)


def test_subclasses_of_atoms_are_copied_with_what_they_carry() -> None:
    text = Text("hello")
    text.notes = ["a"]
    for copy in (copied(text), copied([text])[0], copied((text,))[0], copied({"k": text})["k"]):
        assert copy == text
        assert type(copy) is Text
        assert copy.notes == ["a"]
        assert copy.notes is not text.notes
    (key,) = copied({text: 1})
    assert key.notes is not text.notes


@pytest.mark.parametrize(
    "wrap",
    [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {"k": [v]}, lambda v: [[v]]],
    ids=["list", "tuple", "dict", "dict of list", "list of list"],
)
def test_mutable_parts_one_level_down(wrap: Callable[[Any], Any]) -> None:
    inner = [1]
    value = wrap(inner)
    copy = copied(value)
    inner.append(2)
    assert copy == wrap([1])


def test_keys_are_copied_too() -> None:
    frozen = frozenset({Text("a")})
    (original,) = frozen
    original.notes = []
    (copy,) = copied({(1, frozen): 1})
    ((inner,)) = copy[1]
    assert inner.notes is not original.notes


def test_circles_stay_circles() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    copy = copied(circle)
    assert copy is not circle
    assert copy[1] is copy


def test_containers_keep_their_class() -> None:
    counts: defaultdict[str, list[int]] = defaultdict(list, {"a": [1]})
    copy = copied(counts)
    assert type(copy) is defaultdict
    assert copy.default_factory is list
    assert copy["a"] is not counts["a"]


def a_generator() -> Iterator[int]:
    yield 1


async def an_async_generator() -> AsyncIterator[int]:
    yield 1


@types.coroutine
def a_generator_coroutine() -> Iterator[None]:
    yield


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield


class Contrary:
    def __deepcopy__(self, memo: object) -> object:
        raise LookupError("not me")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (a_generator(), "generator"),
        ((n for n in "abc"), "generator"),
        (an_async_generator(), "async_generator"),
        (a_generator_coroutine(), "generator"),
        (threading.Lock(), "lock"),
        (threading.RLock(), "RLock"),
        (contextvars.copy_context(), "Context"),
        (memoryview(b"x"), "memoryview"),
        (Contrary(), "not me"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(
    "wrap",
    [lambda v: v, lambda v: [v], lambda v: (1, v), lambda v: {"k": [v]}],
    ids=["bare", "in a list", "in a tuple", "in a dict"],
)
def test_what_cannot_be_copied(value: object, named: str, wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        copied(wrap(value))
    assert named in str(caught.value)


def test_coroutines_cannot_be_copied() -> None:
    async def body() -> None: ...

    coroutine = body()
    try:
        with pytest.raises(TypeError, match="coroutine"):
            copied(coroutine)
        with pytest.raises(TypeError, match="coroutine"):
            copied([coroutine])
    finally:
        coroutine.close()


def test_awaitables_cannot_be_passed() -> None:
    with pytest.raises(TypeError, match="Awaitable can't be passed by value"):
        copied(Awaitable())


def test_nesting_beyond_the_recursion_limit() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="nested too deeply"):
        copied(deep)
    # Taken apart level by level, for freeing it in one go is another recursion.
    while deep:
        deep = deep.pop()
