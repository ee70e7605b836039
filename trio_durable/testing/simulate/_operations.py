"""What was done to objects in one step, and what came of it as far as anybody was told."""

from __future__ import annotations

import math
from typing import Any

import attrs

from ..._activations.by_value import copied
from ..._activations.calls import LocalCalls
from ..._alarms.alarm import Alarm, alarm_of
from ..._api.durable_object import ObjectDefinition
from ..._declarations.records import HandlerDefinition
from ..._errors import DurableError
from ..._keys import AlarmKey, ObjectKey
from ...storage import StoredAlarm
from ._faults import Life


@attrs.define(eq=False)
class Operation:
    """A call, or the delivery of an alarm."""

    key: ObjectKey
    name: str
    """The handler's."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)
    claim: int | None = None
    """Under which an alarm is delivered; None for a call."""
    began: int = 0
    """What was begun and ended in one step is counted; what ended before something else began
    was done before it."""
    ended: float = math.inf
    is_known: bool = False
    """Whether it is known to have been done, and what came of it. Otherwise it was done wholly,
    or up to one of its commits, or not at all."""
    result: object = None
    error: Exception | None = None

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        what = f"{self.name}({', '.join(arguments)})"
        if not self.is_known:
            return f"{what}, of which nobody knows if it was done"
        if self.error is not None:
            return f"{what}, which raised {self.error!r}"
        return what if self.claim is not None else f"{what}, which returned {self.result!r}"


class Record:
    """The operations of one step on objects of some types.

    Args:
        definitions: The types, by their stored names.
    """

    def __init__(self, definitions: dict[str, ObjectDefinition]) -> None:
        self._definitions = definitions
        self._operations: list[Operation] = []
        self._written: dict[ObjectKey, list[int]] = {}
        self._count = 0

    def begin(self, operation: Operation) -> None:
        """Note that ``operation`` has begun."""
        self._count += 1
        operation.began = self._count
        self._operations.append(operation)

    def end(self, operation: Operation) -> None:
        """Note that it has ended, and that what came of it is known."""
        self._count += 1
        operation.ended = self._count
        operation.is_known = True

    def cut(self) -> None:
        """Note that whatever is under way goes on no more."""
        self._count += 1
        for operation in self._operations:
            operation.ended = min(operation.ended, self._count)

    def take(self) -> dict[ObjectKey, list[Operation]]:
        """All that was noted, by object; to begin anew."""
        taken: dict[ObjectKey, list[Operation]] = {}
        for operation in self._operations:
            operations = taken.setdefault(operation.key, [])
            # What nobody knows of has done nothing if nothing was written.
            if operation.is_known or any(
                operation.began < count < operation.ended
                for count in self._written.get(operation.key, ())
            ):
                operations.append(operation)
        self._operations = []
        self._written = {}
        return taken

    # --- as the disk sees it ---------------------------------------------------------------------

    def written(self, key: ObjectKey) -> None:
        """Note that a new state of an object is written, or its deletion."""
        self._count += 1
        self._written.setdefault(key, []).append(self._count)

    def claimed(self, stored: StoredAlarm, claim: int) -> None:
        """Note that an alarm is going to be delivered."""
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
        """Note that the commit in which an alarm was handled is written."""
        for operation in self._operations:
            if operation.claim == claim and operation.key == key.object_key:
                named = operation.args[0].name if operation.args else operation.name
                if named == key.name:
                    self.end(operation)


class ObservedCalls(LocalCalls):
    """Calls that are noted in a record, wherever they come from."""

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
        args, kwargs = self._by_value(address, handler, args, kwargs)
        operation = Operation(self.object_type.key(address), handler.name, args, kwargs)
        self.record.begin(operation)
        try:
            result = await super()._call(address, handler, args, kwargs, timeout)
        except Exception as error:
            # Of what the library refuses or fails with, some is done and some is not.
            if not self.life.is_over and not isinstance(error, DurableError):
                operation.error = error
                self.record.end(operation)
            raise
        if not self.life.is_over:
            operation.result = copied(result)
            self.record.end(operation)
        return result
