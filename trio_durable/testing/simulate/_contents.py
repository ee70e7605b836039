"""Stored objects as instances, and the check that objects in memory equal them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from ..._alarms.alarm import Alarm, alarm_of
from ..._api.durable_object import DurableObject, ObjectDefinition
from ..._api.runtime import DurableRuntime
from ..._keys import ObjectKey
from ..._messages.message import DeadMessage, WaitingMessage, dead_of, waiting_of
from .._perform import codec_of
from ._disk import Disk

T = TypeVar("T", bound=DurableObject)


class Contents:
    """The contents of a disk, decoded.

    Args:
        disk: The disk.
        definitions: The definitions of the simulation's classes.
    """

    def __init__(
        self, disk: Disk, definitions: Mapping[type[DurableObject], ObjectDefinition]
    ) -> None:
        self._disk = disk
        self._definitions = definitions

    def all_of(self, cls: type[T], tenant: str = "") -> dict[str, T]:
        """All objects of a class and a tenant, by id."""
        name = self.definition(cls).name
        return {
            object_id: self.state(cls, ObjectKey(name, object_id, tenant))
            for object_id in self._disk.ids(name, tenant)
        }

    def state(self, cls: type[T], key: ObjectKey) -> T:
        """An object as it is stored; with its defaults if it isn't stored."""
        row = self._disk.row(key)
        if row is None:
            return cast("T", self.definition(cls).default_state())
        return cast("T", codec_of(cls).decode(key, row.state))

    def alarms(self, cls: type[DurableObject], object_id: str, tenant: str = "") -> list[Alarm]:
        """The alarms of an object, by ``due_at``."""
        key = ObjectKey(self.definition(cls).name, object_id, tenant)
        return [alarm_of(stored, stored.failures + 1) for stored in self._disk.alarms(key)]

    def messages(self, tenant: str = "") -> list[WaitingMessage]:
        """The messages that wait for objects of a tenant, by receiver."""
        return list(map(waiting_of, self._disk.messages(tenant)))

    def dead_messages(self, tenant: str = "") -> list[DeadMessage]:
        """The dead letters among messages to objects of a tenant, oldest first."""
        return list(map(dead_of, self._disk.dead_messages(tenant)))

    def definition(self, cls: type[DurableObject]) -> ObjectDefinition:
        """The definition of a class.

        Raises:
            ValueError: The simulation doesn't have this class.
        """
        definition = self._definitions.get(cls)
        if definition is None:
            raise ValueError(f"{cls!r} is not in the simulation's objects")
        return definition


def check_memory(runtime: DurableRuntime, contents: Contents) -> None:
    """Check that each idle object in memory equals both its state after its last turn and its row.

    Raises:
        AssertionError: An object differs.
    """
    for directory in runtime._open().directories:
        codec = directory.object_type.codec
        for activation in directory.activations():
            state = activation.state
            key, instance, left = state.key, state.instance, state.fields
            if not activation.is_idle or instance is None or left is None:
                continue
            if codec.encode_fields(key, instance) != left:
                raise AssertionError(
                    f"{key} was changed outside of a turn: it is {instance!r}, but its last turn "
                    f"left {state.read()!r}"
                )
            stored: DurableObject = contents.state(directory.object_type.cls, key)
            if codec.encode_fields(key, stored) != left:
                raise AssertionError(f"{key} is {instance!r} in memory, but stored as {stored!r}")
