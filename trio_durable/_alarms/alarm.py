"""Alarms as users see them: the record, the decorator, and what they may be set to."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import attrs
import orjson

from .._clock import instant
from .._errors import InvalidAlarm
from .._json.errors import as_unfit
from .._json.hooks import hooks_for
from .._keys import ObjectKey
from ..storage import NO_TIME, StoredAlarm

T = TypeVar("T")


@attrs.frozen
class Alarm:
    """An alarm that is set, is being handled, or is a dead letter."""

    key: ObjectKey
    """Whose it is."""
    name: str
    due_at: datetime
    """When it was set for, in UTC. Retries leave it as it is, and what is set for this plus an
    interval doesn't drift."""
    payload: object = None
    """What it was set with, as plain JSON: None, bool, int, float, str, list or dict."""
    attempt: int = 1
    """Which delivery this is, or will be; of a dead letter, which was the last."""
    last_error: str | None = None
    """What the attempt before raised."""

    def payload_as(self, kind: type[T]) -> T:
        """The payload as what it was set with: an attrs class, a dataclass, a datetime…

        Raises:
            InvalidAlarm: It isn't one.
        """
        try:
            value: T = hooks_for(kind)[1](self.payload)
        except Exception as error:
            unfit = as_unfit(error)
            place = f" at {unfit.path}" if unfit.path else ""
            raise InvalidAlarm(
                self.key,
                self.name,
                f"the payload is no {getattr(kind, '__qualname__', kind)}{place}: {unfit.problem}",
            ) from error
        return value


def alarm_of(stored: StoredAlarm, attempt: int) -> Alarm:
    """The record of a stored alarm.

    Raises:
        InvalidAlarm: The row can't be read.
    """
    key = stored.key
    try:
        if stored.due_at == NO_TIME:
            raise ValueError("when it is due is no number")
        due_at = instant(stored.due_at)
        payload = None if stored.payload is None else orjson.loads(stored.payload)
    except (OverflowError, ValueError) as error:
        raise InvalidAlarm(
            key.object_key, key.name, f"its row can't be read ({error}); set it anew, or cancel it"
        ) from error
    return Alarm(key.object_key, key.name, due_at, payload, attempt, stored.last_error)
