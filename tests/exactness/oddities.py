"""Oddities of classes: code that runs when an instance is made, read, compared or changed.

Each is a function that puts members into a class body before its tool, attrs or dataclasses, sees
the class. None of them may change what is stored.
"""

from __future__ import annotations

import enum
import functools
import itertools
import types
from collections.abc import Callable
from typing import Any

import attrs

Body = dict[str, Any]
_calls = itertools.count(1)
RAN: list[str] = []
"""Names of the code of drawn classes that has run, in order; a test clears it."""


def other(value: Any) -> Any:
    """A value that isn't ``value``, of the same type if that has another one."""
    kind = type(value)
    if kind is bool:
        return not value
    if kind in (int, float):
        return value + next(_calls)
    if kind is str:
        return f"{value}{next(_calls)}"
    return [*value, *value] if kind is list else value


def store(instance: Any, name: str, value: Any) -> None:
    object.__setattr__(instance, name, value)


def _ran(name: str) -> None:
    RAN.append(name)


def own_init(body: Body, names: list[str]) -> None:
    """An ``__init__`` that stores something else than it is given."""

    def __init__(self: Any, *args: Any, **values: Any) -> None:  # noqa: N807
        _ran("constructor")
        for name, value in itertools.chain(zip(names, args, strict=False), values.items()):
            store(self, name, other(value))

    body["__init__"] = __init__


def init_of_other_arguments(body: Body, names: list[str]) -> None:
    """An ``__init__`` that can't be called with the fields."""

    def __init__(self: Any, *, everything: dict[str, Any]) -> None:  # noqa: N807
        _ran("constructor")
        for name, value in everything.items():
            store(self, name, value)

    body["__init__"] = __init__


def own_new(body: Body, names: list[str]) -> None:
    """A ``__new__`` that counts, and stores its count."""

    def __new__(cls: type, *args: Any, **values: Any) -> Any:  # noqa: N807
        _ran("__new__")
        made: Any = object.__new__(cls)
        if names:
            store(made, names[0], next(_calls))
        return made

    body["__new__"] = __new__


def setattr_changes(body: Body, names: list[str]) -> None:
    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        _ran("__setattr__")
        store(self, name, other(value))

    body["__setattr__"] = __setattr__


def getattribute_lies(body: Body, names: list[str]) -> None:
    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807
        value = object.__getattribute__(self, name)
        return other(value) if name in names else value

    body["__getattribute__"] = __getattribute__


def equal_to_all(body: Body, names: list[str]) -> None:
    body["__eq__"] = lambda self, other: True
    body["__hash__"] = lambda self: 1


def incomparable(body: Body, names: list[str]) -> None:
    def __eq__(self: Any, other: object) -> bool:  # noqa: N807
        raise ZeroDivisionError

    body["__eq__"] = __eq__
    body["__hash__"] = lambda self: 1


def unhashable(body: Body, names: list[str]) -> None:
    def __hash__(self: Any) -> int:  # noqa: N807
        raise ZeroDivisionError

    body["__hash__"] = __hash__


def post_init_changes(body: Body, names: list[str]) -> None:
    def change(self: Any) -> None:
        _ran("__post_init__")
        for name in names:
            store(self, name, other(object.__getattribute__(self, name)))

    body["__post_init__"] = body["__attrs_post_init__"] = change


def post_init_refuses(body: Body, names: list[str]) -> None:
    def refuse(self: Any) -> None:
        _ran("__post_init__")
        raise ZeroDivisionError

    body["__post_init__"] = body["__attrs_post_init__"] = refuse


def cached(body: Body, names: list[str]) -> None:
    def count(self: Any) -> int:
        return next(_calls)

    made: functools.cached_property[int] = functools.cached_property(count)
    made.__set_name__(object, "count_of_calls")
    body["count_of_calls"] = made


def property_of_a_field(body: Body, names: list[str]) -> None:
    """A property that takes a field's name after the class was made."""
    body["__property__"] = names[0] if names else ""


def undeclared(body: Body, names: list[str]) -> None:
    """A default of the class that isn't annotated, and so no field."""
    body["more"] = 1


def bool_is_false(body: Body, names: list[str]) -> None:
    body["__bool__"] = lambda self: False
    body["__len__"] = lambda self: 0
    body["__iter__"] = lambda self: iter(())


def repr_fails(body: Body, names: list[str]) -> None:
    def __repr__(self: Any) -> str:  # noqa: N807
        raise ZeroDivisionError

    body["__repr__"] = __repr__


def own_reduction(body: Body, names: list[str]) -> None:
    """Copies and pickles are something else."""
    body["__reduce_ex__"] = lambda self, protocol: (str, ("copied",))
    body["__deepcopy__"] = lambda self, memo: "copied"


ODDITIES: list[Callable[[Body, list[str]], None]] = [
    own_init,
    init_of_other_arguments,
    own_new,
    setattr_changes,
    getattribute_lies,
    equal_to_all,
    incomparable,
    unhashable,
    post_init_changes,
    post_init_refuses,
    cached,
    property_of_a_field,
    undeclared,
    bool_is_false,
    repr_fails,
    own_reduction,
]


class CountingMeta(type):
    """Instances are made with other values than those given."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        _ran("constructor")
        return super().__call__(*map(other, args), **{k: other(v) for k, v in values.items()})


class EqualMeta(type):
    """All classes are equal."""

    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return 1


class Plain:
    """A base with a method."""

    def greet(self) -> str:
        return "hello"


class WithSlot:
    """A base with a slot that isn't a field."""

    __slots__ = ("foreign",)


class Annotated:
    """A base whose annotation is no field."""

    inherited: int = 0


@attrs.define
class Fields:
    """A base with a field of its own."""

    inherited: int = 0


class Sealed:
    """A base with a ``__new__``."""

    __slots__ = ()

    def __new__(cls, *args: Any, **values: Any) -> Any:
        _ran("__new__")
        return object.__new__(cls)


METACLASSES: list[type[type]] = [*[type] * 8, CountingMeta, EqualMeta]
BASES: list[tuple[type, ...]] = [
    *[()] * 20,
    (Plain,),
    (WithSlot,),
    (Annotated,),
    (Fields,),
    (Sealed,),
    (list,),
    (dict,),
    (str,),
    (Exception,),
]


def forgiving(base: type[enum.Enum]) -> type[enum.Enum]:
    """An enum without members, whose subclasses take any value for their first member."""

    def missing(cls: Any, value: object) -> Any:
        _ran("_missing_")
        return next(iter(cls))

    def fill(body: Any) -> None:
        body["_missing_"] = classmethod(missing)

    made: type[enum.Enum] = types.new_class("Forgiving", (base,), {}, fill)
    return made


def convert(value: Any) -> Any:
    """A converter that isn't idempotent."""
    _ran("converter")
    return other(value)


CONVERTERS: list[Callable[[Any], Any] | None] = [None, None, convert]
