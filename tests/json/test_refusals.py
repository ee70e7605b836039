"""Types that a class can't declare, and stored JSON that can't be read."""

from __future__ import annotations

import enum
import json
import math
import types
import typing
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Self
from uuid import UUID

import attrs
import pytest
from support.codecs import (
    KEY,
    Address,
    Colour,
    Item,
    Options,
    Point,
    Rights,
    Row,
    box,
    codec_of,
)

from trio_durable import DefinitionError, DurableObject, StateDecodeError, StateEncodeError

# --- what a class can't declare ------------------------------------------------------------------


class Odd(enum.Enum):
    COMPLEX = 1j


class Same(enum.Enum):
    LIST = (1, (2,))
    ONE = Decimal(1)


class Twins(enum.Enum):
    TEXT = "1"
    NUMBER = 1


class Plain:
    pass


@attrs.define
class Holds:
    inner: Plain | None = None


@pytest.mark.parametrize(
    "annotation",
    [
        complex,
        bytearray,
        Plain,
        range,
        list[Plain],
        dict[str, Plain],
        dict[float, str],
        dict[str | None, str],
        dict[Twins, str],
        dict[Literal["1", 1], str],
        dict[tuple[int, float], str],
        dict[tuple[int | str, ...], str],
        dict[timedelta, str],
        deque[Plain],
        defaultdict[str, int | str],
        Counter[Plain],
        Any | datetime,
        Holds | bytearray,
        tuple[int, Plain],
        Plain | None,
        list[int] | list[str],
        tuple[int, ...] | tuple[str, ...] | None,
        Sequence[int] | list[str],
        Literal[b"a"],
        Odd,
        Same,
        Holds,
        type[int],
        typing.Callable[[], int],
        enum.Enum,
        types.GenericAlias(list, (int, str)),
        types.GenericAlias(set, (int, int)),
        types.GenericAlias(dict, (str,)),
        types.GenericAlias(dict, (str, int, int)),
    ],
    ids=str,
)
def test_types_without_an_exact_form(annotation: Any) -> None:
    # None where it is part of the type, something else where it isn't: the type is refused first.
    with pytest.raises(DefinitionError) as caught:
        codec_of(box(annotation, None))
    assert caught.value.cls.startswith("Box")
    assert caught.value.member == "value"
    assert "the default" not in caught.value.problem


def test_a_type_that_was_refused_stays_refused() -> None:
    # The hooks of a class under construction stand for themselves; a failure must not leave them.
    for _ in range(2):
        with pytest.raises(DefinitionError):
            codec_of(box(Holds, None))
        with pytest.raises(DefinitionError):
            codec_of(box(list[Holds], []))


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, "0"),
        (int, None),
        (list[int], ()),
        (float, math.nan),
        (str, "\ud800"),
        (Decimal, 0),
        (Item, Item(1)),  # type: ignore[arg-type]
        (list[int], [2**64]),
        (datetime, datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET"))),
    ],
    ids=repr,
)
def test_defaults_that_cannot_be_stored(annotation: Any, default: Any) -> None:
    cls = box(annotation, default)
    with pytest.raises(DefinitionError) as caught:
        codec_of(cls)
    assert caught.value.cls == cls.__qualname__
    assert caught.value.member.startswith("value")
    assert "default" in caught.value.problem


def test_a_default_that_its_converter_changes() -> None:
    # The converter runs for the default of a missing field, not when a state is read.
    codec = codec_of(box(int, 1, converter=lambda value: value + 1))
    state = codec.new_fields(KEY)
    assert json.loads(state)["value"] == 2
    assert codec.decode(KEY, state).value == 2
    assert codec.decode(KEY, b"{}").value == 2


def test_a_default_over_the_limit() -> None:
    with pytest.raises(DefinitionError):
        codec_of(box(str, "x" * 200), max_size=100)


def test_a_default_that_its_validator_refuses() -> None:
    with pytest.raises(DefinitionError):
        codec_of(box(int, 0, validator=attrs.validators.gt(0)))


# --- reading -------------------------------------------------------------------------------------


class Account(DurableObject):
    owner: str = "nobody"
    balance: Decimal = Decimal("0.00")
    entries: list[Point] = attrs.field(factory=list)
    limit: int = attrs.field(default=10, validator=attrs.validators.ge(0))
    title: str = attrs.field(default=" none ", converter=str.strip)
    home: Address | None = None
    choice: int | Colour | Item = 0


def test_missing_fields_get_their_defaults() -> None:
    codec = codec_of(Account)
    assert codec.decode(KEY, b"{}") == Account()
    assert codec.decode(KEY, b'{"owner":"me"}') == Account(owner="me")
    assert codec.decode(KEY, b'{"home":{"street":"x"}}').home == Address("x")
    assert codec.decode(KEY, b"{}").entries is not codec.decode(KEY, b"{}").entries


def test_unknown_fields_are_dropped() -> None:
    codec = codec_of(Account)
    state = b'{"gone":1,"owner":"me","home":{"street":"x","old":true}}'
    assert codec.decode(KEY, state) == Account(owner="me", home=Address("x"))


def test_a_field_becomes_a_union() -> None:
    # Stored before the union had more than one member, and so without a tag.
    codec = codec_of(Account)
    assert codec.decode(KEY, b'{"choice":3}').choice == 3
    assert codec.decode(KEY, b'{"choice":"red"}').choice is Colour.RED
    item = Item("x", Decimal(1), {"b", "a"}, 3)
    alone = b'{"choice":{"name":"x","price":"1","tags":["a","b"],"_hidden":3}}'
    assert codec.decode(KEY, alone).choice == item
    assert codec.decode(KEY, b'{"choice":{"$type":"Item","value":{"name":"x"}}}').choice == Item(
        "x"
    )


def test_validators_run_and_converters_for_defaults_alone() -> None:
    codec = codec_of(Account)
    assert codec.decode(KEY, b'{"title":" x "}').title == " x "
    assert codec.decode(KEY, b"{}").title == "none"
    with pytest.raises(StateDecodeError) as caught:
        codec.decode(KEY, b'{"limit":-1}')
    assert "limit" in str(caught.value)
    assert "ValueError" in caught.value.problem


@pytest.mark.parametrize(
    ("stored", "field", "place", "word"),
    [
        (b"", "", "line 1 column 1", "not JSON"),
        (b"{", "", "line 1 column", "not JSON"),
        (b"\xff", "", "line 1 column 1", "not JSON"),
        (b'{"owner":"\xff"}', "", "line 1 column", "not JSON"),
        (b'{"limit":NaN}', "", "line 1 column", "not JSON"),
        (b"\x80\x04N.", "", "line 1 column 1", "not JSON"),
        (b"[]", "", "$", "not a JSON object"),
        (b"null", "", "$", "not a JSON object"),
        (b'"text"', "", "$", "not a JSON object"),
        (b'{"owner":1}', "owner", "$.owner", "not str"),
        (b'{"owner":null}', "owner", "$.owner", "not str"),
        (b'{"limit":"1"}', "limit", "$.limit", "not int"),
        (b'{"limit":1.0}', "limit", "$.limit", "not int"),
        (b'{"balance":1}', "balance", "$.balance", "not str"),
        (b'{"balance":"x"}', "balance", "$.balance", "'x' is not a Decimal"),
        (b'{"entries":{}}', "entries", "$.entries", "not list"),
        (b'{"entries":[{"x":1},{"x":"1"}]}', "entries", "$.entries[1].x", "not int"),
        (b'{"entries":[{"y":1.0}]}', "entries", "$.entries[0].x", "missing"),
        (b'{"home":[]}', "home", "$.home", "fields of Address"),
        (
            b'{"home":{"street":"x","since":"2024-13-01"}}',
            "home",
            "$.home.since",
            "'2024-13-01' is not a date",
        ),
        (b'{"choice":1.5}', "choice", "$.choice", "fits no part"),
        (b'{"choice":{"name":"x"}}', "choice", "$.choice", "fits no part"),
        (b'{"choice":"blue"}', "choice", "$.choice", "fits no part"),
        (b'{"choice":{"$type":"Gone","value":1}}', "choice", "$.choice", "'Gone'"),
        (b'{"choice":{"$type":"Colour","value":"x"}}', "choice", "$.choice", "Colour"),
        (b'{"choice":{"$type":["x"],"value":1}}', "choice", "$.choice", ""),
    ],
)
def test_what_cannot_be_read(stored: bytes, field: str, place: str, word: str) -> None:
    with pytest.raises(StateDecodeError) as caught:
        codec_of(Account).decode(KEY, stored)
    assert caught.value.key == KEY
    assert caught.value.field == field
    assert caught.value.place.startswith(place)
    assert word in caught.value.problem


@pytest.mark.parametrize(
    ("annotation", "default", "stored"),
    [
        (bytes, b"", '"not base64!"'),
        (datetime, datetime.min, '"yesterday"'),
        (datetime, datetime.min, "0"),
        (date, date.min, '"2024-02-30"'),
        (time, time(), '"25:00"'),
        (timedelta, timedelta(), "1.5"),
        (timedelta, timedelta(), "99999999999999999999"),
        (UUID, UUID(int=0), '"x"'),
        (Colour, Colour.RED, '"blue"'),
        (Colour, Colour.RED, "[]"),
        (Literal["a"], "a", '"b"'),
        (tuple[int, int], (1, 1), "[1]"),
        (Row, Row(1), "[]"),
        (Row, Row(1), '[1,"",2]'),
        (set[int], set(), "{}"),
        (dict[int, int], {}, '{"x":1}'),
        (dict[Colour, int], {}, '{"blue":1}'),
        (dict[UUID, int], {}, '{"blue":1}'),
        (Options, {"colour": Colour.RED, "size": 1}, '{"size":1}'),
        (Options, {"colour": Colour.RED, "size": 1}, '[["size",1]]'),
        (bool, False, "1"),
        (None, None, "0"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_their_field(annotation: Any, default: Any, stored: str) -> None:
    with pytest.raises(StateDecodeError) as caught:
        codec_of(box(annotation, default)).decode(KEY, f'{{"value":{stored}}}'.encode())
    assert caught.value.field == "value"
    assert caught.value.place.startswith("$.value")


COLOUR_ERROR = "'blue' is not a value of Colour"


@pytest.mark.parametrize(
    ("annotation", "stored", "place", "problem"),
    [
        (list[bytes], '["","?"]', "[1]", "'?' is not bytes in base64"),
        (list[datetime], '["2024-01-01T00:00:00","x"]', "[1]", "'x' is not a datetime"),
        (list[date], '["2024-01-01","2024-02-30"]', "[1]", "'2024-02-30' is not a date"),
        (list[time], '["12:00:00","25:00"]', "[1]", "'25:00' is not a time"),
        (list[Decimal], '["1","x"]', "[1]", "'x' is not a Decimal"),
        (list[UUID], f'["{UUID(int=0)}","x"]', "[1]", "'x' is not a UUID"),
        (list[UUID], f'["{UUID(int=0)}",1]', "[1]", "1 is of type int, not str"),
        (
            list[timedelta],
            "[0,0.5]",
            "[1]",
            "0.5 is of type float, not timedelta (whole microseconds)",
        ),
        (set[UUID], '["x"]', "[0]", "'x' is not a UUID"),
        (tuple[Decimal, ...], '["1","x"]', "[1]", "'x' is not a Decimal"),
        (tuple[int, UUID], '[1,"x"]', "[1]", "'x' is not a UUID"),
        (dict[str, UUID], '{"a":"x"}', "['a']", "'x' is not a UUID"),
        (dict[UUID, int], '{"x":1}', "['x']", "'x' is not a UUID"),
        (
            dict[int, int],
            '{"x":1}',
            "['x']",
            "'x' is not an int",
        ),
        (dict[Colour, int], '{"blue":1}', "['blue']", "'blue' is not a value of Colour"),
        (dict[Rights, int], '{"x":1}', "['x']", "'x' is not an int"),
        (dict[Rights, int], '{"8":1}', "['8']", "8 is not a value of Rights"),
        (Options, '{"size":1,"colour":"blue"}', "['colour']", COLOUR_ERROR),
        (list[Colour], '["red","blue"]', "[1]", COLOUR_ERROR),
        (list[Address], '[{"street":"","since":"x"}]', "[0].since", "'x' is not a date"),
        (list[list[UUID]], '[[],["x"]]', "[1][0]", "'x' is not a UUID"),
        (list[UUID | None], '[null,"x"]', "[1]", "'x' is not a UUID"),
        (list[UUID | int], '[1,{"$type":"UUID","value":"x"}]', "[1]", "'x' is not a UUID"),
        (list[set[Any]], "[[],[[]]]", "[1]", "TypeError: unhashable type: 'list'"),
        (list[Row], '[[1,""],[2,1]]', "[1][1]", "1 is of type int, not str"),
    ],
    ids=str,
)
def test_the_place_of_a_value_that_does_not_fit(
    annotation: Any, stored: str, place: str, problem: str
) -> None:
    cls = box(annotation | None, None)
    with pytest.raises(StateDecodeError) as caught:
        codec_of(cls).decode(KEY, f'{{"value":{stored}}}'.encode())
    assert (caught.value.place, caught.value.problem) == (f"$.value{place}", problem)


def test_the_cause_is_attached() -> None:
    with pytest.raises(StateDecodeError) as caught:
        codec_of(Account).decode(KEY, b'{"balance":"x"}')
    assert caught.value.__cause__ is not None


class OneNumber(NamedTuple):
    number: int


class Even(OneNumber):
    """A named tuple that validates its item."""

    def __new__(cls, number: int) -> Self:
        raise LookupError("odd" if number % 2 else "even")


def test_named_tuples_are_read_without_their_own_code() -> None:
    codec = codec_of(box(list[Even], []))
    (even,) = codec.decode(KEY, b'{"value":[[1]]}').value
    assert type(even) is Even
    assert tuple(even) == (1,)


def test_keys_that_a_typed_dict_does_not_declare_are_dropped() -> None:
    codec = codec_of(box(Options, {"colour": Colour.RED, "size": 1}))
    back = codec.decode(KEY, b'{"value":{"size":1,"colour":"red","more":1}}')
    assert back.value == {"size": 1, "colour": Colour.RED}


def test_fields_that_a_named_tuple_has_got_are_read_with_their_defaults() -> None:
    assert codec_of(box(Row, Row(1))).decode(KEY, b'{"value":[2]}').value == Row(2, "")


@attrs.define
class Grocery(Item):
    weight: int = 0


def test_a_subclass_is_refused_with_the_union_to_declare() -> None:
    cls = box(Item, Item("a"))
    with pytest.raises(StateEncodeError) as caught:
        codec_of(cls).encode(KEY, cls(value=Grocery("tea")))
    assert caught.value.problem.endswith("not Item; declare `Item | Grocery` to store both")
