"""Forwarding storage, writer and reader: base classes for a storage that wraps another one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from .._keys import AlarmKey, ObjectKey
from ._contract import Reader, Storage, Writer
from ._membership import Membership
from ._records import (
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    Finding,
    ObjectRow,
    Postponement,
    StoredAlarm,
    StoredObject,
    TypeSummary,
)


class ForwardingStorage(Storage):
    """Forwards each call to another storage. Subclasses override single methods.

    Args:
        inner: The storage to forward to.
    """

    def __init__(self, inner: Storage) -> None:
        self._inner = inner

    @property
    def inner(self) -> Storage:
        """The storage that calls are forwarded to."""
        return self._inner

    @property
    def location(self) -> str:
        """The location of ``inner``."""
        return self.inner.location

    def open_writer(self) -> Writer:
        return self.inner.open_writer()

    def open_reader(self) -> Reader:
        return self.inner.open_reader()

    def pending_migrations(self) -> list[str]:
        return self.inner.pending_migrations()

    def migration_sql(self) -> str | None:
        return self.inner.migration_sql()

    def diagnose(self, thorough: bool = False) -> Iterator[Finding]:
        return self.inner.diagnose(thorough)


class ForwardingWriter(Writer):
    """Forwards each call to another writer. Subclasses override single methods.

    Args:
        inner: The writer to forward to.
    """

    def __init__(self, inner: Writer) -> None:
        self._inner = inner

    @property
    def inner(self) -> Writer:
        """The writer that calls are forwarded to."""
        return self._inner

    @property
    def log_bytes(self) -> int | None:
        """The size of the log of ``inner``."""
        return self.inner.log_bytes

    @property
    def membership(self) -> Membership | None:
        """The membership of ``inner``."""
        return self.inner.membership

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        return self.inner.commit(batch, now)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        return self.inner.claim(alarms, claim, now, until)

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self.inner.renew(claims, until)

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self.inner.postpone(postponements)

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        return self.inner.revive(alarm, now)

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        return self.inner.mark(alarm, claim)

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        return self.inner.acquit(alarm, claim)

    def drop_tenant(self, tenant: str) -> bool:
        return self.inner.drop_tenant(tenant)

    def close(self) -> None:
        self.inner.close()


class ForwardingReader(Reader):
    """Forwards each call to another reader. Subclasses override single methods.

    Args:
        inner: The reader to forward to.
    """

    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    @property
    def inner(self) -> Reader:
        """The reader that calls are forwarded to."""
        return self._inner

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return self.inner.load(keys)

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        return self.inner.list_ids(type_name, after, limit, tenant)

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        return self.inner.due_alarms(before, after, limit, except_types, tenant)

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        return self.inner.list_alarms(key)

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        return self.inner.list_dead_letters(type_name, after, limit, tenant)

    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        return self.inner.list_tenants(after, limit)

    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        return self.inner.browse_objects(type_name, after, limit, tenant)

    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        return self.inner.browse_alarms(status, now, type_name, after, limit, tenant)

    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        return self.inner.summarize(now, tenant)

    def close(self) -> None:
        self.inner.close()
