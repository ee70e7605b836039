"""The typed client of one object.

To a type checker a handle of ``Cart`` is a ``Cart``, whose handlers are awaited. So ``mypy`` and
``pyright`` know a handler's arguments and result without a plugin. At run time a handle is an
instance of a small class with the handlers and nothing else. That class is made once per type and
runtime. It holds the path of the calls, local or to another process, and knows no more of the
runtime.

A handle is an immutable reference, so that it can be passed by value, copied and hashed. It can be
pickled, too, within its runtime: the pickle names the runtime by a token.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from inspect import getattr_static
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, Self
from uuid import uuid4
from weakref import WeakValueDictionary

import attrs

from .._activations.calls import CallPath, LocalCalls
from .._activations.object_type import ObjectType
from .._cluster.handles import Reference
from .._declarations.class_body import RESERVED
from .._declarations.records import HandlerDefinition
from .._errors import ForeignHandle, NotOnHandle, UnknownHandler
from .._json.errors import Unfit
from .._keys import at_address
from .._text import short_repr


class HandleSource(Protocol):
    """The part of a runtime that makes its handles."""

    def handle(self, type_name: str, address: str, timeout: float | None) -> Handle:
        """The handle of the object at an address."""
        ...


class Origin:
    """The runtime of handles, as far as their pickles name it.

    The token can't be guessed, and names the process as well: a forked process has a copy of all
    runtimes, and can use none of them.

    Args:
        source: Makes the handles that are unpickled.
    """

    def __init__(self, source: HandleSource) -> None:
        self.token = f"{os.getpid()}-{uuid4().hex}"
        self.source = source

    def open(self) -> None:
        """Allow handles to be unpickled from now on."""
        _open_origins[self.token] = self

    def close(self) -> None:
        """Refuse to unpickle handles from now on."""
        _open_origins.pop(self.token, None)


# Weak, because a runtime that is abandoned with its event loop never closes.
_open_origins: WeakValueDictionary[str, Origin] = WeakValueDictionary()


class Handle:
    """Calls the handlers of one object. Making one touches neither memory nor storage.

    Handles are immutable, and equal if they lead to the same object of the same runtime and tenant,
    whatever their timeouts. They are hashable, and can be arguments and results of handlers. A copy
    is the handle itself. A pickled handle can be loaded while its runtime is open, in the same
    process.

    Raises:
        NotOnHandle: The attribute is a member of the class, but no handler; or is to be changed.
        UnknownHandler: The class has no such member. Both are an `AttributeError`.
        ForeignHandle: The handle was pickled in a runtime that isn't open in this process; from
            unpickling.
    """

    __slots__ = ("_address", "_timeout")

    _calls: ClassVar[CallPath]
    _origin: ClassVar[Origin]
    _address: str
    _timeout: float | None

    def __init__(self, address: str, timeout: float | None) -> None:
        _set_address(self, address)
        _set_timeout(self, timeout)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        # Reached only for missing names; the annotation is for handles made by a type's name.
        object_type = self._calls.object_type
        kind = _kind_of_member(object_type, name)
        if kind is not None:
            raise self._has_handlers_only(name, f"{name} is {kind}")
        raise UnknownHandler(object_type.name, name, tuple(object_type.handlers))

    if not TYPE_CHECKING:  # type checkers would take these as leave to set any attribute

        def __setattr__(self, name: str, value: object) -> None:
            raise self._has_handlers_only(name, f"{name} can't be set")

        def __delattr__(self, name: str) -> None:
            raise self._has_handlers_only(name, f"{name} can't be deleted")

    def _has_handlers_only(self, name: str, problem: str) -> NotOnHandle:
        object_type = self._calls.object_type
        key, known = object_type.key(self._address), tuple(object_type.handlers)
        return NotOnHandle(object_type.name, name, known, key, problem)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return NotImplemented
        return self._calls is other._calls and self._address == other._address

    def __hash__(self) -> int:
        return hash((id(self._calls), self._address))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., Handle], tuple[object, ...]]:
        type_name = self._calls.object_type.name
        return _unpickled, (self._origin.token, type_name, self._address, self._timeout)

    def __repr__(self) -> str:
        return f"<handle of {self._calls.object_type.key(self._address)}>"


class OnceHandle(Handle):
    """Calls the handlers of one object with a once-key. It can't be sent, pickled or compared.

    Raises:
        TypeError: It is pickled.
    """

    __slots__ = ("_key", "_once")

    _once: OnceCall
    _key: str

    def __init__(self, address: str, timeout: float | None, once: OnceCall, key: str) -> None:
        super().__init__(address, timeout)
        object.__setattr__(self, "_once", once)
        object.__setattr__(self, "_key", key)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} can't be pickled; get one where it is needed")

    def __repr__(self) -> str:
        key = self._calls.object_type.key(self._address)
        return f"<handle of {key} with the once-key {short_repr(self._key)}>"


# The slots' own setters, which Handle.__setattr__ doesn't refuse.
_set_address: Callable[[Handle, str], None] = vars(Handle)["_address"].__set__
_set_timeout: Callable[[Handle, float | None], None] = vars(Handle)["_timeout"].__set__


OnceCall = Callable[
    [
        LocalCalls,
        str,
        HandlerDefinition,
        tuple[object, ...],
        dict[str, object],
        float | None,
        str,
    ],
    Coroutine[Any, Any, object],
]
"""Makes a call with a once-key: the calls of its type, the object's address, the handler, its
arguments, the timeout and the key."""


def once_handle_class(calls: LocalCalls, origin: Origin) -> type[OnceHandle]:
    """The class of the handles of one type in one runtime whose calls have a once-key."""
    object_type = calls.object_type
    methods: dict[str, object] = {
        name: _once_method(handler, calls) for name, handler in object_type.handlers.items()
    }
    return type(
        f"{object_type.cls.__name__}OnceHandle",
        (OnceHandle,),
        {"__slots__": (), "_calls": calls, "_origin": origin, **methods},
    )


def handle_class(calls: CallPath, origin: Origin) -> type[Handle]:
    """The class of the handles of one type in one runtime."""
    object_type = calls.object_type
    methods: dict[str, object] = {
        name: _method(handler, calls) for name, handler in object_type.handlers.items()
    }
    return type(
        f"{object_type.cls.__name__}Handle",
        (Handle,),
        {"__slots__": (), "_calls": calls, "_origin": origin, **methods},
    )


def reference_of(value: object, origin: Origin) -> Reference | None:
    """The object that a handle leads to; None if ``value`` is no handle.

    Raises:
        Unfit: The handle isn't one of the runtime of ``origin``.
    """
    if not issubclass(type(value), Handle):
        return None
    if issubclass(type(value), OnceHandle):
        raise Unfit(f"{value!r} is for one call; give the object's id, or a handle without a key")
    handle: Any = value
    object_type: ObjectType = handle._calls.object_type
    if handle._origin is not origin:
        raise Unfit(f"{handle!r} is one of another runtime; give the type and the id instead")
    return Reference(object_type.cls, object_type.name, handle._address, handle._timeout)


def _method(
    handler: HandlerDefinition, calls: CallPath
) -> Callable[..., Coroutine[Any, Any, object]]:
    object_type = calls.object_type

    def call(self: Handle, /, *args: object, **kwargs: object) -> Coroutine[Any, Any, object]:
        return calls.call(self._address, handler, args, kwargs, self._timeout)

    return _like(handler, object_type, call)


def _once_method(
    handler: HandlerDefinition, calls: LocalCalls
) -> Callable[..., Coroutine[Any, Any, object]]:
    def call(self: OnceHandle, /, *args: object, **kwargs: object) -> Coroutine[Any, Any, object]:
        timeout, key = self._timeout, self._key
        return self._once(calls, self._address, handler, args, kwargs, timeout, key)

    return _like(handler, calls.object_type, call)


def _like(
    handler: HandlerDefinition,
    object_type: ObjectType,
    call: Callable[..., Coroutine[Any, Any, object]],
) -> Callable[..., Coroutine[Any, Any, object]]:
    """``call``, with the name and the attributes of a handler."""

    def function(*_args: object, **_kwargs: object) -> NoReturn:
        known, name = tuple(object_type.handlers), handler.name
        problem = f"{name}.function is for the object's own methods"
        raise NotOnHandle(object_type.name, name, known, None, problem)

    call.__name__ = handler.name
    call.__doc__ = handler.function.__doc__
    # To type checkers a bound method of a handle has what it has on a live instance.
    vars(call)["function"] = function
    return call


def _unpickled(token: str, type_name: str, address: str, timeout: float | None) -> Handle:
    origin = _open_origins.get(token)
    if origin is None or not token.startswith(f"{os.getpid()}-"):
        raise ForeignHandle(at_address(type_name, address))
    return origin.source.handle(type_name, address, timeout)


def _kind_of_member(object_type: ObjectType, name: str) -> str | None:
    """The kind of a class's member that its handles don't have; None if there is no such member."""
    cls = object_type.cls
    if name == "ctx":
        return "for the object's own methods"
    if name in RESERVED:
        return "a hook"
    if name in object_type.alarms:
        return "an alarm"
    if name in attrs.fields_dict(cls):
        return "a field"
    member = getattr_static(cls, name, attrs.NOTHING)
    if isinstance(member, FunctionType):
        return "a plain method"
    return None if member is attrs.NOTHING else "an attribute of the class"
