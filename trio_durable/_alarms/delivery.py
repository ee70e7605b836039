"""The delivery of an alarm: its claim, and its status since the delivery began."""

from __future__ import annotations

import attrs

from .._keys import AlarmKey
from .alarm import Alarm


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
    """Don't handle it: the alarm was set or cancelled since, its tenant was dropped, or a later
    delivery of it has begun here. A claim by another runtime isn't known here; it makes the commit
    stale."""
    replaced: bool = False
    """Its handler set or cancelled the alarm, and `Context.commit` has submitted that."""
    acknowledged: bool = False
    """The commit that acknowledges it is durable."""

    @property
    def is_current(self) -> bool:
        """True while the alarm is, as far as is known, set as it was when the delivery began."""
        return not (self.superseded or self.acknowledged)
