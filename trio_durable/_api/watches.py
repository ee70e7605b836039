"""`Watches`: watches of objects from outside of turns, for a runtime or a tenant."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar, overload

from .._activations.calls import LocalCalls
from .._activations.object_type import ObjectType
from .._errors import UsageError
from .._json.errors import Unfit
from .._keys import ObjectKey
from .._runtime.open_runtime import OpenRuntime
from .._text import short_repr
from .alarms import Alarms
from .durable_object import DurableObject
from .handle import Handle
from .watch import Watch

T = TypeVar("T", bound=DurableObject)


class Watches(Alarms):
    """Watches from outside, as a part of `Objects`."""

    @overload
    def watch(self, object_type: type[T], object_id: str, /) -> Watch[T]: ...
    @overload
    def watch(self, object_type: str, object_id: str, /) -> Watch[DurableObject]: ...
    @overload
    def watch(self, handle: T, /) -> Watch[T]: ...
    @overload
    def watch(self, handle: Handle, /) -> Watch[DurableObject]: ...
    def watch(
        self,
        watched: type[DurableObject] | str | DurableObject | Handle,
        object_id: str | None = None,
        /,
    ) -> Watch[DurableObject]:
        """The durable states of an object, now and as they change: see `Watch`.

        Args:
            watched: The class, or its stored name; or a handle, which leads to the object of its
                own tenant.
            object_id: The object's id; not with a handle.

        Raises:
            TypeError: It is neither a type with an id nor a handle.
            UsageError: The handle is one of another runtime, or has a once-key.
        """
        return self._watch([watched if object_id is None else (watched, object_id)])

    def watch_many(
        self, objects: Iterable[tuple[type[DurableObject] | str, str] | DurableObject | Handle], /
    ) -> Watch[DurableObject]:
        """The durable states of several objects, in one watch.

        Args:
            objects: Pairs of a type and an id, or handles.

        Raises:
            ValueError: There are none.
            TypeError: One is neither a pair nor a handle.
            UsageError: A handle is one of another runtime, or has a once-key.
        """
        return self._watch(objects)

    def _watch(self, objects: Iterable[object]) -> Watch[DurableObject]:
        opened = self._open()
        watched = [self._watched(each) for each in objects]
        if not watched:
            raise ValueError("watch_many needs one object at least")
        return Watch(opened, watched)

    def _watched(self, value: Any) -> tuple[ObjectType, ObjectKey]:
        match value:
            case (object_type, object_id):
                calls, address = self._locate(object_type, object_id)
                return calls.object_type, calls.object_type.key(address)
        try:
            reference = self._registry.reference(value)
        except Unfit as error:
            raise UsageError(str(error)) from None
        if reference is None:
            raise TypeError(f"a watch takes a type and an id, or a handle, not {short_repr(value)}")
        object_type = self._registry.calls(reference.type_name).object_type
        return object_type, object_type.key(reference.address)

    # --- the rest of `Objects` -------------------------------------------------------------------

    @abstractmethod
    def _locate(
        self, object_type: type[DurableObject] | str, object_id: str
    ) -> tuple[LocalCalls, str]:
        """The calls of an object's type, and its address there."""

    @abstractmethod
    def _open(self) -> OpenRuntime:
        """The parts of the open runtime."""
