"""Comparison of values by their raw storage, for values that a constructor or a hook has built.

Two values of one type are the same if their storage has the same contents. No ``__eq__`` runs:
it may leave out fields, 1 equals True, and 0.0 equals -0.0. Encodings alone don't tell either: a
``SecretStr`` that is written as asterisks is written so twice.

- A scalar is its type and its repr.
- A container is its items; a set is its items in the order of their storage.
- An instance is its slots and its ``__dict__``, without caches.
- An instance of any other class of C is its reduction, as `copy` and `pickle` take it.
"""

from __future__ import annotations

import copyreg
import types
from collections import defaultdict, deque
from collections.abc import Iterator
from enum import Enum
from typing import Any, TypeAlias

from .errors import Unfit
from .forms import Places
from .layout import CACHED_HASHES, HEAP_TYPE, base_in_c, cached_properties
from .texts import SCALAR_TYPES

Storage: TypeAlias = tuple[Any, ...]
"""Nested tuples of types, numbers and text, which are equal if the values are the same."""

_BY_REPR = SCALAR_TYPES | {complex, bytearray, range, type(...)}
_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, Enum)
_NO_STATE = CACHED_HASHES | {"__weakref__"}
_maxlen: Any = vars(deque)["maxlen"].__get__
_default_factory: Any = vars(defaultdict)["default_factory"].__get__
_CONTAINERS: tuple[Any, ...] = (list, tuple, deque, set, frozenset, dict)


def storage_of(value: object, places: Places | None = None) -> Storage:
    """The raw storage of ``value``.

    Args:
        value: Any value.
        places: Gets the identities of the mutable objects in it, once for each place of theirs.

    Raises:
        Unfit: A part of it is a value of a class of C that can't be reduced.
    """
    return _Walk([] if places is None else places).of(value)


def is_same(one: object, other: object) -> bool:
    """True if two values have the same raw storage.

    Raises:
        Unfit: A part of one is a value of a class of C that can't be reduced.
    """
    return storage_of(one) == storage_of(other)


def reduction_of(value: Any) -> Any:
    """The reduction of ``value``, as `copy` and `pickle` take it, see ``object.__reduce__``.

    Raises:
        Exception: It has none.
    """
    reduce = copyreg.dispatch_table.get(type(value))
    return value.__reduce_ex__(4) if reduce is None else reduce(value)


class _Walk:
    def __init__(self, places: Places) -> None:
        self._places = places
        self._above: list[int] = []
        self._alive: list[object] = []
        """Parts of reductions, whose identities must not be given to others."""

    def of(self, value: Any) -> Storage:
        kind = type(value)
        if kind is int:
            return (kind, value)  # its repr has a limit
        if kind in _BY_REPR:
            return (kind, repr(value))
        if issubclass(kind, _BY_IDENTITY):
            return (kind, id(value))
        if id(value) in self._above:
            return ("circle", len(self._above) - self._above.index(id(value)))
        if kind not in (tuple, frozenset) and _is_mutable(kind):
            self._places.append(id(value))
        self._above.append(id(value))
        try:
            return (kind, *self._contents(value, kind), *self._members(value, kind))
        finally:
            self._above.pop()

    def _contents(self, value: Any, kind: type) -> Iterator[Storage]:
        """The parts that a base of C keeps."""
        base = next((each for each in _CONTAINERS if issubclass(kind, each)), None)
        if base is None:
            if base_in_c(kind) is not None:
                yield self._reduced(value, kind)
        elif base is dict:
            yield tuple((self.of(key), self.of(item)) for key, item in dict.items(value))
            if issubclass(kind, defaultdict):
                yield self.of(_default_factory(value))
        elif base in (set, frozenset):
            yield tuple(sorted(map(self.of, base.__iter__(value)), key=repr))
        else:
            yield tuple(map(self.of, base.__iter__(value)))
            if base is deque:
                yield (_maxlen(value),)

    def _reduced(self, value: Any, kind: type) -> Storage:
        try:
            reduced = reduction_of(value)
        except Exception as error:
            raise Unfit(
                f"a {kind.__qualname__} can't be compared with the one that is read back: {error}"
            ) from error
        self._alive.append(reduced)
        if isinstance(reduced, str):  # the name of a global
            return (reduced,)
        make, arguments, *others = reduced
        parts = (list(part) if isinstance(part, Iterator) else part for part in others)
        return (self.of(make), self.of(arguments), *map(self.of, parts))

    def _members(self, value: Any, kind: type) -> Iterator[tuple[str, Storage]]:
        """The parts that are in slots, and in the ``__dict__``."""
        skipped = _NO_STATE | cached_properties(kind)
        if kind.__dictoffset__:
            attributes = object.__getattribute__(value, "__dict__")
            for name in sorted(attributes.keys() - skipped, key=str):
                yield (name, self.of(attributes[name]))
        for base in kind.__mro__:
            for name, member in vars(base).items():
                is_slot = type(member) is types.MemberDescriptorType and base.__flags__ & HEAP_TYPE
                if is_slot and name not in skipped:
                    try:
                        stored = member.__get__(value)
                    except AttributeError:
                        continue
                    yield (name, self.of(stored))


def _is_mutable(kind: Any) -> bool:
    """True if values of a type may change: they have no hash, or that of their identity."""
    return kind.__hash__ is None or kind.__hash__ is object.__hash__
