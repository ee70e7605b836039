"""Restoring of exported rows.

The contract of storages has no operation that writes a whole row. So an object is saved with the
time of its last change, and starts with revision 1, or continues from the object that it replaces.
An alarm is set; if it has failed, or is due again at another time, it is then claimed and
postponed, which stores its failures, its error and that time.
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
        writer: The writer of the storage.
        rows: Rows of distinct objects.
        stored: The stored objects among them.

    Raises:
        StorageFault: An object can't be written.
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
            raise StorageFault(f"{batch[min(stale)].key} was changed by another writer meanwhile")


def restore_alarms(writer: Writer, rows: Sequence[AlarmRow], now: int) -> None:
    """Set alarms, and replace alarms with the same names.

    Args:
        writer: The writer of the storage.
        rows: Rows of distinct alarms for which `can_restore` is true.
        now: The wall time.

    Raises:
        StorageFault: An alarm can't be written.
    """
    changes: dict[ObjectKey, AlarmChanges] = defaultdict(AlarmChanges)
    for row in rows:
        key = row.alarm.key
        changes[key.object_key].changed[key.name] = NewAlarm(row.alarm.due_at, row.alarm.payload)
    writer.commit([Commit(key, None, alarms=each) for key, each in changes.items()], now)
    marked = {row.alarm.key: row for row in rows if not _is_unchanged(row)}
    if not marked:
        return
    claim = secrets.randbits(62) + 1
    claimed = writer.claim(list(marked), claim, now=LATEST, until=LATEST)
    writer.postpone([_postponement(marked[alarm.key], alarm.key, claim) for alarm in claimed])


def can_restore(row: AlarmRow) -> bool:
    """True if an alarm can be restored. One due after the year 9999 can't be claimed."""
    return row.alarm.due_at <= LATEST or _is_unchanged(row)


def _is_unchanged(row: AlarmRow) -> bool:
    alarm = row.alarm
    return row.available_at == alarm.due_at and not alarm.failures and alarm.last_error is None


def _postponement(row: AlarmRow, key: AlarmKey, claim: int) -> Postponement:
    alarm = row.alarm
    return Postponement(key, claim, row.available_at, alarm.failures, alarm.last_error)
