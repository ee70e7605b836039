"""``self.ctx``: the face of the engine that a handler sees."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast, overload

from .._activations.effects import ContextHost
from .._alarms.alarm import Alarm, alarm_of
from .._alarms.input import check_name, new_alarm
from .._alarms.recurrence import with_marks
from .._clock import instant
from .._durations import Duration
from .._errors import NotInTurn
from .._keys import ObjectKey
from .._messages.message import Message, SendFailed
from .._messages.once import derived_key
from .._messages.request import SendOptions
from ..storage import AlarmChanges
from .outgoing import Outgoing, Withdrawal, answer_name, send, wake_time

if TYPE_CHECKING:
    from .durable_object import DurableObject
    from .objects import Objects


P = ParamSpec("P")
R = TypeVar("R")


class Context:
    """The ``ctx`` of a live instance: identity, runtime, alarms, commit and deletion."""

    __slots__ = ("_host",)

    def __init__(self, host: ContextHost) -> None:
        self._host = host

    @property
    def key(self) -> ObjectKey:
        """The object's identity."""
        return self._host.key

    @property
    def object_id(self) -> str:
        """The object's id."""
        return self._host.key.object_id

    @property
    def runtime(self) -> Objects:
        """The runtime that the object lives in, for calls of other objects.

        For an object of a tenant it is that `Tenant`, so these calls reach objects of the same
        tenant; its ``root`` is the runtime.
        """
        return cast("Objects", self._host.runtime)

    @property
    def alarm(self) -> Alarm | None:
        """The alarm that this turn handles; None in any other turn, and outside of turns."""
        effects = self._host.effects if self._host.in_turn else None
        delivery = None if effects is None else effects.delivery
        return None if delivery is None else delivery.alarm

    @property
    def message(self) -> Message | None:
        """The message that this turn handles; None in any other turn, and outside of turns."""
        effects = self._host.effects if self._host.in_turn else None
        delivery = None if effects is None else effects.message
        return None if delivery is None else delivery.message

    def once_key(self, name: str) -> str:
        """A once-key for a call that this turn makes: the same at each attempt of the turn.

        It is derived from the turn's own once-key or message, so a call with it happens once even
        if the turn is repeated: ``runtime.get(Card, "c", once=self.ctx.once_key("charge"))``.

        Args:
            name: The name that tells the calls of this turn apart.

        Raises:
            NotInTurn: The caller isn't in a turn that has a once-key or handles a message.
        """
        effects = self._host.effects if self._host.in_turn else None
        origin = None if effects is None else effects.origin
        if origin is None:
            raise NotInTurn(
                f"self.ctx.once_key() on {self._host.key} outside of a turn with a once-key or a "
                "message"
            )
        return derived_key(self._host.key, origin, name)

    def now(self) -> datetime:
        """The runtime's time, in UTC: that of alarms, and virtual where theirs is."""
        return instant(self._host.wall_time())

    def send(
        self,
        handler: Callable[Concatenate[str, P], Coroutine[Any, Any, object]],
        object_id: str,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str:
        """Send a message to another object in this turn's commit: a call that happens later, once.

        If the turn fails, nothing is sent. Once it has committed, the receiver's handler runs in a
        turn of its own, whose commit removes the message; so its effect happens exactly once. The
        messages of one object to another are handled in the order in which they were sent. One that
        fails is tried again by the handler's ``retry``, and becomes a dead letter when that is used
        up.

        Args:
            handler: The receiver's handler, by its class: ``Cart.add``.
            object_id: The receiver's id.
            args: The handler's arguments; 64 KiB of JSON at most.
            kwargs: The same, by name.

        Returns:
            The message's id.

        Raises:
            InvalidMessage: It can't be sent. `TooManyMessages`, if the turn has sent 1,000.
            InvalidObjectId: The id is invalid.
            UnknownObjectType: The runtime doesn't serve the class.
            NotInTurn: The caller is not in a turn of the object.
        """
        return send(self._host, handler, object_id, args, kwargs)

    @overload
    def outgoing(
        self,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        key: str | None = None,
        reply: Callable[[str, R], Coroutine[Any, Any, object]],
        failed: Callable[[str, SendFailed], Coroutine[Any, Any, object]] | None = None,
    ) -> Outgoing[R]: ...
    @overload
    def outgoing(
        self,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        key: str | None = None,
        failed: Callable[[str, SendFailed], Coroutine[Any, Any, object]] | None = None,
    ) -> Outgoing[object]: ...
    def outgoing(
        self,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        key: str | None = None,
        reply: Callable[[str, Any], Coroutine[Any, Any, object]] | None = None,
        failed: Callable[[str, SendFailed], Coroutine[Any, Any, object]] | None = None,
    ) -> Outgoing[Any]:
        """A message with options, to be sent by ``send`` of the result.

        For example ``self.ctx.outgoing(reply=Order.reserved).send(Stock.reserve, "tea", 1)``.

        Args:
            after: The time from now until it may be delivered. Delayed messages are in no order.
            at: The instant from which it may be delivered, instead of ``after``.
            key: The message replaces what this object has waiting under the same key, and
                `cancel_message` takes it back.
            reply: The handler of this object that gets the result, as a message. It is sent in the
                commit of the turn that handles the message.
            failed: The handler of this object that gets a `SendFailed` if the message becomes a
                dead letter.

        Raises:
            InvalidMessage: An option is invalid.
        """
        own = self._host.key
        wake_at = wake_time(own, "outgoing", after, at, self._host.wall_time())
        reply_to, failed_to = answer_name(own, reply), answer_name(own, failed)
        return Outgoing(self._host, SendOptions(wake_at, key, reply_to, failed_to))

    def cancel_message(self, key: str) -> Withdrawal:
        """Take back, in this turn's commit, what this object has waiting under a key.

        An ``async def`` handler may ask whether there is any, by ``taken_back()`` of the result.

        Raises:
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.cancel_message()")
        return Withdrawal(self._host, key, self._host.stage().cancel_message(key))

    def schedule_alarm(
        self,
        name: str,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        payload: object = None,
        keep: bool = False,
    ) -> None:
        """Set an alarm in this turn's commit; it replaces an alarm of the same name.

        Its handler is the ``@alarm`` method of that name, else ``handle_alarm``. Without a time, a
        recurring alarm is turned on: it is set for the next time of its schedule, unless it is on.
        With a time, its next firing is moved there, and the one after it is the schedule's.

        Args:
            name: Any str of 1 to 512 bytes without NUL.
            after: The time from now until it is due.
            at: The instant at which it is due, instead of ``after``; a past one is due at once.
            payload: Plain JSON, or an instance of an attrs class, a dataclass or another type that
                state may have; see `Alarm.payload_as`. Of a recurring alarm, only a firing that is
                moved has one.
            keep: Set it only if there is no alarm or dead letter of the name.

        Raises:
            InvalidAlarm: An argument is invalid. Nothing is staged.
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.schedule_alarm()")
        key = self._host.key
        check_name(key, name)
        name = str.__str__(name)
        new = new_alarm(
            *(key, name, self._host.recurrences.get(name), self._host.wall_time()),
            after=after,
            at=at,
            payload=payload,
            keep=keep,
        )
        self._host.stage().set_alarm(name, new)

    def cancel_alarm(self, name: str) -> None:
        """Cancel an alarm in this turn's commit. Without such an alarm, nothing happens.

        A recurring alarm is turned off until `schedule_alarm` turns it on, also if it is declared
        with ``autostart``.

        Raises:
            InvalidAlarm: ``name`` can't be the name of an alarm.
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.cancel_alarm()")
        check_name(self._host.key, name)
        self._change_alarms(AlarmChanges(changed={str.__str__(name): None}))

    def cancel_all_alarms(self) -> None:
        """Cancel all alarms of the object in this turn's commit; recurring ones are turned off.

        Raises:
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.cancel_all_alarms()")
        self._change_alarms(AlarmChanges(clear=True))

    def _change_alarms(self, changes: AlarmChanges) -> None:
        host = self._host
        host.stage().change_alarms(with_marks(host.recurrences, changes, host.wall_time()))

    async def list_alarms(self) -> list[Alarm]:
        """The alarms of the object by ``due_at``, without dead letters.

        They are those that there will be if the turn commits what it has staged so far. In a
        ``def`` handler it can't be awaited.

        Raises:
            InvalidAlarm: A stored alarm can't be decoded.
            StorageUnavailable: The storage can't be read.
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.list_alarms()")
        return [alarm_of(each, each.failures + 1) for each in await self._host.list_alarms()]

    async def commit(self) -> None:
        """Commit the changes of this turn so far, wait until they are durable, and continue.

        Meant for the moment before an external effect: committed changes are not rolled back if
        the rest of the turn fails. An alarm that the turn handles is acknowledged only at the
        turn's end, so it is delivered again if the rest fails; unless the turn has set or cancelled
        that alarm itself by then.

        Raises:
            PersistenceError: The commit failed. The turn fails, too, whatever it does next.
            StateEncodeError: The state can't be stored.
            ReadonlyViolation: The handler is read-only and has changed or staged something.
            AlarmSuperseded: The alarm that the turn handles was set or cancelled from outside.
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.commit()")
        await self._host.commit_now()

    def delete(self) -> None:
        """Delete the object's stored state and its alarms in this turn's commit.

        State that the turn assigns is discarded. The next call starts from the defaults.

        Raises:
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.delete()")
        self._host.stage().delete_object()

    def _require_turn(self, what: str) -> None:
        if not self._host.in_turn:
            raise NotInTurn(f"{what} on {self._host.key} outside of a turn")


def attach_context(instance: DurableObject, host: ContextHost) -> None:
    """Make ``instance`` the live one, by giving it a ``ctx``."""
    instance.__dict__["ctx"] = Context(host)


def detach_context(instance: DurableObject) -> None:
    """Make ``instance`` a detached one, by taking its ``ctx`` away."""
    instance.__dict__.pop("ctx", None)
