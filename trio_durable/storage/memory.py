"""Storage in memory: the same contract without durability, for tests and tools.

The contents belong to the `MemoryStorage`, not to its writer, so that a test can close a runtime
and open the next one on the same objects, as after a restart.

The writer's thread and the reader's share the contents without a lock. The GIL makes each operation
on a dictionary atomic, and a read that iterates copies the dictionary first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import attrs

from .._errors import StorageInUse
from .._keys import AlarmKey, ObjectKey
from ._batch import both_names, expired_by, summaries
from ._contract import Reader, Storage, Writer
from ._faults import PartialFault
from ._memory_alarms import Alarms
from ._memory_messages import Messages
from ._messages import (
    DeadMessage,
    Deferral,
    DueMessage,
    MessageKey,
    MessageSummary,
    OnceKey,
    OnceReply,
    Receiver,
    RetriedMessage,
    StoredMessage,
)
from ._records import (
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

_Row: TypeAlias = "tuple[int, int, bytes]"
"""Revision, time of the last save, and state; see `ObjectRow`. Plain tuples, which take half the
time to make: each commit makes one."""


class _Contents:
    """All that is stored, shared by a storage and its sides."""

    def __init__(self) -> None:
        self.rows: dict[ObjectKey, _Row] = {}
        self.alarms = Alarms()
        self.messages = Messages()
        self.tenants: set[str] = set()

    def copy(self) -> _Contents:
        new = _Contents()
        new.rows, new.tenants = dict(self.rows), set(self.tenants)
        new.alarms, new.messages = self.alarms.copy(), self.messages.copy()
        return new

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

    @property
    def keeps_messages(self) -> bool:
        """Always True."""
        return True

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`."""
        if self._writer is not None:
            raise StorageInUse(self.location, "another runtime has it open", os.getpid())
        self._contents.alarms.give_back()
        self._contents.messages.count_crashes()
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
        self._messages = contents.messages

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = []
        for position, commit in enumerate(batch):
            if self._is_stale(commit, now):
                stale.append(position)
                continue
            key = commit.key
            if commit.delete:
                self._rows.pop(key, None)
            elif commit.state is not None:
                assert commit.revision is not None, "a state without the revision it is based on"
                self._rows[key] = commit.revision + 1, now, commit.state
            if commit.alarms is not None:
                self._alarms.apply(key, commit.alarms, now)
            if commit.messages is not None or commit.delete:
                self._messages.apply(commit, now)
            if key.tenant and commit.writes_anything:
                self._contents.tenants.add(key.tenant)
        return stale

    def _is_stale(self, commit: Commit, now: int) -> bool:
        key, changes = commit.key, commit.alarms
        row = self._rows.get(key)
        if commit.revision is not None and (row[0] if row else 0) != commit.revision:
            return True
        if commit.messages is not None and self._messages.is_stale(commit.messages, now):
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
            self._alarms.postpone(each)

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        found = self._alarms.find(alarm)
        if found is None or found.status(now) != "dead":
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
        self._messages.drop_tenant(tenant)
        return True

    # --- messages --------------------------------------------------------------------------------

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self._messages.defer(deferrals)

    def mark_message(self, message: MessageKey) -> bool:
        return self._messages.mark(message)

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        return self._messages.retry(tokens, tenant)

    def drop_messages(self, tokens: Sequence[int], tenant: str = "") -> list[int]:
        return self._messages.drop(tokens, tenant)

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        return self._messages.clean_once(now, limit, tenant)

    def rename_type(self, old: str, new: str, tenant: str = "") -> int:
        def of_type(name: str) -> dict[ObjectKey, ObjectKey]:
            keys = [*self._rows, *self._alarms.objects()]
            return {
                key: attrs.evolve(key, type_name=new)
                for key in keys
                if (key.type_name, key.tenant) == (name, tenant)
            }

        if old == new:
            return 0
        renamed = of_type(old)
        taken = set(renamed.values()) & set(of_type(new))
        if taken:
            raise PartialFault(both_names(old, min(taken, key=lambda key: key.object_id)))
        count = 0
        for key, name in renamed.items():
            row = self._rows.pop(key, None)
            if row is not None:
                self._rows[name] = row
                count += 1
            self._alarms.rename(key, name)
        self._messages.rename(old, new, tenant)
        return count

    def rename_messages(self, old: str, new: str, tenant: str = "") -> None:
        self._messages.rename(old, new, tenant)

    def restore_messages(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
        once: Sequence[OnceReply],
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        keys = (
            *(message.key.to for message in waiting),
            *(letter.message.key.to for letter in dead),
            *(reply.key.to for reply in once),
        )
        self._contents.tenants.update(key.tenant for key in keys if key.tenant)
        return self._messages.restore(waiting, dead, once, now)

    def close(self) -> None:
        self._storage._release()


class _MemoryReader(Reader):
    def __init__(self, contents: _Contents) -> None:
        self._see(contents)

    def _see(self, contents: _Contents) -> None:
        self._contents = contents
        self._alarms = contents.alarms
        self._messages = contents.messages

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        contents = self._contents
        self._see(contents.copy())
        try:
            yield
        finally:
            self._see(contents)

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

    def load_alarms(self, alarms: Sequence[AlarmKey], now: int) -> list[AlarmRow | None]:
        found = [(key, self._alarms.find(key)) for key in alarms]
        return [None if alarm is None else alarm.row(key, now) for key, alarm in found]

    def recurring_alarms(
        self,
        type_name: str,
        name: str,
        due_after: int,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredAlarm]:
        return self._alarms.recurring(type_name, name, due_after, after, tenant)[:limit]

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
            alarm.row(key, now)
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

    # --- messages --------------------------------------------------------------------------------

    def list_receivers(
        self, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[Receiver]:
        return self._messages.receivers(after, limit, tenant)

    def read_mail(
        self, to: ObjectKey, after: str | None, lanes: int, limit: int
    ) -> list[StoredMessage]:
        return self._messages.mail(to, after, lanes, limit)

    def read_lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        return self._messages.lane(to, lane, after, limit)

    def load_messages(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        return [self._messages.find(key) for key in keys]

    def due_messages(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueMessage]:
        return self._messages.due(before, after, limit, except_types, tenant)

    def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        return self._messages.sent_under(sender, sender_key)

    def list_messages(
        self,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredMessage]:
        return self._messages.waiting(type_name, object_id, after, limit, tenant)

    def list_dead_messages(
        self, type_name: str | None, after: int, limit: int, tenant: str = ""
    ) -> list[DeadMessage]:
        return self._messages.dead(type_name, after, limit, tenant)

    def load_dead_messages(
        self, tokens: Sequence[int], tenant: str = ""
    ) -> list[DeadMessage | None]:
        return self._messages.load_dead(tokens, tenant)

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        return self._messages.find_once(keys, now)

    def list_once(self, after: OnceKey | None, limit: int, tenant: str = "") -> list[OnceReply]:
        return self._messages.list_once(after, limit, tenant)

    def summarize_messages(self, tenant: str = "") -> list[MessageSummary]:
        return self._messages.summarize(tenant)

    def close(self) -> None:
        pass
