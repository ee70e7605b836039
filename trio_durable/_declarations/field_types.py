"""Types of a durable object class's fields, resolved in its class statement if possible.

An annotation may name a class that is defined later in its module. Then the types are resolved when
the class is first used, with the names that were visible in the statement.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from .._json.annotations import bindings_of, bindings_of_bases, own_hints, substituted
from .._json.namespaces import Namespace

# Attributes of the class, so that nothing here keeps it alive.
_NAMESPACE = "__durable_namespace__"
_HINTS = "__durable_hints__"

_FACTORY: type = type(attrs.Factory(list))  # attrs types Factory as a function


def remember_namespace(cls: type) -> None:
    """Keep the names that the statement of ``cls``, which is running, can see."""
    setattr(cls, _NAMESPACE, _namespace_of_statement(cls))


def namespace_of(cls: type) -> Namespace:
    """The names that the statement of ``cls`` saw, until they are forgotten."""
    namespace: Namespace = vars(cls)[_NAMESPACE]
    return namespace


def forget_namespace(cls: type) -> None:
    """Forget the names, which keep the local variables of a function alive."""
    setattr(cls, _NAMESPACE, Namespace.EMPTY)


def _namespace_of_statement(cls: type) -> Namespace:
    """The names that the running statement of ``cls`` can see.

    Between it and this function are the frames of metaclasses and of ``__init_subclass__`` methods
    of other bases. The qualified name of the class says which function it is in.
    """
    scope = cls.__qualname__.rpartition(".")[0].removesuffix(".<locals>")
    elsewhere = Namespace.EMPTY
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "builtins") == cls.__module__:
            if frame.f_code.co_qualname == (scope or "<module>"):
                return Namespace.of_frame(frame)
            elsewhere = Namespace(module=frame.f_globals)
        frame = frame.f_back  # type: ignore[assignment]
    return elsewhere


def field_types(
    cls: type, fields: tuple[attrs.Attribute[Any], ...], root: type
) -> Mapping[str, Any]:
    """The types of the annotated members of ``cls``, inherited ones included.

    Type variables are replaced by the arguments that the class gives to its bases, by their
    defaults or by their bounds. Others stay, as in a class that still takes arguments. A bare
    ``Final`` is the type of the default, as to type checkers.

    Args:
        cls: The class, for which `remember_namespace` was called.
        fields: Its fields.
        root: The base class of all durable objects, which has no fields.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnsupportedType: An annotation is no type.
    """
    hints = _hints_by_class(cls, root)
    bindings = bindings_of_bases(cls, namespace_of(cls))
    own = bindings_of(cls)
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, hint in hints.get(base, {}).items():
            found[name] = substituted(substituted(hint, bindings.get(base, {})), own, self_type=cls)
    for field in fields:
        if found.get(field.name) is Final and not isinstance(field.default, _FACTORY):
            found[field.name] = type(field.default)
    setattr(cls, _HINTS, hints)
    return MappingProxyType(found)


def _hints_by_class(cls: type, root: type) -> Mapping[type, Mapping[str, Any]]:
    """The annotations in the body of each class in the resolution order of ``cls``, as types.

    Those of a durable base, and of all its bases, are as its own statement saw them.
    """
    known: Mapping[type, Mapping[str, Any]] | None = vars(cls).get(_HINTS)
    if known is not None:
        return known
    found: dict[type, Mapping[str, Any]] = {root: {}}
    for base in cls.__mro__[1:]:
        if issubclass(base, root) and base is not root:
            found |= _hints_by_class(base, root)
    for base in cls.__mro__:
        if base not in found:
            found[base] = own_hints(base, namespace_of(cls))
    return found
