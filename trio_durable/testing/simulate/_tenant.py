"""`SimulatedTenant`: the steps of a simulation and its stored data that concern one tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..._alarms.alarm import Alarm
from ..._api.durable_object import DurableObject
from ..._messages.message import DeadMessage, WaitingMessage
from ._call import Call
from ._contents import Contents

T = TypeVar("T", bound=DurableObject)


class SimulatedTenant:
    """A tenant in a simulation, made by `Simulation.tenant`.

    Its methods are those of a `Simulation`, for the objects of this tenant.

    Args:
        name: The tenant's name.
        contents: The stored data of the simulation.
        make: Makes a call, with a fault, as a step.
    """

    def __init__(
        self, name: str, contents: Contents, make: Callable[[Call, str | None], None]
    ) -> None:
        self.name = name
        """The tenant's name."""
        self._contents = contents
        self._make = make

    def call(
        self,
        object_type: type[DurableObject],
        object_id: str,
        handler: str,
        /,
        *args: Any,
        fault: str | None = None,
        **kwargs: Any,
    ) -> Call:
        """See `Simulation.call`."""
        call = Call(object_type, object_id, handler, *args, **kwargs).of_tenant(self.name)
        self._make(call, fault)
        return call

    def stored(self, object_type: type[T], /) -> dict[str, T]:
        """All stored objects of a class in this tenant, by id, as detached instances."""
        return self._contents.all_of(object_type, self.name)

    def alarms(self, object_type: type[DurableObject], object_id: str, /) -> list[Alarm]:
        """The alarms of an object, by ``due_at``, without dead letters."""
        return self._contents.alarms(object_type, object_id, self.name)

    @property
    def messages(self) -> list[WaitingMessage]:
        """The messages that wait for objects of this tenant, by receiver."""
        return self._contents.messages(self.name)

    @property
    def dead_messages(self) -> list[DeadMessage]:
        """The dead letters among the messages to objects of this tenant, oldest first."""
        return self._contents.dead_messages(self.name)
