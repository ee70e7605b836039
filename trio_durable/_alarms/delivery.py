"""The delivery of an alarm: its claim, and its status since the delivery began."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs

from .._clock import instant
from .._errors import AlarmUnhandled
from .._keys import AlarmKey
from ..storage import AlarmChanges, NewAlarm, StoredAlarm
from .alarm import Alarm
from .recurrence import LeftOut, Recurrence

logger = logging.getLogger("trio_durable.alarms")


@attrs.define(eq=False)
class Delivery:
    """An alarm on its way to its handler, from before its claim is stored.

    It exists before the claim is made, so that a commit that changes the alarm in the meantime
    finds it.
    """

    key: AlarmKey
    claim: int
    """The number that the claim is made with."""
    alarm: Alarm = attrs.field(init=False)
    """The record that its handler sees; set once the claim is stored."""
    superseded: bool = False
    """Don't handle it: the alarm was set or cancelled since, or may have been, its tenant was
    dropped, or a later delivery of it has begun here. A claim by another runtime isn't known here;
    it makes the commit stale."""
    withdrawn: Callable[[], bool] | None = None
    """Tells if the alarm was cancelled by other means than a commit, if there are such."""
    replaced: bool = False
    """Its handler set or cancelled the alarm, and `Context.commit` has submitted that."""
    acknowledged: bool = False
    """The commit that acknowledges it is durable."""
    recurrence: Recurrence | None = None
    """The schedule of a recurring alarm, as its handler declares it."""
    mark: str | None = None
    """See `StoredAlarm.recurrence`."""
    due_at: int = 0
    began: int = 0
    """When it was handed over, by the wall clock."""
    is_skipped: bool = False
    """It is too late, so the handler isn't called."""

    def begin(self, stored: StoredAlarm, recurrence: Recurrence | None, now: int) -> None:
        """Take over the claimed row and the declaration."""
        self.recurrence, self.mark = recurrence, stored.recurrence
        self.due_at, self.began = stored.due_at, now
        self.is_skipped = recurrence is not None and recurrence.skips(stored, now)

    @property
    def is_of_other_release(self) -> bool:
        """True if the alarm recurs, and isn't declared so here."""
        return self.mark is not None and self.recurrence is None

    def following(self, now: int) -> NewAlarm | None:
        """The alarm's next firing, for the commit that ends this one; None if it doesn't recur."""
        new, left_out = self.next_firing(now)
        if left_out is not None:
            logger.warning(
                "alarm %s leaves out its firings from %s until before %s: it has missed too many",
                *(self.key, instant(left_out.first), instant(left_out.before)),
            )
        return new

    def discarded(self, now: int) -> AlarmChanges:
        """The changes that end the firing without its handler.

        Raises:
            AlarmUnhandled: It recurs, and no handler declares that here.
        """
        if self.is_of_other_release:
            raise AlarmUnhandled(self.key.object_key, self.key.name)
        changes, following = AlarmChanges({self.key.name: self.claim}), self.following(now)
        if following is not None:
            changes.changed[self.key.name] = following
        return changes

    def next_firing(self, now: int) -> tuple[NewAlarm | None, LeftOut | None]:
        """See `Recurrence.following`; None for an alarm that doesn't recur."""
        if self.recurrence is None:
            return None, None
        return self.recurrence.following(self.key.object_key, self.due_at, self.began, now)

    def is_acknowledged_by(self, changes: AlarmChanges) -> bool:
        """True if a commit with ``changes`` acknowledges it."""
        return changes.acknowledged.get(self.key.name) == self.claim

    @property
    def is_withdrawn(self) -> bool:
        """True if the alarm was cancelled by other means than a commit."""
        return self.withdrawn is not None and self.withdrawn()

    @property
    def is_superseded(self) -> bool:
        """True if it isn't to be handled any more: the alarm was set or cancelled since."""
        return self.superseded or self.is_withdrawn

    @property
    def is_current(self) -> bool:
        """True while the alarm is, as far as is known, set as it was when the delivery began."""
        return not (self.superseded or self.acknowledged)
