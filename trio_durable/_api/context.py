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

    def schedule_alarm(
        self,
        name: str,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        payload: object = None,
    ) -> None:
        """Set an alarm in this turn's commit; it replaces an alarm of the same name.

        Its handler is the ``@alarm`` method of that name, else ``handle_alarm``.

        Args:
            name: Any str of 1 to 512 bytes without NUL.
            after: The time from now until it is due.
            at: The instant at which it is due, instead of ``after``; a past one is due at once.
            payload: Plain JSON, or an instance of an attrs class, a dataclass or another type that
                state may have; see `Alarm.payload_as`.

        Raises:
            InvalidAlarm: An argument is invalid. Nothing is staged.
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.schedule_alarm()")
        key = self._host.key
        due_at = due_time(key, name, after, at, self._host.wall_time())
        new = NewAlarm(due_at, encoded_payload(key, name, payload))
        self._host.stage().set_alarm(str.__str__(name), new)

    def cancel_alarm(self, name: str) -> None:
        """Cancel an alarm in this turn's commit. Without such an alarm, nothing happens.

        Raises:
            InvalidAlarm: ``name`` can't be the name of an alarm.
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.cancel_alarm()")
        check_name(self._host.key, name)
        self._host.stage().set_alarm(str.__str__(name), None)

    def cancel_all_alarms(self) -> None:
        """Cancel all alarms of the object in this turn's commit.

        Raises:
            NotInTurn: The caller is not in a turn of the object.
        """
        self._require_turn("ctx.cancel_all_alarms()")
        self._host.stage().clear_alarms()

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
