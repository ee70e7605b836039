"""The contract of schedulers: the interface that the runtime uses, and the one it offers them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import attrs

from .._alarms.delivery import Delivery
from .._alarms.recurrence import Recurrence
from .._alarms.retry import Retry
from .._eventloop.loop import Waiter
from .._keys import AlarmKey, ObjectKey
from .._persistence.commit_listener import CommitListener
from ..storage import AlarmChanges, NewAlarm, StoredAlarm


@attrs.frozen
class SchedulerStatistics:
    """A snapshot of a scheduler's counters."""

    waiting: int
    """Alarms that the scheduler holds in memory and isn't delivering; the storage may have more."""
    in_flight: int
    """Alarms that are being delivered, from before the claim until the outcome is durable."""
    delivered: int
    """Alarms that were handled and acknowledged."""
    failed: int
    """Attempts that failed. Superseded and acknowledged deliveries aren't among them."""


class Scheduler(CommitListener, Protocol):
    """Keeps alarms and delivers each when it is due.

    A turn's changes of alarms reach the storage in the turn's own commit; the scheduler learns of
    them from the group commit, whose listener it is. Changes from outside of turns go through the
    scheduler's methods.

    An alarm is delivered at its time or later, and by one runtime at a time. Delivery is repeated
    until the alarm is acknowledged by a commit, has used up its attempts, or was changed. An
    attempt isn't counted if its handler isn't to blame: the acknowledging commit failed, the
    runtime closed, the object's state is of a newer release, or its tenant is being dropped.

    A recurring alarm that becomes a dead letter goes on: its `Postponement.dead_firing` has the
    next firing, see `Delivery.following`. Otherwise the commit that acknowledges it sets the next
    one, which is the destination's part. Before it calls `Destination.deliver`, a scheduler calls
    `Delivery.begin`. A recurring alarm that the destination refuses with `AlarmUnhandled` is kept,
    and tried again after a pause; that is no attempt.

    An alarm whose ``crashes`` are not None may have killed the process that delivered it, so its
    delivery begins by `Writer.mark`. A scheduler that never marks delivers it as any other.
    """

    async def schedule(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """Set an alarm, and replace one of that name; return when that is durable."""
        ...

    async def cancel(self, key: ObjectKey, name: str) -> None:
        """Cancel an alarm if there is one, or a dead letter; return when that is durable."""
        ...

    async def cancel_all(self, key: ObjectKey) -> None:
        """Cancel all alarms and dead letters of an object; return when that is durable."""
        ...

    async def dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str
    ) -> list[StoredAlarm]:
        """A page of the alarms of a type that have used up their attempts.

        Args:
            type_name: The stored name of the type.
            after: The last key of the page before, or None for the first page.
            limit: The maximum number of alarms.
            tenant: The tenant, or ``""``.

        Raises:
            StorageFault: They could not be read.
        """
        ...

    async def list(self, key: ObjectKey) -> list[StoredAlarm]:
        """The alarms of an object by ``due_at``, without dead letters.

        Raises:
            StorageFault: They could not be read.
        """
        ...

    async def fire(self, key: AlarmKey) -> bool:
        """Deliver an alarm now, whatever its time; return when its outcome is durable.

        If it is being delivered already, that delivery counts.

        Returns:
            Whether there was such an alarm.

        Raises:
            Exception: What its handler raised. The alarm is tried again as any other.
            StorageFault: It could not be claimed.
        """
        ...

    async def revive(self, key: AlarmKey) -> bool:
        """Make a dead letter due at once, with all its attempts; return when that is durable.

        Returns:
            Whether there was such a dead letter.

        Raises:
            StorageFault: It could not be made durable, as far as is known.
        """
        ...

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """A durable commit changed alarms of an object.

        A delivery of that object that the commit acknowledges is marked ``acknowledged``, one whose
        alarm it changes ``superseded``. An alarm that it sets is delivered at its new time.
        """
        ...

    def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """A commit that would have changed alarms of an object failed, and may be durable.

        A delivery of that object whose alarm it would change is marked ``superseded``: if the
        change is durable, the turn of that delivery could not be committed, nor could any turn
        whose changes are in its commit. The feed returns the alarm if it isn't. Then as
        `uncertain`.
        """
        ...

    def uncertain(self) -> None:
        """The table may have alarms that this scheduler doesn't know of, or at another time."""
        ...

    def acquired(self) -> None:
        """Alarms of more objects than before are delivered here, see `Destination.is_here`.

        Their alarms are found as after `uncertain`, and their recurring ones checked as at the
        beginning of `run`.
        """
        ...

    def dropped(self, tenant: str) -> None:
        """A tenant was removed with all its alarms; its deliveries are marked ``superseded``."""
        ...

    def statistics(self) -> SchedulerStatistics:
        """A snapshot of the counters."""
        ...

    async def run(self) -> None:
        """Deliver alarms that are due, until cancelled.

        At its beginning, recurring alarms that are due later than their next time are pulled in, as
        `Recurrence.latest` and `Recurrence.corrected` say.
        """
        ...

    def stop(self) -> None:
        """Begin no more deliveries."""
        ...

    async def give_back(self) -> None:
        """Let other runtimes deliver what is left, claimed or not, and notify them.

        Called after `stop`, when `run` has ended.
        """
        ...


class Destination(Protocol):
    """Handles alarms: the objects of a runtime."""

    def obstacle(self, type_name: str) -> str | None:
        """The reason why no alarm of a type can be delivered here, or None."""
        ...

    def is_here(self, key: AlarmKey) -> bool:
        """False if another process of a cluster delivers the alarms of an object.

        An alarm that isn't delivered here is forgotten. When it is to be delivered here,
        `Scheduler.acquired` is called, and the horizon feed returns it.
        """
        ...

    def retry_of(self, key: AlarmKey) -> Retry:
        """The retry policy of an alarm: its backoff, and when it becomes a dead letter."""
        ...

    def recurrence_of(self, key: AlarmKey) -> Recurrence | None:
        """The schedule of a recurring alarm; None for any other."""
        ...

    def recurrences(self) -> Iterable[tuple[str, str, Recurrence]]:
        """The recurring alarms of the types that are served, as (type, name, schedule)."""
        ...

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """Handle an alarm in a turn of its object.

        ``waiter`` is released when the turn's commit is durable, and that commit acknowledges the
        alarm, and sets the next firing of one that recurs; or it fails with the error of the turn
        or of the commit.

        Raises:
            Exception: The alarm can't be delivered. That counts as a failed attempt.
        """
        ...

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Change an object's alarms from outside of its turns; return when that is durable."""
        ...
