"""Unions: by which member a value is written, and which unions can't be declared."""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar
from uuid import UUID

import attrs
import pytest
from support.codecs import Colour, Extras, Item, Mode, Options, Point, Row, UserId, same
from support.ids import stable

from trio_durable import stored_as
from trio_durable._json.errors import Unfit, UnsupportedType
from trio_durable._json.forms import Form, Table
from trio_durable._json.lookup import Forms
from trio_durable._json.plain import ANY
from trio_durable._json.scalars import FLOAT, INT, STR
from trio_durable._json.unions import OptionalForm, UnionForm

T = TypeVar("T")


def form_of(annotation: Any) -> Form:
    return Forms().of(annotation)


def refusal(annotation: Any) -> str:
    with pytest.raises(UnsupportedType) as caught:
        form_of(annotation)
    return str(caught.value)


def class_named(name: str, module: str = __name__, **options: Any) -> type[Any]:
    cls: type[Any] = attrs.make_class(name, {"x": attrs.field(default=1, type=int)}, **options)
    cls.__module__ = module
    return cls


@attrs.define
class Pair(Generic[T]):
    first: T
    second: T


class NoneValue(enum.Enum):
    NOTHING = None
    ONE = 1


# --- dispatch ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value", "data"),
    [
        (int | str, 1, 1),
        (int | str, "1", "1"),
        (int | str, True, True),
        (float | str, 1, 1),
        (int | float, 1.0, 1.0),
        (bool | int, True, True),
        (Decimal | str, Decimal("1.0"), {"$type": "Decimal", "value": "1.0"}),
        (Decimal | str, "1.0", "1.0"),
        (datetime | UUID, UUID(int=0), {"$type": "UUID", "value": f"{UUID(int=0)}"}),
        (UserId | UUID, "a", "a"),
        (list[int] | int, [1], {"$type": "list", "value": [1]}),
        (list[int] | tuple[int, ...], [1], {"$type": "list", "value": [1]}),
        (list[int] | tuple[int, ...], (1,), {"$type": "tuple", "value": [1]}),
        (list[int] | set[int], {1}, {"$type": "set", "value": [1]}),
        (list[int] | deque[int], deque([1]), {"$type": "deque", "value": [1]}),
        (dict[str, int] | int, {"a": 1}, {"$type": "dict", "value": {"a": 1}}),
        (dict[str, Any] | int, {"$type": "x", "value": 1},
         {"$type": "dict", "value": {"$type": "x", "value": 1}}),
        (Sequence[int], [1], [1]),
        (Sequence[int], (1,), {"$type": "tuple", "value": [1]}),
        (AbstractSet[int], {1}, [1]),
        (AbstractSet[int], frozenset({1}), {"$type": "frozenset", "value": [1]}),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Mapping[str, int], OrderedDict(a=1), {"$type": "OrderedDict", "value": {"a": 1}}),
        (Item | Point, Point(1), {"$type": "Point", "value": {"x": 1, "y": 0.0}}),
        (Row | list[int], Row(1), {"$type": "Row", "value": [1, ""]}),
        (Extras | int, {"note": "a"}, {"$type": "dict", "value": {"note": "a"}}),
        (Colour | str, Colour.RED, {"$type": "Colour", "value": "red"}),
        (Colour | Mode, Mode.ON, {"$type": "Mode", "value": "on"}),
        (UUID | None, UUID(int=0), f"{UUID(int=0)}"),
        (Item | None, None, None),
        (int | str | None, None, None),
        (Literal["a", 1] | UUID, "a", "a"),
        (Literal["a", 1] | UUID, 1, 1),
        (Pair[int] | int, Pair(1, 2), {"$type": "Pair", "value": {"first": 1, "second": 2}}),
    ],
    ids=stable,
)  # fmt: skip
def test_values_are_bare_or_tagged_by_their_type(annotation: Any, value: Any, data: Any) -> None:
    form = form_of(annotation)
    assert same(form.write(value, []), data)
    assert same(form.read(data, []), value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int | str, 1.0),
        (int | str, None),
        (str | UUID, True),
        (Item | int, Point(1)),
        (Literal["a", 1] | UUID, True),
        (Literal["a", 1] | UUID, "b"),
        (list[int] | set[int], (1,)),
        (Sequence[int], deque([1])),
    ],
    ids=stable,
)
def test_values_of_no_member_are_refused(annotation: Any, value: Any) -> None:
    with pytest.raises(Unfit):
        form_of(annotation).write(value, [])


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (int | str, 1.5),
        (str | UUID, {"$type": "Gone", "value": 1}),
        (list[int] | set[int], [1]),
        (Sequence[int], {"$type": "list", "value": [1]}),
        (Item | Point, {"x": 1, "y": 0.0}),
    ],
    ids=stable,
)
def test_data_that_no_member_writes_is_refused(annotation: Any, data: Any) -> None:
    with pytest.raises(Unfit):
        form_of(annotation).read(data, [])


# --- normal forms --------------------------------------------------------------------------------


def test_repeated_members_are_one() -> None:
    assert form_of(int | Annotated[int, "positive"]) is INT
    assert form_of(str | UserId) is STR
    assert isinstance(form_of((str | UserId) | None), OptionalForm)


@pytest.mark.parametrize(
    ("annotation", "form"),
    [
        (Literal["a"] | str, STR),  # noqa: PYI051
        (int | Literal[1, 2], INT),  # noqa: PYI051
        (Literal[True] | int, INT),
        (Literal[1] | float, FLOAT),
    ],
)
def test_a_literal_is_a_part_of_its_type(annotation: Any, form: Form) -> None:
    assert form_of(annotation) is form


def test_literals_are_one_member() -> None:
    form = form_of(Literal["a"] | Literal["b", 1] | UUID)  # noqa: PYI030
    assert isinstance(form, UnionForm)
    (bare,) = form.bare
    assert [bare.read(data, []) for data in ("a", "b", 1)] == ["a", "b", 1]
    with pytest.raises(Unfit):
        bare.read(True, [])


def test_members_of_an_enum_in_literals() -> None:
    form = form_of(Literal[Colour.RED])
    assert form.read("red", []) is Colour.RED
    with pytest.raises(Unfit, match="declared members"):
        form.write(Colour.DEEP, [])
    with pytest.raises(Unfit):
        form.read(1, [])
    both = form_of(Literal[Colour.RED] | Literal[Colour.DEEP])  # noqa: PYI030
    assert [both.read("red", []), both.read(1, [])] == [Colour.RED, Colour.DEEP]
    whole = form_of(Literal[Colour.RED] | Colour)
    assert whole.write(Colour.DEEP, []) == 1
    mixed = form_of(Literal[Colour.RED, "red"])
    assert mixed.write(Colour.RED, []) == {"$type": "Colour", "value": "red"}
    assert mixed.write("red", []) == "red"


def test_any_holds_all_plain_members() -> None:
    assert form_of(Any | int | list[str] | None) is ANY
    assert form_of(object | str) is ANY


# --- what can't be declared ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Any | UUID, "Any swallows UUID"),
        (Any | Item | None, "Any swallows Item"),
        (list[int] | list[str], "list and list are written alike"),
        (dict[str, int] | dict[str, str], "dict and dict are written alike"),
        (tuple[int, ...] | tuple[int, str], "tuple and tuple are written alike"),
        (Sequence[int] | list[str], "list and list are written alike"),
        (Options | Extras, "have one name, 'dict'"),
        (Pair[int] | Pair[str], "Pair and Pair are written alike"),
        (Options | dict[str, int], "Options and dict have one name, 'dict'"),
        (NoneValue | None, "can't be told from None itself"),
    ],
    ids=stable,
)  # fmt: skip
def test_members_that_can_not_be_told_apart_are_refused(annotation: Any, words: str) -> None:
    assert words in refusal(annotation)


def test_two_classes_of_one_name() -> None:
    one, other = class_named("Mail"), class_named("Mail", "elsewhere")
    assert "stored_as()" in refusal(one | other)
    named = stored_as("Letter")(other)
    form = form_of(one | named)
    assert form.write(named(), []) == {"$type": "Letter", "value": {"x": 1}}
    assert type(form.read({"$type": "Letter", "value": {"x": 2}}, [])) is named
    assert type(form.read({"$type": "Mail", "value": {"x": 2}}, [])) is one


def test_a_stored_name_is_not_inherited() -> None:
    base = stored_as("Base")(class_named("Mail"))
    sub = attrs.define(type("Sub", (base,), {}))
    assert form_of(base | sub).write(sub(), []) == {"$type": "Sub", "value": {"x": 1}}


@pytest.mark.parametrize("name", ["", "a#2", 1])
def test_texts_that_are_no_stored_names(name: Any) -> None:
    with pytest.raises(ValueError, match="stored name"):
        stored_as(name)
    with pytest.raises(ValueError, match="stored name"):
        stored_as("Mail", former=(name,))


def test_the_term_of_a_union_does_not_depend_on_its_order() -> None:
    def term(annotation: Any) -> object:
        return Table().term(form_of(annotation))

    assert term(int | UUID | datetime) == term(datetime | UUID | int)
    assert term(int | UUID) == ["|", [], "UUID"]
    assert term(int | str | None) == "json"
    assert term(Item | None) == ["?", ["class", "Item"]]


class Inner(TypedDict):
    at: datetime


def test_a_typed_dict_is_tagged_as_a_dict() -> None:
    form = form_of(Inner | int)
    assert form.write({"at": datetime(2024, 1, 1)}, []) == {
        "$type": "dict",
        "value": {"at": "2024-01-01T00:00:00"},
    }
