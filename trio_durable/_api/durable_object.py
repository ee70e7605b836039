"""`DurableObject`, the base class, and `ObjectDefinition`, the declarations of a class.

The class body is the schema. Annotated names become attrs fields, methods marked with `handler`
become the object's calls, and methods marked with `alarm` handle its alarms.
`DurableObject.__init_subclass__` checks the body while the class statement runs, so that a wrong
definition fails there and not at the first call.

No metaclass and no slots: a metaclass would conflict with ``abc.ABC`` and with the metaclasses of
other bases, and two bases with slots of their own can't be combined, which would rule out mixins.
"""

from __future__ import annotations

import inspect
import itertools
import weakref
from collections.abc import Awaitable, Generator, Mapping
from copy import deepcopy
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    SupportsIndex,
    TypeVar,
    dataclass_transform,
    get_origin,
    overload,
)

import attrs

from .._alarms.alarm import Alarm
from .._declarations.attrs_class import make_attrs
from .._declarations.bases import check_bases, check_decorators, check_places
from .._declarations.class_body import (
    check_body,
    check_field_types,
    check_fields,
    check_overrides,
)
from .._declarations.field_types import (
    field_types,
    forget_namespace,
    namespace_of,
    remember_namespace,
)
from .._declarations.handlers_of_class import alarm_definition, alarms_of, handlers_of
from .._declarations.keywords import CLASS_KEYWORDS, checked_keywords, converter_of, merged_keywords
from .._declarations.parameter_types import remember_parameter_types
from .._declarations.parametrised import accept_arguments, alias_of, parametrised
from .._declarations.records import AlarmDefinition, FieldDefinition, HandlerDefinition, Options
from .._declarations.upgrade import upgrades_of
from .._durations import UNSET, Duration, Unset
from .._errors import DefinitionError, NotInTurn
from .._json.annotations import free_variables, parameters_of
from .._json.errors import UnknownType, UnsupportedType
from .._json.lookup import Forms
from .._json.namespaces import UnresolvedName
from .._json.records import RecordForm
from .._json.upgrades import UpgradeDefinition
from .._keys import id_problem

if TYPE_CHECKING:
    from cattrs import Converter

    from .._json.custom import StateConverter
    from .context import Context


# --- the base class ------------------------------------------------------------------------------


class _NoContext:
    """Descriptor in the place of ``ctx``; a live instance has its own ``ctx`` in ``__dict__``.

    Not a data descriptor, so the look-up of the instance's own costs nothing extra.
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
    """Result of the default hooks: awaitable, and dropped without a warning."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


# Instances compare by their fields, so attrs makes them unhashable. To type checkers handles, which
# are hashable, have the class's type. So type checkers are told of no __eq__.
@dataclass_transform(eq_default=False, kw_only_default=True, field_specifiers=(attrs.field,))
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
    - ``remember``: how long replies are kept under their once-keys (default one day).
    - ``turn_limit``: how long a turn of an ``async def`` may take (default None: for ever), see
      `handler`. It doesn't apply to ``after_load``.
    - ``expected``: exceptions that are answers of all handlers, see `handler`.
    - ``schema``: the version of the state's form, from 1 (default 1); see `upgrade`.
    - ``converter``: hooks for types that have no exact JSON by themselves (default: those of the
      runtime), see `make_converter`.

    Every duration is a ``timedelta`` or a number of seconds. Instances that you make yourself,
    or get from `DurableRuntime.get_state`, are detached: plain attrs objects with no ``ctx``.

    Raises:
        DefinitionError: The class body is invalid; from the class statement itself.
    """

    ctx: ClassVar[_NoContext] = _NoContext()

    if TYPE_CHECKING:  # not for get_type_hints(), which evaluates a base's annotations as well
        __attrs_attrs__: ClassVar[tuple[attrs.Attribute[Any], ...]]
        __durable_keywords__: ClassVar[dict[str, Any]]
        __durable_definition__: ClassVar[ObjectDefinition]
        __durable_fields__: ClassVar[tuple[attrs.Attribute[Any], ...]]
        __durable_types__: ClassVar[Mapping[str, Any]]
        __durable_form__: ClassVar[RecordForm]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        hibernate_after: Duration | Unset | None = UNSET,
        shutdown_after: Duration | Unset | None = UNSET,
        call_timeout: Duration | Unset | None = UNSET,
        mailbox_size: int | Unset = UNSET,
        remember: Duration | Unset = UNSET,
        turn_limit: Duration | Unset | None = UNSET,
        expected: type[Exception] | tuple[type[Exception], ...] | Unset = UNSET,
        schema: int | Unset = UNSET,
        converter: Converter | Unset | None = UNSET,
        **kwargs: object,
    ) -> None:
        try:
            super().__init_subclass__(**kwargs)
        except TypeError as error:
            raise DefinitionError(
                cls.__qualname__,
                ", ".join(kwargs),
                f"no base takes this class keyword ({error}); those of a durable object are name, "
                f"{', '.join(CLASS_KEYWORDS[:-1])} and {CLASS_KEYWORDS[-1]}",
            ) from error
        remember_namespace(cls)
        accept_arguments(cls)
        cls.__durable_keywords__ = checked_keywords(
            cls,
            {
                "hibernate_after": hibernate_after,
                "shutdown_after": shutdown_after,
                "call_timeout": call_timeout,
                "mailbox_size": mailbox_size,
                "remember": remember,
                "turn_limit": turn_limit,
                "expected": expected,
                "schema": schema,
                "converter": converter,
            },
        )
        cls.__durable_definition__ = _define(cls, name)
        try:
            if not open_variables(cls):
                _state_form(cls)
        except UnresolvedName:
            pass  # until the first use
        except UnknownType as error:
            # The runtime may have a converter.
            if converter_of(cls) is not None:
                raise _unsupported(cls, error) from error
        # Last, so that nothing refers to a class whose definition failed.
        _order[cls] = next(_counter)
        _classes.add(cls)

    def after_load(self) -> Awaitable[None] | None:
        """Hook that runs once per activation, before any call. ``def`` or ``async def``.

        It is a turn of its own: its changes and effects are one commit, and without changes there
        is none. If it raises, the waiting calls get `ActivationFailed`.
        """
        return _Nothing()

    def handle_alarm(self, alarm: Alarm) -> Awaitable[None] | None:
        """Handler of the alarms that have no ``@alarm`` method of their name.

        ``def`` or ``async def``, with the same guarantees as an ``@alarm`` method. Without either,
        an alarm is discarded when it is due.
        """
        return _Nothing()

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        self._refuse_if_live("copied")
        # By storage, as state is read: neither converters nor validators run.
        copy = object.__new__(type(self))
        memo[id(self)] = copy
        copy.__dict__.update(deepcopy(self.__dict__, memo))
        return copy

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> str | tuple[Any, ...]:
        self._refuse_if_live("pickled")
        reduced = super().__reduce_ex__(protocol)
        alias = alias_of(type(self))
        if alias is None or isinstance(reduced, str):
            return reduced
        # Pickle looks up classes by name in their module, where Repository[int] isn't.
        return (_new, (alias,), *reduced[2:])

    def _refuse_if_live(self, what: str) -> None:
        if "ctx" in self.__dict__:
            raise TypeError(
                f"a live {type(self).__qualname__} can't be {what}; "
                "hand out its values, or let the caller use runtime.get_state()"
            )


def _new(alias: type[DurableObject]) -> DurableObject:
    return object.__new__(definition_of(alias).cls)


# --- definitions ---------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class ObjectDefinition:
    """The declarations of a durable object class."""

    cls: type[DurableObject]
    name: str
    """The stored type name."""
    options: Options
    handlers: Mapping[str, HandlerDefinition]
    alarms: Mapping[str, AlarmDefinition]
    """Handlers of alarms, by the alarm's name."""
    handle_alarm: AlarmDefinition | None
    """The handler of all other alarms; None without one."""
    has_after_load: bool
    """True if the class overrides ``after_load``."""
    after_load_is_async: bool
    schema: int
    """The version of the state's form."""
    upgrades: Mapping[int, UpgradeDefinition]
    """Upgrades of older forms, by the schema that each one takes, in order."""

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
        """True if abstract methods, or fields of a type variable's type, are left.

        Such a class can't have objects.
        """
        return inspect.isabstract(self.cls) or bool(open_variables(self.cls))

    def default_state(self) -> DurableObject:
        """A detached instance with every field at its default."""
        instance: DurableObject = state_form(self.cls).build({}, [])
        return instance


_classes: weakref.WeakSet[type[DurableObject]] = weakref.WeakSet()


def definition_of(cls: type[DurableObject]) -> ObjectDefinition:
    """The definition of ``cls``: fields, handlers, alarms, upgrades, options, default state.

    Raises:
        DefinitionError: ``cls`` is not a durable object class.
    """
    origin = get_origin(cls)
    if isinstance(origin, type) and issubclass(origin, DurableObject):
        cls = parametrised(cls)  # an alias that got its last argument: Repository[list[T]][int]
    if not (isinstance(cls, type) and issubclass(cls, DurableObject)) or cls is DurableObject:
        raise DefinitionError(
            getattr(cls, "__qualname__", repr(cls)), "", "is not a subclass of DurableObject"
        )
    return cls.__durable_definition__


def known_definitions() -> dict[str, list[ObjectDefinition]]:
    """The definitions of all imported classes by stored name.

    A class that is defined again under its module and qualified name, as in notebooks and after
    reloads, replaces the older one; otherwise a name with several classes lists them all.
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
        DefinitionError: A name in an annotation isn't defined, or a type can't be that of a field.
    """
    check_decorators(cls, vars(cls)["__durable_fields__"])
    try:
        _resolve(cls)
    except UnresolvedName as error:
        raise _undefined(cls, error) from error
    return cls.__attrs_attrs__


def state_form(cls: type[DurableObject], converter: StateConverter | None = None) -> RecordForm:
    """The JSON form of the state of ``cls``, made once for each converter.

    Args:
        cls: The class.
        converter: The runtime's converter. The one of the class comes before it.

    Raises:
        DefinitionError: A field's type has no exact JSON, or a name in it isn't defined.
    """
    try:
        return _state_form(cls, converter)
    except UnresolvedName as error:
        raise _undefined(cls, error) from error
    except UnknownType as error:
        raise _unsupported(cls, error) from error


def _state_form(cls: type[DurableObject], converter: StateConverter | None = None) -> RecordForm:
    """See `state_form`.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        UnknownType: A field's type isn't one of ours. A converter may have hooks for it.
        DefinitionError: A field's type can't have exact JSON.
    """
    _resolve(cls)
    converter = converter_of(cls) or converter
    form: RecordForm | None
    if converter is None:
        form = vars(cls).get("__durable_form__")
    else:
        form = converter.records.get(cls)
    if form is None:
        hints = {field.name: field.type for field in cls.__attrs_attrs__}
        try:
            form = forms_of(cls, converter).record(cls, hints, ignored="ctx")
        except UnknownType:
            raise
        except UnsupportedType as error:
            raise _unsupported(cls, error) from error
        if converter is None:
            cls.__durable_form__ = form
        else:
            converter.records[cls] = form
        remember_parameter_types(cls, namespace_of(cls))
        forget_namespace(cls)
    return form


def forms_of(cls: type[DurableObject], converter: StateConverter | None) -> Forms:
    """The look-up of forms for a class.

    Args:
        cls: The class.
        converter: The runtime's converter. The one of the class comes before it.
    """
    converter = converter_of(cls) or converter
    return Forms(namespace_of(cls), () if converter is None else (converter.form,))


def _undefined(cls: type[DurableObject], error: UnresolvedName) -> DefinitionError:
    return DefinitionError(
        cls.__qualname__,
        error.member,
        f"{error.name} in the annotation isn't defined; correct it, or define or import it at "
        "module level, outside `if TYPE_CHECKING`, or before the class in its function",
    )


def _unsupported(cls: type[DurableObject], error: UnsupportedType) -> DefinitionError:
    member = error.member.removeprefix(f"{cls.__qualname__}.")
    return DefinitionError(cls.__qualname__, member, str(error))


def open_variables(cls: type[DurableObject]) -> tuple[TypeVar, ...]:
    """The type variables in the types of a generic class's fields.

    Those with a default or a bound aren't among them: the class without arguments has that.
    """
    if not parameters_of(cls):
        return ()
    try:
        _resolve(cls)
    except (UnresolvedName, DefinitionError):  # which the use of the class reports
        return ()
    found = (each for field in cls.__attrs_attrs__ for each in free_variables(field.type))
    return tuple(dict.fromkeys(found))


def _resolve(cls: type[DurableObject]) -> None:
    """Set the types of the attrs fields, once, and check them.

    Raises:
        UnresolvedName: A name in an annotation isn't defined, perhaps not yet.
        DefinitionError: A type can't be that of a field.
    """
    if "__durable_types__" in vars(cls):
        return
    try:
        types = field_types(cls, cls.__attrs_attrs__, DurableObject)
    except UnsupportedType as error:
        member = getattr(error, "member", "")
        raise DefinitionError(cls.__qualname__, member, f"{error}; correct it") from error
    check_field_types(cls, cls.__attrs_attrs__, types)
    for field in cls.__attrs_attrs__:
        # As attrs.resolve_types does, which would see neither local names nor type variables.
        object.__setattr__(field, "type", types[field.name])
    cls.__durable_types__ = types


_order: weakref.WeakKeyDictionary[type[DurableObject], int] = weakref.WeakKeyDictionary()
_counter = itertools.count()


def _define(cls: type[DurableObject], name: str | None) -> ObjectDefinition:
    type_name = cls.__qualname__ if name is None else name
    problem = id_problem(type_name)
    if problem:
        raise DefinitionError(
            cls.__qualname__, "", f"name {type_name!r} can't be stored: {problem}"
        )
    check_bases(cls, DurableObject)
    check_body(cls)
    make_attrs(cls, DurableObject)
    cls.__durable_fields__ = cls.__attrs_attrs__
    check_fields(cls, cls.__attrs_attrs__)
    check_overrides(cls, cls.__attrs_attrs__)
    check_places(cls, cls.__attrs_attrs__, DurableObject)
    keywords = merged_keywords(cls)
    # Inherited like the fields whose forms it counts, and with it the upgrades: state of a
    # subclass was written in the base's older forms, too.
    schema = keywords.pop("schema", 1)
    for name_elsewhere in ("converter", "expected", "turn_limit"):  # of codecs, and of handlers
        keywords.pop(name_elsewhere, None)
    return ObjectDefinition(
        cls,
        type_name,
        Options(**keywords),
        handlers_of(cls, DurableObject),
        alarms_of(cls),
        _handle_alarm(cls),
        has_after_load=cls.after_load is not DurableObject.after_load,
        after_load_is_async=inspect.iscoroutinefunction(cls.after_load),
        schema=schema,
        upgrades=upgrades_of(cls, schema),
    )


def _handle_alarm(cls: type[DurableObject]) -> AlarmDefinition | None:
    if cls.handle_alarm is DurableObject.handle_alarm:
        return None
    return alarm_definition(cls, "handle_alarm", cls.handle_alarm)
