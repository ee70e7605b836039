"""Type registry: from a class or a stored name to the calls of its objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from .._activations.calls import LocalCalls
from .._activations.object_type import ObjectType
from .._alarms.delivery import Delivery
from .._alarms.recurrence import Recurrence
from .._alarms.retry import DEFAULT_RETRY, Retry
from .._cluster.handles import Reference
from .._errors import DefinitionError, UnknownObjectType
from .._eventloop.loop import Waiter
from .._json.state import DEFAULT_MAX_STATE_SIZE, StateCodec
from .._keys import AlarmKey, ObjectKey
from ..storage import AlarmChanges
from .context import attach_context, detach_context
from .durable_object import (
    DurableObject,
    ObjectDefinition,
    definition_of,
    forms_of,
    known_definitions,
    open_variables,
    resolved_fields,
    state_form,
)
from .handle import (
    Handle,
    OnceHandle,
    Origin,
    handle_class,
    once_handle_class,
    reference_of,
)

if TYPE_CHECKING:
    from .._json.custom import StateConverter


def state_codec(
    definition: ObjectDefinition,
    max_size: int = DEFAULT_MAX_STATE_SIZE,
    converter: StateConverter | None = None,
) -> StateCodec:
    """The codec for states of a class.

    Args:
        definition: The class's definition.
        max_size: The most bytes of JSON that the state of one object may take.
        converter: The runtime's converter.

    Raises:
        DefinitionError: A field has a type that state can't have, or the default state can't be
            stored.
    """
    form = state_form(definition.cls, converter)
    return StateCodec(form, max_size, definition.schema, definition.upgrades)


def object_type_of(
    definition: ObjectDefinition,
    *,
    default_timeout: float | None = None,
    max_state_size: int = DEFAULT_MAX_STATE_SIZE,
    converter: StateConverter | None = None,
) -> ObjectType:
    """The object type that a class defines.

    Args:
        definition: The class's definition.
        default_timeout: The timeout of its calls unless the class has one, in seconds.
        max_state_size: The most bytes of JSON that the state of one object may take.
        converter: The converter of a class that has none itself.

    Raises:
        DefinitionError: The class can't have objects.
    """
    cls = definition.cls
    missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    if missing:
        raise DefinitionError(
            cls.__qualname__, "", f"is abstract, it lacks {missing}; use a subclass"
        )
    resolved_fields(cls)
    variables = ", ".join(variable.__name__ for variable in open_variables(cls))
    if variables:
        raise DefinitionError(
            cls.__qualname__,
            "",
            f"its fields have no types without arguments; use {cls.__name__}[…] with a type for "
            f"{variables}, or make a subclass of that, or give {variables} a default",
        )
    timeout = definition.options.call_timeout
    return ObjectType(
        name=definition.name,
        cls=cls,
        codec=state_codec(definition, max_state_size, converter),
        forms=forms_of(cls, converter),
        options=definition.options,
        timeout=timeout if isinstance(timeout, float) or timeout is None else default_timeout,
        handlers=definition.handlers,
        alarms=definition.alarms,
        handle_alarm=definition.handle_alarm,
        after_load=cls.after_load if definition.has_after_load else None,
        after_load_is_async=definition.after_load_is_async,
        attach_context=attach_context,
        detach_context=detach_context,
    )


class TypeRegistry:
    """The types that a runtime serves, each from when it is first asked for.

    It is the scheduler's `Destination`: it hands an alarm to the calls of the alarm's type. To the
    codec of calls it is the runtime's `Handles`.

    Args:
        objects: The classes to serve; None for every one that is imported.
        serve: Starts to serve a type.
        default_timeout: The timeout of calls unless the class has one, in seconds.
        max_state_size: The most bytes of JSON that the state of one object may take.
        converter: The converter of classes that have none themselves.
    """

    def __init__(
        self,
        objects: Iterable[type[DurableObject]] | None,
        serve: Callable[[ObjectType], LocalCalls],
        default_timeout: float | None,
        max_state_size: int,
        converter: StateConverter | None = None,
    ) -> None:
        if objects is not None and not isinstance(objects, Iterable):
            raise ValueError(f"objects must be a list of classes, not {objects!r:.80}")
        self._objects = None if objects is None else tuple(objects)
        self._serve = serve
        self._default_timeout = default_timeout
        self._max_state_size = max_state_size
        self._converter = converter
        self._by_class: dict[type, LocalCalls] = {}
        self._by_name: dict[str, LocalCalls] = {}
        self._elsewhere: dict[str, LocalCalls] = {}
        """By name, of types that other runtimes serve."""
        self._handle_classes: dict[LocalCalls, type[Handle]] = {}
        self._once_handle_classes: dict[LocalCalls, type[OnceHandle]] = {}
        self.delivers: Callable[[str], bool] | None = None
        """False for an object that lives in another process. None if all live in this one."""
        self.origin = Origin(self)
        """The runtime to pickled handles."""

    def prepare(self) -> None:
        """Begin to serve all classes that were named, so that errors in them are found early."""
        for cls in self._objects or ():
            self.calls(cls)

    def calls(self, object_type: type[DurableObject] | str) -> LocalCalls:
        """The calls of a type's objects.

        Raises:
            UnknownObjectType: It isn't known, or not among those to serve.
            DefinitionError: The class can't have objects, or its name is taken.
        """
        if isinstance(object_type, str):
            calls = self._by_name.get(object_type)
            return calls or self.calls(self._class_named(object_type, self._objects))
        try:
            calls = self._by_class.get(object_type)
        except TypeError:  # unhashable, so no class: definition_of says so
            calls = None
        if calls is None:
            definition = definition_of(object_type)
            calls = self._by_class.get(definition.cls) or self._add(definition)
        return calls

    def calls_for_alarms(self, object_type: type[DurableObject] | str) -> LocalCalls:
        """The calls of a type whose alarms can be set here, though they may be delivered elsewhere.

        For a type that is imported but not among those to serve, they only ever change alarms.

        Raises:
            UnknownObjectType: No class goes by that name.
            DefinitionError: The class can't have objects.
        """
        if isinstance(object_type, str) and object_type in self._elsewhere:
            return self._elsewhere[object_type]
        try:
            return self.calls(object_type)
        except UnknownObjectType:
            if isinstance(object_type, str):
                object_type = self._class_named(object_type, None)
        definition = definition_of(object_type)
        calls = self._elsewhere.get(definition.name)
        if calls is None:
            calls = self._elsewhere[definition.name] = self._begin(definition)
        return calls

    def handle_class(self, calls: LocalCalls) -> type[Handle]:
        """The class of the handles of a type's objects."""
        found = self._handle_classes.get(calls)
        if found is None:
            found = self._handle_classes[calls] = handle_class(calls, self.origin)
        return found

    def once_handle_class(self, calls: LocalCalls) -> type[OnceHandle]:
        """The class of the handles of a type's objects whose calls have a once-key."""
        found = self._once_handle_classes.get(calls)
        if found is None:
            found = self._once_handle_classes[calls] = once_handle_class(calls, self.origin)
        return found

    def handle(self, type_name: str, address: str, timeout: float | None) -> Handle:
        """See `HandleSource.handle`."""
        return self.handle_class(self.calls(type_name))(address, timeout)

    # --- handles as arguments: see `Handles` -----------------------------------------------------

    def is_durable(self, tp: object) -> bool:
        """See `Handles.is_durable`."""
        return isinstance(tp, type) and issubclass(tp, DurableObject)

    def reference(self, value: object) -> Reference | None:
        """See `Handles.reference`."""
        return reference_of(value, self.origin)

    def schemas(self) -> dict[str, int]:
        """The schema versions of the types, by stored name."""
        if self._objects is not None:
            definitions = [definition_of(each) for each in self._objects]
        else:
            definitions = [each for found in known_definitions().values() for each in found]
        return {definition.name: definition.schema for definition in definitions}

    def timeout_of(self, type_name: str) -> float | None:
        """The timeout of calls of a type's objects; the default, without a name."""
        if not type_name:
            return self._default_timeout
        return self.type_of(type_name).timeout

    def type_of(self, object_type: type[DurableObject] | str) -> ObjectType:
        """The object type of a class or a stored name, also if other runtimes serve it.

        Raises:
            UnknownObjectType: It isn't known.
        """
        return self.calls_for_alarms(object_type).object_type

    # --- alarms, by name: see `Destination` ------------------------------------------------------

    def obstacle(self, type_name: str) -> str | None:
        """See `Destination.obstacle`."""
        try:
            self.calls(type_name)
        except Exception as error:  # noqa: BLE001  # calls of that type raise it as well
            return str(error)
        return None

    def is_here(self, key: AlarmKey | ObjectKey) -> bool:
        """See `Destination.is_here`."""
        return self.delivers is None or self.delivers(key.object_id)

    def retry_of(self, key: AlarmKey) -> Retry:
        """See `Destination.retry_of`."""
        definition = self.calls(key.type_name).object_type.alarm_handler(key.name)
        return DEFAULT_RETRY if definition is None else definition.retry

    def recurrence_of(self, key: AlarmKey) -> Recurrence | None:
        """See `Destination.recurrence_of`."""
        return self.calls(key.type_name).object_type.recurrences.get(key.name)

    def recurrences(self) -> Iterator[tuple[str, str, Recurrence]]:
        """The recurring alarms of the types that are served here, as (type, name, schedule)."""
        if self._objects is not None:
            definitions = [definition_of(each) for each in self._objects]
        else:
            definitions = [each for found in known_definitions().values() for each in found]
        for definition in definitions:
            for name, alarm in definition.alarms.items():
                if alarm.recurrence is not None and self.obstacle(definition.name) is None:
                    yield definition.name, name, alarm.recurrence

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """See `Destination.deliver`."""
        self.calls(delivery.key.type_name).deliver(delivery, waiter)

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Destination.change_alarms`."""
        await self.calls_for_alarms(key.type_name).change_alarms(key, changes)

    # --- inside ----------------------------------------------------------------------------------

    def _begin(self, definition: ObjectDefinition) -> LocalCalls:
        return self._serve(
            object_type_of(
                definition,
                default_timeout=self._default_timeout,
                max_state_size=self._max_state_size,
                converter=self._converter,
            )
        )

    def _add(self, definition: ObjectDefinition) -> LocalCalls:
        if self._objects is not None and definition.cls not in map(_class_of, self._objects):
            raise UnknownObjectType(definition.name, self._known_names())
        other = self._by_name.get(definition.name)
        if other is not None:
            cls = other.object_type.cls
            raise DefinitionError(
                definition.cls.__qualname__,
                "",
                f"{cls.__module__}.{cls.__qualname__} is stored as {definition.name!r} in this "
                "runtime already; give one of them name=…",
            )
        calls = self._begin(definition)
        self._by_class[definition.cls] = self._by_name[definition.name] = calls
        return calls

    def _class_named(
        self, name: str, among: Iterable[type[DurableObject]] | None
    ) -> type[DurableObject]:
        if among is not None:
            found = [cls for cls in among if definition_of(cls).name == name]
        else:
            found = [d.cls for d in known_definitions().get(name, ()) if not d.is_abstract]
        if not found:
            raise UnknownObjectType(name, self._known_names())
        if len(found) > 1:
            classes = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
            raise DefinitionError(
                found[0].__qualname__,
                "",
                f"{classes} are both stored as {name!r}; give one of them name=…",
            )
        return found[0]

    def _known_names(self) -> tuple[str, ...]:
        if self._objects is not None:
            return tuple(sorted(definition_of(cls).name for cls in self._objects))
        return tuple(sorted(known_definitions()))


def _class_of(object_type: type[DurableObject]) -> type[DurableObject]:
    return definition_of(object_type).cls
