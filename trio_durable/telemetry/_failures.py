"""Failures, as opposed to exceptions that are answers."""

from __future__ import annotations

from .._errors import AlarmSuperseded, PersistenceError
from .._telemetry.events import Call, MessageDelivery, Timed, Turn


def is_failure(event: Timed, error: BaseException) -> bool:
    """True if ``error`` is a failure of ``event``, and not another way in which it may end.

    A cancellation is no failure, and neither is an exception that the event's handler declares as
    ``expected``, unless it is a `PersistenceError`. An alarm that was set again or cancelled while
    it was handled, `AlarmSuperseded`, hasn't failed: its new setting applies.
    """
    if isinstance(error, PersistenceError):
        return True
    if not isinstance(error, Exception) or isinstance(error, AlarmSuperseded):
        return False
    if isinstance(event, (Call, Turn, MessageDelivery)):
        return not isinstance(error, event.expected)
    return True
