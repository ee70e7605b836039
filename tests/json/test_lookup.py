"""Look-up of a type's form: normal forms, generics, and failures that leave nothing."""

from __future__ import annotations

import types
import typing
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, Literal, NewType, NotRequired, Optional
from uuid import UUID

import attrs
import pytest
import typing_extensions
from typing_extensions import ReadOnly, TypeAliasType, TypedDict, TypeVar

from trio_durable import BigInt
from trio_durable._json.errors import Unfit, UnknownType, UnsupportedType
from trio_durable._json.forms import Form
from trio_durable._json.lookup import Forms
from trio_durable._json.scalars import INT, STR
from trio_durable._json.sequences import SequenceForm
from trio_durable._json.texts import BIG_INT, TEXTS
from trio_durable._json.unions import UnionForm

T = TypeVar("T")
D = TypeVar("D", default=datetime)
B = TypeVar("B", bound=Decimal)
UserId = NewType("UserId", str)
Admin = NewType("Admin", UserId)
Alias = TypeAliasType("Alias", list[datetime])
Tree = TypeAliasType("Tree", "list[Tree] | UUID")
Plain = TypeAliasType("Plain", "list[Plain] | int")
Listed = TypeAliasType("Listed", list[T], type_params=(T,))
Paired = TypeAliasType("Paired", tuple[T, D], type_params=(T, D))
Itself = TypeAliasType("Itself", "Itself")  # type: ignore[misc]


@attrs.define
class Box(Generic[T]):
    value: T


@attrs.define
class Defaulted(Generic[D]):
    value: D


@attrs.define
class Bounded(Generic[B]):
    value: B


@attrs.define
class Linked(Generic[T]):
    value: T
    next: Linked[T] | None = None


@attrs.define
class Endless(Generic[T]):
    next: Endless[list[T]] | None = None


@attrs.define
class Selfish:
    other: typing_extensions.Self | None = None


@attrs.define
class DatedBox(Box[datetime]):
    pass


@attrs.define
class Good:
    at: datetime


@attrs.define
class Bad:
    good: Good
    bad: complex


@attrs.define
class First:
    second: Second | None = None


@attrs.define
class Second:
    first: First | None = None
    bad: complex = 1j


class Noted(TypedDict):
    at: ReadOnly[datetime]
    note: NotRequired[Annotated[UUID, "of the note"]]


# --- normal forms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "normal"),
    [
        (UserId, str),
        (Admin, str),
        (Annotated[int, []], int),
        (Annotated[Annotated[UserId, 1], 2], str),
        (Final[int], int),
        (Optional[int], int | None),  # noqa: UP045
        (None, type(None)),
        (typing.List[int], list[int]),  # noqa: UP006
        (typing.Dict[str, int], dict[str, int]),  # noqa: UP006
        (list[UserId], list[str]),
        (Box[UserId], Box[str]),
        (list[Annotated[int, "x"]], list[int]),
    ],
    ids=str,
)
def test_other_names_of_a_type_have_its_form(annotation: Any, normal: Any) -> None:
    forms = Forms()
    assert forms.of(annotation) is forms.of(normal)


def test_types_that_only_compare_equal_have_forms_of_their_own() -> None:
    forms = Forms()
    assert forms.of(Literal[1]) is not forms.of(Literal[True])
    assert forms.of(list[int | str]) is not forms.of(list[str | int])
    assert forms.of(Annotated[int, "x"]) is INT
    assert forms.of(BigInt) is BIG_INT


class EqualType(type):
    """A metaclass whose classes are all equal."""

    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return 1


def test_classes_that_compare_equal_have_forms_of_their_own() -> None:
    @attrs.define
    class First(metaclass=EqualType):
        at: datetime

    @attrs.define
    class Second(metaclass=EqualType):
        name: str

    forms = Forms()
    assert [forms.of(cls).name for cls in (First, Second, First)] == ["First", "Second", "First"]


def test_the_order_of_a_union_is_kept() -> None:
    # `A | B == B | A`, so a cache by equality would give one for the other.
    forms = Forms()
    one, other = forms.of(list[int | str]), forms.of(list[str | int])
    assert bare_items(one) == (INT, STR)
    assert bare_items(other) == (STR, INT)


def bare_items(form: Form) -> tuple[Form, ...]:
    assert isinstance(form, SequenceForm)
    assert isinstance(form.item, UnionForm)
    return form.item.bare


def test_equal_annotations_are_looked_up_once() -> None:
    forms = Forms()
    assert forms.of(list[Good]) is forms.of(list[Good])
    assert forms.of(dict[str, Box[int]]) is forms.of(dict[str, Box[int]])


def test_types_without_arguments() -> None:
    forms = Forms()
    assert forms.of(tuple).write((1, "a", None), []) == [1, "a", None]
    assert forms.of(tuple[()]).write((), []) == []
    with pytest.raises(Unfit):
        forms.of(tuple[()]).write((1,), [])
    assert forms.of(dict).write({"a": [1]}, []) == {"a": [1]}
    assert forms.of(list).write([{}], []) == [{}]


# --- aliases -------------------------------------------------------------------------------------


def test_aliases() -> None:
    forms = Forms()
    assert forms.of(Alias).write([datetime(2024, 1, 1)], []) == ["2024-01-01T00:00:00"]
    assert forms.of(Listed[UUID]).read([str(UUID(int=1))], []) == [UUID(int=1)]
    with pytest.raises(Unfit):
        forms.of(Listed[int]).read(["1"], [])


def test_a_type_variable_of_an_alias_has_its_default() -> None:
    form = Forms().of(typing.cast("Any", Paired)[int])
    at = datetime(2024, 1, 1)
    assert form.read(form.write((1, at), []), []) == (1, at)
    with pytest.raises(Unfit):
        form.write((1, "2024-01-01"), [])


def test_aliases_that_contain_themselves() -> None:
    form = Forms().of(Tree)
    value = [[], UUID(int=1), [[UUID(int=2)]]]
    data = form.write(value, [])
    assert data["value"][1] == {"$type": "UUID", "value": str(UUID(int=1))}
    assert form.read(data, []) == value
    plain = Forms().of(Plain)
    value = [[1], [[2]]]
    assert plain.read(plain.write(value, []), []) == value
    with pytest.raises(Unfit):
        plain.write([["1"]], [])


def test_an_alias_of_itself_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="defined as itself"):
        Forms().of(Itself)


# --- generics ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value", "data"),
    [
        (Box[int], Box(1), 1),
        (Box[UUID], Box(UUID(int=1)), str(UUID(int=1))),
        (Box[list[Decimal]], Box([Decimal(1)]), ["1"]),
        (DatedBox, DatedBox(datetime(2024, 1, 1)), "2024-01-01T00:00:00"),
        (Defaulted, Defaulted(datetime(2024, 1, 1)), "2024-01-01T00:00:00"),
        (Defaulted[int], Defaulted(1), 1),
        (Bounded, Bounded(Decimal(1)), "1"),
    ],
    ids=str,
)
def test_type_variables_have_their_arguments(annotation: Any, value: Any, data: Any) -> None:
    form = Forms().of(annotation)
    assert form.write(value, []) == {"value": data}
    assert form.read({"value": data}, []) == value


def test_a_generic_class_that_contains_itself() -> None:
    form = Forms().of(Linked[UUID])
    value = Linked(UUID(int=1), Linked(UUID(int=2)))
    assert form.read(form.write(value, []), []) == value
    with pytest.raises(Unfit):
        form.write(Linked(UUID(int=1), Linked("x")), [])


def test_a_generic_class_of_ever_other_arguments_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="ever other arguments"):
        Forms().of(Endless[int])


def test_a_type_variable_without_a_type_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="type variable") as caught:
        Forms().of(Box)
    assert caught.value.member == "Box.value"


def test_self_is_the_class_of_the_annotation() -> None:
    form = Forms().of(Selfish)
    assert form.read({"other": {"other": None}}, []) == Selfish(Selfish())  # type: ignore[arg-type]
    with pytest.raises(UnsupportedType, match="Self means no class here"):
        Forms().of(typing.Self)


def test_notes_in_typed_dicts() -> None:
    form = Forms().of(Noted)
    value = {"at": datetime(2024, 1, 1), "note": UUID(int=1)}
    assert form.read(form.write(value, []), []) == value
    assert form.read({"at": "2024-01-01T00:00:00"}, []) == {"at": datetime(2024, 1, 1)}
    with pytest.raises(Unfit, match="lacks at"):
        form.read({}, [])


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [Bad, First, list[Bad], Good | Bad, dict[str, Second]])
def test_a_failed_look_up_leaves_no_forms(annotation: Any) -> None:
    forms = Forms()
    forms.of(Good)
    known = dict(forms._forms)
    for _ in range(2):
        with pytest.raises(UnknownType, match="complex has no exact JSON form") as caught:
            forms.of(annotation)
        assert caught.value.member.endswith("bad") or "bad:" in str(caught.value)
        assert forms._forms == known
    assert forms.of(Good).read({"at": "2024-01-01T00:00:00"}, []) == Good(datetime(2024, 1, 1))


def test_the_error_names_the_way_to_the_type() -> None:
    with pytest.raises(UnknownType) as caught:
        Forms().of(First)
    assert caught.value.member == "First.second"
    assert str(caught.value).startswith("Second.bad: complex has no exact JSON form")


def test_hooks_of_a_converter_come_before_forms_of_ours_except_those_of_json_itself() -> None:
    seen = []

    def custom(tp: type) -> Any:
        seen.append(tp)
        return TEXTS[UUID] if tp is complex else None

    forms = Forms(custom=(custom,))
    assert forms.of(complex) is TEXTS[UUID]
    forms.of(Good)
    assert seen == [complex, Good, datetime]
    forms.of(int)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "annotation",
    [
        types.GenericAlias(list, (int, str)),
        types.GenericAlias(set, (int, int)),
        types.GenericAlias(dict, (str,)),
        types.GenericAlias(dict, (str, int, int)),
    ],
    ids=str,
)
def test_a_wrong_number_of_arguments_is_refused(annotation: Any) -> None:
    with pytest.raises(UnsupportedType, match="in its brackets"):
        Forms().of(annotation)


class Closed(TypedDict, closed=True):
    at: datetime


class Extra(TypedDict, extra_items=UUID):  # type: ignore[call-arg]
    at: datetime


def test_other_keys_of_typed_dicts() -> None:
    forms = Forms()
    value = {"at": datetime(2024, 1, 1), "more": UUID(int=1)}
    extra = forms.of(Extra)
    assert extra.read(extra.write(value, []), []) == value
    with pytest.raises(Unfit, match="not UUID"):
        extra.write({**value, "more": 1}, [])
    with pytest.raises(Unfit, match="'more' is not a key"):
        forms.of(Closed).write(value, [])
