"""Classes drawn at random: tool, slots, names, oddities, and values of them.

Values are built in their storage, or by the class where it lets itself be called. Both are states
that a program can have: oddities change what is stored while an instance is made, never later.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import typing_extensions
from hypothesis import assume
from hypothesis import strategies as st

from .drawn_types import LEAVES, Typed, Types, drawn_types, texts
from .oddities import BASES, CONVERTERS, METACLASSES, ODDITIES, WithSlot, forgiving
from .storage import dict_of, inherits, instance_of, slots_of

T = TypeVar("T")
_COMMON = [
    # Names that generated functions have for things of their own.
    *("cls", "converter", "value", "data", "instance", "obj", "o", "kwargs", "val", "res", "inst"),
    *("attr_dict", "_cattrs_value", "__cattrs_converter", "__c_self", "_setattr", "attributes"),
    *("type", "object", "dict", "list", "str", "None_", "attr", "attrs", "factory", "copy", "v"),
    # Names with a meaning for Python, or for classes of the library.
    *(
        "_x",
        "__x",
        "_C__x",
        "_",
        "__slots",
        "fields",
        "items",
        "keys",
        "name",
        "ctx",
        "get",
        "call",
    ),
    *("match", "print", "é", "count_of_calls", "more", "inherited", "foreign", "index", "count"),
    # Ordinary ones.
    *("a", "b", "number"),
]
_RARE = ["self", "cl", "NOTHING"]
"""Names of which attrs and dataclasses themselves make something else than a field."""
NAMES = [*_COMMON, *_COMMON, *_COMMON, *_RARE]
KEYS = [*_COMMON, *_RARE, "class", "$type", "$schema", "$as", "$", "a b", ""]
CLASS_NAMES = ["A", "B", "Item"]
Tool = Callable[[type, dict[str, Any]], type]


def names(most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(NAMES), min_size=1, max_size=most, unique=True)


@attrs.frozen
class Kind:
    """A kind of class with fields: what makes it, and the options of its tool."""

    tool: str
    slots: bool
    frozen: bool
    kw_only: bool
    eq: bool

    def make(self, cls: type) -> type:
        """The class as its tool leaves it.

        Raises:
            Exception: The tool refuses it.
        """
        if self.tool == "attrs":
            decorate: Any = attrs.frozen if self.frozen else attrs.define
            made: type = decorate(cls, slots=self.slots, kw_only=self.kw_only, eq=self.eq)
            return made
        return dataclasses.dataclass(
            frozen=self.frozen, slots=self.slots, kw_only=self.kw_only, eq=self.eq
        )(cls)


kinds = st.builds(
    Kind,
    tool=st.sampled_from(["attrs", "dataclass"]),
    slots=st.booleans(),
    frozen=st.booleans(),
    kw_only=st.booleans(),
    eq=st.booleans(),
)


@st.composite
def fields(draw: st.DrawFn, kind: Kind, found: list[tuple[str, Typed]]) -> dict[str, Any]:
    """The members of a class body that define fields."""
    members: dict[str, Any] = {}
    for position, (name, each) in enumerate(found):
        options: dict[str, Any] = {}
        # A field with a default can't stand before one without.
        if all(other in members for other, _ in found[:position]) and draw(st.booleans()):
            default = draw(each.values)
            key = "factory" if kind.tool == "attrs" else "default_factory"
            options[key] = lambda default=default: default
            options["init"] = draw(st.sampled_from([True, True, False]))
        if kind.tool == "attrs":
            options["converter"] = draw(st.sampled_from(CONVERTERS))
            if not kind.frozen and options["converter"] is not None:
                options["on_setattr"] = [attrs.setters.convert]
            members[name] = attrs.field(**options)
        elif options:
            members[name] = dataclasses.field(**options)
    return members


@st.composite
def odd_classes(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    """An attrs class or a dataclass, with any oddities."""
    kind = draw(kinds)
    found = [(name, draw(types_(depth - 1))) for name in draw(names())]
    parameters: tuple[Any, ...] = ()
    body: dict[str, Any] = {
        "__module__": __name__,
        "__qualname__": draw(st.sampled_from(CLASS_NAMES)),
    }
    body["__annotations__"] = {name: each.annotation for name, each in found}
    body |= draw(fields(kind, found))
    odd = draw(st.lists(st.sampled_from(ODDITIES), max_size=2)) if draw(st.booleans()) else []
    for oddity in odd:
        oddity(body, [name for name, _ in found])
    hidden = body.pop("__property__", None)
    bases: tuple[Any, ...] = draw(st.sampled_from(BASES))
    if not bases and draw(st.integers(0, 3)) == 0:
        generic: Any = Generic
        bases, parameters = (generic[T],), (found[0][1].annotation,)
        body["__annotations__"][found[0][0]] = T
    elif draw(st.integers(0, 5)) == 0:
        body["__annotations__"]["itself"] = typing_extensions.Self | None
        found.append(("itself", Typed(None, st.none())))
    metaclass = draw(st.sampled_from(METACLASSES))
    try:
        plain = types.new_class(
            body["__qualname__"], bases, {"metaclass": metaclass}, lambda ns: ns.update(body)
        )
        cls: Any = kind.make(plain)
        if hidden is not None:
            setattr(cls, hidden, property(lambda self: 3))
        elif draw(st.integers(0, 5)) == 0:  # a subclass that its tool doesn't know
            extra = {"__module__": __name__, found[0][0]: 5, "__annotations__": {"more": int}}
            cls = types.new_class(plain.__name__, (cls,), {}, lambda ns: ns.update(extra))
        annotation = cls[parameters] if parameters else cls
    except Exception:  # noqa: BLE001  # a tool refuses what it can't make
        assume(False)
    is_plain = kind.frozen and kind.eq and not odd and not bases and metaclass is type
    hashable = is_plain and all(each.hashable for _, each in found)
    notes = [kind.tool, *(oddity.__name__ for oddity in odd), *(base.__name__ for base in bases)]
    notes += [f"slots={kind.slots}", f"frozen={kind.frozen}", metaclass.__name__]
    return Typed(annotation, instances(cls, found), hashable, " ".join(notes))


@st.composite
def instances(draw: st.DrawFn, cls: Any, found: list[tuple[str, Typed]]) -> Any:
    values = {name: draw(each.values) for name, each in found}
    if draw(st.booleans()):
        try:
            made = cls(**values)
        except Exception:  # noqa: BLE001  # an oddity
            made = None
        if type(made) is cls:
            return made
    made = instance_of(cls)
    slots = {slot.__name__: slot for slot in slots_of(cls)}
    if inherits(cls, WithSlot) and "foreign" not in values and draw(st.booleans()):
        slots["foreign"].__set__(made, 1)
    for name, value in values.items():
        if name in slots:
            slots[name].__set__(made, value)
        else:
            dict.__setitem__(dict_of(made), name, value)
    return made


@st.composite
def named_tuples(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    usable = st.sampled_from(NAMES).filter(lambda name: not name.startswith("_"))
    found = [
        (name, draw(types_(depth - 1)))
        for name in draw(st.lists(usable, min_size=1, max_size=3, unique=True))
    ]
    make: Any = NamedTuple
    cls = make(
        draw(st.sampled_from(CLASS_NAMES)), [(name, each.annotation) for name, each in found]
    )
    values = st.tuples(*(each.values for _, each in found))
    hashable = all(each.hashable for _, each in found)
    return Typed(cls, values.map(lambda items: tuple.__new__(cls, items)), hashable)


@st.composite
def typed_dicts(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    found = {key: draw(types_(depth - 1)) for key in keys}
    make: Any = draw(st.sampled_from([TypedDict, typing_extensions.TypedDict]))
    total = draw(st.booleans())
    annotations = {key: each.annotation for key, each in found.items()}
    cls = make(draw(st.sampled_from(CLASS_NAMES)), annotations, total=total)
    values = {key: each.values for key, each in found.items()}
    if total:
        return Typed(cls, st.fixed_dictionaries(values))
    return Typed(cls, st.fixed_dictionaries({}, optional=values))


@st.composite
def enums(draw: st.DrawFn, types_: Types, depth: int) -> Typed:
    bases: dict[Any, st.SearchStrategy[Any]] = {
        enum.Enum: texts | st.integers(-1, 1) | st.booleans() | st.tuples(texts, st.integers(0, 1)),
        enum.IntEnum: st.integers(-1, 3),
        enum.StrEnum: texts,
        enum.Flag: st.sampled_from([1, 2, 4]),
        enum.IntFlag: st.sampled_from([1, 2, 4]),
    }
    base = draw(st.sampled_from(list(bases)))
    values = draw(st.lists(bases[base], min_size=1, max_size=3))
    members = [(f"M{number}", value) for number, value in enumerate(values)]
    make: Any = forgiving(base) if draw(st.booleans()) else base
    cls: Any = make(draw(st.sampled_from(CLASS_NAMES)), members)
    return Typed(cls, st.sampled_from(list(cls)), True)


def classes(types_: Types, depth: int) -> st.SearchStrategy[Typed]:
    """Classes of any kind, whose fields have types that ``types_`` draws."""
    return st.one_of(
        odd_classes(types_, depth),
        odd_classes(types_, depth),
        named_tuples(types_, depth),
        typed_dicts(types_, depth),
        enums(types_, depth),
    )


def _leaves(_: int) -> st.SearchStrategy[Typed]:
    return st.sampled_from(LEAVES)


def definitions() -> st.SearchStrategy[Typed]:
    """Types of fields, classes among them."""
    return st.one_of(
        odd_classes(_leaves, 1),
        classes(_leaves, 1),
        drawn_types(1, classes),
        drawn_types(2, classes),
    )
