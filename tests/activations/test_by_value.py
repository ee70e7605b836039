"""Passing by value."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import io
import math
import queue
import threading
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, Self
from uuid import UUID

import anyio
import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.ids import stable

from trio_durable._activations.by_value import copied, is_atom
from trio_durable._json.depth import MAX_DEPTH


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
def test_each_place_in_a_copy_has_an_object_of_its_own(value: Any) -> None:
    seen: list[int] = []

    def visit(item: Any) -> None:
        if id(item) in mutables(item):
            seen.append(id(item))
        parts: Any = ()
        if isinstance(item, dict):
            parts = item.values()
        elif isinstance(item, (list, tuple, deque)):
            parts = item
        elif attrs.has(type(item)):
            parts = vars_of(item)
        for part in parts:
            visit(part)

    copy = copied(value)
    visit(copy)
    assert len(seen) == len(set(seen))


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


def test_circles_are_refused() -> None:
    # They have no JSON, and so couldn't be passed to another process.
    circle: list[Any] = [1]
    circle.append(circle)
    with pytest.raises(TypeError, match="a list that is nested too deeply, or contains itself"):
        copied(circle)


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


def test_the_bound_of_nesting() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert copied(deep) == deep
    with pytest.raises(TypeError, match="nested too deeply"):
        copied([deep])


# --- classes -------------------------------------------------------------------------------------


class Counting:
    """A mixin whose code must not run when an instance is copied."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError(name)


@attrs.define(init=False, slots=False)
class Odd(Counting):
    tags: list[str]

    def __init__(self) -> None:
        object.__getattribute__(self, "__dict__")["tags"] = ["a"]


@attrs.define(init=False)
class OddWithSlots:
    tags: list[str]

    def __init__(self) -> None:
        object.__setattr__(self, "tags", ["a"])

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError(name)


@dataclasses.dataclass(frozen=True)
class Money:
    cents: int
    notes: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cents", self.cents * 100)

    @functools.cached_property
    def doubled(self) -> list[int]:
        return [self.cents, self.cents]


class Pair(NamedTuple):
    left: list[int]
    right: int = 0


class Growing(tuple[Any, ...]):
    def __new__(cls, *items: Any) -> Self:
        return super().__new__(cls, (*items, "more"))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)[:-1]


class Plain:
    def __init__(self, tags: list[str]) -> None:
        self.tags = tags
        self.created = True

    def method(self) -> None: ...


class Slotted:
    __slots__ = ("tags", "unset")

    def __init__(self) -> None:
        self.tags = ["a"]


class Failed(Exception):
    def __init__(self, tags: list[str]) -> None:
        super().__init__(tags)
        self.code = 7


def raw(value: object, name: str) -> Any:
    return object.__getattribute__(value, name)


@pytest.mark.parametrize("make", [Odd, OddWithSlots], ids=["dict", "slots"])
def test_no_code_of_the_class_runs(make: Callable[[], object]) -> None:
    value = make()
    copy = copied(value)
    assert type(copy) is type(value)
    assert raw(copy, "tags") == ["a"]
    assert raw(copy, "tags") is not raw(value, "tags")


def test_a_dataclass_is_copied_without_its_caches() -> None:
    money = Money(1)
    assert money.doubled == [100, 100]
    copy = copied(money)
    assert vars(copy) == {"cents": 100, "notes": []}
    assert copy.notes is not money.notes
    assert copied([money])[0].cents == 100


def test_an_unset_field_stays_unset() -> None:
    item = Item.__new__(Item)
    item.tags = ["a"]
    copy = copied(item)
    assert copy.tags == ["a"]
    assert copy.tags is not item.tags
    assert not hasattr(copy, "name")


class EqualType(type):
    """A metaclass whose classes are all equal."""

    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return 1


def test_classes_that_are_equal_are_copied_by_their_own_storage() -> None:
    @attrs.define
    class Slotted(metaclass=EqualType):
        tags: list[str]

    @dataclasses.dataclass
    class InDict(metaclass=EqualType):
        names: list[str]

    slotted, in_dict = Slotted(["a"]), InDict(["b"])
    for _ in range(2):
        copies = copied([slotted, in_dict])
        assert [type(copy) for copy in copies] == [Slotted, InDict]
        assert copies[0].tags == slotted.tags
        assert copies[0].tags is not slotted.tags
        assert copies[1].names == in_dict.names
        assert copies[1].names is not in_dict.names


def test_tuples_with_names_or_a_constructor_of_their_own() -> None:
    pair = Pair([1])
    copy = copied(pair)
    assert copy == pair
    assert type(copy) is Pair
    assert copy.left is not pair.left
    growing = Growing([1])
    other = copied(growing)
    assert (type(other), other) == (Growing, growing)
    assert other[0] is not growing[0]


def test_other_classes_are_copied_by_their_reduction() -> None:
    plain = Plain(["a"])
    copy = copied(plain)
    assert vars(copy) == vars(plain)
    assert copy.tags is not plain.tags
    slotted = copied(Slotted())
    assert slotted.tags == ["a"]
    assert not hasattr(slotted, "unset")
    error = Failed(["a"])
    failed = copied(error)
    assert (type(failed), failed.args, failed.code) == (Failed, (["a"],), 7)
    assert failed.args[0] is not error.args[0]


def test_the_parts_of_other_classes_are_checked() -> None:
    plain = Plain(["a"])
    plain.event = trio.Event()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="a Event can't be passed by value: it synchronises"):
        copied(plain)


# --- refusals ------------------------------------------------------------------------------------


def closure() -> Callable[[], list[int]]:
    held = [1]
    return lambda: held


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], Plain], ids=["bare", "list", "in"])
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: [].append, "bound to an object"),
        (lambda: Plain([]).method, "holds on to an object"),
        (lambda: [].__len__, "holds on to an object"),
        (lambda: functools.partial(print, []), "holds on to an object"),
        (closure, "closure"),
        (lambda: iter([1]), "pass its result, or a list"),
        (lambda: map(str, [1]), "pass its result, or a list"),
        (lambda: enumerate([1]), "pass its result, or a list"),
        (lambda: io.StringIO("text"), "can't be passed by value"),
        (lambda: io.BytesIO(), "can't be passed by value"),
        (trio.Event, "synchronises"),
        (trio.Lock, "synchronises"),
        (trio.CancelScope, "synchronises"),
        (lambda: trio.open_memory_channel[int](1)[0], "synchronises"),
        (lambda: trio.open_memory_channel[int](1)[1], "synchronises"),
        (asyncio.Event, "synchronises"),
        (asyncio.Queue, "synchronises"),
        (anyio.Lock, "synchronises"),
        (threading.Event, "synchronises"),
        (queue.Queue, "synchronises"),
        (Future, "synchronises"),
        (lambda: contextvars.ContextVar("v"), "synchronises"),
        (lambda: {}.keys(), "dict_keys"),
        (lambda: types.MappingProxyType({}), "mappingproxy"),
    ],
)
def test_what_would_mean_nothing_elsewhere_is_refused(
    make: Callable[[], Any], problem: str, wrap: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError, match=problem):
        copied(wrap(make()))


@pytest.mark.parametrize("value", [len, stable, Item, Colour, int, math.sqrt], ids=stable)
def test_names_of_modules_are_passed_as_they_are(value: object) -> None:
    assert copied([value])[0] is value
