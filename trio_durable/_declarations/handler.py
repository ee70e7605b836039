"""The ``@handler`` decorator and its descriptor, which has three faces.

- On the class it is a client: ``Cart.add("user-1", "apple")``.
- On a handle it is the call: ``handle.add("apple")``. To type checkers a handle is an instance of
  the class, so the descriptor has this type on instances.
- On a live instance, ``self.add("apple")`` inside another handler, it runs the body as part of the
  current turn. It is awaited there, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from .._eventloop import current
from .._eventloop.running import running_loop_token

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class Client(Protocol[P, R_co]):
    """``Cart.add``: calls the handler of the object with the given id, in the current runtime."""

    def __call__(
        self, object_id: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """Call the handler on the object ``object_id``."""
        ...


class BoundHandler(Protocol[P, R_co]):
    """``handle.add``: calls the handler of the handle's object.

    On a live instance, ``self.add``, it runs the handler's body as part of the current turn, and
    is awaited, too.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call the handler."""
        ...


class BoundSyncHandler(BoundHandler[P, R_co], Protocol[P, R_co]):
    """A `BoundHandler` written with ``def``."""

    def function(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the body as the plain method it was written as: ``super().add.function(1)``."""
        ...


class Handler(Generic[P, R_co]):
    """The descriptor that ``@handler`` makes of a function."""

    def __init__(self, function: Callable[..., object], readonly: bool) -> None:
        self.function = function
        self.readonly = readonly
        self.name = getattr(function, "__name__", "?")
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        # abc.ABCMeta recognizes abstract classes by this.
        self.__isabstractmethod__ = getattr(function, "__isabstractmethod__", False)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type, /) -> Client[P, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> BoundHandler[P, R_co]: ...
    def __get__(self, instance: object, owner: type, /) -> object:
        if instance is None:
            return _Client(owner, self)
        return _Bound(self, instance)


class SyncHandler(Handler[P, R_co]):
    """A `Handler` around a ``def`` function."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Client[P, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> BoundSyncHandler[P, R_co]: ...
    def __get__(self, instance: object, owner: type, /) -> object:
        return super().__get__(instance, owner)


class _Client:
    """`Client`, at run time."""

    __slots__ = ("_handler", "_owner")

    def __init__(self, owner: type, handler: Handler[..., object]) -> None:
        self._owner = owner
        self._handler = handler

    def __call__(
        self, object_id: str, /, *args: object, **kwargs: object
    ) -> Coroutine[Any, Any, object]:
        runtime = current.runtime_for(running_loop_token())
        return runtime._dispatch(self._owner, object_id, self._handler.name, args, kwargs)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._handler.__doc__

    @property
    def __isabstractmethod__(self) -> bool:
        # For inherited handlers abc.ABCMeta reads it here.
        return self._handler.__isabstractmethod__

    def __repr__(self) -> str:
        return f"<client of {self._owner.__qualname__}.{self._handler.name}>"


class _Bound:
    """`BoundHandler` and `BoundSyncHandler` of a live or detached instance, at run time."""

    __slots__ = ("_handler", "_instance")

    def __init__(self, handler: Handler[..., object], instance: object) -> None:
        self._handler = handler
        self._instance = instance

    async def __call__(self, *args: object, **kwargs: object) -> object:
        result = self._handler.function(self._instance, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def function(self, *args: object, **kwargs: object) -> object:
        return self._handler.function(self._instance, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {type(self._instance).__qualname__}.{self._handler.name}>"


class _HandlerDecorator(Protocol):
    """The decorator that ``@handler(...)`` with options returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # as below
        self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[S, P], R], /) -> SyncHandler[P, R]: ...


# A coroutine function is a function, too, so mypy sees the overloads overlap; the first one wins.
@overload
def handler(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /
) -> Handler[P, R]: ...
@overload
def handler(function: Callable[Concatenate[S, P], R], /) -> SyncHandler[P, R]: ...
@overload
def handler(*, readonly: bool = False) -> _HandlerDecorator: ...
def handler(function: Callable[..., object] | None = None, /, *, readonly: bool = False) -> object:
    """Make a method callable from outside: one call at a time, each a transaction.

    The method is ``def`` or ``async def``. Its changes of ``self`` and the effects that it stages
    through ``self.ctx`` are committed together before its caller gets the result. If it raises,
    all of them are rolled back.

    Args:
        function: The method.
        readonly: The handler changes nothing. If it does, it is rolled back, and its caller gets
            `ReadonlyViolation`.
    """
    if function is None:
        return lambda function: _mark(function, readonly)
    return _mark(function, readonly)


def _mark(function: Callable[..., object], readonly: bool) -> Handler[..., object]:
    kind = Handler if inspect.iscoroutinefunction(function) else SyncHandler
    return kind(function, readonly)
