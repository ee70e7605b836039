"""State to JSON and back, for types and values drawn together: exactly, or not at all."""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict, deque
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Union
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.codecs import (
    KEY,
    Address,
    Colour,
    Extras,
    Item,
    Level,
    Mode,
    Money,
    Node,
    Number,
    Options,
    Point,
    Rights,
    Row,
    Text,
    UserId,
    box,
    codec_of,
    decimals,
    integers,
    items,
    same,
    texts,
)

from trio_durable import StateDecodeError, StateEncodeError

Count = NewType("Count", int)


Drawn = tuple[Any, st.SearchStrategy[Any]]
"""An annotation, and what draws values of it."""
floats = st.floats(allow_nan=False, allow_infinity=False)
offsets = st.integers(-82_800, 82_800).map(lambda count: timezone(timedelta(seconds=count)))
zones = st.one_of(st.none(), st.just(UTC), offsets)
datetimes = st.datetimes(timezones=zones).map(lambda value: value.replace(fold=0))
times = st.times(timezones=zones).map(lambda value: value.replace(fold=0))
durations = st.timedeltas(min_value=timedelta(days=-(10**8)), max_value=timedelta(days=10**8))

HASHABLE: list[Drawn] = [
    (int, st.one_of(integers, st.booleans())),
    (float, st.one_of(floats, st.integers(-(2**53), 2**53))),
    (bool, st.booleans()),
    (str, texts),
    (None, st.none()),
    (bytes, st.binary(max_size=5)),
    (datetime, datetimes),
    (date, st.dates()),
    (time, times),
    (timedelta, durations),
    (Decimal, decimals),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Mode, st.sampled_from(Mode)),
    (Rights, st.sampled_from([Rights(0), Rights.READ, Rights.READ | Rights.WRITE])),
    (UserId, texts),
    (Count, integers),
    (Literal["a", 1, True] | None, st.sampled_from(["a", 1, True, None])),
    (Annotated[int, "seconds"], integers),
    (Point, st.builds(Point, integers, floats)),
    (Money, st.builds(Money, decimals, st.sampled_from(["EUR", "USD"]))),
    (Row, st.builds(Row, integers, texts)),
    (tuple[int, str], st.tuples(integers, texts)),
    (tuple[bool, ...], st.lists(st.booleans(), max_size=3).map(tuple)),
    (frozenset[date], st.frozensets(st.dates(), max_size=3)),
]
nodes: st.SearchStrategy[Node] = st.recursive(
    st.builds(Node, integers),
    lambda inner: st.builds(Node, integers, st.lists(inner, max_size=2), st.none() | inner),
    max_leaves=5,
)
plain_json: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, floats, texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)

LEAVES: list[Drawn] = [
    *HASHABLE,
    (Item, items),
    (Node, nodes),
    (
        Address,
        st.builds(Address, texts, st.none() | integers, st.dates(), st.lists(texts, max_size=2)),
    ),
    (
        Options,
        st.fixed_dictionaries({"colour": st.sampled_from(Colour), "size": integers}),
    ),
    (
        Extras,
        st.fixed_dictionaries(
            {}, optional={"note": texts, "amounts": st.lists(decimals, max_size=2)}
        ),
    ),
    (Any, plain_json),
    (object, plain_json),
    (list, st.lists(plain_json, max_size=2)),
    (dict, st.dictionaries(texts, plain_json, max_size=2)),
]

KEYS: list[Drawn] = [
    (str, texts),
    (int, st.integers()),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Mode, st.sampled_from(Mode)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, datetimes),
    (Decimal, decimals),
    (UserId, texts),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
]

# Members of a union are told apart by their classes.
UNION_MEMBERS: list[Drawn] = [
    (int, integers),
    (float, floats),
    (bool, st.booleans()),
    (str, texts),
    (bytes, st.binary(max_size=3)),
    (datetime, datetimes),
    (date, st.dates()),
    (timedelta, durations),
    (Decimal, decimals),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Item, items),
    (Money, st.builds(Money, decimals)),
    (Row, st.builds(Row, integers)),
    (list[int], st.lists(integers, max_size=2)),
    (dict[str, Decimal], st.dictionaries(texts, decimals, max_size=2)),
    (tuple[str, int], st.tuples(texts, integers)),
    (set[int], st.sets(integers, max_size=2)),
]


def generic(origin: Any, *parameters: Any) -> Any:
    return origin[parameters if len(parameters) > 1 else parameters[0]]


@st.composite
def drawn_types(draw: st.DrawFn, depth: int = 2) -> Drawn:
    kind = draw(st.sampled_from(["leaf", "leaf", "container", "union"] if depth else ["leaf"]))
    if kind == "leaf":
        return draw(st.sampled_from(LEAVES))
    if kind == "union":
        members = draw(
            st.lists(st.sampled_from(UNION_MEMBERS), min_size=1, max_size=3, unique_by=id)
        )
        annotations = [annotation for annotation, _ in members]
        values = [strategy for _, strategy in members]
        if draw(st.booleans()) or len(members) == 1:
            annotations.append(None)
            values.append(st.none())
        return Union[tuple(annotations)], st.one_of(values)  # noqa: UP007
    kinds = ["list", "sequence", "set", "frozenset", "dict", "row", "tuple"]
    container = draw(st.sampled_from(kinds))
    if container in ("set", "frozenset"):
        item_type, values_ = draw(st.sampled_from(HASHABLE))
        if container == "set":
            return generic(set, item_type), st.sets(values_, max_size=4)
        return generic(frozenset, item_type), st.frozensets(values_, max_size=4)
    item_type, values_ = draw(drawn_types(depth - 1))
    if container == "list":
        return generic(list, item_type), st.lists(values_, max_size=3)
    if container == "sequence":
        origin: Any = draw(st.sampled_from([Sequence, MutableSequence]))
        return generic(origin, item_type), st.lists(values_, max_size=3)
    if container == "tuple":
        return generic(tuple, item_type, ...), st.lists(values_, max_size=3).map(tuple)
    if container == "row":
        other_type, other_values = draw(drawn_types(depth - 1))
        return generic(tuple, item_type, other_type), st.tuples(values_, other_values)
    key_type, keys = draw(st.sampled_from(KEYS))
    origin = draw(st.sampled_from([dict, Mapping, MutableMapping]))
    return generic(origin, key_type, item_type), st.dictionaries(keys, values_, max_size=3)


def shuffled(value: Any) -> Any:
    """An equal value whose sets were filled in another order."""
    if isinstance(value, (set, frozenset)):
        return type(value)(sorted(value, key=lambda item: -hash(item)))
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(map(shuffled, value))
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in value.items()}
    return copy.deepcopy(value)


relaxed = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(st.data(), drawn_types())
def test_what_is_of_its_type_comes_back_as_it_was(data: st.DataObject, drawn: Drawn) -> None:
    annotation, values = drawn
    default = data.draw(values, "default")
    value = data.draw(values, "value")
    cls = box(annotation, default)
    codec = codec_of(cls)
    instance = cls(value=value)
    state = codec.encode(KEY, instance)

    back = codec.decode(KEY, state)
    assert type(back) is cls
    assert same(back.value, value)
    assert codec.encode(KEY, back) == state
    assert codec.encode(KEY, instance) == state
    assert codec.encode(KEY, cls(value=shuffled(value))) == state
    json.loads(state)


@relaxed
@given(st.data(), drawn_types())
def test_encoding_and_decoding_share_nothing_with_the_state(
    data: st.DataObject, drawn: Drawn
) -> None:
    annotation, values = drawn
    cls = box(annotation, data.draw(values))
    codec = codec_of(cls)
    value = data.draw(values)
    untouched = copy.deepcopy(value)
    state = codec.encode(KEY, cls(value=value))
    assert same(value, untouched)
    first, second = codec.decode(KEY, state), codec.decode(KEY, state)
    if isinstance(value, (list, dict, set)):
        first.value.clear()
    assert same(second.value, untouched)


oddities = st.one_of(
    st.floats(),
    st.integers(),
    st.decimals(),
    st.text(st.characters(categories=None), max_size=3),
    st.complex_numbers(),
    st.datetimes(timezones=st.timezones(), allow_imaginary=False),
    st.builds(lambda moment: moment.replace(fold=1), datetimes),
    st.builds(Text, texts),
    st.builds(Number, integers),
    st.builds(bytearray, st.binary(max_size=2)),
    st.just(Text("a")),
    st.just(object),
    st.just(...),
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(oddities, *(values for _, values in LEAVES)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.dictionaries(st.one_of(texts, integers, st.booleans()), inner, max_size=3),
        st.dictionaries(texts, inner, max_size=2).map(OrderedDict),
        st.builds(Item, name=inner),
        st.builds(Address, inner),
        st.builds(Row, inner),
    ),
    max_leaves=5,
)


@relaxed
@given(st.data(), drawn_types(), anything)
def test_anything_else_is_refused_or_comes_back_as_it_was(
    data: st.DataObject, drawn: Drawn, value: Any
) -> None:
    annotation, values = drawn
    cls = box(annotation, data.draw(values))
    codec = codec_of(cls)
    try:
        state = codec.encode(KEY, cls(value=value))
    except StateEncodeError as refusal:
        error = refusal
    else:
        assert same(codec.decode(KEY, state).value, value)
        return
    assert re.split(r"[.\[]", error.field)[0] == "value"
    assert error.key == KEY
    assert error.problem


@relaxed
@given(drawn_types(), plain_json, st.data())
def test_whatever_is_stored_is_read_or_refused(
    drawn: Drawn, stored: Any, data: st.DataObject
) -> None:
    annotation, values = drawn
    codec = codec_of(box(annotation, data.draw(values)))
    try:
        back = codec.decode(KEY, json.dumps({"value": stored}).encode())
    except StateDecodeError as refusal:
        error = refusal
    else:
        # What could be read can be stored again, or the next turn would fail.
        codec.encode(KEY, back)
        return
    assert error.field == "value"
    assert error.place.startswith("$.value")
