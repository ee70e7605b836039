"""``self.ctx``: what a handler can do besides changing its state, and the effects it stages."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import attrs

from .._alarms.alarm import Alarm
from .._alarms.delivery import Delivery
from .._alarms.input import check_name, due_time, encoded_payload
from .._durations import Duration
from .._errors import NotInTurn
from .._keys import ObjectKey
from ..storage import AlarmChanges, NewAlarm

if TYPE_CHECKING:
    from .objects import Objects


@attrs.define
class Effects:
    """What a turn staged besides its state, to be committed with it."""

    delete: bool = False
    alarms: AlarmChanges | None = None


class Host(Protocol):
    """What stands behind a context: an activation, or a test's stand-in for one."""

    key: ObjectKey

    @property
    def runtime(self) -> Objects:
        """The runtime that the object lives in, or its tenant of it."""
        ...

    @property
    def in_turn(self) -> bool:
        """Whether the caller is in a turn of the object."""
        ...

    def wall_time(self) -> int:
        """Microseconds since 1970 UTC."""
        ...

    async def commit_now(self) -> None:
        """Make durable what the turn has done so far."""
        ...


class Context:
    """What ``self.ctx`` is. It is the object's for as long as the instance lives."""

    __slots__ = ("_delivery", "_effects", "_host")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._effects: Effects | None = None
        self._delivery: Delivery | None = None

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
        return self._host.runtime

    @property
    def alarm(self) -> Alarm | None:
        """The alarm that is being handled; None in any other turn."""
        return None if self._delivery is None else self._delivery.alarm

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
        self._stage_alarms().changed[str.__str__(name)] = new

    def cancel_alarm(self, name: str) -> None:
        """Cancel an alarm with this turn's commit. Fine if there is none.

        Raises:
            InvalidAlarm: There can't be such a name.
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.cancel_alarm()")
        check_name(self._host.key, name)
        self._stage_alarms().changed[str.__str__(name)] = None

    def cancel_all_alarms(self) -> None:
        """Cancel all alarms of the object with this turn's commit.

        Raises:
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.cancel_all_alarms()")
        self._stage_alarms().merge(AlarmChanges(clear=True))

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
        self._stage_alarms().merge(AlarmChanges(clear=True))
        self._stage().delete = True

    # --- for who runs the turn: an activation, or a test's stand-in for one ----------------------

    def _begin_delivery(self, delivery: Delivery) -> None:
        """Let the turn that begins handle an alarm."""
        self._delivery = delivery
        self._stage_alarms().acknowledged[delivery.key.name] = delivery.claim

    def _take_alarms(self) -> AlarmChanges | None:
        """What `commit` is to do to alarms; what it leaves is for the end of the turn.

        The acknowledgement of the alarm that is being handled is left, unless the turn has put
        something in the place of the alarm.
        """
        effects, delivery = self._effects, self._delivery
        if effects is None or effects.alarms is None:
            return None
        staged, effects.alarms = effects.alarms, None
        if delivery is not None and not delivery.replaced:
            name = delivery.key.name
            if staged.clear or name in staged.changed:
                delivery.replaced = True
            else:
                effects.alarms = AlarmChanges(acknowledged=staged.acknowledged)
                if not staged.changed:
                    return None
                staged = AlarmChanges(changed=staged.changed)
        return staged

    def _stage(self) -> Effects:
        if self._effects is None:
            self._effects = Effects()
        return self._effects

    def _stage_alarms(self) -> AlarmChanges:
        effects = self._stage()
        if effects.alarms is None:
            effects.alarms = AlarmChanges()
        return effects.alarms

    def _require_turn(self, what: str) -> None:
        if not self._host.in_turn:
            raise NotInTurn(f"{what} on {self._host.key} outside of a turn")
