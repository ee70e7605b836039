"""Values as their raw storage: parts, copies and changes, without running any code of a class.

`copied` makes the expected value of a test before the library sees the original. `wreck` changes
everything that can be changed in a value, in place: another value that changes as well shared a
part with it.
"""

from __future__ import annotations

import types
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from .snapshot import HASH_OF_ATTRS, caches_of
from .storage import (
    CONTAINERS,
    among,
    base_of,
    dict_of,
    is_instance_of_class,
    is_mutable,
    members_of,
    mro_of,
    slots_of,
)

_OPAQUE: tuple[type, ...] = (type, types.FunctionType, types.BuiltinFunctionType)


class Uncopyable(Exception):
    """A set, two members of which became equal, can't be filled again."""


def parts(value: Any) -> list[Any]:
    """The values that are stored in a value, one level deep."""
    kind = type(value)
    base = base_of(kind)
    found: list[Any] = []
    if base is dict:
        for key, item in dict.items(value):
            found += (key, item)
    elif among(base, CONTAINERS):
        iterate: Any = base.__iter__  # type: ignore[attr-defined]
        found += iterate(value)
    elif base is BaseException:
        found += BaseException.args.__get__(value)  # type: ignore[attr-defined]
    if is_instance_of_class(value):
        for slot in slots_of(kind):
            try:
                found.append(slot.__get__(value))
            except AttributeError:
                continue
        found += dict.values(dict_of(value))
    return found


def mutables(*values: Any) -> dict[int, Any]:
    """All mutable objects in some values, by their ids."""
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _OPAQUE):
            continue
        seen[id(value)] = value
        if is_mutable(value):
            found[id(value)] = value
        waiting += parts(value)
    return found


def wreck(*values: Any) -> None:
    """Change every mutable object in some values, in place."""
    for value in mutables(*values).values():
        base = base_of(type(value))
        if among(base, (list, deque, bytearray)):
            base.append(value, 7)  # type: ignore[attr-defined]
        elif base is dict:
            dict.__setitem__(value, "wrecked", "wrecked")
        elif base is set:
            set.add(value, "wrecked")
        else:
            for slot in slots_of(type(value)):
                if slot.__name__ != "__weakref__":
                    slot.__set__(value, "wrecked")
            for name in list(dict_of(value)):
                dict.__setitem__(dict_of(value), name, "wrecked")


def empty(*values: Any) -> None:
    """Remove the contents of every list, dict and set in some values."""
    for value in mutables(*values).values():
        base = base_of(type(value))
        if among(base, (list, dict, set, deque)):
            base.clear(value)  # type: ignore[attr-defined]


def copied(value: Any) -> Any:
    """A copy whose parts share what the parts of ``value`` share.

    Raises:
        Uncopyable: It contains a set with equal members.
    """
    return _Copier().of(value)


class _Copier:
    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._alive: list[Any] = []

    def of(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, _OPAQUE) or not (
            is_instance_of_class(value) or among(base_of(kind), (*CONTAINERS, bytearray))
        ):
            return value
        if id(value) not in self._made:
            self._alive.append(value)
            return self._copy(value, kind, base_of(kind))
        return self._made[id(value)]

    def _copy(self, value: Any, kind: type, base: type) -> Any:
        make: Any = base.__new__
        if among(base, (tuple, frozenset)):
            items: Any = base.__iter__(value)  # type: ignore[attr-defined]
            made = make(kind, [self.of(item) for item in items])
        elif among(base, (str, bytes, int, float)):
            made = make(kind, value)
        elif base is BaseException:
            made = make(kind, *[self.of(item) for item in BaseException.args.__get__(value)])  # type: ignore[attr-defined]
        elif base is bytearray:
            made = bytearray(value)
        else:
            made = make(kind)
        self._made[id(value)] = made
        if base is dict:
            if isinstance(value, defaultdict):
                defaultdict.__init__(made, value.default_factory)
            bodies = map(members_of, mro_of(kind))
            setter: Any = next(body["__setitem__"] for body in bodies if "__setitem__" in body)
            for key, item in dict.items(value):
                setter(made, self.of(key), self.of(item))
        elif base is deque:
            deque.__init__(made, [self.of(item) for item in deque.__iter__(value)], value.maxlen)
        elif among(base, (list, set)):
            fill: Callable[..., None] = list.extend if base is list else set.update
            items = base.__iter__(value)  # type: ignore[attr-defined]
            fill(made, [self.of(item) for item in items])
            if base is set and set.__len__(made) != set.__len__(value):
                raise Uncopyable
        if is_instance_of_class(value):
            self._copy_members(value, made, kind)
        return made

    def _copy_members(self, value: Any, made: Any, kind: type) -> None:
        caches = caches_of(kind)
        for slot in slots_of(kind):
            try:
                item = slot.__get__(value)
            except AttributeError:
                continue
            if slot.__name__ == HASH_OF_ATTRS:
                slot.__set__(made, None)
            elif slot.__name__ not in caches:
                slot.__set__(made, self.of(item))
        for name, item in dict.items(dict_of(value)):
            if name == HASH_OF_ATTRS:
                dict.__setitem__(dict_of(made), name, None)
            elif name not in caches:
                dict.__setitem__(dict_of(made), name, self.of(item))
