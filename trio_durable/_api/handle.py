"""The typed client of one object.

To a type checker a handle of ``Cart`` is a ``Cart``, whose handlers are awaited. So ``mypy`` and
``pyright`` know a handler's arguments and result without a plugin. At run time a handle is an
instance of a small class, made once per type, with the handlers and nothing else. It holds the path
of its calls, local or to another process, and knows no more of the runtime.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .._activations.calls import CallPath
from .._activations.object_type import ObjectType
from .._declarations.records import HandlerDefinition
from .._errors import UnknownHandler


class Handle:
    """Calls the handlers of one object. Making one touches neither memory nor storage."""

    __slots__ = ("_address", "_call", "_calls", "_timeout")

    def __init__(self, calls: CallPath, address: str, timeout: float | None) -> None:
        self._calls = calls
        self._call = calls.call  # looked up once for all calls
        self._address = address
        self._timeout = timeout

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        # Reached only for missing names; the annotation is for handles made by a type's name.
        object_type = self._calls.object_type
        raise UnknownHandler(object_type.name, name, tuple(object_type.handlers))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return NotImplemented
        return self._calls is other._calls and self._address == other._address

    def __hash__(self) -> int:
        return hash((id(self._calls), self._address))

    def __repr__(self) -> str:
        return f"<handle of {self._calls.object_type.key(self._address)}>"


def handle_class(object_type: ObjectType) -> type[Handle]:
    """The class of the handles of one type."""
    methods: dict[str, object] = {
        name: _method(handler) for name, handler in object_type.handlers.items()
    }
    return type(f"{object_type.cls.__name__}Handle", (Handle,), {"__slots__": (), **methods})


def _method(handler: HandlerDefinition) -> Callable[..., Coroutine[Any, Any, object]]:
    def call(self: Handle, /, *args: object, **kwargs: object) -> Coroutine[Any, Any, object]:
        return self._call(self._address, handler, args, kwargs, self._timeout)

    call.__name__ = handler.name
    call.__doc__ = handler.function.__doc__
    return call
