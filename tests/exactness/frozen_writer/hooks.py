"""Look-up of hooks by annotation: the functions that write and read values of a type.

Modules for composed types get `hooks_for` as an argument, since importing it would be circular.
"""

from __future__ import annotations

import types
from dataclasses import is_dataclass
from enum import Enum
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    is_typeddict,
)

import attrs

from .choices import enum_hooks, literal_hooks
from .classes import class_hooks
from .containers import (
    DICTS,
    LISTS,
    SETS,
    collection_hooks,
    dict_hooks,
    namedtuple_hooks,
    tuple_hooks,
    typeddict_hooks,
)
from .errors import UnsupportedType
from .plain import read_json, write_json
from .scalars import SCALARS, Hook
from .unions import union_hooks

_pairs: dict[Any, tuple[Hook, Hook]] = {}


def hooks_for(tp: Any) -> tuple[Hook, Hook]:
    """The functions that write a ``tp`` as JSON data and read it back.

    Raises:
        UnsupportedType: Values of ``tp`` have no exact JSON.
    """
    try:
        pair = _pairs.get(tp)
    except TypeError:  # an unhashable annotation, such as Annotated[int, []]
        return _make_hooks(tp)
    if pair is None:
        # A class may contain itself, so these placeholders serve until its hooks are made.
        _pairs[tp] = (lambda value: _pairs[tp][0](value), lambda value: _pairs[tp][1](value))
        try:
            pair = _pairs[tp] = _make_hooks(tp)
        except BaseException:
            del _pairs[tp]
            raise
    return pair


def _make_hooks(tp: Any) -> tuple[Hook, Hook]:
    origin = get_origin(tp) or tp
    if origin in (Annotated, Final, Required, NotRequired):
        return hooks_for(get_args(tp)[0])
    if tp is Any or tp is object:
        return write_json, read_json
    if tp is None:
        return SCALARS[type(None)]
    if tp in SCALARS:
        return SCALARS[tp]
    if hasattr(tp, "__supertype__"):  # NewType
        return hooks_for(tp.__supertype__)
    if origin in (Union, types.UnionType):
        return union_hooks(tp, hooks_for)
    if origin is Literal:
        return literal_hooks(tp)
    if origin is tuple:
        return tuple_hooks(tp, hooks_for)
    if origin in LISTS or origin in SETS:
        return collection_hooks(tp, hooks_for)
    if origin in DICTS:
        return dict_hooks(tp, hooks_for)
    if is_typeddict(origin):
        return typeddict_hooks(tp, hooks_for)
    if isinstance(tp, type):
        if issubclass(tp, Enum):
            return enum_hooks(tp)
        if issubclass(tp, tuple) and hasattr(tp, "_fields"):
            return namedtuple_hooks(tp, hooks_for)
        if attrs.has(tp) or is_dataclass(tp):
            return class_hooks(tp, hooks_for)
    raise UnsupportedType(
        f"{getattr(tp, '__qualname__', tp)} has no exact JSON form; use an attrs class, a "
        "dataclass or plain types"
    )


def writer_for(tp: Any) -> Hook:
    """The function that writes values of the type."""
    return hooks_for(tp)[0]


def reader_for(tp: Any) -> Hook:
    """The function that reads values of the type."""
    return hooks_for(tp)[1]
