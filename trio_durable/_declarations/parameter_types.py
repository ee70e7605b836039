"""Types of handlers' parameters, for calls by name whose arguments come from outside as JSON."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .._json.annotations import bindings_of, bindings_of_bases, evaluated, substituted
from .._json.errors import UnsupportedType
from .._json.namespaces import Namespace, UnresolvedName
from .handler import Handler

_LOCAL = "__durable_parameters__"
"""An attribute of local classes, whose names are known while their function runs only."""


def remember_parameter_types(cls: type, namespace: Namespace) -> None:
    """Resolve the annotations of the handlers in the body of a local class, for later.

    Args:
        cls: The class.
        namespace: The names that its statement saw.
    """
    if namespace.function:
        found = {
            name: _own_types(cls, value.function, namespace)
            for name, value in vars(cls).items()
            if isinstance(value, Handler)
        }
        setattr(cls, _LOCAL, found)


def parameter_types(cls: type, handler: str, function: Callable[..., Any]) -> Mapping[str, Any]:
    """The types of a handler's parameters, by parameter.

    A parameter without an annotation isn't among them, nor is one whose annotation names what
    isn't defined: an annotation may be there for type checkers alone.

    Args:
        cls: The class of the object.
        handler: The handler's name.
        function: Its function, from the body of the class or of a base.
    """
    for owner in cls.__mro__:
        own = vars(owner).get(handler)
        if isinstance(own, Handler) and own.function is function:
            break
    else:
        return {}
    local: Mapping[str, Mapping[str, Any]] = vars(owner).get(_LOCAL, {})
    types = local.get(handler) or _own_types(owner, function, Namespace.EMPTY)
    try:
        bindings = bindings_of_bases(cls, Namespace.EMPTY).get(owner, {})
    except (UnresolvedName, UnsupportedType):
        bindings = {}
    return {
        name: substituted(substituted(tp, bindings), bindings_of(cls), self_type=cls)
        for name, tp in types.items()
    }


def _own_types(cls: type, function: Callable[..., Any], namespace: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, annotation in inspect.get_annotations(function).items():
        with contextlib.suppress(UnresolvedName, UnsupportedType):
            found[name] = evaluated(annotation, cls, namespace, name)
    return found
