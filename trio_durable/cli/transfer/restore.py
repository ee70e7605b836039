"""Putting rows back as an export has them.

Through the contract of storages, which has no way to write a row as it is: an object is saved, at
the time when it was last saved, and so begins with revision 1 (or goes on from what it replaces).
An alarm is set; one that has failed, or is due again at another time, is then claimed and
postponed, which says all of that.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..._clock import LATEST
from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmChanges,
    AlarmRow,
    Commit,
    NewAlarm,
    ObjectRow,
    Postponement,
    StorageFault,
    StoredObject,
    Writer,
    new_epoch,
)


def restore_objects(
    writer: Writer, rows: Sequence[ObjectRow], stored: Mapping[ObjectKey, StoredObject]
) -> None:
    """Save objects.

    Args:
        writer: Of the storage.
        rows: Of distinct objects.
        stored: What there is of them.

    Raises:
        StorageFault: Some of them can't be.
    """
    batches: dict[int, list[Commit]] = defaultdict(list)
    for row in rows:
        old = stored.get(row.key)
        revision, epoch = (old.revision, old.epoch) if old else (0, new_epoch())
        commit = Commit(row.key, revision, row.state, epoch=epoch)
        batches[row.updated_at].append(commit)
    for updated_at, batch in batches.items():
        stale = writer.commit(batch, updated_at)
        if stale:
            raise StorageFault(f"{batch[min(stale)].key} was written by somebody else meanwhile")


def restore_alarms(writer: Writer, rows: Sequence[AlarmRow], now: int) -> None:
    """Set alarms, in the place of any that have their names.

    Args:
        writer: Of the storage.
        rows: Of distinct alarms, which `can_restore`.
        now: The wall time.

    Raises:
        StorageFault: Some of them can't be.
    """
    changes: dict[ObjectKey, AlarmChanges] = defaultdict(AlarmChanges)
    for row in rows:
        key = row.alarm.key
        changes[key.object_key].changed[key.name] = NewAlarm(row.alarm.due_at, row.alarm.payload)
    writer.commit([Commit(key, None, alarms=each) for key, each in changes.items()], now)
    marked = {row.alarm.key: row for row in rows if not _is_as_set(row)}
    if not marked:
        return
    claim = secrets.randbits(62) + 1
    claimed = writer.claim(list(marked), claim, now=LATEST, until=LATEST)
    writer.postpone([_postponement(marked[alarm.key], alarm.key, claim) for alarm in claimed])


def can_restore(row: AlarmRow) -> bool:
    """Whether an alarm can be set as it is: what is due later than all calendars isn't claimed."""
    return row.alarm.due_at <= LATEST or _is_as_set(row)


def _is_as_set(row: AlarmRow) -> bool:
    alarm = row.alarm
    return row.available_at == alarm.due_at and not alarm.failures and alarm.last_error is None


def _postponement(row: AlarmRow, key: AlarmKey, claim: int) -> Postponement:
    alarm = row.alarm
    return Postponement(key, claim, row.available_at, alarm.failures, alarm.last_error)
