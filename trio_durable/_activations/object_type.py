"""Object type: what all activations of one type share.

It is made from a class's definition when the runtime first meets the type, and is all that the
engine knows of the class. (Orleans calls it ``GrainTypeSharedContext``.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .._alarms.recurrence import Recurrence, alarm_name
from .._declarations.records import AlarmDefinition, HandlerDefinition, Options
from .._errors import InvalidObjectId, UnknownHandler
from .._json.lookup import Forms
from .._json.state import StateCodec
from .._keys import ObjectKey, address_of, at_address, id_problem
from .effects import ContextHost
from .exchange import Exchange


def _recurrences(of: ObjectType) -> Mapping[str, Recurrence]:
    return {
        name: alarm.recurrence for name, alarm in of.alarms.items() if alarm.recurrence is not None
    }


def _autostarts(of: ObjectType) -> bool:
    return any(recurrence.autostart for recurrence in of.recurrences.values())


@attrs.frozen(eq=False)
class ObjectType:
    """One type of objects in one runtime."""

    name: str
    """The stored type name."""
    cls: type
    codec: StateCodec
    forms: Forms
    """The forms of other values than state, such as arguments."""
    options: Options
    timeout: float | None
    """How long a call waits for its reply unless its handle says otherwise, in seconds."""
    handlers: Mapping[str, HandlerDefinition]
    alarms: Mapping[str, AlarmDefinition]
    """Handlers of alarms, by the alarm's name."""
    handle_alarm: AlarmDefinition | None
    """The handler of all other alarms."""
    after_load: Callable[[Any], Any] | None
    """The hook that runs once per activation, if the class has one."""
    after_load_is_async: bool
    attach_context: Callable[[Any, ContextHost], None]
    """Gives an instance its ``ctx``, which makes it the live one."""
    detach_context: Callable[[Any], None]
    """Takes the ``ctx`` away, so that an instance which a handler kept is a detached one."""
    exchange: Exchange | None = None
    """In a cluster, what makes calls the same here and elsewhere."""
    recurrences: Mapping[str, Recurrence] = attrs.field(
        init=False, default=attrs.Factory(_recurrences, takes_self=True)
    )
    """The schedules of its recurring alarms, by the alarms' names."""
    autostarts: bool = attrs.field(init=False, default=attrs.Factory(_autostarts, takes_self=True))
    """True if a recurring alarm begins by itself."""

    def address(self, object_id: str, tenant: str) -> str:
        """The address of an object: its id, together with its tenant's name if it has one.

        Raises:
            InvalidObjectId: ``object_id`` can't be an id.
        """
        problem = id_problem(object_id)
        if problem is not None:
            shown = repr(object_id)
            raise InvalidObjectId(
                self.name, shown if len(shown) < 80 else shown[:77] + "…", problem
            )
        # Of a str subclass only the text counts; an enum's own str() would say something else.
        return address_of(str.__str__(object_id), tenant)

    def key_of(self, object_id: str, tenant: str) -> ObjectKey:
        """The key of an object.

        Raises:
            InvalidObjectId: ``object_id`` can't be an id.
        """
        return ObjectKey(self.name, self.address(object_id, ""), tenant)

    def key(self, address: str) -> ObjectKey:
        """The key of the object at an address."""
        return at_address(self.name, address)

    def handler(self, name: str) -> HandlerDefinition:
        """The handler of that name.

        Raises:
            UnknownHandler: There is none.
        """
        handler = self.handlers.get(name)
        if handler is None:
            raise UnknownHandler(self.name, name, tuple(self.handlers))
        return handler

    def alarm_handler(self, name: str) -> AlarmDefinition | None:
        """The handler of alarms of that name, if there is one."""
        alarm = self.alarms.get(name)
        if alarm is None:
            alarm = self.alarms.get(alarm_name(name))  # for a firing that has died
        return alarm or self.handle_alarm
