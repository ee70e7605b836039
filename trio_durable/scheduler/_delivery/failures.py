"""Failures of deliveries: their texts, and the ones that aren't the handler's."""

from __future__ import annotations

import logging

from ..._errors import HandlerCancelled, RuntimeClosed, TurnInterrupted, TurnTimeout
from ..._keys import AlarmKey
from ..._text import error_summary

logger = logging.getLogger("trio_durable.alarms")

MAX_ERROR_CHARS = 1000
UNHANDLED_SECONDS = 300.0
"""How long a recurring alarm that nothing handles waits until it is tried again."""


class UnhandledAlarms:
    """The recurring alarms that nothing handles here, each of which is warned about once."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()

    def warn(self, key: AlarmKey) -> None:
        """Warn about an alarm, unless one of its type and name was warned about."""
        which = key.type_name, key.name
        if which in self._warned:
            return
        self._warned.add(which)
        logger.warning(
            "recurring alarm %r of type %r has no handler in this release; it is kept, and tried "
            "again every %g s. `trio-durable alarms cancel` ends it",
            *(key.name, key.type_name, UNHANDLED_SECONDS),
        )


def was_cut_off(error: BaseException, is_stopped: bool) -> bool:
    """True if an attempt didn't fail by itself, but ended with the runtime, or by its user.

    The end of a runtime raises `RuntimeClosed` in handlers that call or are waited for, maybe
    before the deliveries are stopped. A cancellation comes from the end only after that, unless it
    comes from the limit of the turn.
    """
    if isinstance(error, TurnTimeout):
        return False
    pending, seen = [error], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        is_group = isinstance(each, BaseExceptionGroup)
        is_cancellation = isinstance(each, HandlerCancelled) or not isinstance(each, Exception)
        if isinstance(each, (RuntimeClosed, TurnInterrupted)):
            return True
        if is_stopped and is_cancellation and not is_group:
            return True
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
        pending += [other for other in (each.__cause__, each.__context__) if other is not None]
    return False


def storable(error: BaseException) -> str:
    """The text of an error, shortened and without characters that a storage may refuse."""
    return (
        error_summary(error)[:MAX_ERROR_CHARS].replace("\0", "").encode(errors="replace").decode()
    )
