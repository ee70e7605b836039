"""The types that a runtime serves: from a class or a stored name to its directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from .._activations.directory import Directory
from .._alarms.delivery import Delivery
from .._alarms.retry import DEFAULT_RETRY, Retry
from .._errors import DefinitionError, UnknownObjectType
from .._eventloop.loop import Waiter
from .._keys import AlarmKey, ObjectKey
from ..storage import AlarmChanges
from .durable_object import DurableObject, ObjectDefinition, definition_of, known_definitions


class Catalogue:
    """Makes the directory of a type when it is first asked for.

    Args:
        objects: The classes to serve; None for every one that is imported.
        make_directory: Makes the directory of a type.
    """

    def __init__(
        self,
        objects: Iterable[type[DurableObject]] | None,
        make_directory: Callable[[ObjectDefinition], Directory],
    ) -> None:
        if objects is not None and not isinstance(objects, Iterable):
            raise ValueError(f"objects must be a list of classes, not {objects!r:.80}")
        self._objects = None if objects is None else tuple(objects)
        self._make_directory = make_directory
        self._by_class: dict[type[DurableObject], Directory] = {}
        self._by_name: dict[str, Directory] = {}
        self._elsewhere: dict[str, Directory] = {}
        """By name, of types that others serve."""

    def __iter__(self) -> Iterator[Directory]:
        return chain(self._by_class.values(), self._elsewhere.values())

    def prepare(self) -> None:
        """Make the directories of all classes that were named, to find out what is wrong early."""
        for cls in self._objects or ():
            self.directory(cls)

    def directory(self, object_type: type[DurableObject] | str) -> Directory:
        """The directory of a type.

        Raises:
            UnknownObjectType: It isn't known, or not among those to serve.
            DefinitionError: The class can't have objects, or its name is taken.
        """
        if isinstance(object_type, str):
            directory = self._by_name.get(object_type)
            return directory or self.directory(self._class_named(object_type, self._objects))
        try:
            directory = self._by_class.get(object_type)
        except TypeError:  # unhashable, so no class: definition_of says so
            directory = None
        return directory or self._add(definition_of(object_type))

    def directory_for_alarms(self, object_type: type[DurableObject] | str) -> Directory:
        """The directory of a type whose alarms are looked after, be they delivered here or not.

        For a type that is imported but not among those to serve it is one that only ever sees
        alarms being changed.

        Raises:
            UnknownObjectType: No class goes by that name.
            DefinitionError: The class can't have objects.
        """
        if isinstance(object_type, str) and object_type in self._elsewhere:
            return self._elsewhere[object_type]
        try:
            return self.directory(object_type)
        except UnknownObjectType:
            if isinstance(object_type, str):
                object_type = self._class_named(object_type, None)
        definition = definition_of(object_type)
        directory = self._elsewhere.get(definition.name)
        if directory is None:
            directory = self._elsewhere[definition.name] = self._make_directory(definition)
        return directory

    # --- alarms, which come by name: a `Destination` of the scheduler ----------------------------

    def obstacle(self, type_name: str) -> str | None:
        """See `Destination.obstacle`."""
        try:
            self.directory(type_name)
        except Exception as error:  # whatever it is, calls of that type will tell
            return str(error)
        return None

    def retry_of(self, key: AlarmKey) -> Retry:
        """See `Destination.retry_of`."""
        definition = self.directory(key.type_name).alarm_definition(key.name)
        return DEFAULT_RETRY if definition is None else definition.retry

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """See `Destination.deliver`."""
        self.directory(delivery.key.type_name).deliver(delivery, waiter)

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Destination.change_alarms`."""
        await self.directory_for_alarms(key.type_name).change_alarms(key, changes)

    # --- inside ----------------------------------------------------------------------------------

    def _add(self, definition: ObjectDefinition) -> Directory:
        if self._objects is not None and definition.cls not in self._objects:
            raise UnknownObjectType(definition.name, self._known_names())
        other = self._by_name.get(definition.name)
        if other is not None:
            cls = other.definition.cls
            raise DefinitionError(
                definition.cls.__qualname__,
                "",
                f"{cls.__module__}.{cls.__qualname__} is stored as {definition.name!r} in this "
                "runtime already; give one of them name=…",
            )
        directory = self._make_directory(definition)
        self._by_class[definition.cls] = self._by_name[definition.name] = directory
        return directory

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
