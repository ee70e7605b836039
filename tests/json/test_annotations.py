"""Annotations of classes, resolved to types."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from trio_durable._json.annotations import (
    alias_value,
    bindings_of,
    is_typed_dict,
    own_hints,
    resolved_hints,
    substituted,
)
from trio_durable._json.errors import UnsupportedType
from trio_durable._json.namespaces import (
    InvalidAnnotation,
    Namespace,
    UnresolvedName,
    annotation_text,
)

PRELUDE = """
import dataclasses, datetime, sys, typing
from datetime import date
from typing import *
import attrs
import typing_extensions as te
from trio_durable._json.annotations import parameters_of
from trio_durable._json.namespaces import Namespace
T = TypeVar("T")
U = TypeVar("U")
Ts = TypeVarTuple("Ts")
def here():
    return Namespace.of_frame(sys._getframe(1))
"""

Module = Callable[[str], dict[str, Any]]


@pytest.fixture(params=["from __future__ import annotations\n", ""], ids=["text", "objects"])
def module(request: pytest.FixtureRequest) -> Iterator[Module]:
    """Runs source as a module, once with postponed annotations, and returns its names."""
    loaded = types.ModuleType("annotated_classes")
    sys.modules[loaded.__name__] = loaded

    def run(source: str) -> dict[str, Any]:
        code = compile(request.param + PRELUDE + source, "annotated.py", "exec", dont_inherit=True)
        exec(code, vars(loaded))
        return vars(loaded)

    yield run
    del sys.modules[loaded.__name__]


def hints_of(names: dict[str, Any], name: str) -> dict[str, str]:
    hints = resolved_hints(names[name])
    return {name: annotation_text(hint).replace("typing.", "") for name, hint in hints.items()}


def list_of(tp: Any) -> Any:
    return types.GenericAlias(list, (tp,))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "class Node:",
        "@attrs.define\nclass Node:",
        "@attrs.define(slots=False)\nclass Node:",
        "@dataclasses.dataclass\nclass Node:",
        "@dataclasses.dataclass(slots=True)\nclass Node:",
        "class Node(NamedTuple):",
        "class Node(TypedDict):",
        "class Node(te.NamedTuple):",
        "class Node(te.TypedDict):",
    ],
)
def test_classes_of_every_kind(module: Module, head: str) -> None:
    names = module(f"""{head}
    at: "date | None"
    more: list["Node"]
    deep: Optional[dict[str, Sequence["Node"]]]
    noted: Annotated[List["Node"], "Node"]
    nothing: None
    word: Literal["Node"]

class Sub(Node):
    last: "Node"
""")
    expected = {
        "at": "datetime.date | None",
        "more": "list[annotated_classes.Node]",
        "deep": "Optional[dict[str, Sequence[annotated_classes.Node]]]",
        "noted": "Annotated[List[annotated_classes.Node], 'Node']",
        "nothing": "NoneType",
        "word": "Literal['Node']",
    }
    assert hints_of(names, "Node") == expected
    assert hints_of(names, "Sub") == expected | {"last": "annotated_classes.Node"}
    assert resolved_hints(names["Node"])["more"].__args__ == (names["Node"],)


def test_special_forms_stay(module: Module) -> None:
    names = module("""
class Plain:
    a: ClassVar[int]
    b: Final[int]
    c: ClassVar
    d: Final
    e: "typing.ClassVar[list[int]]"
    f: Any
    g: Self
    h: "dataclasses.InitVar[int]"

class Keys(TypedDict, total=False):
    a: Required[int]
    b: "NotRequired[int]"
    c: te.ReadOnly[int]
""")
    assert hints_of(names, "Plain") | {"h": ""} == {
        "a": "ClassVar[int]",
        "b": "Final[int]",
        "c": "ClassVar",
        "d": "Final",
        "e": "ClassVar[list[int]]",
        "f": "Any",
        "g": "Self",
        "h": "",
    }
    assert list(hints_of(names, "Keys").values())[:2] == ["Required[int]", "NotRequired[int]"]


def test_fields_do_not_hide_types(module: Module) -> None:
    names = module("""
@dataclasses.dataclass
class Event:
    starts: "date | None" = None
    date: "date | None" = None
    list: "list[int]" = dataclasses.field(default_factory=list)
    def int(self): ...
    count: "int" = 0
""")
    assert hints_of(names, "Event") == {
        "starts": "datetime.date | None",
        "date": "datetime.date | None",
        "list": "list[int]",
        "count": "int",
    }


def test_types_in_the_class_body_come_first(module: Module) -> None:
    names = module("""
class Item: ...
class Key: ...

class Cart:
    class Item: ...
    Key = int
    Code: TypeAlias = "list[Key]"
    items: "list[Item]"
    key: "Key"
""")
    hints = resolved_hints(names["Cart"])
    assert hints["items"] == list_of(names["Cart"].Item)
    assert hints["key"] is int


def test_names_of_a_base_are_those_of_its_module(module: Module) -> None:
    other = types.ModuleType("other_classes")
    source = """
from __future__ import annotations
from typing import TypedDict
class Kind: ...
class Base:
    kind: Kind
class Keys(TypedDict):
    kind: Kind
"""
    sys.modules[other.__name__] = other
    try:
        exec(compile(source, "other.py", "exec", dont_inherit=True), vars(other))
        names = module("""
from other_classes import Base, Keys
class Kind: ...
class Sub(Base):
    mine: "Kind"
class Own(Keys):
    mine: "Kind"
""")
        for cls in ("Sub", "Own"):
            assert resolved_hints(names[cls]) == {
                "kind": vars(other)["Kind"],
                "mine": names["Kind"],
            }
    finally:
        del sys.modules[other.__name__]


def test_local_classes(module: Module) -> None:
    names = module("""
Item = int

def outer():
    class Unused: ...
    def inner():
        import decimal
        class Item: ...
        @attrs.define
        class Node:
            item: "Item"
            price: "decimal.Decimal"
            more: "list[Node]"
        class Sub(Node):
            sub: "list[Node]"
        class Holder:
            class Inner:
                item: "Item"
            inner: "Inner"
        return Item, Node, Sub, Holder, here()
    return inner()

def elsewhere():
    class Item: ...
    return here()
""")
    item, node, sub, holder, namespace = names["outer"]()
    hints = {"item": item, "price": vars(sys.modules["decimal"])["Decimal"], "more": list_of(node)}
    assert resolved_hints(node, namespace) == hints
    assert resolved_hints(sub, namespace) == {**hints, "sub": list_of(node)}
    assert resolved_hints(holder, namespace) == {"inner": holder.Inner}
    assert resolved_hints(holder.Inner, namespace) == {"item": item}
    # The names of another function aren't those of this class.
    with pytest.raises(UnresolvedName) as caught:
        resolved_hints(node, names["elsewhere"]())
    assert caught.value.name == "decimal"
    assert resolved_hints(holder.Inner, names["elsewhere"]()) == {"item": int}


def test_a_local_class_is_its_newest_self(module: Module) -> None:
    names = module("""
def define():
    found = []
    for _ in range(2):
        class Node:
            more: "list[Node]"
        found.append((Node, here()))
        namespace = here()
    return found, namespace
""")
    ((first, _), (second, _)), namespace = names["define"]()
    assert resolved_hints(first, namespace) == {"more": list_of(first)}
    assert resolved_hints(second, namespace) == {"more": list_of(second)}


def test_classes_of_code_that_is_no_module() -> None:
    body = "class Item: ...\nclass Cart:\n    item: 'Item'\nnamespace = "
    source = PRELUDE + body + "here()"
    for names in ({"__name__": "no_module"}, {}):
        exec(source, names)
        cart: Any = names["Cart"]
        assert resolved_hints(cart, names["namespace"]) == {"item": names["Item"]}  # type: ignore[arg-type]
    apart: dict[str, Any] = {}
    exec(PRELUDE + body + "Namespace.of_frame(sys._getframe())", {}, apart)
    assert resolved_hints(apart["Cart"], apart["namespace"]) == {"item": apart["Item"]}


def test_the_module_needs_no_snapshot() -> None:
    names: dict[str, Any] = {}
    exec(PRELUDE + "namespace = Namespace.of_frame(sys._getframe())", names)
    assert names["namespace"].names == {}
    assert Namespace.EMPTY.names == {}


def test_own_hints_leave_out_the_bases(module: Module) -> None:
    names = module("class Base:\n    a: int\nclass Sub(Base):\n    b: 'str'")
    assert own_hints(names["Sub"]) == {"b": str}


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        ("'Missing'", "Missing"),
        ("list['Missing']", "Missing"),
        ("'missing.Type'", "missing"),
        ("'datetime.Date'", "datetime.Date"),
        ("'date.Time'", "date.Time"),
    ],
)
def test_names_that_are_not_defined(module: Module, annotation: str, name: str) -> None:
    names = module(f"class Plain:\n    fine: int\n    field: {annotation}")
    with pytest.raises(UnresolvedName) as caught:
        resolved_hints(names["Plain"])
    assert (caught.value.name, caught.value.member) == (name, "field")
    assert name in caught.value.annotation


def test_parameters_in_the_statement_of_a_class_behind_generic(module: Module) -> None:
    names = module("""
found = []
class Root:
    def __init_subclass__(cls):
        found.append((dict(vars(cls)).get("__parameters__"), parameters_of(cls)))
class Mixin(Generic[T]): ...
class One(Mixin[U], Generic[T, U], Root): ...
class Two(Mixin[dict[U, T]], Root): ...
class Three(Mixin[int], Root): ...
""")
    t, u = names["T"], names["U"]
    assert names["found"] == [(None, (t, u)), (None, (u, t)), (None, ())]
    assert [names[name].__parameters__ for name in ("One", "Two", "Three")] == [(t, u), (u, t), ()]


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ("'(1).Type'", "has no attribute 'Type'"),
        ("'list['", "expression"),
        ("list['list[']", "expression"),
        ("'int[str]'", "not subscriptable"),
        ("'1 / 0'", "division"),
        ("'Dict[int]'", "Dict"),
        ("'Optional'", "Plain"),
    ],
)
def test_annotations_that_are_no_types(module: Module, annotation: str, problem: str) -> None:
    names = module(f"class Plain:\n    fine: int\n    field: {annotation}")
    with pytest.raises(UnsupportedType, match=problem) as caught:
        resolved_hints(names["Plain"])
    assert isinstance(caught.value, InvalidAnnotation)
    assert caught.value.member == "field"
    assert caught.value.annotation in str(caught.value)


# --- generic classes -----------------------------------------------------------------------------


def test_arguments_of_bases_replace_their_variables(module: Module) -> None:
    names = module("""
@attrs.define
class Repo(Generic[T]):
    items: list[T]
    found: "dict[str, tuple[T, ...]]"
    noted: Annotated[T, "x"] = None
    always: ClassVar[int] = 0

class Numbers(Repo[int]): ...
class Named(Repo["Numbers"]): ...
class Pairs(Repo[tuple[T, U]], Generic[T, U]):
    last: T
class Same(Repo[list[T]], Generic[T]): ...
class Deep(Pairs[U, str], Generic[U]): ...
class Deepest(Deep[bool]):
    own: bytes
""")
    repo = {"always": "ClassVar[int]"}
    assert hints_of(names, "Repo")["items"] == "list[~T]"
    assert hints_of(names, "Numbers") == repo | {
        "items": "list[int]",
        "found": "dict[str, tuple[int, ...]]",
        "noted": "Annotated[int, 'x']",
    }
    assert hints_of(names, "Named")["items"] == "list[annotated_classes.Numbers]"
    assert hints_of(names, "Pairs")["items"] == "list[tuple[~T, ~U]]"
    # Its T is another than that of its base.
    same = resolved_hints(names["Same"])["items"]
    assert substituted(same, bindings_of(names["Same"][int])) == list[list[int]]
    deepest = resolved_hints(names["Deepest"])
    assert deepest["items"] == list[tuple[bool, str]]
    assert deepest["last"] is bool
    assert deepest["own"] is bytes


@pytest.mark.parametrize("kind", ["typing", "te"])
def test_generic_named_tuples_and_typed_dicts(module: Module, kind: str) -> None:
    names = module(f"""
class Pair({kind}.NamedTuple, Generic[T]):
    first: T
    rest: "list[T]"

class Page({kind}.TypedDict, Generic[T]):
    items: "list[T]"
    next: "Page[T] | None"

class Ints(Page[int]):
    total: "int"

class Words(Page["str"], Generic[U]):
    by: U
""")
    pair, page = names["Pair"], names["Page"]
    hints = resolved_hints(pair)
    assert substituted(hints["rest"], bindings_of(pair[int])) == list[int]
    assert substituted(hints["first"], bindings_of(pair[int])) is int
    assert is_typed_dict(page)
    assert not is_typed_dict(dict)
    assert resolved_hints(names["Ints"]) == {
        "items": list[int],
        "next": page[int] | None,
        "total": int,
    }
    words = resolved_hints(names["Words"])
    assert words["items"] == list[str]
    assert substituted(words["by"], bindings_of(names["Words"][bytes])) is bytes


def test_a_base_without_arguments(module: Module) -> None:
    names = module("""
N = TypeVar("N", bound=int)
B = TypeVar("B", bound="Bound")
D = te.TypeVar("D", default=str)
E = te.TypeVar("E", default=None)
F = te.TypeVar("F", default=list[D])
class Bound: ...
class Repo(Generic[T, N, B, D, E, F]):
    a: T
    b: N
    c: B
    d: D
    e: E
    f: F
class Sub(Repo): ...
class Other(Repo, Generic[T]):
    own: T
""")
    for cls in ("Sub", "Other"):
        hints = resolved_hints(names[cls])
        assert hints["a"].__name__ == "T"
        assert hints["a"] is not names["T"]
        assert hints["b"] is int
        assert hints["c"] is names["Bound"]
        assert hints["d"] is str
        assert hints["e"] is type(None)
        assert hints["f"] == list[str]
    # The variable of the subclass isn't that of the base, though it has the same name.
    hints = resolved_hints(names["Other"])
    bound = bindings_of(names["Other"][int])
    assert substituted(hints["own"], bound) is int
    assert substituted(hints["a"], bound) is hints["a"]


def test_variadic_classes(module: Module) -> None:
    names = module("""
class Row(Generic[T, Unpack[Ts], U]):
    cells: tuple[T, Unpack[Ts], U]
    more: list[tuple[Unpack[Ts]]]
class Mine(Row[int, str, bytes, bool]): ...
""")
    assert resolved_hints(names["Mine"]) == {
        "cells": tuple[int, str, bytes, bool],
        "more": list[tuple[str, bytes]],
    }


def test_a_base_with_two_sets_of_arguments(module: Module) -> None:
    names = module("""
class Repo(Generic[T]):
    items: list[T]
class Ints(Repo[int]): ...
class Words(Repo[str]): ...
class Both(Ints, Words): ...
class Fine(Ints, Repo[int]): ...
""")
    with pytest.raises(UnsupportedType, match=r"Repo\[int\].*Repo\[str\]"):
        resolved_hints(names["Both"])
    assert resolved_hints(names["Fine"]) == {"items": list[int]}


def test_substitution_reaches_every_place(module: Module) -> None:
    names = module("""
class Page(Generic[T]): ...
PLACES = [
    (T, int), (list[T], list[int]), (List[T], list[int]), (Optional[T], Optional[int]),
    (list[T] | None, list[int] | None), (Annotated[list[T], 1], Annotated[list[int], 1]),
    (Page[T], Page[int]), (Page[list[T]], Page[list[int]]), (tuple[T, ...], tuple[int, ...]),
    (Final[T], Final[int]), (ClassVar[list[T]], ClassVar[list[int]]), (Required[T], Required[int]),
    (dict[str, dict[T, U]], dict[str, dict[int, U]]), (type[T], type[int]),
    (Callable[[T], T], Callable[[T], T]), (Literal["T"], Literal["T"]), (int, int), (Page, Page),
    (Self, Page), (list[Self], list[Page]), (Optional["Self"], Optional["Self"]),
]
""")
    for tp, wanted in names["PLACES"]:
        assert substituted(tp, {names["T"]: int}, names["Page"]) == wanted
    untouched = list_of(names["U"])
    assert substituted(untouched, {names["T"]: int}) is untouched
    own = names["Self"]
    assert substituted(own, {}) is own


def test_bindings(module: Module) -> None:
    names = module("class Page(Generic[T, U]): ...")
    page, t, u = names["Page"], names["T"], names["U"]
    assert bindings_of(page[int, str]) == {t: int, u: str}
    assert bindings_of(page) == {}
    assert bindings_of(int) == {}
    assert isinstance(bindings_of(page), Mapping)


NEW_SYNTAX = pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695")


@NEW_SYNTAX
def test_type_parameters(module: Module) -> None:
    names = module("""
T = str  # not the parameter

class Repo[T]:
    items: "list[T]"

class Numbers(Repo[int]): ...

class Bounded[N: Later]:
    n: "N"

class Sub(Bounded): ...

def local():
    class Item: ...
    class Repo[T]:
        item: "Item"
        space = here()
        items: "dict[str, list[T]]"
    class Ints(Repo[int]): ...
    return Item, Ints, here()
""")
    assert resolved_hints(names["Numbers"]) == {"items": list[int]}
    item, ints, namespace = names["local"]()
    assert resolved_hints(ints, namespace) == {"item": item, "items": dict[str, list[int]]}
    repo = ints.__mro__[1]
    assert resolved_hints(ints, repo.space)["item"] is item
    with pytest.raises(UnresolvedName) as caught:
        resolved_hints(names["Sub"])
    assert (caught.value.name, caught.value.member) == ("Later", "N")
    names["Later"] = int
    assert resolved_hints(names["Sub"]) == {"n": int}


# --- aliases -------------------------------------------------------------------------------------


def check_aliases(names: dict[str, Any]) -> None:
    json = names["Json"]
    assert alias_value(json) == str | list_of(json)
    pairs = names["Pairs"]
    assert substituted(alias_value(pairs), bindings_of(pairs[int])) == list[tuple[int, int]]
    with pytest.raises(UnresolvedName, match="Missing"):
        alias_value(names["Broken"])
    with pytest.raises(UnsupportedType, match="subscriptable"):
        alias_value(names["Wrong"])


def test_aliases_made_by_a_call(module: Module) -> None:
    names = module("""
Json = te.TypeAliasType("Json", 'str | list["Json"]')
Pairs = te.TypeAliasType("Pairs", list[tuple[T, T]], type_params=(T,))
Broken = te.TypeAliasType("Broken", "Missing")
Wrong = te.TypeAliasType("Wrong", "int[str]")
""")
    check_aliases(names)


@NEW_SYNTAX
def test_type_statements(module: Module) -> None:
    names = module("""
type Json = str | list[Json]
type Pairs[T] = list[tuple[T, T]]
type Broken = Missing
type Wrong = int[str]
""")
    check_aliases(names)
