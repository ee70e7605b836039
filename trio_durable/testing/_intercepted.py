"""Storage sides whose calls all pass through one callable, which may fail, delay or count them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from .._keys import AlarmKey, ObjectKey
from ..storage import (
    AlarmRow,
    AlarmStatus,
    Commit,
    DueAlarm,
    ForwardingReader,
    ForwardingWriter,
    ObjectRow,
    Postponement,
    Reader,
    StoredAlarm,
    StoredObject,
    TypeSummary,
    Writer,
)

T = TypeVar("T")


class Call(Protocol):
    """Interceptor of the calls to a storage.

    It gets the name of the method and the call itself, and returns the result of the call. It may
    also raise before the call, and so prevent it, or after.
    """

    def __call__(self, kind: str, work: Callable[[], T], /) -> T: ...


class InterceptedWriter(ForwardingWriter):
    """Passes each call but ``close()`` to ``inner`` by way of ``call``."""

    def __init__(self, inner: Writer, call: Call) -> None:
        super().__init__(inner)
        self._call = call

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        return self._call("commit", lambda: self.inner.commit(batch, now))

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        return self._call("claim", lambda: self.inner.claim(alarms, claim, now, until))

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self._call("renew", lambda: self.inner.renew(claims, until))

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self._call("postpone", lambda: self.inner.postpone(postponements))

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        return self._call("revive", lambda: self.inner.revive(alarm, now))

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        return self._call("mark", lambda: self.inner.mark(alarm, claim))

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        return self._call("acquit", lambda: self.inner.acquit(alarm, claim))

    def drop_tenant(self, tenant: str) -> bool:
        return self._call("drop_tenant", lambda: self.inner.drop_tenant(tenant))


class InterceptedReader(ForwardingReader):
    """Passes each call but ``close()`` to ``inner`` by way of ``call``."""

    def __init__(self, inner: Reader, call: Call) -> None:
        super().__init__(inner)
        self._call = call

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return self._call("load", lambda: self.inner.load(keys))

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        return self._call("list_ids", lambda: self.inner.list_ids(type_name, after, limit, tenant))

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        return self._call(
            "due_alarms", lambda: self.inner.due_alarms(before, after, limit, except_types, tenant)
        )

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        return self._call("list_alarms", lambda: self.inner.list_alarms(key))

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str = ""
    ) -> list[StoredAlarm]:
        return self._call(
            "list_dead_letters",
            lambda: self.inner.list_dead_letters(type_name, after, limit, tenant),
        )

    def list_tenants(self, after: str | None, limit: int) -> list[str]:
        return self._call("list_tenants", lambda: self.inner.list_tenants(after, limit))

    def browse_objects(
        self, type_name: str | None, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[ObjectRow]:
        return self._call(
            "browse_objects", lambda: self.inner.browse_objects(type_name, after, limit, tenant)
        )

    def browse_alarms(
        self,
        status: AlarmStatus | None,
        now: int,
        type_name: str | None,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[AlarmRow]:
        return self._call(
            "browse_alarms",
            lambda: self.inner.browse_alarms(status, now, type_name, after, limit, tenant),
        )

    def summarize(self, now: int, tenant: str = "") -> list[TypeSummary]:
        return self._call("summarize", lambda: self.inner.summarize(now, tenant))
