"""One turn of a detached instance, without a runtime.

Everything that a turn is held to in a runtime holds here as well: what goes in and comes out is
passed by value, the state must be storable, a read-only handler changes nothing. What the turn
would have committed is recorded instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import attrs

from .._activations.by_value import copied, is_atom
from .._alarms.alarm import Alarm, alarm_of
from .._alarms.delivery import Delivery
from .._alarms.input import due_time, encoded_payload
from .._api.context import Context
from .._api.durable_object import DurableObject, definition_of, resolved_fields
from .._api.objects import Objects
from .._clock import LoopClock, SystemClock
from .._declarations.records import HandlerDefinition
from .._durations import UNSET, Unset, positive_int
from .._errors import (
    ArgumentError,
    InvalidAlarm,
    InvalidObjectId,
    ReadonlyViolation,
    ReplyError,
    RuntimeClosed,
    UnknownHandler,
)
from .._eventloop.running import running_loop
from .._json.state import StateCodec
from .._keys import ObjectKey, id_problem
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


class _Performance(Generic[T]):
    """The `Host` of an instance for one turn."""

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
        self._codec = codec_of(type(instance))
        self._instance: T = self._codec.decode(self.key, self._codec.encode(self.key, instance))
        self._before = self._codec.encode(self.key, self._instance)
        self._ctx = Context(self)
        self._instance.__dict__["ctx"] = self._ctx
        self._loop = loop = running_loop()
        virtual = LoopClock(loop.time_source, loop.now) if loop.is_virtual else None
        self._clock = virtual or SystemClock()
        self.now = self._clock.now()
        """When the turn begins."""
        self._handler: HandlerDefinition | None = None
        self._staged = AlarmChanges()
        self._deleted = False
        self._commits = 0

    # --- what the context asks: see Host ---------------------------------------------------------

    @property
    def runtime(self) -> Objects:
        """There is none."""
        raise RuntimeClosed(
            f"{self.key} is performed without a runtime, so there is no ctx.runtime; test what "
            "calls other objects with a runtime on ':memory:'"
        )

    @property
    def in_turn(self) -> bool:
        """Whether the turn runs."""
        return self._handler is not None

    def wall_time(self) -> int:
        """See `Host.wall_time`."""
        is_async = self._handler is not None and self._handler.is_async
        return self._clock.now() if is_async else self.now

    async def commit_now(self) -> None:
        """Count it, and check what a commit would."""
        handler = self._handler
        assert handler is not None
        self._check(handler)
        self._commits += 1
        effects = self._ctx._effects
        if effects is not None and effects.delete:
            effects.delete = False
            self._deleted = True
        self._take_alarms()
        await self._loop.checkpoint()

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
        if delivery is not None:
            self._ctx._begin_delivery(delivery)
        self._handler = handler
        try:
            function: Callable[..., Any] = handler.function
            result = function(self._instance, *args, **kwargs)
            if handler.is_async:
                result = await result
        except Exception as error:
            error.add_note(f"in {handler.name} on {self.key}; its turn was rolled back")
            raise
        finally:
            self._handler = None
            self._instance.__dict__.pop("ctx", None)
        return self._record(handler, result, delivery)

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

    def _record(
        self, handler: HandlerDefinition, result: object, delivery: Delivery | None
    ) -> Performed[T]:
        if delivery is not None and not is_atom(result) and not isinstance(result, Coroutine):
            result = None  # nobody waits for it
        try:
            result = copied(result)
        except TypeError as error:
            if inspect.iscoroutine(result):
                result.close()
            raise ReplyError(self.key, handler.name, str(error)) from error
        after = self._check(handler)
        effects = self._ctx._effects
        self._deleted = self._deleted or (effects is not None and effects.delete)
        self._ctx._delivery = None
        self._take_alarms()
        if self._deleted:
            after = self._codec.encode(self.key, self.definition.default_state())
        changed = self._staged.changed
        return Performed(
            result=result,
            state=self._codec.decode(self.key, after),
            alarms=MappingProxyType(
                {
                    name: self._alarm(name, new.due_at, new.payload)
                    for name, new in changed.items()
                    if new is not None
                }
            ),
            cancelled=frozenset(name for name, new in changed.items() if new is None),
            cancelled_all=self._staged.clear,
            deleted=self._deleted,
            commits=self._commits,
            began_at=self._alarm("", self.now, None).due_at,
        )

    def _check(self, handler: HandlerDefinition) -> bytes:
        """The state, encoded; what is not to be committed is refused."""
        state = self._codec.encode(self.key, self._instance)
        if handler.readonly:
            if state != self._before:
                raise ReadonlyViolation(self.key, handler.name, "changed the object's state")
            if self._ctx._effects is not None:
                problem = "staged effects through self.ctx"
                raise ReadonlyViolation(self.key, handler.name, problem)
        self._codec.check_size(self.key, state)
        return state

    def _take_alarms(self) -> None:
        staged = self._ctx._take_alarms()
        if staged is not None:
            self._staged.merge(staged)

    def _alarm(self, name: str, due_at: int, payload: bytes | None) -> Alarm:
        key = self.key.alarm(name)
        return alarm_of(StoredAlarm(key, due_at, payload, 0, None), 1)


_codecs: WeakKeyDictionary[type[DurableObject], StateCodec] = WeakKeyDictionary()


def codec_of(cls: type[DurableObject]) -> StateCodec:
    """What encodes the state of ``cls``."""
    codec = _codecs.get(cls)
    if codec is None:
        resolved_fields(cls)
        definition = definition_of(cls)
        codec = _codecs[cls] = StateCodec(
            cls, schema=definition.schema, upgrades=definition.upgrades
        )
    return codec
