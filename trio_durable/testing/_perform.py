"""One turn of a detached instance, without a runtime.

Everything that a turn is held to in a runtime holds here as well: what goes in and comes out is
passed by value, the state must be storable, a read-only handler changes nothing. What the turn
would have committed is recorded instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import attrs

from .._activations.by_value import copied
from .._activations.effects import Effects
from .._activations.envelope import Envelope
from .._activations.object_type import ObjectType
from .._activations.state import ObjectState
from .._activations.turns import run_async_turn, run_queued_turn
from .._activations.wait_graph import DEF_TURN, Turn
from .._alarms.alarm import Alarm, alarm_of
from .._alarms.delivery import Delivery
from .._alarms.input import due_time, encoded_payload
from .._api.durable_object import DurableObject, definition_of
from .._api.registry import object_type_of
from .._clock import LoopClock, SystemClock
from .._declarations.records import HandlerDefinition
from .._durations import UNSET, Unset, positive_int
from .._errors import (
    ArgumentError,
    InvalidAlarm,
    InvalidObjectId,
    RuntimeClosed,
    UnknownHandler,
)
from .._eventloop.current import Dispatcher, runtime_var
from .._eventloop.running import running_loop
from .._json.state import StateCodec
from .._keys import ObjectKey, id_problem
from .._persistence.ticket import Ticket
from ..storage import AlarmChanges, StoredAlarm

T = TypeVar("T", bound=DurableObject)


@attrs.frozen
class Performed(Generic[T]):
    """What a turn came to."""

    result: object
    """What its caller would get. What an alarm's handler returns is dropped, unless it is a plain
    scalar."""
    state: T
    """A detached instance with the state after the turn; the defaults, if it was deleted."""
    alarms: Mapping[str, Alarm]
    """The alarms that it set, by name."""
    cancelled: frozenset[str]
    """The names of alarms that it cancelled one by one."""
    cancelled_all: bool
    """Whether it cancelled all that were set before; a deletion does."""
    deleted: bool
    """Whether it deleted the object."""
    commits: int
    """How often it awaited ``ctx.commit()``."""
    began_at: datetime
    """When it began, by the clock that its alarms were set by, which stands still during a ``def``
    turn: what is set ``after=60`` then is due 60 seconds after this to the microsecond."""


async def perform_handler(
    instance: T, name: str, /, *args: object, object_id: str | Unset = UNSET, **kwargs: object
) -> Performed[T]:
    """Run a handler on a copy of ``instance``, as one turn, without a runtime.

    ``instance`` itself stays as it is, whatever the handler does; the state after the turn is in
    the record.

    Args:
        instance: A detached instance, such as ``Counter(count=3)``.
        name: The handler's name.
        *args: What it is called with.
        object_id: What ``ctx.object_id`` is; "test" unless given. A handler's own parameter of
            that name is given by position.
        **kwargs: What it is called with.

    Raises:
        UnknownHandler: The class has no such handler.
        ArgumentError: The arguments don't fit it, or can't be passed by value.
        ReadonlyViolation: It is read-only, and changed or staged something.
        ReplyError: Its result can't be passed by value.
        StateEncodeError: The state can't be stored, before or after the turn.
        RuntimeClosed: It used ``ctx.runtime``, which there is none of.
        Exception: What the handler raised.
    """
    performance = _Performance(instance, "test" if isinstance(object_id, Unset) else object_id)
    definition = performance.definition
    handler = definition.handlers.get(name)
    if handler is None:
        raise UnknownHandler(definition.name, name, tuple(definition.handlers))
    parameters = list(handler.signature.parameters)
    if not isinstance(object_id, Unset) and "object_id" in parameters[len(args) :]:
        raise TypeError(
            f"object_id= of perform_handler is the id of the object; {name} takes a parameter of "
            "the same name, which is given by position"
        )
    return await performance.run(handler, args, kwargs)


async def perform_alarm_handler(
    instance: T,
    name: str,
    /,
    *,
    payload: object = None,
    due_at: datetime | None = None,
    attempt: int = 1,
    object_id: str = "test",
) -> Performed[T]:
    """Run what handles an alarm on a copy of ``instance``, as one turn, without a runtime.

    That is the ``@alarm`` method of that name, else ``handle_alarm``. See `perform_handler`.

    Args:
        instance: A detached instance.
        name: The alarm's name.
        payload: What it was set with.
        due_at: When it was set for; now unless given.
        attempt: Which delivery this is.
        object_id: What ``ctx.object_id`` is.

    Raises:
        InvalidAlarm: Nothing handles alarms of that name, or there can't be such an alarm.
        Exception: As from `perform_handler`.
    """
    performance = _Performance(instance, object_id)
    definition, key = performance.definition, performance.key
    positive_int(attempt, "attempt")
    due = due_time(key, name, 0 if due_at is None else None, due_at, performance.now)
    encoded = encoded_payload(key, name, payload)
    handler = definition.alarms.get(name, definition.handle_alarm)
    if handler is None:
        known = ", ".join(definition.alarms) or "none"
        raise InvalidAlarm(
            key, name, f"nothing handles it (@alarm methods: {known}; no handle_alarm)"
        )
    alarm_key = key.alarm(str.__str__(name))
    delivery = Delivery(alarm_key, claim=1)
    delivery.alarm = alarm_of(StoredAlarm(alarm_key, due, encoded, attempt - 1, None), attempt)
    args = () if name in definition.alarms else (delivery.alarm,)
    return await performance.run(handler, args, {}, delivery)


class _Recorder:
    """Stands in for the group commit: records what a turn commits, and calls it durable at once."""

    def __init__(self) -> None:
        self.alarms = AlarmChanges()
        self.deleted = False

    def submit(
        self,
        owner: ObjectState,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None = None,
    ) -> Ticket:
        """See `Commits.submit`."""
        self.deleted = self.deleted or delete
        if alarms is not None:
            self.alarms.merge(alarms)
        return Ticket(owner, owner.revision, state, delete, alarms, owner.epoch)


class _Performance(Generic[T]):
    """One turn of an object: the `StateHost` of its state."""

    turn_event = None

    def __init__(self, instance: T, object_id: str) -> None:
        if not isinstance(instance, DurableObject):
            raise TypeError(
                "a detached instance of a durable object class is performed on, such as "
                f"Counter(count=3), not {instance!r:.80}"
            )
        self.definition = definition_of(type(instance))
        problem = id_problem(object_id)
        if problem is not None:
            raise InvalidObjectId(self.definition.name, f"{object_id!r:.80}", problem)
        self.key = ObjectKey(self.definition.name, str.__str__(object_id))
        object_type = object_type_for(type(instance))
        self.commits = _Recorder()
        self._state = state = ObjectState(self.key, object_type, self)
        state.revision = 1
        state.encoded = object_type.codec.encode(self.key, instance)
        state.instantiate(first=True)
        self._loop = loop = running_loop()
        virtual = LoopClock(loop.time_source, loop.now) if loop.is_virtual else None
        self._clock = virtual or SystemClock()
        self.now = self._clock.now()
        """When the turn begins."""
        self._commits = 0

    # --- the object behind the context: see `ContextHost` and `StateHost` -------------------------

    @property
    def runtime(self) -> Dispatcher:
        """There is none."""
        raise RuntimeClosed(
            f"{self.key} is performed without a runtime, so there is no ctx.runtime; test what "
            "calls other objects with a runtime on ':memory:'"
        )

    @property
    def in_turn(self) -> bool:
        """See `ContextHost.in_turn`."""
        return self._state.in_turn

    @property
    def effects(self) -> Effects | None:
        """See `ContextHost.effects`."""
        return self._state.effects

    def stage(self) -> Effects:
        """See `ContextHost.stage`."""
        return self._state.stage()

    def wall_time(self) -> int:
        """See `ContextHost.wall_time`. A ``def`` turn takes no time."""
        return self.now if self._state.turn is DEF_TURN else self._clock.now()

    async def commit_now(self) -> None:
        """Commit the turn so far, count it, and let it be durable at once."""
        state = self._state
        assert state.turn is not None
        state.commit_turn(state.turn)
        if state.gate is not None:
            state.revision, state.gate = state.gate.next_revision, None
        self._commits += 1
        await self._loop.checkpoint()

    def committed(self) -> None:
        """See `TicketOwner.committed`: not for this one, whose commits end at once."""

    def commit_failed(self) -> None:
        """See `TicketOwner.commit_failed`: not for this one, whose commits end at once."""

    def started_over(self) -> None:
        """See `StateHost.started_over`: the record shows the defaults."""

    # --- the turn --------------------------------------------------------------------------------

    async def run(
        self,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        delivery: Delivery | None = None,
    ) -> Performed[T]:
        """Run the turn and record what it came to."""
        args, kwargs = self._by_value(handler, args, kwargs)
        state, waiter = self._state, self._loop.waiter()
        envelope = Envelope(waiter, handler.name, handler, args, kwargs, delivery=delivery)
        runtime = runtime_var.get(None)
        if handler.is_async:
            turn = Turn(state, handler.name, handler.readonly)
            result, error = await run_async_turn(state, runtime, turn, handler, envelope)
            if error is not None:
                raise error
        else:
            result = run_queued_turn(state, runtime, handler, envelope)
        return self._record(result)

    def _by_value(
        self, handler: HandlerDefinition, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        try:
            handler.signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = f"{error}; it takes {handler.signature}"
            raise ArgumentError(self.key, handler.name, problem) from error
        try:
            return tuple(map(copied, args)), {name: copied(value) for name, value in kwargs.items()}
        except TypeError as error:
            raise ArgumentError(
                self.key, handler.name, f"an argument can't be passed by value: {error}"
            ) from error

    def _record(self, result: object) -> Performed[T]:
        self._state.drop_instance()
        alarms, changed = self.commits.alarms, self.commits.alarms.changed
        return Performed(
            result=result,
            state=self._state.read(),
            alarms=MappingProxyType(
                {
                    name: self._alarm(name, new.due_at, new.payload)
                    for name, new in changed.items()
                    if new is not None
                }
            ),
            cancelled=frozenset(name for name, new in changed.items() if new is None),
            cancelled_all=alarms.clear,
            deleted=self.commits.deleted,
            commits=self._commits,
            began_at=self._alarm("", self.now, None).due_at,
        )

    def _alarm(self, name: str, due_at: int, payload: bytes | None) -> Alarm:
        key = self.key.alarm(name)
        return alarm_of(StoredAlarm(key, due_at, payload, 0, None), 1)


_object_types: WeakKeyDictionary[type[DurableObject], ObjectType] = WeakKeyDictionary()


def object_type_for(cls: type[DurableObject]) -> ObjectType:
    """The object type of ``cls``, as a runtime with default limits has it."""
    object_type = _object_types.get(cls)
    if object_type is None:
        object_type = _object_types[cls] = object_type_of(definition_of(cls))
    return object_type


def codec_of(cls: type[DurableObject]) -> StateCodec:
    """The codec of the state of ``cls``."""
    return object_type_for(cls).codec
