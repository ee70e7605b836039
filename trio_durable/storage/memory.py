"""Objects in a dictionary: the same contract, gone with the process.

For tests and tools. The contents live as long as the `MemoryStorage`, so that a test can close a
runtime and open the next one on what the first left behind.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Sequence

import attrs

from .._errors import StorageInUse
from .._keys import AlarmKey, ObjectKey
from ._contract import (
    AlarmChanges,
    Commit,
    DueAlarm,
    Postponement,
    Reader,
    Storage,
    StoredAlarm,
    StoredObject,
    Writer,
)


@attrs.define
class _Alarm:
    due_at: int
    payload: bytes | None
    available_at: int | None
    claim: int | None = None
    failures: int = 0
    last_error: str | None = None

    def stored(self, key: AlarmKey) -> StoredAlarm:
        return StoredAlarm(key, self.due_at, self.payload, self.failures, self.last_error)


class _Alarms:
    """All alarms, by key and, those that aren't dead, by time."""

    def __init__(self) -> None:
        self._alarms: dict[ObjectKey, dict[str, _Alarm]] = {}
        self._by_time: list[tuple[int, AlarmKey]] = []

    def find(self, key: AlarmKey) -> _Alarm | None:
        return self._alarms.get(key.object_key, {}).get(key.name)

    def holds(self, key: AlarmKey, claim: int) -> bool:
        alarm = self.find(key)
        return alarm is not None and alarm.claim == claim

    def put(self, key: AlarmKey, alarm: _Alarm) -> None:
        self.remove(key)
        self._alarms.setdefault(key.object_key, {})[key.name] = alarm
        if alarm.available_at is not None:
            insort(self._by_time, (alarm.available_at, key))

    def remove(self, key: AlarmKey) -> None:
        names = self._alarms.get(key.object_key)
        alarm = names.pop(key.name, None) if names else None
        if alarm is None:
            return
        if not names:
            del self._alarms[key.object_key]
        if alarm.available_at is not None:
            del self._by_time[bisect_left(self._by_time, (alarm.available_at, key))]

    def apply(self, key: ObjectKey, changes: AlarmChanges) -> None:
        gone = [*(self._alarms.get(key, ()) if changes.clear else ()), *changes.acknowledged]
        for name in gone:
            self.remove(key.alarm(name))
        for name, new in changes.changed.items():
            alarm_key = key.alarm(name)
            if new is None:
                self.remove(alarm_key)
            else:
                self.put(alarm_key, _Alarm(new.due_at, new.payload, new.due_at))

    def of_object(self, key: ObjectKey) -> list[StoredAlarm]:
        found = [
            alarm.stored(key.alarm(name))
            for name, alarm in list(self._alarms.get(key, {}).items())
            if alarm.available_at is not None
        ]
        return sorted(found, key=lambda alarm: (alarm.due_at, alarm.key))

    def dead(self, type_name: str) -> list[StoredAlarm]:
        # list(): the writer's thread may add something meanwhile.
        found = [
            alarm.stored(AlarmKey(type_name, key.object_id, name))
            for key, names in list(self._alarms.items())
            if key.type_name == type_name
            for name, alarm in list(names.items())
            if alarm.available_at is None
        ]
        return sorted(found, key=lambda alarm: alarm.key)

    def due(self, before: int, after: DueAlarm | None) -> list[DueAlarm]:
        by_time = self._by_time
        start = bisect_right(by_time, (after.available_at, after.key)) if after else 0
        end = bisect_left(by_time, (before,))
        return [DueAlarm(available_at, key) for available_at, key in by_time[start:end]]

    def give_back(self) -> None:
        for key, names in list(self._alarms.items()):
            for name, alarm in list(names.items()):
                if alarm.claim is not None:
                    self.put(
                        key.alarm(name),
                        attrs.evolve(alarm, claim=None, available_at=alarm.due_at),
                    )


class MemoryStorage(Storage):
    """Keeps objects in memory."""

    def __init__(self) -> None:
        self._rows: dict[ObjectKey, StoredObject] = {}
        self._alarms = _Alarms()
        self._writer: Writer | None = None

    @property
    def location(self) -> str:
        """Always ``:memory:``."""
        return ":memory:"

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`."""
        if self._writer is not None:
            raise StorageInUse(self.location, "another runtime holds it", os.getpid())
        self._alarms.give_back()
        self._writer = _MemoryWriter(self, self._rows, self._alarms)
        return self._writer

    def open_reader(self) -> Reader:
        """See `Storage.open_reader`."""
        return _MemoryReader(self._rows, self._alarms)

    def _release(self) -> None:
        self._writer = None


class _MemoryWriter(Writer):
    def __init__(
        self, storage: MemoryStorage, rows: dict[ObjectKey, StoredObject], alarms: _Alarms
    ) -> None:
        self._storage = storage
        self._rows = rows
        self._alarms = alarms

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = []
        for position, commit in enumerate(batch):
            if self._is_stale(commit):
                stale.append(position)
                continue
            if commit.delete:
                self._rows.pop(commit.key, None)
            elif commit.state is not None:
                assert commit.revision is not None, "a state without the revision it is based on"
                self._rows[commit.key] = StoredObject(commit.revision + 1, commit.state)
            if commit.alarms is not None:
                self._alarms.apply(commit.key, commit.alarms)
        return stale

    def _is_stale(self, commit: Commit) -> bool:
        key, changes = commit.key, commit.alarms
        row = self._rows.get(key)
        if commit.revision is not None and (row.revision if row else 0) != commit.revision:
            return True
        return changes is not None and not all(
            self._alarms.holds(key.alarm(name), claim)
            for name, claim in changes.acknowledged.items()
        )

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        claimed = []
        for key in alarms:
            alarm = self._alarms.find(key)
            if alarm and alarm.available_at is not None and alarm.available_at <= now:
                self._alarms.put(key, attrs.evolve(alarm, claim=claim, available_at=until))
                claimed.append(alarm.stored(key))
        return claimed

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        for key, claim in claims:
            alarm = self._alarms.find(key)
            if alarm and alarm.claim == claim:
                self._alarms.put(key, attrs.evolve(alarm, available_at=until))

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        for each in postponements:
            alarm = self._alarms.find(each.key)
            if alarm and alarm.claim == each.claim:
                postponed = attrs.evolve(
                    alarm,
                    claim=None,
                    available_at=each.available_at,
                    failures=each.failures,
                    last_error=each.last_error,
                )
                self._alarms.put(each.key, postponed)

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        found = self._alarms.find(alarm)
        if found is None or found.available_at is not None:
            return False
        self._alarms.put(alarm, attrs.evolve(found, available_at=now, failures=0))
        return True

    def close(self) -> None:
        self._storage._release()


class _MemoryReader(Reader):
    def __init__(self, rows: dict[ObjectKey, StoredObject], alarms: _Alarms) -> None:
        self._rows = rows
        self._alarms = alarms

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return [self._rows.get(key) for key in keys]

    def list_ids(self, type_name: str, after: str | None, limit: int) -> list[str]:
        # list(): the writer's thread may add a row meanwhile.
        ids = [key.object_id for key in list(self._rows) if key.type_name == type_name]
        ids.sort(key=str.encode)
        if after is not None:
            ids = [object_id for object_id in ids if object_id.encode() > after.encode()]
        return ids[:limit]

    def due_alarms(
        self, before: int, after: DueAlarm | None, limit: int, except_types: Collection[str]
    ) -> list[DueAlarm]:
        due = self._alarms.due(before, after)
        return [each for each in due if each.key.type_name not in except_types][:limit]

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        return self._alarms.of_object(key)

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int
    ) -> list[StoredAlarm]:
        dead = self._alarms.dead(type_name)
        return [alarm for alarm in dead if after is None or alarm.key > after][:limit]

    def close(self) -> None:
        pass
