"""What the runtime asks of a scheduler, and what a scheduler asks of the runtime."""

from __future__ import annotations

from typing import Protocol

from .._alarms.delivery import Delivery
from .._alarms.retry import Retry
from .._eventloop.loop import Waiter
from .._keys import AlarmKey, ObjectKey
from ..storage import AlarmChanges, NewAlarm, StoredAlarm


class Scheduler(Protocol):
    """Keeps alarms and has them delivered when they are due.

    What a turn does to alarms reaches the storage in the turn's own commit; a scheduler learns of
    it by `committed`. What is done to them from outside goes through the scheduler.
    """

    async def schedule(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """Set an alarm; return when that is durable."""
        ...

    async def cancel(self, key: ObjectKey, name: str) -> None:
        """Cancel an alarm, if there is one; return when that is durable."""
        ...

    async def cancel_all(self, key: ObjectKey) -> None:
        """Cancel all alarms of an object; return when that is durable."""
        ...

    async def list(self, key: ObjectKey) -> list[StoredAlarm]:
        """The alarms of an object by ``due_at``, dead letters excepted."""
        ...

    async def fire(self, key: AlarmKey) -> bool:
        """Have an alarm delivered now, whatever its time; return when its commit is durable.

        Returns:
            Whether there was such an alarm.

        Raises:
            Exception: What its handler raised. The alarm is tried again as any other.
        """
        ...

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Take note of what a durable commit did to an object's alarms."""
        ...

    def dropped(self, tenant: str) -> None:
        """Take note that a tenant is gone, with all its alarms."""
        ...

    def hinted(self, available_at: int) -> None:
        """Take note that another runtime leaves an alarm to others, which is available at a time.

        It may be 0, for an alarm of any time.
        """
        ...

    async def run(self) -> None:
        """Deliver what is due, for ever."""
        ...

    def stop(self) -> None:
        """Begin no more deliveries."""
        ...

    async def give_back(self) -> None:
        """Let others have what is left, claimed or not, and know of it; after `run`."""
        ...


class Destination(Protocol):
    """Where alarms go: the objects of a runtime."""

    def obstacle(self, type_name: str) -> str | None:
        """Why no alarm of this type can be delivered, if none can."""
        ...

    def retry_of(self, key: AlarmKey) -> Retry:
        """When an alarm whose handler failed is tried again."""
        ...

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """Let an alarm be handled in a turn of its object; ``waiter`` learns of the outcome.

        Raises:
            Exception: There is no way to.
        """
        ...

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Change an object's alarms from outside of its turns; return when that is durable."""
        ...
