"""One delivery of an alarm: its claim, and what became of it meanwhile."""

from __future__ import annotations

import attrs

from .._keys import AlarmKey
from .alarm import Alarm


@attrs.define(eq=False)
class Delivery:
    """An alarm that was claimed, on its way to its handler."""

    key: AlarmKey
    claim: int
    alarm: Alarm = attrs.field(init=False)
    """What its handler gets to see; it is there when the claim is."""
    superseded: bool = False
    """It was set or cancelled since, or claimed by somebody else: it must not be handled."""
    replaced: bool = False
    """Its handler has set or cancelled the alarm and put that on its way by `Context.commit`."""
    acknowledged: bool = False
    """What acknowledges it is durable."""

    @property
    def is_current(self) -> bool:
        """Whether the alarm still is what was claimed."""
        return not (self.superseded or self.acknowledged)
