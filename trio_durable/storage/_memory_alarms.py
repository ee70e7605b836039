"""Alarms of a storage in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

import attrs

from .._keys import AlarmKey, ObjectKey
from ._batch import available_from
from ._records import (
    MOVED,
    STOPPED,
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    DueAlarm,
    NewAlarm,
    Onto,
    Postponement,
    StoredAlarm,
)


@attrs.define
class MemoryAlarm:
    """An alarm with its claim."""

    due_at: int
    payload: bytes | None
    available_at: int | None
    claim: int | None = None
    failures: int = 0
    last_error: str | None = None
    crashes: int | None = None
    marked: int | None = None
    """The claim that the delivery of a suspect has begun with."""
    recurrence: str | None = None

    def status(self, now: int) -> AlarmStatus:
        """Its status at a time."""
        if self.available_at is None:
            return "stopped" if self.recurrence == STOPPED else "dead"
        return "overdue" if self.due_at <= now else "pending"

    def stored(self, key: AlarmKey) -> StoredAlarm:
        """The record of it."""
        return StoredAlarm(
            *(key, self.due_at, self.payload, self.failures, self.last_error, self.crashes),
            self.recurrence,
        )

    def row(self, key: AlarmKey, now: int) -> AlarmRow:
        """The record of it with its status."""
        return AlarmRow(self.stored(key), self.available_at, self.status(now))

    def is_replaced_by(self, new: NewAlarm, now: int) -> bool:
        """See `Onto`."""
        if Onto.ANYTHING in new.onto:
            return True
        if self.recurrence == STOPPED:
            return Onto.STOPPED in new.onto
        if self.claim is not None or self.recurrence == MOVED:
            return False
        if self.available_at is None:
            return Onto.OUTDATED in new.onto
        is_other = Onto.OUTDATED in new.onto and self.recurrence != new.recurrence
        is_late = Onto.LATE in new.onto and self.due_at > new.due_at
        return self.due_at > now and (is_other or is_late)

    def outlived(self) -> int:
        """The crashes of an alarm whose claim has outlived its process."""
        return 0 if self.crashes is None else self.crashes + (self.marked == self.claim)


def _made(new: NewAlarm) -> MemoryAlarm:
    return MemoryAlarm(new.due_at, new.payload, available_from(new), recurrence=new.recurrence)


class Alarms:
    """All alarms by key, and the live ones also in order of time."""

    def __init__(self) -> None:
        self._alarms: dict[ObjectKey, dict[str, MemoryAlarm]] = {}
        self._by_time: list[tuple[int, AlarmKey]] = []

    def copy(self) -> Alarms:
        """These alarms as they are now. Their records are shared, since they never change."""
        new = Alarms()
        new._alarms = {key: dict(names) for key, names in list(self._alarms.items())}
        new._by_time = list(self._by_time)
        return new

    def find(self, key: AlarmKey) -> MemoryAlarm | None:
        """The alarm; None if it isn't there."""
        return self._alarms.get(key.object_key, {}).get(key.name)

    def holds(self, key: AlarmKey, claim: int) -> bool:
        """True if the claim is held."""
        alarm = self.find(key)
        return alarm is not None and alarm.claim == claim

    def put(self, key: AlarmKey, alarm: MemoryAlarm) -> None:
        """Set an alarm."""
        self.remove(key)
        self._alarms.setdefault(key.object_key, {})[key.name] = alarm
        if alarm.available_at is not None:
            insort(self._by_time, (alarm.available_at, key))

    def objects(self) -> list[ObjectKey]:
        """The objects that have alarms."""
        return list(self._alarms)

    def rename(self, old: ObjectKey, new: ObjectKey) -> None:
        """Give the alarms of an object to another one, which has none."""
        for name, alarm in list(self._alarms.get(old, {}).items()):
            self.remove(old.alarm(name))
            self.put(new.alarm(name), alarm)

    def remove(self, key: AlarmKey) -> None:
        """Remove an alarm, if it is there."""
        names = self._alarms.get(key.object_key)
        alarm = names.pop(key.name, None) if names else None
        if alarm is None:
            return
        if not names:
            del self._alarms[key.object_key]
        if alarm.available_at is not None:
            del self._by_time[bisect_left(self._by_time, (alarm.available_at, key))]

    def apply(self, key: ObjectKey, changes: AlarmChanges, now: int) -> None:
        """Apply the changes of a commit."""
        gone = [*(self._alarms.get(key, ()) if changes.clear else ()), *changes.acknowledged]
        for name in gone:
            self.remove(key.alarm(name))
        for name, new in changes.changed.items():
            alarm_key = key.alarm(name)
            stored = self.find(alarm_key)
            if new is None:
                self.remove(alarm_key)
            elif stored is None or stored.is_replaced_by(new, now):
                self.put(alarm_key, _made(new))

    def postpone(self, record: Postponement) -> None:
        """See `Writer.postpone`."""
        alarm, key, letter = self.find(record.key), record.key, record.dead_firing
        if alarm is None or alarm.claim != record.claim:
            return
        postponed = attrs.evolve(
            alarm,
            claim=None,
            available_at=record.available_at,
            failures=record.failures,
            last_error=record.last_error,
            crashes=record.crashes,
        )
        if letter is None:
            self.put(key, postponed)
        else:
            dead = attrs.evolve(postponed, recurrence=letter.recurrence)
            self.put(key.object_key.alarm(letter.name), dead)
            self.put(key, _made(letter.next))

    def recurring(
        self, type_name: str, name: str, due_after: int, after: AlarmKey | None, tenant: str
    ) -> list[StoredAlarm]:
        """See `Reader.recurring_alarms`."""
        return [
            alarm.stored(key)
            for key, alarm in self.of_tenant(tenant)
            if (key.type_name, key.name) == (type_name, name)
            and alarm.available_at is not None
            and alarm.recurrence not in (None, MOVED)
            and alarm.due_at > due_after
            and (after is None or key.object_id > after.object_id)
        ]

    def of_object(self, key: ObjectKey) -> list[StoredAlarm]:
        """See `Reader.list_alarms`."""
        found = [
            alarm.stored(key.alarm(name))
            for name, alarm in list(self._alarms.get(key, {}).items())
            if alarm.available_at is not None
        ]
        return sorted(found, key=lambda alarm: (alarm.due_at, alarm.key))

    def of_tenant(self, tenant: str) -> list[tuple[AlarmKey, MemoryAlarm]]:
        """All alarms of a tenant, by key."""
        # A copy, because the writer's thread may add to the dictionary during the loop.
        found = [
            (key.alarm(name), alarm)
            for key, names in list(self._alarms.items())
            if key.tenant == tenant
            for name, alarm in list(names.items())
        ]
        return sorted(found, key=lambda each: each[0])

    def due(
        self, before: int, after: DueAlarm | None, limit: int, matches: Callable[[AlarmKey], bool]
    ) -> list[DueAlarm]:
        """See `Reader.due_alarms`, of the keys that ``matches`` accepts."""
        found: list[DueAlarm] = []
        last = (after.available_at, after.key) if after else None
        while len(found) < limit:
            by_time = self._by_time
            # Searched for each time, because the writer's thread may change the list meanwhile.
            start = bisect_right(by_time, last) if last else 0
            rows = by_time[start : min(start + limit, bisect_left(by_time, (before,)))]
            if not rows:
                break
            found += (DueAlarm(*row) for row in rows if matches(row[1]))
            last = rows[-1]
        return found[:limit]

    def give_back(self) -> None:
        """Release all claims, as the storage opens."""
        for key, names in list(self._alarms.items()):
            for name, alarm in list(names.items()):
                if alarm.claim is not None:
                    self.put(
                        key.alarm(name),
                        attrs.evolve(
                            alarm,
                            claim=None,
                            available_at=alarm.due_at,
                            crashes=alarm.outlived(),
                        ),
                    )
