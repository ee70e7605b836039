"""Passing by value: arguments and replies share nothing mutable with an object's state.

A copy is made by the type of each part, with one *copier* per class:

- Values that can't change are their own copy: scalars, enums, classes, plain functions.
- Containers, attrs classes, dataclasses and named tuples are copied through their storage, as state
  is read and written. No code of the class runs.
- Other classes are copied by their own ``__deepcopy__``, or by their reduction, as `copy` and
  `pickle` do. Their parts are copied by the rules here.

A copy is what another process would get: an object that stands in two places is two, and a value
that contains itself, or is nested too deeply, is refused. So is whatever would mean nothing
elsewhere, or would reach back into the state: bound methods, functions with closures, iterators,
files, and everything that synchronises, whose copy would never wake anyone.

`copy.deepcopy` would take some twenty times as long for a list of attrs instances.
"""

from __future__ import annotations

import functools
import io
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import timezone
from enum import Enum
from typing import Any, TypeAlias

from .._errors import ArgumentError
from .._json.comparison import reduction_of
from .._json.depth import MAX_DEPTH
from .._json.errors import UnsupportedType
from .._json.layout import Layout, has_fields, is_attribute_name, is_struct, layout_of
from .._json.texts import SCALAR_TYPES
from .._keys import ObjectKey
from .._text import error_summary

Copier: TypeAlias = "Callable[[Any, int], Any]"
"""Copies a value of one class; called with the value and its depth."""

_ATOMS = SCALAR_TYPES | {complex, timezone, type(...), range}
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
_BOUND = (types.MethodType, types.MethodWrapperType, functools.partial, functools.partialmethod)
_SYNCHRONISING = frozenset(
    {
        *("anyio", "asyncio", "trio", "outcome", "sniffio"),
        *("_thread", "threading", "queue", "_queue", "multiprocessing", "concurrent"),
        *("_contextvars", "contextvars", "_io", "io", "socket", "_socket", "ssl", "_ssl"),
        *("select", "selectors", "subprocess", "mmap", "sqlite3", "_sqlite3"),
    }
)
"""Packages whose instances synchronise, or stand for something outside of the process."""


def is_atom(value: object) -> bool:
    """True if ``value`` is immutable, its parts included, and needs no copy."""
    return type(value) in _ATOMS


def are_atoms(values: Iterable[object]) -> bool:
    """True if all values are immutable, their parts included."""
    return _ATOMS.issuperset(map(type, values))


def copied(value: Any) -> Any:
    """``value``, or a copy that shares nothing mutable with it.

    Raises:
        TypeError: It can't be copied; the text names its type.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    try:
        return (_copiers.get(kind) or _copier(kind))(value, 0)
    except RecursionError:
        raise _too_deep(kind) from None


def arguments_by_value(
    key: Callable[[], ObjectKey],
    handler: str,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Copies of a call's arguments.

    Args:
        key: Returns the object's key, for errors.
        handler: The handler's name.
        args: The positional arguments.
        kwargs: The keyword arguments.

    Raises:
        ArgumentError: One can't be passed by value.
    """
    try:
        if not are_atoms(args):
            args = tuple(map(copied, args))
        if kwargs:
            kwargs = {name: copied(value) for name, value in kwargs.items()}
    except TypeError as error:
        problem = f"an argument can't be passed by value: {error}"
        raise ArgumentError(key(), handler, problem) from error
    return args, kwargs


def refusal_of(kind: type) -> str | None:
    """The reason why no value of a class can be passed by value; None if there is none."""
    try:
        _check_copyable(kind, _members(kind))
    except TypeError as error:
        return str(error)
    return None


def _part(value: Any, depth: int) -> Any:
    """A copy of a part of a value."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if depth > MAX_DEPTH:
        raise _too_deep(kind)
    return (_copiers.get(kind) or _copier(kind))(value, depth)


def _parts(values: Iterable[Any], depth: int) -> list[Any]:
    return [value if type(value) in _ATOMS else _part(value, depth) for value in values]


def _too_deep(kind: type) -> TypeError:
    return TypeError(f"a {kind.__name__} that is nested too deeply, or contains itself")


# --- containers ----------------------------------------------------------------------------------


def _copy_list(value: list[Any], depth: int) -> list[Any]:
    if _ATOMS.issuperset(map(type, value)):
        return value.copy()
    return _parts(value, depth + 1)


def _copy_tuple(value: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
    if _ATOMS.issuperset(map(type, value)):
        return value
    return tuple(_parts(value, depth + 1))


def _copy_dict(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    if _ATOMS.issuperset(map(type, value)):
        if _ATOMS.issuperset(map(type, value.values())):
            return value.copy()
        return dict(zip(value, _parts(value.values(), depth + 1), strict=True))
    return dict(_items(value, depth))


def _items(value: dict[Any, Any], depth: int) -> Iterable[tuple[Any, Any]]:
    keys, items = _parts(value, depth + 1), _parts(value.values(), depth + 1)
    return zip(keys, items, strict=True)


def _copy_defaultdict(value: defaultdict[Any, Any], depth: int) -> defaultdict[Any, Any]:
    return defaultdict(_part(value.default_factory, depth + 1), _items(value, depth))


_copiers: dict[type, Copier] = {
    list: _copy_list,
    tuple: _copy_tuple,
    dict: _copy_dict,
    set: lambda value, depth: set(_parts(value, depth + 1)),
    frozenset: lambda value, depth: frozenset(_parts(value, depth + 1)),
    deque: lambda value, depth: deque(_parts(value, depth + 1), value.maxlen),
    OrderedDict: lambda value, depth: OrderedDict(_items(value, depth)),
    Counter: lambda value, depth: Counter(dict(_items(value, depth))),
    defaultdict: _copy_defaultdict,
    bytearray: lambda value, _: value.copy(),
}
"""The copier of each class, made when the first value of the class is copied."""


# --- classes -------------------------------------------------------------------------------------


def _copier(kind: type) -> Copier:
    """The copier of a class, which is kept unless a metaclass could call another class equal.

    Raises:
        TypeError: Its instances can't be passed by value.
    """
    made = _made_copier(kind)
    if type(kind).__hash__ is type.__hash__:
        _copiers[kind] = made
    return made


def _made_copier(kind: type) -> Copier:
    if issubclass(kind, (type, Enum)):
        return _same
    if issubclass(kind, _FUNCTIONS):
        return _copy_function
    members = _members(kind)
    _check_copyable(kind, members)
    # A durable object's own method refuses a live one.
    if has_fields(kind) and "__durable_definition__" not in members:
        try:
            return _record_copier(layout_of(kind))
        except UnsupportedType:
            return _copy_by_reduction  # such as a dataclass that is an exception
    if "__deepcopy__" in members:
        return _copy_as_it_says
    if is_struct(kind):
        return _struct_copier(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields") and kind.__dictoffset__ == 0:
        new = tuple.__new__
        return lambda value, depth: new(kind, _parts(tuple.__iter__(value), depth + 1))
    return _copy_by_reduction


def _members(kind: type) -> set[str]:
    return {name for base in kind.__mro__ for name in vars(base)}


def _check_copyable(kind: type, members: set[str]) -> None:
    """Check that a copy of the class's instances means what they mean.

    Raises:
        TypeError: It wouldn't.
    """
    name = kind.__qualname__
    if issubclass(kind, _BOUND):
        raise TypeError(
            f"a {name} can't be passed by value, since it holds on to an object; pass the values"
        )
    if issubclass(kind, BaseException):
        return  # of any package
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if issubclass(kind, io.IOBase) or not packages.isdisjoint(_SYNCHRONISING):
        raise TypeError(
            f"a {name} can't be passed by value: it synchronises, or stands for something outside "
            "of the state, and a copy wouldn't"
        )
    if not members.isdisjoint({"__await__", "__next__", "__anext__"}):
        raise TypeError(f"a {name} can't be passed by value; pass its result, or a list")


def _same(value: Any, _: int) -> Any:
    return value


def _copy_function(value: Any, _: int) -> Any:
    if getattr(value, "__closure__", None):
        raise TypeError(
            f"the function {value.__qualname__} can't be passed by value, since it has a closure; "
            "pass the values"
        )
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        raise TypeError(
            f"the method {value.__qualname__} can't be passed by value, since it is bound to an "
            "object; pass the values"
        )
    return value


def _record_copier(layout: Layout) -> Copier:
    """The copier of an attrs class or a dataclass, generated where no code of the class runs."""
    if not (layout.reads_plainly and layout.writes_plainly):
        return functools.partial(_copy_record, layout)
    names: dict[str, Any] = {
        "cls": layout.cls,
        "layout": layout,
        "new": object.__new__,
        "atoms": _ATOMS,
        "part": _part,
        "slowly": functools.partial(_copy_record, layout),
    }
    new = "layout.new()" if layout.caches_hash else "new(cls)"
    lines = ["def copy_record(value, depth):", f"    copy = {new}", "    depth += 1"]
    if layout.slots:
        lines.append("    try:")
        for index, name in enumerate(layout.slots):
            converted = f"v if type(v := value.{name}) in atoms else part(v, depth)"
            if not is_attribute_name(name):
                names[f"s{index}"] = layout.slots[name]
                converted = f"part(s{index}.__get__(value), depth)"
                lines.append(f"        s{index}.__set__(copy, {converted})")
            else:
                lines.append(f"        copy.{name} = {converted}")
        lines += ["    except AttributeError:", "        return slowly(value, depth - 1)"]
    if layout.has_dict:
        names["caches"] = layout.caches
        lines += [
            "    attributes = value.__dict__",
            f"    if len(attributes) <= {len(layout.in_dict)} and atoms.issuperset(",
            "        map(type, attributes.values())",
            "    ):",
            "        copy.__dict__.update(attributes)",
            "    else:",
            "        copied = copy.__dict__",
            "        for name, v in attributes.items():",
            "            if name not in caches:",
            "                copied[name] = v if type(v) in atoms else part(v, depth)",
        ]
    lines.append("    return copy")
    source = "\n".join(lines)
    exec(compile(source, f"<trio_durable copy of {layout.cls.__qualname__}>", "exec"), names)  # noqa: S102
    copier: Copier = names["copy_record"]
    return copier


def _struct_copier(kind: Any) -> Copier:
    """The copier of a ``msgspec.Struct``, whose reduction would call its ``__post_init__``."""
    from msgspec.structs import force_setattr  # imported already, with the class

    fields: tuple[str, ...] = kind.__struct_fields__

    def copy_struct(value: Any, depth: int) -> Any:
        struct = value.__copy__()
        for name in fields:
            force_setattr(struct, name, _part(getattr(value, name), depth + 1))
        return struct

    return copy_struct


def _copy_record(layout: Layout, value: Any, depth: int) -> Any:
    copy = layout.new()
    for slot in layout.slots.values():
        try:
            part = slot.__get__(value)
        except AttributeError:
            continue  # it isn't set in the copy either
        slot.__set__(copy, _part(part, depth + 1))
    if layout.has_dict:
        attributes = layout.attributes(copy)
        for name, part in layout.attributes(value).items():
            if name not in layout.caches:
                attributes[name] = _part(part, depth + 1)
    return copy


# --- other classes -------------------------------------------------------------------------------


def _copy_as_it_says(value: Any, _: int) -> Any:
    try:
        return value.__deepcopy__({})
    except RecursionError:
        raise
    except Exception as error:
        raise TypeError(f"a {type(value).__name__}: {error_summary(error)}") from error


def _copy_by_reduction(value: Any, depth: int) -> Any:
    kind = type(value)
    try:
        reduced = reduction_of(value)
        if isinstance(reduced, str):
            return value  # a name in a module
        return _rebuilt(value, depth + 1, *reduced)
    except (RecursionError, TypeError):
        raise
    except Exception as error:
        raise TypeError(f"a {kind.__name__}: {error_summary(error)}") from error


def _rebuilt(
    value: Any,
    depth: int,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    state: Any = None,
    items: Iterable[Any] | None = None,
    pairs: Iterable[tuple[Any, Any]] | None = None,
    set_state: Callable[[Any, Any], None] | None = None,
) -> Any:
    """A copy of ``value`` from its reduction, see ``object.__reduce__``."""
    copy = function(*_parts(args, depth))
    if copy is value:
        return value
    if state is not None:
        state = _part(state, depth)
        if set_state is not None:
            set_state(copy, state)
        elif hasattr(copy, "__setstate__"):
            copy.__setstate__(state)
        else:
            in_slots = None
            if isinstance(state, tuple) and len(state) == 2:
                state, in_slots = state
            if state:
                copy.__dict__.update(state)
            for name, part in (in_slots or {}).items():
                object.__setattr__(copy, name, part)
    for item in items or ():
        copy.append(_part(item, depth))
    for key, item in pairs or ():
        copy[_part(key, depth)] = _part(item, depth)
    return copy
