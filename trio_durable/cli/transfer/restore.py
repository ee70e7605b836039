"""Restoring of exported rows.

The contract of storages has no operation that writes a whole row. So an object is saved with the
time of its last change, and starts with revision 1, or continues from the object that it replaces.
An alarm is set; if it has failed, or is due again at another time, it is then claimed and
postponed, which stores its failures, its error and that time.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from ..._clock import LATEST
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.division import in_parts
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

T = TypeVar("T")
R = TypeVar("R")


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
        _commit(writer, batch, updated_at)


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
    _commit(writer, [Commit(key, None, alarms=each) for key, each in changes.items()], now)
    marked = {row.alarm.key: row for row in rows if not _is_unchanged(row)}
    if not marked:
        return
    claim = secrets.randbits(62) + 1
    for _, claimed in _each_part(
        list(marked),
        lambda key: key.tenant,
        lambda part: writer.claim(part, claim, now=LATEST, until=LATEST),
    ):
        writer.postpone([_postponement(marked[alarm.key], alarm.key, claim) for alarm in claimed])


def _commit(writer: Writer, batch: list[Commit], now: int) -> None:
    for part, stale in _each_part(
        batch, lambda commit: commit.key.tenant, lambda part: writer.commit(part, now)
    ):
        if stale:
            raise StorageFault(f"{part[min(stale)].key} was changed by another writer meanwhile")


def _each_part(
    items: list[T], tenant_of: Callable[[T], str], write: Callable[[list[T]], R]
) -> Iterator[tuple[list[T], R]]:
    """Write items in parts, of which each is small enough for one transaction of the storage.

    Raises:
        StorageFault: An item can't be written.
    """

    def attempt(part: list[T]) -> R | StorageFault:
        try:
            return write(part)
        except StorageFault as fault:
            return fault

    for part, outcome in in_parts(items, tenant_of, attempt):
        if isinstance(outcome, StorageFault):
            raise outcome
        yield part, outcome


def can_restore(row: AlarmRow) -> bool:
    """True if an alarm can be restored. One due after the year 9999 can't be claimed."""
    return row.alarm.due_at <= LATEST or _is_unchanged(row)


def _is_unchanged(row: AlarmRow) -> bool:
    alarm = row.alarm
    return (
        row.available_at == alarm.due_at
        and not alarm.failures
        and alarm.last_error is None
        and alarm.crashes is None
    )


def _postponement(row: AlarmRow, key: AlarmKey, claim: int) -> Postponement:
    alarm = row.alarm
    return Postponement(
        key, claim, row.available_at, alarm.failures, alarm.last_error, alarm.crashes
    )
