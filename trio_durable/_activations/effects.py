"""Effects: changes that a turn stages besides its state, to be committed with it.

The engine owns them; ``self.ctx`` is the face that handlers see.
"""

from __future__ import annotations

from typing import Protocol

from .._alarms.delivery import Delivery
from .._eventloop.current import Dispatcher
from .._keys import ObjectKey
from ..storage import AlarmChanges, NewAlarm


class Effects:
    """The effects of one turn.

    Args:
        delivery: The alarm that the turn handles, if it is a delivery. The commit at the turn's end
            acknowledges it.
    """

    __slots__ = ("alarms", "delete", "deleted", "delivery")

    def __init__(self, delivery: Delivery | None = None) -> None:
        self.delivery = delivery
        self.delete = False
        """The object is to be deleted by the next commit of the turn."""
        self.deleted = False
        """A commit within the turn has deleted the object: it starts over however the turn ends."""
        self.alarms: AlarmChanges | None = None
        if delivery is not None:
            self.alarms = AlarmChanges(acknowledged={delivery.key.name: delivery.claim})

    def set_alarm(self, name: str, new: NewAlarm | None) -> None:
        """Stage an alarm, or its cancellation if ``new`` is None."""
        self._alarm_changes().changed[name] = new

    def clear_alarms(self) -> None:
        """Stage the cancellation of all alarms, also those staged before."""
        self._alarm_changes().merge(AlarmChanges(clear=True))

    def delete_object(self) -> None:
        """Stage the deletion of the object and of its alarms."""
        self.clear_alarms()
        self.delete = True

    def take_alarms(self) -> AlarmChanges | None:
        """Take the changes of alarms that a commit within the turn makes durable.

        The acknowledgement of the alarm that the turn handles stays for the turn's end, so that the
        alarm is delivered again if the rest of the turn fails; unless the turn has set or cancelled
        that alarm itself.
        """
        delivery, staged = self.delivery, self.alarms
        if staged is None:
            return None
        self.alarms = None
        if delivery is not None and not delivery.replaced:
            name = delivery.key.name
            if staged.clear or name in staged.changed:
                delivery.replaced = True
            else:
                self.alarms = AlarmChanges(acknowledged=staged.acknowledged)
                if not staged.changed:
                    return None
                staged = AlarmChanges(changed=staged.changed)
        return staged

    def _alarm_changes(self) -> AlarmChanges:
        if self.alarms is None:
            self.alarms = AlarmChanges()
        return self.alarms


class ContextHost(Protocol):
    """The object behind a ``ctx``: an activation, or a single turn in a test."""

    @property
    def key(self) -> ObjectKey:
        """The object's identity."""
        ...

    @property
    def runtime(self) -> Dispatcher:
        """The runtime that the object lives in, or its tenant of it."""
        ...

    @property
    def in_turn(self) -> bool:
        """True if the caller is in a turn of the object."""
        ...

    @property
    def effects(self) -> Effects | None:
        """The effects that the turn has staged so far."""
        ...

    def stage(self) -> Effects:
        """The turn's effects, to add to them."""
        ...

    def wall_time(self) -> int:
        """Microseconds since 1970 UTC."""
        ...

    async def commit_now(self) -> None:
        """Make durable what the turn has done so far."""
        ...
