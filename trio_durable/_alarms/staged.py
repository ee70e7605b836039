"""The alarms of an object as they will be when a turn commits what it has staged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._keys import ObjectKey
from ..storage import MOVED, STOPPED, AlarmChanges, AlarmRow, NewAlarm, Onto, StoredAlarm


def conditional_names(changes: AlarmChanges | None) -> list[str]:
    """The alarms whose rows decide whether they are changed."""
    if changes is None or changes.clear:
        return []
    return [name for name, new in changes.changed.items() if new is not None and new.is_conditional]


def with_changes(
    key: ObjectKey,
    stored: Sequence[StoredAlarm],
    rows: Mapping[str, AlarmRow | None],
    changes: AlarmChanges | None,
    now: int,
) -> list[StoredAlarm]:
    """The alarms by ``due_at``, without dead letters.

    Args:
        key: The object.
        stored: Its alarms as they are stored, without dead letters.
        rows: The rows of `conditional_names`.
        changes: The changes of a turn, if it has staged any.
        now: The time.
    """
    if changes is None:
        return list(stored)
    found = {} if changes.clear else {alarm.key.name: alarm for alarm in stored}
    for name in changes.acknowledged:
        found.pop(name, None)
    for name, new in changes.changed.items():
        row = None if name in changes.acknowledged else rows.get(name)
        if new is None or new.recurrence == STOPPED:
            found.pop(name, None)
        elif not new.is_conditional or row is None or _is_replaced(row, new, now):
            alarm = key.alarm(name)
            found[name] = StoredAlarm(
                alarm, new.due_at, new.payload, 0, None, recurrence=new.recurrence
            )
    return sorted(found.values(), key=lambda alarm: (alarm.due_at, alarm.key))


def _is_replaced(row: AlarmRow, new: NewAlarm, now: int) -> bool:
    """See `Onto`."""
    if row.status == "stopped":
        return Onto.STOPPED in new.onto
    alarm = row.alarm
    if alarm.recurrence == MOVED:
        return False
    if row.status == "dead":
        return Onto.OUTDATED in new.onto
    is_other = Onto.OUTDATED in new.onto and alarm.recurrence != new.recurrence
    is_late = Onto.LATE in new.onto and alarm.due_at > new.due_at
    return alarm.due_at > now and (is_other or is_late)
