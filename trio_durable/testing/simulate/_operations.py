"""Operations on objects in one step, with the outcomes that callers know."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import attrs

from ..._activations.by_value import copied
from ..._activations.calls import LocalCalls
from ..._activations.wait_graph import current_turn
from ..._alarms.alarm import Alarm, alarm_of
from ..._api.durable_object import ObjectDefinition
from ..._declarations.records import HandlerDefinition
from ..._errors import DurableError
from ..._keys import AlarmKey, ObjectKey
from ...storage import StoredAlarm
from ._faults import Life
from ._report import SimulationReport


@attrs.define(eq=False)
class Operation:
    """A call, or the delivery of an alarm.

    ``began`` and ``ended`` are positions in the sequence of all events of a step. An operation that
    ended before another one began has run before it; otherwise they are concurrent.
    """

    key: ObjectKey
    name: str
    """The handler's name."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)
    claim: int | None = None
    """The claim under which an alarm is delivered; None for a call."""
    began: int = 0
    ended: float = math.inf
    is_known: bool = False
    """True if the operation has run and its outcome is known. If False, it has run, or has run up
    to one of its commits, or hasn't run at all."""
    result: object = None
    error: Exception | None = None

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        call = f"{self.name}({', '.join(arguments)})"
        if not self.is_known:
            return f"{call}, whose outcome is unknown"
        if self.error is not None:
            return f"{call}, which raised {self.error!r}"
        return call if self.claim is not None else f"{call}, which returned {self.result!r}"


class Record:
    """The operations of one step on objects of some types.

    Args:
        definitions: The types, by their stored names.
        report: The report in which alarms and messages are counted.
    """

    def __init__(self, definitions: dict[str, ObjectDefinition], report: SimulationReport) -> None:
        self._definitions = definitions
        self._report = report
        self._operations: list[Operation] = []
        self._written: dict[ObjectKey, list[int]] = {}
        self._count = 0
        self.dropped_tenants: set[str] = set()
        """The tenants that were dropped in the step."""
        self._crossings: dict[str, str] = {}  # what has called what, by "Class.handler"

    def begin(self, operation: Operation) -> None:
        """Record that ``operation`` has begun."""
        self._count += 1
        operation.began = self._count
        self._operations.append(operation)

    def end(self, operation: Operation) -> None:
        """Record that ``operation`` has ended with a known outcome."""
        self._count += 1
        operation.ended = self._count
        operation.is_known = True

    def end_all(self) -> None:
        """Record that all operations that still run end here, with the step or the process."""
        self._count += 1
        for operation in self._operations:
            operation.ended = min(operation.ended, self._count)

    def take(self) -> dict[ObjectKey, list[Operation]]:
        """Return the operations recorded so far, by object, and clear the record."""
        taken: dict[ObjectKey, list[Operation]] = {}
        for operation in self._operations:
            operations = taken.setdefault(operation.key, [])
            # An operation of unknown outcome during which nothing was written has changed nothing.
            if operation.is_known or any(
                operation.began < count < operation.ended
                for count in self._written.get(operation.key, ())
            ):
                operations.append(operation)
        self._operations = []
        self._written = {}
        self.dropped_tenants = set()
        self._crossings = {}
        return taken

    # --- the `Journal` of the disk ----------------------------------------------------------------

    def written(self, key: ObjectKey) -> None:
        """Record that an object's new state, or its deletion, is written."""
        self._count += 1
        self._written.setdefault(key, []).append(self._count)

    def claimed(self, stored: StoredAlarm, claim: int) -> None:
        """Record that the delivery of an alarm begins."""
        key = stored.key
        definition = self._definitions.get(key.type_name)
        if definition is None:
            return
        if key.name in definition.alarms:
            self.begin(Operation(key.object_key, key.name, claim=claim))
        elif definition.handle_alarm is not None:
            alarm: Alarm = alarm_of(stored, stored.failures + 1)
            self.begin(Operation(key.object_key, "handle_alarm", (alarm,), claim=claim))

    def acknowledged(self, key: AlarmKey, claim: int) -> None:
        """Record that the commit that acknowledges an alarm is written."""
        self._report.alarms_fired += 1
        for operation in self._operations:
            if operation.claim == claim and operation.key == key.object_key:
                named = operation.args[0].name if operation.args else operation.name
                if named == key.name:
                    self.end(operation)

    def delivered(self, messages: int) -> None:
        """Record that a commit that has handled so many messages is written."""
        self._report.messages_delivered += messages

    def dropped(self, tenant: str) -> None:
        """Record that a tenant is removed, and with it all that operations have done there."""
        self._report.tenants_dropped += 1
        self.dropped_tenants.add(tenant)
        self._operations = [each for each in self._operations if each.key.tenant != tenant]

    # --- tenants ---------------------------------------------------------------------------------

    def called_by(self, caller: ObjectKey | None, key: ObjectKey, handler: str) -> None:
        """Record that ``caller`` calls an object, if they belong to different tenants."""
        if caller is not None and caller.tenant and key.tenant and caller.tenant != key.tenant:
            name = f"{self._definitions[key.type_name].cls.__name__}.{handler}"
            self._crossings.setdefault(name, f"{caller} has called {handler} of {key}")

    def check_crossings(self, allowed: Collection[str]) -> None:
        """Check that no object of a tenant has called one of another tenant in the step.

        Raises:
            AssertionError: One has, and its handler isn't ``allowed``.
        """
        for name, crossing in self._crossings.items():
            if name not in allowed:
                raise AssertionError(
                    f"{crossing}; if tenants may do this, add {name!r} to crossings"
                )


class ObservedCalls(LocalCalls):
    """Calls that are recorded, from outside and from other objects."""

    life: Life
    record: Record

    async def _call(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        """See `CallPath.call`."""
        args, kwargs = self.by_value(address, handler, args, kwargs)
        operation = Operation(self.object_type.key(address), handler.name, args, kwargs)
        turn = current_turn.get()
        self.record.called_by(None if turn is None else turn.key, operation.key, handler.name)
        self.record.begin(operation)
        try:
            result = await super()._call(address, handler, args, kwargs, timeout)
        except Exception as error:
            # After an error of the library, the call may have run or not.
            if self.life.is_heard and not isinstance(error, DurableError):
                operation.error = error
                self.record.end(operation)
            raise
        if self.life.is_heard:
            operation.result = copied(result)
            self.record.end(operation)
        return result
