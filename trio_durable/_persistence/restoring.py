"""Restoring of exported alarms, which may have failed.

The contract of storages has no operation that writes a whole row. An alarm is set; if it has
failed, or is due again at another time, it is then claimed and postponed, which stores its
failures, its error and that time. Nothing delivers it in between, if that is one job of the
writer's thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .._clock import LATEST
from .._keys import AlarmKey, ObjectKey
from .._random_bits import random_bits
from ..storage import (
    STOPPED,
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    NewAlarm,
    Postponement,
    StorageFault,
    StoredAlarm,
    Writer,
)
from .division import in_parts

T = TypeVar("T")
R = TypeVar("R")


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
        changes[key.object_key].changed[key.name] = as_new(row)
    batch = [Commit(key, None, alarms=each) for key, each in changes.items()]
    for _ in each_part(
        batch, lambda commit: commit.key.tenant, lambda part: writer.commit(part, now)
    ):
        pass  # without a revision none of them can be stale
    marked = {row.alarm.key: row for row in rows if not is_unchanged(row)}
    if not marked:
        return
    claim = random_bits() + 1
    for _, claimed in each_part(
        list(marked),
        lambda key: key.tenant,
        lambda part: writer.claim(part, claim, now=LATEST, until=LATEST),
    ):
        writer.postpone([_postponement(marked[alarm.key], alarm.key, claim) for alarm in claimed])


def as_new(row: AlarmRow) -> NewAlarm:
    """An alarm as it was set."""
    alarm = row.alarm
    return NewAlarm(alarm.due_at, alarm.payload, alarm.recurrence)


def each_part(
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
    return row.alarm.due_at <= LATEST or is_unchanged(row)


def is_unchanged(row: AlarmRow) -> bool:
    """True if an alarm is as it was set."""
    alarm = row.alarm
    return row.status == "stopped" or (
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


# --- for another process -------------------------------------------------------------------------


def to_text(stored: bytes | None) -> str | None:
    """Stored bytes as text for JSON. Other programs may have written some that aren't UTF-8."""
    return None if stored is None else stored.decode("latin-1")


def of_text(text: str | None) -> bytes | None:
    """The bytes that `to_text` was given."""
    return None if text is None else text.encode("latin-1")


def parts_of(row: AlarmRow) -> list[object]:
    """An alarm as plain JSON, without the key of its object."""
    alarm = row.alarm
    return [
        alarm.key.name,
        alarm.due_at,
        to_text(alarm.payload),
        row.available_at,
        alarm.failures,
        alarm.last_error,
        alarm.crashes,
        alarm.recurrence,
    ]


def alarm_of(key: ObjectKey, parts: Sequence[Any]) -> AlarmRow:
    """The alarm that `parts_of` was given."""
    name, due_at, payload, available_at, failures, last_error, crashes, *marks = parts
    (recurrence,) = marks or (None,)
    stored = StoredAlarm(
        *(key.alarm(name), due_at, of_text(payload), failures, last_error, crashes, recurrence)
    )
    status: AlarmStatus = "pending"
    if available_at is None:
        status = "stopped" if recurrence == STOPPED else "dead"
    return AlarmRow(stored, available_at, status)
