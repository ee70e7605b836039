"""Snapshots of raw storage, the oracle of the tests of exactness.

A snapshot compares two values without running any code of their classes: neither ``__eq__`` nor
``__getattribute__``, properties or metaclasses. An instance is its type and its storage:
the slots of its classes, its ``__dict__``, and the contents that a base of C keeps, such as the
items of a list. A scalar is its type and its repr, so 1, 1.0 and True are three values, and so are
0.0 and -0.0. Caches, such as those of ``cached_property``, are no part of a value.

`sharing` finds the mutable objects that stand in two places of a value. Two values with the same
snapshot may differ in it. Tuples, frozen classes and other immutable objects may be shared.
"""

from __future__ import annotations

import functools
import types
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from .storage import HEAP_TYPE, among, inherits, is_mutable, members_of, mro_of

Snapshot: TypeAlias = tuple[Any, ...]
"""Nested tuples of text, which are equal if the values are the same, and sort by their repr."""
Sharing: TypeAlias = frozenset[tuple[str, str]]
"""Pairs of places of one mutable object: the first one, and another."""

_BY_REPR: frozenset[type] = frozenset(
    {type(None), bool, float, complex, str, bytes, type(...), range, date, timedelta, timezone}
    | {Decimal, UUID, ZoneInfo, Fraction}
    | {IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network}
    | {PosixPath, PurePosixPath, PureWindowsPath, WindowsPath}
)
_BY_REPR_IDS = frozenset(map(id, _BY_REPR))
HASH_OF_ATTRS = "_attrs_cached_hash"


def snapshot(value: object) -> Snapshot:
    """The raw storage of ``value``."""
    return _Walk().of(value, "")


def sharing(value: object) -> Sharing:
    """The mutable objects that stand in two places of ``value``."""
    walk = _Walk()
    walk.of(value, "")
    return frozenset(walk.shared)


def same(left: object, right: object) -> bool:
    """True if both values have the same raw storage."""
    return snapshot(left) == snapshot(right)


class _Walk:
    def __init__(self) -> None:
        self.shared: list[tuple[str, str]] = []
        self._places: dict[int, str] = {}
        self._above: list[int] = []
        self._alive: list[object] = []

    def of(self, value: Any, place: str) -> Snapshot:
        kind = type(value)
        if id(kind) in _BY_REPR_IDS:
            return (_name(kind), repr(value))
        if kind is int:
            return ("int", hex(value))  # its repr has a limit
        mro = mro_of(kind)
        if inherits(kind, Enum):
            return self._enum_member(value, kind, mro)
        if inherits(kind, type) or among(kind, (types.FunctionType, types.BuiltinFunctionType)):
            return ("same", _name(kind), str(id(value)))
        if id(value) in self._above:
            return ("circle", str(len(self._above) - self._above.index(id(value))))
        if is_mutable(value):
            self._meet(value, place)
        self._above.append(id(value))
        try:
            return (_name(kind), *self._contents(value, mro, place), *self._members(value, place))
        finally:
            self._above.pop()

    def _meet(self, value: object, place: str) -> None:
        first = self._places.setdefault(id(value), place)
        self._alive.append(value)  # or another object could get its id
        if first != place:
            self.shared.append((first, place))

    def _enum_member(self, value: object, kind: type, mro: tuple[type, ...]) -> Snapshot:
        stored = object.__getattribute__(value, "__dict__")
        name = stored["_name_"]
        if inherits(kind, Flag):  # a combination of flags is made when it is first asked for
            return (_name(kind), str(stored["_value_"]))
        return (_name(kind), str(name), self.of(stored["_value_"], ""))

    def _contents(self, value: Any, mro: tuple[type, ...], place: str) -> Iterator[object]:
        """The parts that are in the storage of a base of C."""
        base: Any
        for base in mro:
            if among(base, (list, tuple, deque)):
                items: Iterable[object] = base.__iter__(value)
                yield tuple(self.of(item, f"{place}[{n}]") for n, item in enumerate(items))
                if base is deque:
                    yield ("maxlen", str(members_of(deque)["maxlen"].__get__(value)))
            elif among(base, (set, frozenset)):
                members = [self.of(item, f"{place}{{}}") for item in base.__iter__(value)]
                yield tuple(sorted(members, key=repr))
            elif base is dict:
                yield tuple(
                    (self.of(key, f"{place}<key>"), self.of(item, f"{place}[{key!r:.40}]"))
                    for key, item in _items(value)
                )
            elif base is defaultdict:
                factory = members_of(defaultdict)["default_factory"].__get__(value)
                yield ("factory", self.of(factory, ""))
                continue  # its items are those of a dict, further along
            elif base is datetime:
                wall = datetime.replace(value, tzinfo=None)
                yield datetime.__repr__(wall)
                yield self.of(datetime.tzinfo.__get__(value), "")
            elif base is time:
                yield time.__repr__(time.replace(value, tzinfo=None))
                yield self.of(time.tzinfo.__get__(value), "")
            elif base is int:
                yield hex(int.__index__(value))
            elif among(base, (str, bytes, bytearray, float, complex, Decimal)):
                yield base.__repr__(value)
            elif base is BaseException:
                yield self.of(BaseException.args.__get__(value), f"{place}.args")  # type: ignore[attr-defined]
            else:
                continue
            break
        else:
            if not mro[0].__flags__ & HEAP_TYPE and mro[0] is not object:
                yield repr(value)  # a class of C that isn't known here

    def _members(self, value: object, place: str) -> Iterator[object]:
        """The parts that are in slots, and in the ``__dict__``."""
        kind = type(value)
        _, slots, skipped = _layouts.get(id(kind)) or _layout(kind)
        for name, read in slots:
            if name in skipped:
                continue
            try:
                stored = read(value)
            except AttributeError:
                yield (name, "unset")
                continue
            if name == "__dict__":
                yield tuple(
                    (str(key), self.of(item, f"{place}.{key}"))
                    for key, item in sorted(dict.items(stored))
                    if key not in skipped
                )
            else:
                yield (name, self.of(stored, f"{place}.{name}"))


def _items(value: Any) -> Iterable[tuple[object, object]]:
    """The items of a dict in their order, which an ``OrderedDict`` keeps by itself."""
    return list(dict.items(value))


def _name(kind: type) -> str:
    """A class's name, and its identity unless it is one of Python's own."""
    name: str = type.__dict__["__qualname__"].__get__(kind)
    module = members_of(kind).get("__module__", "builtins")
    if not kind.__flags__ & HEAP_TYPE or type(module) is not str:
        return name
    return f"{module}.{name}@{id(kind):x}"


_Slots: TypeAlias = tuple[tuple[str, Callable[[object], Any]], ...]
_layouts: dict[int, tuple[type, _Slots, frozenset[str]]] = {}
"""Slots and caches of each class, by its id: a class may compare and hash in a way of its own."""


def _layout(kind: type) -> tuple[type, _Slots, frozenset[str]]:
    made = _layouts[id(kind)] = (kind, _slots(kind), caches_of(kind))
    return made


def _slots(kind: type) -> _Slots:
    """The slots of a class and its bases, and their ``__dict__``: names and functions that read."""
    found: list[tuple[str, Callable[[object], Any]]] = []
    for base in mro_of(kind):
        is_heap_type = base.__flags__ & HEAP_TYPE
        found += [
            (name, descriptor.__get__)
            for name, descriptor in members_of(base).items()
            if (is_heap_type and type(descriptor) is types.MemberDescriptorType)
            or (name == "__dict__" and type(descriptor) is types.GetSetDescriptorType)
        ]
    return tuple(sorted(found, key=lambda each: each[0]))


def caches_of(kind: type) -> frozenset[str]:
    """Names of caches in an instance, which are no part of its value."""
    names = {HASH_OF_ATTRS, "__weakref__"}
    for base in mro_of(kind):
        for name, member in members_of(base).items():
            if isinstance(member, functools.cached_property):
                names.add(name)
            # attrs keeps those of a class with slots in the defaults of a function of its own.
            elif name == "__getattr__" and isinstance(member, types.FunctionType):
                for default in member.__defaults__ or ():
                    names.update(default if type(default) is dict else ())
    return frozenset(names)
