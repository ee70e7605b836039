"""The delivery of an alarm: its claim, and its status since then."""

from __future__ import annotations

import attrs

from .._keys import AlarmKey
from .alarm import Alarm


@attrs.define(eq=False)
class Delivery:
    """A claimed alarm on its way to its handler."""

    key: AlarmKey
    claim: int
    alarm: Alarm = attrs.field(init=False)
    """The record that its handler sees; set once the claim is stored."""
    superseded: bool = False
    """The alarm was set or cancelled since, or another runtime claimed it: don't handle it."""
    replaced: bool = False
    """Its handler set or cancelled the alarm, and `Context.commit` has submitted that."""
    acknowledged: bool = False
    """The commit that acknowledges it is durable."""

    @property
    def is_current(self) -> bool:
        """True while the alarm is still set as it was claimed."""
        return not (self.superseded or self.acknowledged)
