"""The record of an alarm, as users see it."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import attrs
import orjson

from .._clock import instant
from .._errors import InvalidAlarm
from .._json.errors import as_unfit
from .._json.lookup import form_of
from .._keys import ObjectKey
from ..storage import NO_TIME, StoredAlarm
from .recurrence import FIRING

T = TypeVar("T")


@attrs.frozen
class Alarm:
    """An alarm: scheduled, being handled, or a dead letter."""

    key: ObjectKey
    """The object that the alarm belongs to."""
    name: str
    due_at: datetime
    """The instant that the alarm was set for, in UTC. Retries don't change it, so an alarm that its
    handler sets for ``due_at`` plus an interval doesn't drift."""
    payload: object = None
    """The data it was set with, as plain JSON: None, bool, int, float, str, list or dict."""
    attempt: int = 1
    """The number of this delivery, or of the next; of the last one for a dead letter."""
    last_error: str | None = None
    """The error of the previous attempt."""
    is_recurring: bool = False
    """True if the alarm is set for its next time when it has been handled."""

    def payload_as(self, kind: type[T]) -> T:
        """The payload as an instance of the type it was set with: an attrs class, a datetime…

        Raises:
            InvalidAlarm: The payload isn't of this type.
        """
        try:
            # A copy of the payload, since plain parts of what is read are those of the data.
            data = orjson.loads(orjson.dumps(self.payload))
            value: T = form_of(kind).read(data, [])
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
        InvalidAlarm: The row is corrupt.
    """
    key = stored.key
    try:
        if stored.due_at == NO_TIME:
            raise ValueError("its due time is no number")
        due_at = instant(stored.due_at)
        payload = None if stored.payload is None else orjson.loads(stored.payload)
    except (OverflowError, ValueError) as error:
        raise InvalidAlarm(
            key.object_key, key.name, f"its row can't be read ({error}); set it again, or cancel it"
        ) from error
    is_recurring = stored.recurrence not in (None, FIRING)
    return Alarm(
        key.object_key, key.name, due_at, payload, attempt, stored.last_error, is_recurring
    )
