"""Storage in memory: the same contract without durability, for tests and tools.

The contents belong to the `MemoryStorage`, not to its writer, so that a test can close a runtime
and open the next one on the same objects, as after a restart.

The writer's thread and the reader's share the contents without a lock. The GIL makes each operation
on a dictionary atomic, and a read that iterates copies the dictionary first.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

import attrs

from .._errors import StorageInUse
from .._keys import AlarmKey, ObjectKey
from ._batch import expired_by, summaries
from ._contract import Reader, Storage, Writer
from ._records import (
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    ObjectRow,
    Postponement,
    StoredAlarm,
    StoredObject,
    TypeSummary,
)


@attrs.define
class _Alarm:
    due_at: int
    payload: bytes | None
    available_at: int | None
    claim: int | None = None
    failures: int = 0
    last_error: str | None = None
    crashes: int | None = None
    marked: int | None = None
    """The claim that the delivery of a suspect has begun with."""

    def status(self, now: int) -> AlarmStatus:
        if self.available_at is None:
            return "dead"
        return "overdue" if self.due_at <= now else "pending"

    def stored(self, key: AlarmKey) -> StoredAlarm:
        return StoredAlarm(
            key, self.due_at, self.payload, self.failures, self.last_error, self.crashes
        )

    def outlived(self) -> int:
        """The crashes of an alarm whose claim has outlived its process."""
        return 0 if self.crashes is None else self.crashes + (self.marked == self.claim)


class _Alarms:
    """All alarms by key, and the live ones also in order of time."""

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

    def of_tenant(self, tenant: str) -> list[tuple[AlarmKey, _Alarm]]:
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


_Row: TypeAlias = "tuple[int, int, bytes]"
"""Revision, time of the last save, and state; see `ObjectRow`. Plain tuples, which take half the
time to make: each commit makes one."""


class _Contents:
    """The stored objects, alarms and tenants, shared by a storage and its sides."""

    def __init__(self) -> None:
        self.rows: dict[ObjectKey, _Row] = {}
        self.alarms = _Alarms()
        self.tenants: set[str] = set()

    def objects_of(self, tenant: str) -> list[ObjectRow]:
        # A copy, because the writer's thread may add to the dictionary during the loop.
        rows = list(self.rows.items())
        found = [ObjectRow(key, *row) for key, row in rows if key.tenant == tenant]
        return sorted(found, key=lambda row: (row.key.type_name, row.key.object_id))


class MemoryStorage(Storage):
    """Objects in memory, which last as long as the `MemoryStorage` itself.

    A runtime that opens it after another one has closed finds the objects of that one, as after a
    restart. One runtime at a time may write.
    """

    def __init__(self) -> None:
        self._contents = _Contents()
        self._writer: Writer | None = None

    @property
    def location(self) -> str:
        """Always ``:memory:``."""
        return ":memory:"

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`."""
        if self._writer is not None:
            raise StorageInUse(self.location, "another runtime has it open", os.getpid())
        self._contents.alarms.give_back()
        self._writer = _MemoryWriter(self, self._contents)
        return self._writer

    def open_reader(self) -> Reader:
        """See `Storage.open_reader`."""
        return _MemoryReader(self._contents)

    def _release(self) -> None:
        self._writer = None


class _MemoryWriter(Writer):
    def __init__(self, storage: MemoryStorage, contents: _Contents) -> None:
        self._storage = storage
        self._contents = contents
        self._rows = contents.rows
        self._alarms = contents.alarms

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = []
        for position, commit in enumerate(batch):
            if self._is_stale(commit):
                stale.append(position)
                continue
            key = commit.key
            if commit.delete:
                self._rows.pop(key, None)
            elif commit.state is not None:
                assert commit.revision is not None, "a state without the revision it is based on"
                self._rows[key] = commit.revision + 1, now, commit.state
            if commit.alarms is not None:
                self._alarms.apply(key, commit.alarms)
            if key.tenant and commit.writes_anything:
                self._contents.tenants.add(key.tenant)
        return stale

    def _is_stale(self, commit: Commit) -> bool:
        key, changes = commit.key, commit.alarms
        row = self._rows.get(key)
        if commit.revision is not None and (row[0] if row else 0) != commit.revision:
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
                crashes = alarm.crashes
                if alarm.claim is not None and alarm.available_at <= expired_by(now):
                    crashes = alarm.outlived()
                taken = attrs.evolve(alarm, claim=claim, available_at=until, crashes=crashes)
                self._alarms.put(key, taken)
                claimed.append(taken.stored(key))
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
                    crashes=each.crashes,
                )
                self._alarms.put(each.key, postponed)

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        found = self._alarms.find(alarm)
        if found is None or found.available_at is not None:
            return False
        crashes = None if found.crashes is None else 0
        self._alarms.put(alarm, attrs.evolve(found, available_at=now, failures=0, crashes=crashes))
        return True

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        found = self._alarms.find(alarm)
        if found is None or found.claim != claim:
            return False
        self._alarms.put(alarm, attrs.evolve(found, marked=claim))
        return True

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        found = self._alarms.find(alarm)
        if found is None or found.claim != claim:
            return False
        self._alarms.put(alarm, attrs.evolve(found, crashes=None))
        return True

    def drop_tenant(self, tenant: str) -> bool:
        if tenant not in self._contents.tenants:
            return False
        self._contents.tenants.remove(tenant)
        for row in self._contents.objects_of(tenant):
            del self._rows[row.key]
        for key, _ in self._alarms.of_tenant(tenant):
            self._alarms.remove(key)
        return True

    def close(self) -> None:
        self._storage._release()


class _MemoryReader(Reader):
    def __init__(self, contents: _Contents) -> None:
        self._contents = contents
        self._alarms = contents.alarms

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        rows = [self._contents.rows.get(key) for key in keys]
        return [StoredObject(row[0], row[2]) if row else None for row in rows]

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        rows = self.browse_objects(
            type_name, ObjectKey(type_name, after) if after else None, limit, tenant
        )
        return [row.key.object_id for row in rows]

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        return self._alarms.due(
            *(before, after, limit),
            lambda key: key.tenant == tenant and key.type_name not in except_types,
        )

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        return self._alarms.of_object(key)

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        rows = self.browse_alarms("dead", 0, type_name, after, limit, tenant)
        return [row.alarm for row in rows]

    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        tenants = sorted(self._contents.tenants)
        return [tenant for tenant in tenants if after is None or tenant > after][:limit]

    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        last = ("", "") if after is None else (after.type_name, after.object_id)
        rows = [
            row
            for row in self._contents.objects_of(tenant)
            if type_name in (None, row.key.type_name)
            and (row.key.type_name, row.key.object_id) > last
        ]
        return rows[:limit]

    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        last = ("", "", "") if after is None else after[:3]
        rows = [
            AlarmRow(alarm.stored(key), alarm.available_at, alarm.status(now))
            for key, alarm in self._alarms.of_tenant(tenant)
            if type_name in (None, key.type_name)
            and status in (None, alarm.status(now))
            and key[:3] > last
        ]
        return rows[:limit]

    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        sizes: dict[str, list[int]] = {}
        for row in self._contents.objects_of(tenant):
            sizes.setdefault(row.key.type_name, []).append(len(row.state))
        alarms: dict[str, Counter[AlarmStatus]] = {}
        for key, alarm in self._alarms.of_tenant(tenant):
            alarms.setdefault(key.type_name, Counter())[alarm.status(now)] += 1
        return summaries(
            {name: (len(each), sum(each)) for name, each in sizes.items()},
            {name: (of["pending"], of["overdue"], of["dead"]) for name, of in alarms.items()},
        )

    def close(self) -> None:
        pass
