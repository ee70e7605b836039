"""Interruption: the cancellation of a running turn, because of its limit or by its user.

The worker's task is cancelled, and ends with the turn. A turn that was interrupted is rolled back
and fails however it ends, be it that its handler catches the cancellation and returns a value.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .._errors import CallFailed
from .._eventloop.loop import CallbackWaiter

RESISTANCE_SECONDS = 10.0
"""How long a turn may go on after its cancellation, without a warning."""


@attrs.frozen(eq=False)
class Interruption:
    """The cancellation of one turn."""

    error: Callable[[], CallFailed]
    """Makes the error of the turn. A turn that held the error itself would be a cycle with it."""
    began: float
    """The loop's time, in seconds."""
    resistance: CallbackWaiter
    """Warns when the turn doesn't end."""
