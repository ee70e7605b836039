"""The ``@handler`` decorator and its descriptor, which has three faces.

- On the class it is a client: ``Cart.add("user-1", "apple")``.
- On a handle it is the call: ``handle.add("apple")``. To type checkers a handle is an instance of
  the class, so the descriptor has this type on instances.
- On a live instance, ``self.add("apple")`` inside another handler, it runs the body as part of the
  current turn. It is awaited there, too.

To type checkers there is one descriptor for ``def`` and ``async def``. Its type arguments are the
faces of the function, each a plain callable, and ``__get__`` only selects one. The reasons:

- mypy keeps a generic function generic while the decorator is applied, but not when ``__get__``
  would have to take its parameters from a type argument.
- pyright compares two descriptors by their type arguments when a subclass overrides a handler.
  Callables may differ as those of methods may; a ``ParamSpec`` would have to be the same.
- Choosing between ``def`` and ``async def`` in overloads of the decorator would make a generic
  result, ``-> T``, a coroutine, and ``-> Any`` ambiguous.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    overload,
)

from .._alarms.retry import DEFAULT_RETRY, Retry
from .._durations import UNSET, Duration, Unset
from .._eventloop import current
from .._eventloop.running import running_loop_token

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)

Function_co = TypeVar("Function_co", covariant=True)
"""The function as it was written, without ``self``."""
Call_co = TypeVar("Call_co", covariant=True)
"""The same with an awaitable result: the call through a handle, if the function is a ``def``."""
AsyncClient_co = TypeVar("AsyncClient_co", covariant=True)
"""The function with the object's id first: the client, if it is an ``async def``."""
SyncClient_co = TypeVar("SyncClient_co", covariant=True)
"""The same with an awaitable result: the client, if it is a ``def``."""


class Client(Protocol[P, R_co]):
    """``Cart.add``: calls the handler of the object with the given id, in the current runtime."""

    def __call__(
        self, object_id: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """Call the handler on the object ``object_id``."""
        ...


class BoundHandler(Generic[Call_co]):
    """The type of ``handle.add``, which calls the handler of the handle's object.

    On a live instance, ``self.add``, it runs the handler's body as part of the current turn, and
    is awaited, too. The type argument is that of the call, ``Callable[[int], Coroutine[…]]``.
    """

    # No method with a ParamSpec, for the reasons that the module gives; and no property, because
    # to pyright an object with one isn't a Callable.
    __call__: Call_co
    """Call the handler."""


class BoundSyncHandler(BoundHandler[Call_co], Generic[Call_co, Function_co]):
    """The type of ``handle.add`` if ``add`` is written with ``def``."""

    function: Function_co
    """The body as the plain method it was written as: ``super().add.function(1)``."""


class _Undeclared:
    """A result that no handler declares, so only ``Any``, ``Never`` and type variables match it."""


class _Method(Protocol[S_contra, P, R_co]):
    """A method whose first parameter is called ``self``.

    Most match ``Callable[Concatenate[S, P], R]``. With ``**kwargs`` they don't to mypy, because a
    keyword argument could be called ``self`` as well.
    """

    def __call__(_method, self: S_contra, *args: P.args, **kwargs: P.kwargs) -> R_co: ...  # noqa: N805


class Handler(Generic[Function_co, Call_co, AsyncClient_co, SyncClient_co]):
    """The descriptor that ``@handler`` makes of a function.

    Its type arguments are the types between which ``__get__`` selects.
    """

    def __init__(
        self,
        function: Callable[..., object],
        readonly: bool,
        expected: object = (),
        limit: object = UNSET,
        retry: object = DEFAULT_RETRY,
    ) -> None:
        self.function = function
        self.readonly = readonly
        self.expected = expected
        self.limit = limit
        self.retry = retry
        self.name = getattr(function, "__name__", "?")
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        # abc.ABCMeta recognizes abstract classes by this.
        self.__isabstractmethod__: bool = getattr(function, "__isabstractmethod__", False)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    # The first two are for `-> Any` and for generic results. P matches all parameters; with `...`
    # in its place pyright would take the type variables of a generic handler for Any.
    @overload
    def __get__(
        self: Handler[Callable[P, _Undeclared], Call_co, AsyncClient_co, SyncClient_co],
        instance: None,
        owner: type,
        /,
    ) -> SyncClient_co: ...
    @overload
    def __get__(
        self: Handler[Callable[P, _Undeclared], Call_co, AsyncClient_co, SyncClient_co],
        instance: object,
        owner: type,
        /,
    ) -> BoundSyncHandler[Call_co, Function_co]: ...
    @overload
    def __get__(
        self: Handler[
            Callable[P, Coroutine[Any, Any, object]], Call_co, AsyncClient_co, SyncClient_co
        ],
        instance: None,
        owner: type,
        /,
    ) -> AsyncClient_co: ...
    @overload
    def __get__(
        self: Handler[
            Callable[P, Coroutine[Any, Any, object]], Call_co, AsyncClient_co, SyncClient_co
        ],
        instance: object,
        owner: type,
        /,
    ) -> BoundHandler[Function_co]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> SyncClient_co: ...
    @overload
    def __get__(
        self, instance: object, owner: type, /
    ) -> BoundSyncHandler[Call_co, Function_co]: ...
    def __get__(self, instance: object, owner: type, /) -> object:
        if instance is None:
            return _Client(owner, self)
        return _Bound(self, instance)

    if TYPE_CHECKING:
        # pyright compares the members of a protocol with the descriptor itself, as if it was called
        # like the handle's attribute. The coroutine's type is the one that it infers of async def.
        @overload
        def __call__(
            self: Handler[Callable[P, _Undeclared], object, object, object],
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> CoroutineType[Any, Any, Any]: ...
        @overload
        def __call__(
            self: Handler[Callable[P, Coroutine[Any, Any, R]], object, object, object],
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> CoroutineType[Any, Any, R]: ...
        @overload
        def __call__(
            self: Handler[Callable[P, R], object, object, object],
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> CoroutineType[Any, Any, R]: ...
        def __call__(self, *args: object, **kwargs: object) -> object: ...


SomeHandler: TypeAlias = Handler[object, object, object, object]
"""A handler of any function."""

_HandlerOf: TypeAlias = Handler[
    Callable[P, R],
    Callable[P, Coroutine[Any, Any, R]],
    Callable[Concatenate[str, P], R],
    Callable[Concatenate[str, P], Coroutine[Any, Any, R]],
]


class _Client:
    """`Client`, at run time."""

    __slots__ = ("_handler", "_owner")

    @property
    def durable_handler(self) -> tuple[type, str]:
        """The class and the handler's name, for `handler_behind`."""
        return self._owner, self._handler.name

    def __init__(self, owner: type, handler: SomeHandler) -> None:
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

    def __init__(self, handler: SomeHandler, instance: object) -> None:
        self._handler = handler
        self._instance = instance

    async def __call__(self, *args: object, **kwargs: object) -> object:
        result = self._handler.function(self._instance, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def function(self, *args: object, **kwargs: object) -> object:
        return self._handler.function(self._instance, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {type(self._instance).__qualname__}.{self._handler.name}>"


def handler_behind(client: object) -> tuple[type, str] | None:
    """The class and the name of the handler behind ``Cart.add``; None if it is no such client."""
    return client.durable_handler if isinstance(client, _Client) else None


class _HandlerDecorator(Protocol):
    """The decorator that ``@handler(...)`` with options returns."""

    @overload
    def __call__(self, function: Callable[Concatenate[S, P], R], /) -> _HandlerOf[P, R]: ...
    @overload
    def __call__(self, function: _Method[S, P, R], /) -> _HandlerOf[P, R]: ...


@overload
def handler(function: Callable[Concatenate[S, P], R], /) -> _HandlerOf[P, R]: ...
@overload
def handler(function: _Method[S, P, R], /) -> _HandlerOf[P, R]: ...
@overload
def handler(
    *,
    readonly: bool = False,
    expected: type[Exception] | tuple[type[Exception], ...] = (),
    limit: Duration | Unset | None = UNSET,
    retry: Retry = DEFAULT_RETRY,
) -> _HandlerDecorator: ...
def handler(
    function: Callable[..., object] | None = None,
    /,
    *,
    readonly: bool = False,
    expected: type[Exception] | tuple[type[Exception], ...] = (),
    limit: Duration | Unset | None = UNSET,
    retry: Retry = DEFAULT_RETRY,
) -> object:
    """Make a method callable from outside: one call at a time, each a transaction.

    The method is ``def`` or ``async def``. Its changes of ``self`` and the effects that it stages
    through ``self.ctx`` are committed together before its caller gets the result. If it raises,
    all of them are rolled back.

    Args:
        function: The method.
        readonly: The handler changes nothing. If it does, it is rolled back, and its caller gets
            `ReadonlyViolation`.
        expected: Exceptions that are answers to the caller, a class or a tuple of classes. The turn
            is rolled back and the caller gets the exception as always, but instruments don't report
            it as a failure. A `PersistenceError` always is one.
        limit: The longest time that a turn of an ``async def`` may take, from its start to its end,
            calls and waits included; None for no limit, and by default the class's ``turn_limit``.
            Then the turn is cancelled and rolled back, whatever it returns, and the caller gets
            `TurnTimeout`. A handler that another one calls on ``self`` is a part of that one's
            turn, and its own limit doesn't apply.
        retry: When a message to the handler is tried again after it raised, and how often. Calls
            are never repeated. A message whose handler raises one of ``expected`` isn't either.
    """
    if function is None:
        return lambda function: Handler(function, readonly, expected, limit, retry)
    return Handler(function, readonly, expected, limit, retry)
