"""Upcoming alarms in short: keys, times, and entries of the feed."""

from __future__ import annotations

from trio_durable._keys import AlarmKey, Owner
from trio_durable.storage import DueAlarm

MS = 1000
SECOND = 1_000_000
START = 1_790_000_000 * SECOND


def key(name: object, of: str = "id") -> AlarmKey:
    return AlarmKey("Type", of, str(name))


def never(object_id: Owner) -> bool:
    return False


def due(*alarms: tuple[object, int]) -> list[DueAlarm]:
    return [DueAlarm(at, key(name)) for name, at in alarms]
