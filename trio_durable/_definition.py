"""A durable object class and what it declares: `DurableObject`, `handler`, `ObjectDefinition`.

The class body is the schema. Annotated names become attrs fields, methods marked with `handler`
become the object's calls. `DurableObject.__init_subclass__` verifies the body while the class
statement runs, so that a wrong definition fails there and not at the first call.

No metaclass and no slots: a metaclass would shut out ``abc.ABC`` and other people's bases, and
two bases with slots of their own can't be combined, which would shut out mixins.
"""

from __future__ import annotations

import inspect
import itertools
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from copy import deepcopy
from types import FunctionType, MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    SupportsIndex,
    TypeVar,
    dataclass_transform,
    get_origin,
    overload,
)

import attrs

from . import _ambient
from ._durations import UNSET, Duration, Unset, optional_seconds
from ._errors import DefinitionError, NotInTurn
from ._keys import id_problem
from ._rendezvous import running_loop_token

if TYPE_CHECKING:
    from ._context import Context

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

DEFAULT_HIBERNATE_AFTER = 300.0
DEFAULT_MAILBOX_SIZE = 1024
RESERVED = frozenset({"ctx", "after_load", "handle_alarm"})


# --- handlers ------------------------------------------------------------------------------------


class Client(Protocol[P, R_co]):
    """``Cart.add``: calls the handler of the object with the given id, in the ambient runtime."""

    def __call__(
        self, object_id: str, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """Call the handler on the object ``object_id``."""
        ...


class BoundHandler(Protocol[P, R_co]):
    """``handle.add``: calls the handler of the handle's object.

    On a live instance, ``self.add``, it runs the handler's body as part of the current turn and
    is awaited all the same.
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
    """What ``@handler`` leaves in the class body: a descriptor around the function."""

    def __init__(self, function: Callable[..., object], readonly: bool) -> None:
        self.function = function
        self.readonly = readonly
        self.name = getattr(function, "__name__", "?")
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        # abc.ABCMeta looks for this to tell abstract classes.
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
        runtime = _ambient.current(running_loop_token())
        return runtime.dispatch(self._owner, object_id, self._handler.name, args, kwargs)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self._handler.__doc__

    @property
    def __isabstractmethod__(self) -> bool:
        # abc.ABCMeta asks the inherited attribute, which is this.
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
    """``@handler(...)`` with options, before it meets its function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # as below
        self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[S, P], R], /) -> SyncHandler[P, R]: ...


# A coroutine function is a function too, so to mypy the overloads overlap; the first one wins.
@overload
def handler(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /
) -> Handler[P, R]: ...
@overload
def handler(function: Callable[Concatenate[S, P], R], /) -> SyncHandler[P, R]: ...
@overload
def handler(*, readonly: bool = False) -> _HandlerDecorator: ...
def handler(function: Callable[..., object] | None = None, /, *, readonly: bool = False) -> object:
    """Make a method callable from outside, one call at a time and all or nothing.

    The method may be ``def`` or ``async def``. What it changes in ``self`` and stages through
    ``self.ctx`` becomes durable together before its caller gets the result; if it raises,
    nothing of it happened.

    Args:
        function: The method.
        readonly: The handler changes nothing; if it does, it is rolled back and its caller gets
            `ReadonlyViolation`.
    """
    if function is None:
        return lambda function: _mark(function, readonly)
    return _mark(function, readonly)


def _mark(function: Callable[..., object], readonly: bool) -> Handler[..., object]:
    kind = Handler if inspect.iscoroutinefunction(function) else SyncHandler
    return kind(function, readonly)


# --- the base class ------------------------------------------------------------------------------


class _NoContext:
    """Stands for ``ctx`` on the class; the running instance has its own in its ``__dict__``.

    Not a data descriptor, so that finding the instance's own costs nothing extra.
    """

    @overload
    def __get__(self, instance: None, owner: type, /) -> _NoContext: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> Context: ...
    def __get__(self, instance: object, owner: type, /) -> object:
        if instance is None:
            return self
        raise NotInTurn(f"this {owner.__qualname__} is a detached instance, which has no ctx")


class _Nothing:
    """What the default after_load returns: it may be awaited, or dropped without a warning."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


@dataclass_transform(kw_only_default=True, field_specifiers=(attrs.field,))
class DurableObject:
    """Base class of all durable objects.

    Annotated names in the body of a subclass are its persisted state and need a default each::

        class Counter(DurableObject, hibernate_after=60):
            count: int = 0

            @handler
            def increment(self, by: int = 1) -> int:
                self.count += by
                return self.count

    Class keywords:

    - ``name``: the stored type name; the class's ``__qualname__`` unless given. Not inherited.
    - ``hibernate_after``: idle time after which only the encoded state stays in memory
      (default 300 s; None: never).
    - ``shutdown_after``: idle time after which the object leaves memory altogether (default
      None: never).
    - ``call_timeout``: how long a caller waits for a reply (default: the runtime's).
    - ``mailbox_size``: how many calls may be queued (default 1,024).

    Every duration is a ``timedelta`` or a number of seconds. Instances that you make yourself,
    or get from `DurableRuntime.get_state`, are detached: plain attrs objects with no ``ctx``.

    Raises:
        DefinitionError: The class body can't work; from the class statement itself.
    """

    ctx: ClassVar[_NoContext] = _NoContext()

    if TYPE_CHECKING:  # not for get_type_hints(), which evaluates a base's annotations as well
        __attrs_attrs__: ClassVar[tuple[attrs.Attribute[Any], ...]]
        __durable_options__: ClassVar[Options]
        __durable_definition__: ClassVar[ObjectDefinition]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        hibernate_after: Duration | Unset | None = UNSET,
        shutdown_after: Duration | Unset | None = UNSET,
        call_timeout: Duration | Unset | None = UNSET,
        mailbox_size: int | Unset = UNSET,
        **kwargs: object,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.__durable_options__ = _options(
            cls,
            {
                "hibernate_after": hibernate_after,
                "shutdown_after": shutdown_after,
                "call_timeout": call_timeout,
                "mailbox_size": mailbox_size,
            },
        )
        cls.__durable_definition__ = _define(cls, name)
        _classes.add(cls)

    def after_load(self) -> Awaitable[None] | None:
        """Override to run once per activation, before any call. ``def`` or ``async def``.

        It is a turn of its own: what it changes and stages is committed with it, and only if
        something changed. If it raises, the calls that wait get `ActivationFailed`.
        """
        return _Nothing()

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        self._refuse_if_live("copied")
        fields = attrs.fields(type(self))
        return type(self)(**{f.alias: deepcopy(getattr(self, f.name), memo) for f in fields})

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> str | tuple[Any, ...]:
        self._refuse_if_live("pickled")
        return super().__reduce_ex__(protocol)

    def _refuse_if_live(self, what: str) -> None:
        if "ctx" in self.__dict__:
            raise TypeError(
                f"a live {type(self).__qualname__} can't be {what}; "
                "hand out its values, or let the caller use runtime.get_state()"
            )


# --- definitions ---------------------------------------------------------------------------------


@attrs.frozen
class Options:
    """The class keywords. Durations in seconds; None for never, or for the runtime's default."""

    hibernate_after: float | None = DEFAULT_HIBERNATE_AFTER
    shutdown_after: float | None = None
    call_timeout: float | Unset | None = UNSET
    mailbox_size: int = DEFAULT_MAILBOX_SIZE


@attrs.frozen
class FieldDefinition:
    """One persisted field."""

    name: str
    type: object
    """The annotation, resolved where that is possible."""
    default: object
    """The default, or the `attrs.Factory` that makes it."""


@attrs.frozen
class HandlerDefinition:
    """One handler."""

    name: str
    function: Callable[..., Any]
    readonly: bool
    is_async: bool
    signature: inspect.Signature
    """Without ``self``."""


@attrs.frozen(eq=False)
class ObjectDefinition:
    """What a durable object class declares."""

    cls: type[DurableObject]
    name: str
    """The stored type name."""
    options: Options
    handlers: Mapping[str, HandlerDefinition]
    has_after_load: bool
    """Whether the class does something in ``after_load``."""
    after_load_is_async: bool

    @property
    def fields(self) -> Mapping[str, FieldDefinition]:
        """The persisted fields, in order.

        Raises:
            DefinitionError: An annotation can't be resolved.
        """
        return {
            field.name: FieldDefinition(field.name, field.type, field.default)
            for field in resolved_fields(self.cls)
        }

    @property
    def is_abstract(self) -> bool:
        """Whether the class has abstract methods left, and so can't have objects."""
        return inspect.isabstract(self.cls)

    def default_state(self) -> DurableObject:
        """A detached instance with every field at its default."""
        return self.cls()


_classes: weakref.WeakSet[type[DurableObject]] = weakref.WeakSet()


def definition_of(cls: type[DurableObject]) -> ObjectDefinition:
    """What ``cls`` declares: fields, handlers, options, default state.

    Raises:
        DefinitionError: ``cls`` is not a durable object class.
    """
    if not (isinstance(cls, type) and issubclass(cls, DurableObject)) or cls is DurableObject:
        raise DefinitionError(
            getattr(cls, "__qualname__", repr(cls)), "", "is not a subclass of DurableObject"
        )
    return cls.__durable_definition__


def known_definitions() -> dict[str, list[ObjectDefinition]]:
    """The definitions of all imported classes by stored name.

    A class that was defined anew under its module and qualified name, as notebooks and reloads
    do, replaces its older self; otherwise a name with several classes lists them all.
    """
    newest: dict[tuple[str, str, str], type[DurableObject]] = {}
    for cls in _classes:
        definition = cls.__durable_definition__
        identity = (definition.name, cls.__module__, cls.__qualname__)
        other = newest.get(identity)
        if other is None or _order[cls] > _order[other]:
            newest[identity] = cls
    by_name: dict[str, list[ObjectDefinition]] = {}
    for (name, _, _), cls in newest.items():
        by_name.setdefault(name, []).append(cls.__durable_definition__)
    return by_name


def resolved_fields(cls: type[DurableObject]) -> tuple[attrs.Attribute[Any], ...]:
    """The attrs fields of ``cls`` with their annotations resolved to types.

    Raises:
        DefinitionError: A name in an annotation is not known where the class was defined.
    """
    try:
        attrs.resolve_types(cls)
    except NameError as error:
        raise DefinitionError(
            cls.__qualname__,
            str(error.name),
            "the annotation can't be resolved; import the name at module level, "
            "outside `if TYPE_CHECKING`",
        ) from error
    return cls.__attrs_attrs__


def _options(cls: type[DurableObject], given: dict[str, Any]) -> Options:
    inherited = getattr(cls, "__durable_options__", Options())
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not UNSET}
    try:
        for keyword, value in changes.items():
            if keyword != "mailbox_size":
                changes[keyword] = optional_seconds(value, keyword)
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"mailbox_size must be an int of 1 or more, not {value!r}")
    except ValueError as error:
        raise DefinitionError(cls.__qualname__, "", str(error)) from None
    return attrs.evolve(inherited, **changes)


_order: weakref.WeakKeyDictionary[type[DurableObject], int] = weakref.WeakKeyDictionary()
_counter = itertools.count()


def _define(cls: type[DurableObject], name: str | None) -> ObjectDefinition:
    _order[cls] = next(_counter)
    type_name = cls.__qualname__ if name is None else name
    problem = id_problem(type_name)
    if problem:
        raise DefinitionError(
            cls.__qualname__, "", f"name {type_name!r} can't be stored: {problem}"
        )
    _check_body(cls)
    _make_attrs(cls)
    handlers = _handlers(cls)
    return ObjectDefinition(
        cls,
        type_name,
        cls.__durable_options__,
        handlers,
        has_after_load=cls.after_load is not DurableObject.after_load,
        after_load_is_async=inspect.iscoroutinefunction(cls.after_load),
    )


def _make_attrs(cls: type[DurableObject]) -> None:
    """Turn annotated names into attrs fields, in place.

    Raises:
        DefinitionError: A field that can't be one.
    """
    try:
        attrs.define(
            cls,
            slots=False,  # in place, and open for mixins
            kw_only=True,
            auto_attribs=True,
            field_transformer=_with_fields_of_plain_mixins,
        )
    except attrs.exceptions.UnannotatedAttributeError as error:
        unannotated = ", ".join(
            n
            for n, value in vars(cls).items()
            if type(value).__name__ == "_CountingAttr" and n not in inspect.get_annotations(cls)
        )
        raise DefinitionError(
            cls.__qualname__, unannotated, "annotate the field: `name: type = attrs.field(…)`"
        ) from error
    for field in attrs.fields(cls):
        if field.name in RESERVED:
            raise DefinitionError(
                cls.__qualname__, field.name, "the name is reserved; call the field something else"
            )
        if field.default is attrs.NOTHING:
            raise DefinitionError(
                cls.__qualname__,
                field.name,
                "the field needs a default, because an object that was never stored starts from it",
            )
        if not _is_factory(field.default) and type(field.default).__hash__ is None:
            raise DefinitionError(
                cls.__qualname__,
                field.name,
                f"the default {field.default!r} is mutable and would be shared by all objects; "
                f"write attrs.field(factory={type(field.default).__name__})",
            )
        if not field.init:
            raise DefinitionError(
                cls.__qualname__, field.name, "init=False would keep it from being loaded; drop it"
            )


def _is_factory(default: object) -> bool:
    return isinstance(default, type(attrs.Factory(list)))


def _with_fields_of_plain_mixins(
    cls: type[object], fields: list[attrs.Attribute[Any]]
) -> list[attrs.Attribute[Any]]:
    """Add what ordinary bases annotate, and keep leading underscores in argument names."""
    by_name = {field.name: field for field in fields}
    for base in cls.__mro__[1:]:
        annotations = inspect.get_annotations(base)
        if attrs.has(base) or base is DurableObject or not annotations:
            continue
        if base.__module__ in ("typing", "abc", "builtins"):
            continue
        body = {name: value for name, value in vars(base).items() if name in annotations}
        mixin = attrs.define(
            type(base.__name__, (), {**body, "__annotations__": dict(annotations)}),
            slots=False,
            kw_only=True,
            auto_attribs=True,
        )
        for field in attrs.fields(mixin):
            by_name.setdefault(field.name, field)
    return [field.evolve(alias=field.name) for field in by_name.values()]


def _check_body(cls: type[DurableObject]) -> None:
    """Refuse class bodies that would not do what they look like.

    Raises:
        DefinitionError: Names the member and the mend.
    """

    def refuse(member: str, problem: str) -> DefinitionError:
        return DefinitionError(cls.__qualname__, member, problem)

    annotations = inspect.get_annotations(cls)
    for name, value in vars(cls).items():
        inherited = [vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)]
        overrides_handler = any(isinstance(other, Handler) for other in inherited)
        if name == "ctx":
            raise refuse(name, "ctx is reserved for the context; choose another name")
        if name in ("__init__", "__new__", "__setattr__"):
            raise refuse(
                name, "objects are made from stored fields; set things up in after_load instead"
            )
        if name == "after_load" and not isinstance(value, FunctionType):
            raise refuse(name, "must be a plain method, `def after_load(self)` or `async def`")
        if isinstance(value, Handler):
            if name in RESERVED or name.startswith("_"):
                raise refuse(name, "the name is reserved; a handler needs a public name of its own")
            if name in attrs_names(cls):
                raise refuse(name, "the handler would replace a field of the same name")
            _check_handler(cls, name, value)
        elif overrides_handler:
            raise refuse(
                name, "it replaces an inherited handler; mark it with @handler, or rename it"
            )
        elif (
            name not in annotations
            and not (name.startswith("__") and name.endswith("__"))
            and not name.isupper()
            and not name.startswith("_abc")
            and not hasattr(type(value), "__get__")
            and not isinstance(value, (type, staticmethod, classmethod))
            and type(value).__name__ != "_CountingAttr"
        ):
            raise refuse(
                name,
                f"has no annotation: write `{name}: {type(value).__name__} = …` for state, "
                f"`{name}: ClassVar[…]` or an UPPER_CASE name for a constant",
            )
    for name, annotation in annotations.items():
        if name == "ctx":
            raise refuse(name, "ctx is reserved for the context; choose another name")
        if _is_classvar(annotation):
            continue
        if any(isinstance(vars(base).get(name), Handler) for base in cls.__mro__[1:]):
            raise refuse(name, "the field would replace an inherited handler of the same name")


def attrs_names(cls: type[object]) -> frozenset[str]:
    """The names of the attrs fields that ``cls`` has or inherits."""
    return frozenset(
        field.name for base in cls.__mro__ if attrs.has(base) for field in attrs.fields(base)
    )


def _is_classvar(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.startswith(("ClassVar", "typing.ClassVar", "t.ClassVar"))
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _check_handler(cls: type, name: str, handler: Handler[..., object]) -> None:
    function: object = handler.function
    problem = None
    if isinstance(function, Handler):
        problem = "it is marked twice; once is enough"
    elif not isinstance(function, FunctionType):
        problem = "@handler goes on a method written with def or async def, and comes last"
    elif inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        problem = "a handler can't yield; return a list, or hand out pages"
    elif not _takes_self(function):
        problem = "a handler takes self first"
    if problem:
        raise DefinitionError(cls.__qualname__, name, problem)


def _takes_self(function: FunctionType) -> bool:
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and first.kind in (
        first.POSITIONAL_ONLY,
        first.POSITIONAL_OR_KEYWORD,
        first.VAR_POSITIONAL,
    )


def _handlers(cls: type[DurableObject]) -> Mapping[str, HandlerDefinition]:
    found: dict[str, HandlerDefinition] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Handler):
                if base is not cls and not issubclass(base, DurableObject):
                    _check_handler(base, name, value)
                signature = inspect.signature(value.function)
                found[name] = HandlerDefinition(
                    name,
                    value.function,
                    value.readonly,
                    inspect.iscoroutinefunction(value.function),
                    signature.replace(parameters=list(signature.parameters.values())[1:]),
                )
    return MappingProxyType(found)
