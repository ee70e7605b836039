"""Types as they are declared: their normal form, their members, and the values that they hold."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import deque
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import typing_extensions

import trio_durable

from .classes import fields_of, is_record, required_of

BIG_INT: Any = getattr(trio_durable, "BigInt", object())
"""Whole numbers of any size, written as text."""
PLAIN = (bool, int, float, str)
SEQUENCES = (list, tuple, deque)
_WRAPPERS = (typing.Annotated, typing.Final, typing.Required, typing.NotRequired)


def normal(annotation: Any) -> Any:
    """A type without the names and notes around it."""
    while annotation is not BIG_INT:
        if get_origin(annotation) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif isinstance(annotation, typing_extensions.TypeAliasType):
            annotation = annotation.__value__
        else:
            return type(None) if annotation is None else annotation
    return annotation


def members(annotation: Any) -> list[Any]:
    """The members of a type: of a union, or itself."""
    annotation = normal(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        found = [each for member in get_args(annotation) for each in members(member)]
        return [Any] if Any in found else found
    if origin is MutableSequence:
        return [list[get_args(annotation)]]  # type: ignore[misc]
    if origin is Sequence:
        item: Any = get_args(annotation)[0]
        return [list[item], tuple[item, ...]]
    if origin is AbstractSet:
        member: Any = get_args(annotation)[0]
        return [set[member], frozenset[member]]
    if origin in (Mapping, MutableMapping):
        return [dict[get_args(annotation)]]  # type: ignore[misc]
    return [annotation]


def identical(left: Any, right: Any) -> bool:
    """True if two types have the same normal form."""
    left, right = normal(left), normal(right)
    if left is right:
        return True
    if get_origin(left) is Literal or get_origin(right) is Literal:
        return get_origin(left) is get_origin(right) and (
            {(type(each), each) for each in get_args(left)}
            == {(type(each), each) for each in get_args(right)}
        )
    ours, theirs = members(left), members(right)
    if len(ours) > 1 or len(theirs) > 1:
        return len(ours) == len(theirs) and all(
            any(identical(each, other) for other in theirs) for each in ours
        )
    arguments = get_args(left), get_args(right)
    return (
        get_origin(left) is not None
        and get_origin(left) is get_origin(right)
        and len(arguments[0]) == len(arguments[1])
        and all(map(identical, *arguments))
    )


def holds(annotation: Any, value: Any) -> bool:
    """True if a value is of a type, at every depth."""
    return holder(annotation, value) is not None


def holder(annotation: Any, value: Any) -> Any:
    """The member of a type that holds a value; None if it isn't of that type."""
    found = members(annotation)
    for exactly in (True, False):
        for member in found:
            if _holds(member, value, exactly):
                return member
    return None


def _holds(member: Any, value: Any, exactly: bool) -> bool:
    kind, origin, arguments = type(value), get_origin(member) or member, get_args(member)
    if member is Any or member is object:
        return not exactly and is_plain(value)
    if origin is Literal:
        return any(type(each) is kind and each == value for each in arguments)
    if member is BIG_INT:
        return kind is int
    if member is float and kind is int:
        return not exactly and abs(value) <= 2**53
    if member is int and kind is bool:
        return not exactly
    if typing_extensions.is_typeddict(origin):
        hints = fields_of(member)
        return (
            kind is dict
            and required_of(member) <= value.keys() <= hints.keys()
            and all(holds(hints[key], item) for key, item in value.items())
        )
    if origin is Path:
        return kind is type(Path())
    if kind is not origin:
        return False
    if is_record(origin):
        stored = fields_of(member)
        return all(holds(tp, field_value(value, name)) for name, tp in stored.items())
    if origin is dict and arguments:
        return all(holds(arguments[0], k) and holds(arguments[1], v) for k, v in value.items())
    if origin in (*SEQUENCES, set, frozenset) and arguments:
        found = item_types(member, len(value))
        return found is not None and all(map(holds, found, value))
    return True


def is_plain(value: Any) -> bool:
    """True for plain JSON."""
    if type(value) is list:
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return value is None or type(value) in PLAIN


def item_types(member: Any, length: int) -> list[Any] | None:
    """The type of each item; None if there can't be that many."""
    origin, arguments = get_origin(member) or member, get_args(member)
    if origin is tuple and arguments[-1:] != (...,):
        arguments = () if arguments == ((),) else arguments
        return list(arguments) if len(arguments) == length else None
    if is_record(origin):  # a NamedTuple
        found = list(fields_of(member).values())
        return found if len(found) == length else None
    return [arguments[0]] * length


def field_value(value: Any, name: str) -> Any:
    return value[name] if type(value) is dict else object.__getattribute__(value, name)


def is_row(kind: Any) -> bool:
    """True for a ``NamedTuple``."""
    return issubclass_of(kind, tuple) and hasattr(kind, "_fields")


def is_class(kind: Any) -> bool:
    """True for attrs classes and dataclasses."""
    return isinstance(kind, type) and (attrs.has(kind) or dataclasses.is_dataclass(kind))


def issubclass_of(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)
