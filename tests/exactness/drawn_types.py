"""Types drawn at random, each with a strategy for its values."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal, NewType, Union
from zoneinfo import ZoneInfo

import attrs
import typing_extensions
from hypothesis import strategies as st

from .declarations import MEMBERS, NASTY, TEXTS, Level, Member


@attrs.frozen
class Typed:
    """A type, and a strategy for its values."""

    annotation: Any
    values: st.SearchStrategy[Any]
    hashable: bool = False
    note: str = ""
    """Its oddities, for messages."""


Types = Callable[[int], st.SearchStrategy[Typed]]
"""A function of the greatest depth, which returns a strategy for types."""


@attrs.define
class Node:
    """A class that contains itself."""

    value: int = 0
    children: list[Node] = attrs.field(factory=list)
    parent: Node | None = None


def fresh(make: Callable[[], list[Any]]) -> st.SearchStrategy[Any]:
    """One of the values that ``make`` returns, made again for each draw."""
    return st.integers(0, len(make()) - 1).map(lambda index: make()[index])


def of_member(member: Member) -> Typed:
    try:
        hashable = all(isinstance(hash(value), int) for value in member.make())
    except TypeError:
        hashable = False
    return Typed(member.annotation, fresh(member.make), hashable)


texts = st.one_of(
    st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
)
integers = st.one_of(
    st.integers(-3, 3), st.sampled_from([2**53, 2**63 - 1, 2**63, -(2**63), 2**64 - 1])
)
floats = st.floats(allow_nan=False, allow_infinity=False)
zones = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=5, minutes=45, seconds=1)), ZoneInfo("Europe/Berlin")]
)
moments = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.sampled_from([datetime(2024, 1, 1), datetime(2024, 10, 27, 2, 30), datetime.max]),
    zones,
    st.sampled_from([0, 0, 1]),
)
nasty = st.integers(0, len(NASTY) - 1).map(lambda index: NASTY[index]())


@attrs.define(unsafe_hash=True)
class Unstable:
    """A class whose hash follows its value: members of a set can become equal."""

    number: int


@attrs.frozen(cache_hash=True)
class Hashed:
    """A class that keeps its hash in its storage."""

    number: int
    text: str = ""


def became_equal() -> set[Unstable]:
    left, right = Unstable(1), Unstable(2)
    found = {left, right}
    right.number = 1
    return found


def cached_hash() -> Hashed:
    made = Hashed(1)
    hash(made)
    return made


def circle() -> Node:
    node = Node()
    node.children.append(node)
    return node


nodes: st.SearchStrategy[Node] = st.recursive(
    st.builds(Node, integers),
    lambda inner: st.builds(Node, integers, st.lists(inner, max_size=2), st.none() | inner),
    max_leaves=4,
)


def chain(length: int) -> Node:
    """Nodes one below the other."""
    node = Node()
    for _ in range(length):
        node = Node(parent=node)
    return node


plain_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
counter_of_names = iter(range(10**9))

LEAVES: list[Typed] = [
    *(of_member(member) for member in MEMBERS),
    Typed(str, texts, True),
    Typed(int, integers | st.booleans(), True),
    Typed(float, floats | st.integers(-(2**53), 2**53), True),
    Typed(datetime, moments, True),
    Typed(Node, nodes),
    Typed(Node, st.integers(1, 250).map(chain)),
    Typed(Node, fresh(lambda: [Node(), Node(), circle()])),
    Typed(set[Unstable], fresh(lambda: [{Unstable(1)}, {Unstable(1)}, became_equal()])),
    Typed(Hashed, fresh(lambda: [cached_hash(), Hashed(2)]), True),
    Typed(Any, plain_json),
    Typed(object, plain_json),
    Typed(Counter[str], st.builds(Counter, st.dictionaries(texts, integers, max_size=2))),
    Typed(OrderedDict[str, int], fresh(lambda: [OrderedDict(b=1, a=2), OrderedDict()])),
    Typed(
        defaultdict[str, list[int]], fresh(lambda: [defaultdict(list, a=[1]), defaultdict(list)])
    ),
    Typed(deque[str], st.builds(deque, st.lists(texts, max_size=2), st.sampled_from([None, 2]))),
    Typed(Literal[0, False, "a"], st.sampled_from([0, False, "a"]), True),
    Typed(Literal["auto"] | int, st.sampled_from(["auto", 0, 1]), True),
    Typed(Literal[Level.LOW], st.just(Level.LOW), True),
]
KEYS = [each for each in LEAVES if each.hashable and each.annotation is not None]


@st.composite
def items_of(draw: st.DrawFn, item: Typed) -> list[Any]:
    """Items of a collection, two of which may be one object."""
    drawn: list[Any] = draw(st.lists(item.values, max_size=3))
    if drawn and draw(st.integers(0, 5)) == 0:
        drawn.append(drawn[0])
    return drawn


@st.composite
def lists(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    item = draw(types_(depth - 1))
    drawn = items_of(item)
    kind: Any = draw(st.sampled_from([list, tuple, deque, Sequence]))
    if kind is tuple:
        return Typed(kind[item.annotation, ...], drawn.map(tuple), item.hashable)
    if kind is deque:
        return Typed(kind[item.annotation], drawn.map(deque))
    return Typed(kind[item.annotation], drawn)


@st.composite
def rows(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    items = draw(st.lists(types_(depth - 1), min_size=1, max_size=3))
    return Typed(
        tuple[tuple(each.annotation for each in items)],  # type: ignore[misc]
        st.tuples(*(each.values for each in items)),
        all(each.hashable for each in items),
    )


@st.composite
def sets(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    item = draw(types_(depth - 1).filter(lambda each: each.hashable))
    drawn = st.lists(item.values, max_size=3)
    kind: Any = draw(st.sampled_from([set, frozenset, AbstractSet]))
    made: st.SearchStrategy[Any] = drawn.map(set if kind is AbstractSet else kind)
    return Typed(kind[item.annotation], made, kind is frozenset)


@st.composite
def dicts(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    key = draw(st.sampled_from(KEYS))
    item = draw(types_(depth - 1))
    keys = st.lists(key.values, max_size=4)
    drawn = st.tuples(keys, items_of(item)).map(lambda both: dict(zip(*both, strict=False)))
    kind: Any = draw(st.sampled_from([dict, dict, Mapping]))
    return Typed(kind[key.annotation, item.annotation], drawn)


@st.composite
def unions(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    found = draw(st.lists(types_(depth - 1), min_size=1, max_size=2))
    values = st.one_of(*(each.values for each in found))
    annotations = [each.annotation for each in found]
    if len(found) == 1 or draw(st.booleans()):
        annotations.append(None)
        values = st.none() | values
    made: Any = Union[tuple(annotations)]  # noqa: UP007
    return Typed(made, values, all(each.hashable for each in found))


@st.composite
def named(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    """A type behind a name or a note."""
    found = draw(types_(depth - 1))
    name = f"Named{next(counter_of_names)}"
    annotated: Any = Annotated
    new_type: Any = NewType
    kind = draw(st.sampled_from(["Annotated", "NewType", "type"]))
    if kind == "Annotated":
        annotation = annotated[found.annotation, draw(st.sampled_from(["a note", 1, ()]))]
    elif kind == "NewType":
        annotation = new_type(name, found.annotation)
    else:
        make: Any = typing_extensions.TypeAliasType
        annotation = make(name, found.annotation)
    return Typed(annotation, found.values, found.hashable)


def drawn_types(
    depth: int, classes: Callable[[Types, int], st.SearchStrategy[Typed]]
) -> st.SearchStrategy[Typed]:
    """Types nested at most ``depth`` deep.

    Args:
        depth: The most levels.
        classes: Returns a strategy for classes, from a function for the types of their fields.
    """

    def types_(depth: int) -> st.SearchStrategy[Typed]:
        return drawn_types(depth, classes)

    leaves = st.sampled_from(LEAVES)
    if depth <= 0:
        return leaves
    kinds = (lists, rows, sets, dicts, unions, named)
    return st.one_of(
        leaves,
        st.deferred(lambda: classes(types_, depth)),
        st.deferred(lambda: classes(types_, depth)),
        *(kind(types_, depth) for kind in kinds),
    )
