"""``self.ctx``: the face of the engine that a handler sees."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, cast

from .._activations.effects import ContextHost
from .._alarms.alarm import Alarm
from .._alarms.input import check_name, due_time, encoded_payload
from .._durations import Duration
from .._errors import NotInTurn
from .._keys import ObjectKey
from ..storage import NewAlarm

if TYPE_CHECKING:
    from .durable_object import DurableObject
    from .objects import Objects


class Context:
    """What ``self.ctx`` is. It is the object's for as long as the instance lives."""

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
        """The runtime that the object lives in, to call other objects through.

        If the object belongs to a tenant, it is that `Tenant`, and so are the others; ``root`` is
        the runtime itself then.
        """
        return cast("Objects", self._host.runtime)

    @property
    def alarm(self) -> Alarm | None:
        """The alarm that is being handled; None in any other turn."""
        effects = self._host.effects
        delivery = None if effects is None else effects.delivery
        return None if delivery is None else delivery.alarm

    def schedule_alarm(
        self,
        name: str,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        payload: object = None,
    ) -> None:
        """Set an alarm with this turn's commit, in the place of any that has the same name.

        Its handler is the method of that name marked with ``@alarm``, or ``handle_alarm``.

        Args:
            name: Any str of 1 to 512 bytes without NUL.
            after: How long from now it is due.
            at: The instant it is due, if not ``after``; what is past is due at once.
            payload: Plain JSON, or an instance of an attrs class, a dataclass or another type that
                state may have; see `Alarm.payload_as`.

        Raises:
            InvalidAlarm: It can't be set like this. Nothing is staged.
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.schedule_alarm()")
        key = self._host.key
        due_at = due_time(key, name, after, at, self._host.wall_time())
        new = NewAlarm(due_at, encoded_payload(key, name, payload))
        self._host.stage().set_alarm(str.__str__(name), new)

    def cancel_alarm(self, name: str) -> None:
        """Cancel an alarm with this turn's commit. Fine if there is none.

        Raises:
            InvalidAlarm: There can't be such a name.
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.cancel_alarm()")
        check_name(self._host.key, name)
        self._host.stage().set_alarm(str.__str__(name), None)

    def cancel_all_alarms(self) -> None:
        """Cancel all alarms of the object with this turn's commit.

        Raises:
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.cancel_all_alarms()")
        self._host.stage().clear_alarms()

    async def commit(self) -> None:
        """Make durable what this turn has done so far, and go on.

        For the moment before an effect outside: what is committed is not rolled back if the rest
        of the turn fails. An alarm that is being handled stays until the turn ends, so that it is
        delivered again if the rest fails; unless the turn has set or cancelled it by now.

        Raises:
            PersistenceError: It could not be made durable. The turn fails whatever it does next.
            StateEncodeError: The state can't be stored.
            ReadonlyViolation: The handler is read-only.
            AlarmSuperseded: The alarm that is being handled was set or cancelled from outside.
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.commit()")
        await self._host.commit_now()

    def delete(self) -> None:
        """Delete the object's stored state and its alarms with this turn's commit.

        What the turn assigns to state counts for nothing then. The next call starts from the
        defaults.

        Raises:
            NotInTurn: No turn of the object runs.
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
