"""Simulated disk: outlives the processes that write to it, and fails where a fault is injected.

The data are in a `MemoryStorage`, which keeps the storage contract. After its crash, a process can
neither read nor write, even in its ``finally`` blocks. It doesn't close its writer either: the disk
releases the writer, as an operating system does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    Commit,
    DeadMessage,
    Deferral,
    ForwardingWriter,
    MemoryStorage,
    MessageKey,
    Reader,
    RetriedMessage,
    Storage,
    StorageFault,
    StoredAlarm,
    StoredMessage,
    StoredObject,
    Writer,
)
from .._intercepted import InterceptedReader, InterceptedWriter
from ._faults import Kind, Life, ProcessDied, When

T = TypeVar("T")


class Journal(Protocol):
    """Observer of the writes of a process."""

    def claimed(self, stored: StoredAlarm, claim: int) -> None:
        """Called after a process has claimed an alarm."""
        ...

    def written(self, key: ObjectKey) -> None:
        """Called after an object's new state, or its deletion, is written."""
        ...

    def acknowledged(self, key: AlarmKey, claim: int) -> None:
        """Called after the commit that acknowledges an alarm is written."""
        ...

    def delivered(self, messages: int) -> None:
        """Called after a commit that has handled so many messages is written."""
        ...

    def dropped(self, tenant: str) -> None:
        """Called after a tenant, which has had data, is removed."""
        ...


class Disk:
    """The data that are left when a process has died."""

    def __init__(self) -> None:
        self._memory = MemoryStorage()
        self._writer: Writer | None = None
        self._reader = self._memory.open_reader()
        self._backup = self._memory._contents.copy()

    def back_up(self) -> None:
        """Keep the data as they are now, all of one moment."""
        self._backup = self._memory._contents.copy()

    def restore(self) -> None:
        """Replace the data by those of the last backup, which no process may be using."""
        self._memory._contents = self._backup.copy()
        self._reader = self._memory.open_reader()

    def mount(self, life: Life, journal: Journal) -> Storage:
        """The storage through which one process uses the disk."""
        return _ProcessStorage(self, life, journal)

    def release(self) -> None:
        """Close the writer that a dead process left open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def open_writer(self) -> Writer:
        """Open the writer for a process."""
        self._writer = self._memory.open_writer()
        return self._writer

    def open_reader(self) -> Reader:
        """Open a reader for a process."""
        return self._memory.open_reader()

    def row(self, key: ObjectKey) -> StoredObject | None:
        """The row of an object, or None."""
        return self._reader.load([key])[0]

    def ids(self, type_name: str, tenant: str) -> list[str]:
        """The ids of all stored objects of a type and a tenant."""
        return self._reader.list_ids(type_name, None, 2**31, tenant)

    def tenants(self) -> list[str]:
        """The names of all tenants with data."""
        return self._reader.list_tenants(None, 2**31)

    def alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        """The alarms of an object, without dead letters."""
        return self._reader.list_alarms(key)

    def messages(self, tenant: str = "") -> list[StoredMessage]:
        """All messages that wait for objects of a tenant."""
        return self._reader.list_messages(None, None, None, 2**31, tenant)

    def dead_messages(self, tenant: str = "") -> list[DeadMessage]:
        """All dead letters among the messages of a tenant."""
        return self._reader.list_dead_messages(None, 0, 2**31, tenant)

    def next_alarm(self) -> int | None:
        """When the next alarm of any tenant is available, in microseconds since 1970 UTC."""
        due = [
            alarm.available_at
            for tenant in ("", *self.tenants())
            for alarm in self._reader.due_alarms(2**62, None, 1, (), tenant)
        ]
        return min(due, default=None)


class _ProcessStorage(Storage):
    def __init__(self, disk: Disk, life: Life, journal: Journal) -> None:
        self._disk = disk
        self._life = life
        self._journal = journal

    @property
    def location(self) -> str:
        return ":simulated:"

    @property
    def keeps_messages(self) -> bool:
        return True

    def open_writer(self) -> Writer:
        return _Writer(self._disk, self._life, self._journal)

    def open_reader(self) -> Reader:
        return _Reader(self._disk, self._life)


class _Interceptor:
    """Calls of a process to its disk: faults come before or after some, and death ends all."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def __call__(self, kind: str, work: Callable[[], T], /) -> T:
        what = _POINTS.get(kind)
        self._pass("before", what)
        self._check_owner()
        result = work()
        self._pass("after", what)
        return result

    def _check_owner(self) -> None:
        if self._life.is_replaced:
            raise StorageFault("another process has taken over")

    def _pass(self, when: When, what: Kind | None) -> None:
        if what is None:
            if self._life.is_over:
                raise StorageFault("the process has died")
            return
        problem = f"fault injected {when} the {what}"
        try:
            self._life.pass_point(when, what, lambda: StorageFault(problem))
        except ProcessDied:
            # A job of the storage runs between the ticks of the loop, and only the errors of a
            # storage are expected from it. No caller is left in the dead process to see this one.
            raise StorageFault("the process has died") from None


_POINTS: dict[str, Kind] = {
    "load": "load",
    "commit": "commit",
    "claim": "claim",
    "postpone": "defer",
    "defer_messages": "defer",
    "mark": "mark",
    "mark_message": "mark",
    "acquit": "defer",
    "revive": "retry",
    "retry_messages": "retry",
    "drop_messages": "drop",
    "drop_tenant": "drop",
}
"""The points of a step at which a fault may be injected, by the method of a storage. A message is
buried by a commit, and its mark is ended by a deferral, as that of an alarm is by an acquittal."""


class _Writer(InterceptedWriter):
    def __init__(self, disk: Disk, life: Life, journal: Journal) -> None:
        super().__init__(_JournaledWriter(disk.open_writer(), journal), _Interceptor(life))
        self._disk = disk
        self._journal = journal

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        claimed = super().claim(alarms, claim, now, until)
        for alarm in claimed:
            self._journal.claimed(alarm, claim)
        return claimed

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self._call("defer_messages", lambda: self.inner.defer_messages(deferrals))

    def mark_message(self, message: MessageKey) -> bool:
        return self._call("mark_message", lambda: self.inner.mark_message(message))

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        return self._call("retry_messages", lambda: self.inner.retry_messages(tokens, tenant))

    def drop_messages(self, tokens: Sequence[int], tenant: str = "") -> list[int]:
        return self._call("drop_messages", lambda: self.inner.drop_messages(tokens, tenant))

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        return self._call("clean_once", lambda: self.inner.clean_once(now, limit, tenant))

    def close(self) -> None:
        self._disk.release()


class _JournaledWriter(ForwardingWriter):
    """Records commits, even if a fault after one hides its outcome from the process."""

    def __init__(self, inner: Writer, journal: Journal) -> None:
        super().__init__(inner)
        self._journal = journal

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = super().commit(batch, now)
        for position, commit in enumerate(batch):
            if position not in stale:
                self._record_commit(commit)
        return stale

    def drop_tenant(self, tenant: str) -> bool:
        existed = super().drop_tenant(tenant)
        if existed:
            self._journal.dropped(tenant)
        return existed

    def _record_commit(self, commit: Commit) -> None:
        if commit.state is not None or commit.delete:
            self._journal.written(commit.key)
        if commit.alarms is not None:
            for name, claim in commit.alarms.acknowledged.items():
                self._journal.acknowledged(commit.key.alarm(name), claim)
        if commit.messages is not None:
            self._journal.delivered(len(commit.messages.acknowledged))


class _Reader(InterceptedReader):
    def __init__(self, disk: Disk, life: Life) -> None:
        super().__init__(disk.open_reader(), _Interceptor(life))

    def close(self) -> None:
        pass
