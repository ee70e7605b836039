"""One turn of a detached instance, without a runtime.

The turn obeys the same rules as in a runtime, since the same `ObjectState` applies them: arguments
and result are passed by value, the state must be storable, a read-only handler changes nothing. A
recorder takes the place of the group commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
import attrs

from .._activations.by_value import arguments_by_value
from .._activations.effects import Effects
from .._activations.envelope import Envelope
from .._activations.object_type import ObjectType
from .._activations.state import ObjectState
from .._activations.turns import HandlerTurn, run_queued_turn
from .._activations.wait_graph import DEF_TURN, Turn
from .._alarms.alarm import Alarm, alarm_of
from .._alarms.delivery import Delivery
from .._alarms.input import due_time, encoded_payload
from .._alarms.recurrence import Recurrence
from .._alarms.staged import with_changes
from .._api.durable_object import DurableObject, definition_of, known_definitions
from .._api.registry import object_type_of
from .._clock import instant
from .._cluster.handles import Reference
from .._declarations.records import HandlerDefinition
from .._durations import UNSET, Unset, positive_int
from .._errors import (
    ArgumentError,
    InvalidAlarm,
    InvalidObjectId,
    RuntimeClosed,
    TurnTimeout,
    UnknownHandler,
)
from .._eventloop.current import Dispatcher, missed_var, runtime_var
from .._eventloop.running import running_loop
from .._json.state import StateCodec
from .._keys import ObjectKey, id_problem
from .._messages.request import SendRequest
from .._outbox.composing import Composer
from .._outbox.message_codec import MessageCodecs
from .._persistence.ticket import Ticket, TicketOwner
from ..storage import STOPPED, AlarmChanges, MessageChanges, MessageKey, NewMessage, StoredAlarm

T = TypeVar("T", bound=DurableObject)


@attrs.frozen
class Sent:
    """A message that a turn sent."""

    type_name: str
    """The stored name of the receiver's type."""
    object_id: str
    handler: str
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    wake_at: datetime | None = None
    """When it may be delivered; None for at once."""
    key: str | None = None
    """The key that it was sent with."""


@attrs.frozen
class Performed(Generic[T]):
    """The outcome of a turn."""

    result: object
    """The result that a caller would get. A result of an alarm's handler is dropped unless it is a
    plain scalar."""
    state: T
    """A detached instance with the state after the turn; the defaults if it deleted the object."""
    alarms: Mapping[str, Alarm]
    """The alarms that the turn set, by name."""
    cancelled: frozenset[str]
    """The names of the alarms that the turn cancelled by name."""
    cancelled_all: bool
    """True if the turn cancelled all alarms that were set before, as a deletion does."""
    sent: tuple[Sent, ...]
    """The messages that the turn sent, in order."""
    deleted: bool
    """True if the turn deleted the object."""
    commits: int
    """The number of times that the turn awaited ``ctx.commit()``."""
    began_at: datetime
    """The start of the turn, by the clock that sets its alarms. This clock stands still during a
    ``def`` turn, so an alarm set with ``after=60`` is due exactly 60 seconds later."""


async def perform_handler(
    instance: T, name: str, /, *args: object, object_id: str | Unset = UNSET, **kwargs: object
) -> Performed[T]:
    """Run a handler on a copy of ``instance``, as one turn, without a runtime.

    ``instance`` itself doesn't change. The state after the turn is in the returned record.

    Args:
        instance: A detached instance, such as ``Counter(count=3)``.
        name: The handler's name.
        *args: The handler's positional arguments.
        object_id: The value of ``ctx.object_id``, "test" by default. If the handler has a parameter
            of that name, pass that by position.
        **kwargs: The handler's keyword arguments.

    Raises:
        UnknownHandler: The class has no such handler.
        ArgumentError: The arguments don't fit the handler, or can't be passed by value.
        ReadonlyViolation: A read-only handler changed the state or staged an effect.
        ReplyError: The result can't be passed by value.
        StateEncodeError: The state can't be stored, before or after the turn.
        RuntimeClosed: The handler used ``ctx.runtime``, and there is no runtime. It is raised here
            as well, so that a handler's own ``except`` can't hide it from the test.
        NoRuntime: Likewise, if the handler called an object by its class, as ``Counter.add("a")``.
        Exception: The error that the handler raised.
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
            "the same name: pass that by position"
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
    """Run an alarm's handler on a copy of ``instance``, as one turn, without a runtime.

    The handler is the ``@alarm`` method of that name, else ``handle_alarm``. See `perform_handler`.

    Args:
        instance: A detached instance.
        name: The alarm's name.
        payload: The alarm's payload.
        due_at: The alarm's due time; now by default.
        attempt: The number of the delivery, from 1.
        object_id: The value of ``ctx.object_id``.

    Raises:
        InvalidAlarm: The class has no handler for the alarm, or the alarm itself is invalid.
        Exception: As from `perform_handler`.
    """
    performance = _Performance(instance, object_id)
    definition, key = performance.definition, performance.key
    positive_int(attempt, "attempt")
    due = due_time(key, name, 0 if due_at is None else None, due_at, performance.now)
    encoded = encoded_payload(key, name, payload)
    handler = performance.alarm_handler(name)
    if handler is None:
        known = ", ".join(definition.alarms) or "none"
        raise InvalidAlarm(
            key, name, f"it has no handler (@alarm methods: {known}; no handle_alarm)"
        )
    alarm_key = key.alarm(str.__str__(name))
    delivery = Delivery(alarm_key, claim=1)
    recurrence = performance.recurrences.get(alarm_key.name)
    mark = None if recurrence is None else recurrence.fingerprint
    stored = StoredAlarm(alarm_key, due, encoded, attempt - 1, None, recurrence=mark)
    delivery.alarm = alarm_of(stored, attempt)
    delivery.begin(stored, recurrence, performance.now)
    args = (delivery.alarm,) if handler is definition.handle_alarm else ()
    return await performance.run(handler, args, {}, delivery)


class _Recorder:
    """Records commits in place of the group commit. Each is durable at once."""

    def __init__(self) -> None:
        self.alarms = AlarmChanges()
        self.messages = MessageChanges()
        self.deleted = False

    def submit(
        self,
        owner: TicketOwner,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None = None,
        encoded: object = None,
        messages: MessageChanges | None = None,
    ) -> Ticket:
        """See `Commits.submit`."""
        self.deleted = self.deleted or delete
        if messages is not None:
            self.messages.merge(messages)
        if alarms is not None:
            self.alarms.merge(alarms)
        ticket = Ticket(owner, owner.revision, state, delete, alarms, owner.epoch, encoded)
        if state is not None or delete:
            owner.revision = ticket.next_revision
        owner.committed(ticket)
        return ticket


class _Performance(Generic[T]):
    """One turn of an object: the `StateHost` of its state and the `ContextHost` of its context."""

    turn_event = None

    def __init__(self, instance: T, object_id: str) -> None:
        if not isinstance(instance, DurableObject):
            raise TypeError(
                "instance must be a detached instance of a durable object class, such as "
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
        state.encoded = object_type.codec.encode_fields(self.key, instance)
        state.instantiate(first=True)
        self._loop = loop = running_loop()
        self._clock = loop.wall_clock()
        self.now = self._clock.now()
        """The start of the turn, in microseconds since 1970 UTC."""
        self._commits = 0
        self._requests: dict[int, SendRequest] = {}
        """The sent messages, by their tokens."""
        self._missed: list[Exception] = []
        """The errors of a handler that needed a runtime."""

    # --- the object of the context: see `ContextHost` and `StateHost` -------------------------

    @property
    def runtime(self) -> Dispatcher:
        """Raises `RuntimeClosed`: there is no runtime."""
        error = RuntimeClosed(
            f"{self.key} is performed without a runtime, so it has no ctx.runtime; test calls "
            "between objects with a runtime on ':memory:'"
        )
        self._missed.append(error)
        raise error

    @property
    def in_turn(self) -> bool:
        """See `ContextHost.in_turn`."""
        return self._state.in_turn

    @property
    def recurrences(self) -> Mapping[str, Recurrence]:
        """See `ContextHost.recurrences`."""
        return self._state.object_type.recurrences

    async def list_alarms(self) -> list[StoredAlarm]:
        """See `ContextHost.list_alarms`. Before the turn there is the alarm that it handles."""
        await self._loop.checkpoint()
        effects, now = self._state.effects, self.wall_time()
        changes = self._committed_alarms()
        if effects is not None and (staged := effects.alarms_by_its_end(now)) is not None:
            changes.merge(staged)
        return with_changes(self.key, [], {}, changes, now)

    def _committed_alarms(self) -> AlarmChanges:
        changes = AlarmChanges()
        changes.merge(self.commits.alarms)
        return changes

    @property
    def effects(self) -> Effects | None:
        """See `ContextHost.effects`."""
        return self._state.effects

    def stage(self) -> Effects:
        """See `ContextHost.stage`."""
        return self._state.stage()

    def send(self, request: SendRequest) -> NewMessage:
        """See `ContextHost.send`. The message is checked as in a runtime, and recorded."""
        effects = self._state.stage()
        new = _composer.compose(request, "", self.wall_time(), self.key, effects.message)
        effects.send(new)
        self._requests[new.token] = request
        return new

    async def find_sent(self, sender_key: str) -> MessageKey | None:
        """See `ContextHost.find_sent`. Nothing was sent before the turn."""
        await self._loop.checkpoint()
        return None

    def wall_time(self) -> int:
        """See `ContextHost.wall_time`. It stands still during a ``def`` turn."""
        return self.now if self._state.turn is DEF_TURN else self._clock.now()

    async def commit_now(self) -> None:
        """See `ContextHost.commit_now`. The commit is counted, and durable at once."""
        state = self._state
        assert state.turn is not None
        state.commit_turn(state.turn)
        self._commits += 1
        await self._loop.checkpoint()

    def committed(self) -> None:
        """See `StateHost.committed`."""

    def commit_failed(self) -> None:
        """See `StateHost.commit_failed`. Never called: the recorder has no pending commits."""

    def started_over(self) -> None:
        """See `StateHost.started_over`. The record then has the defaults."""

    def was_awaited(self, base_lost: bool) -> None:
        """See `StateHost.was_awaited`. No other call waits."""

    # --- the turn --------------------------------------------------------------------------------

    async def run(
        self,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        delivery: Delivery | None = None,
    ) -> Performed[T]:
        """Run the turn and return its outcome."""
        args, kwargs = self._by_value(handler, args, kwargs)
        waiter = self._loop.waiter()
        token = missed_var.set(self._missed)  # before the envelope, which copies the context
        envelope = Envelope(waiter, handler.name, handler, args, kwargs, delivery=delivery)
        try:
            result = await self._turn(handler, envelope)
        except Exception:
            self._raise_missed()
            raise
        finally:
            missed_var.reset(token)
        self._raise_missed()
        return self._record(result)

    async def _turn(self, handler: HandlerDefinition, envelope: Envelope) -> object:
        state, runtime = self._state, runtime_var.get(None)
        if not handler.is_async:
            return run_queued_turn(state, runtime, handler, envelope)
        turn = Turn(state, handler.name, handler.readonly)
        step = self._loop.interruptible
        result: object = None
        error: BaseException | None = None
        with anyio.move_on_after(handler.limit) as scope:
            running = HandlerTurn(state, runtime, turn, handler, envelope, step)
            if not running.begin():
                await running
            result, error = running.take()
        if scope.cancel_called:  # whatever the handler has returned
            assert handler.limit is not None
            error = TurnTimeout(self.key, handler.name, handler.limit)
        if error is not None:
            try:
                raise error
            finally:
                del error
        return result

    def _raise_missed(self) -> None:
        """Raise the error of a runtime that the handler needed, even if the handler caught it."""
        if self._missed:
            raise self._missed[0] from None

    def _by_value(
        self, handler: HandlerDefinition, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        try:
            handler.signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = f"{error}; it takes {handler.signature}"
            raise ArgumentError(self.key, handler.name, problem) from error
        return arguments_by_value(lambda: self.key, handler.name, args, kwargs)

    def _record(self, result: object) -> Performed[T]:
        self._state.drop_instance()
        alarms, changed = self.commits.alarms, self.commits.alarms.changed
        off = {name for name, new in changed.items() if new and new.recurrence == STOPPED}
        return Performed(
            result=result,
            state=self._state.read(),
            alarms=MappingProxyType(
                {
                    name: self._alarm(name, new.due_at, new.payload, new.recurrence)
                    for name, new in changed.items()
                    if new is not None and name not in off
                }
            ),
            cancelled=frozenset(name for name, new in changed.items() if new is None)
            | (frozenset() if alarms.clear else off),
            cancelled_all=alarms.clear,
            sent=tuple(map(self._sent, self.commits.messages.sent)),
            deleted=self.commits.deleted,
            commits=self._commits,
            began_at=self._alarm("", self.now, None).due_at,
        )

    def _sent(self, new: NewMessage) -> Sent:
        request = self._requests[new.token]
        wake_at = None if new.wake_at is None else instant(new.wake_at)
        return Sent(
            new.to.type_name,
            new.to.object_id,
            new.handler,
            request.args,
            MappingProxyType(request.kwargs),
            wake_at,
            new.sender_key,
        )

    def alarm_handler(self, name: str) -> HandlerDefinition | None:
        """The handler of alarms of that name, if there is one."""
        return self._state.object_type.alarm_handler(name)

    def _alarm(
        self, name: str, due_at: int, payload: bytes | None, recurrence: str | None = None
    ) -> Alarm:
        key = self.key.alarm(name)
        return alarm_of(StoredAlarm(key, due_at, payload, 0, None, recurrence=recurrence), 1)


class _NoHandles:
    """The handles of no runtime."""

    def is_durable(self, tp: object) -> bool:
        """See `Handles.is_durable`."""
        return isinstance(tp, type) and issubclass(tp, DurableObject)

    def reference(self, value: object) -> Reference | None:
        """See `Handles.reference`."""
        return None

    def handle(self, type_name: str, address: str, timeout: float | None) -> object:
        """See `Handles.handle`."""
        raise RuntimeClosed("a handler that is performed without a runtime has no handles")


def _type_of(object_type: type | str) -> ObjectType:
    if isinstance(object_type, str):
        found = known_definitions().get(object_type, ())
        object_type = next(each.cls for each in found if not each.is_abstract)
    return object_type_for(object_type)


_composer = Composer(MessageCodecs(_NoHandles()), _type_of)
_object_types: WeakKeyDictionary[type[DurableObject], ObjectType] = WeakKeyDictionary()


def object_type_for(cls: type[DurableObject]) -> ObjectType:
    """The object type of ``cls``, as in a runtime with default limits."""
    object_type = _object_types.get(cls)
    if object_type is None:
        object_type = _object_types[cls] = object_type_of(definition_of(cls))
    return object_type


def codec_of(cls: type[DurableObject]) -> StateCodec:
    """The codec of the state of ``cls``."""
    return object_type_for(cls).codec
