"""The storage of instances: slots, ``__dict__`` and bases of C, without running code of a class."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
CONTAINERS: tuple[type, ...] = (list, tuple, deque, set, frozenset, dict)
_BASES: tuple[type, ...] = (*CONTAINERS, str, bytes, bytearray, int, float, BaseException)


def among(kind: type, kinds: Iterable[type]) -> bool:
    """True if a class is one of ``kinds``: a metaclass may call any two of them equal."""
    return any(kind is each for each in kinds)


def mro_of(kind: type) -> tuple[type, ...]:
    """The class and its bases, in the order of look-up."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return found


def members_of(kind: type) -> types.MappingProxyType[str, Any]:
    """The class's own members, without those of its bases."""
    found: types.MappingProxyType[str, Any] = type.__dict__["__dict__"].__get__(kind)
    return found


def inherits(kind: type, base: type) -> bool:
    """True if a class has a base, whatever its metaclass says."""
    return among(base, mro_of(kind))


def base_of(kind: type) -> type:
    """The base of C that keeps contents of its own, or ``object``."""
    for base in mro_of(kind):
        if among(base, _BASES):
            return base
    return object


def slots_of(kind: type) -> Iterator[types.MemberDescriptorType]:
    """The descriptors of the slots of a class and its bases."""
    for base in mro_of(kind):
        if base.__flags__ & HEAP_TYPE:
            for member in members_of(base).values():
                if type(member) is types.MemberDescriptorType:
                    yield member


def dict_of(value: Any) -> dict[str, Any]:
    """The ``__dict__`` of an instance; an empty one if it has none."""
    for base in mro_of(type(value)):
        found = members_of(base).get("__dict__")
        if type(found) is types.GetSetDescriptorType:
            stored: dict[str, Any] = found.__get__(value)
            return stored
    return {}


def stored(value: Any, name: str) -> Any:
    """The value of a field, from the storage of an instance.

    Raises:
        AttributeError: Nothing is.
    """
    for slot in slots_of(type(value)):
        if slot.__name__ == name:
            return slot.__get__(value)
    try:
        return dict_of(value)[name]
    except KeyError:
        raise AttributeError(name) from None


def instance_of(kind: type) -> Any:
    """A bare instance, whose class isn't asked."""
    base = base_of(kind)
    make: Any = base.__new__
    return make(kind)


def is_instance_of_class(value: Any) -> bool:
    """True for instances of classes that Python code has defined, enums and classes excepted."""
    kind = type(value)
    if not kind.__flags__ & HEAP_TYPE or any(base is type for base in mro_of(kind)):
        return False
    package = str(members_of(kind).get("__module__")).partition(".")[0]
    known = package in ("enum", "zoneinfo", "pathlib", "decimal", "uuid", "ipaddress", "datetime")
    return not known and not any(base.__name__ == "Enum" for base in mro_of(kind))


def is_mutable(value: Any) -> bool:
    """True if a value can change: two places that hold it differ from two that hold copies."""
    kind = type(value)
    if among(base_of(kind), (list, dict, set, deque, bytearray)):
        return True
    return (
        is_instance_of_class(value)
        and base_of(kind) is object
        and not _is_frozen(kind)
        and (bool(dict_of(value)) or any(True for _ in slots_of(kind)))
    )


def _is_frozen(kind: type) -> bool:
    """True for frozen attrs classes and dataclasses, whose instances may be shared."""
    for base in mro_of(kind):
        parameters = members_of(base).get("__dataclass_params__")
        if parameters is not None:
            return bool(parameters.frozen)
        setter = members_of(base).get("__setattr__")
        if setter is not None:
            return getattr(setter, "__name__", "") == "_frozen_setattrs"
    return False
