"""The sides of a storage that outlives its processes, with something between them and each one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from trio_durable import ObjectKey
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    Commit,
    DueAlarm,
    Postponement,
    Reader,
    StoredAlarm,
    StoredObject,
    Writer,
)
from trio_durable.storage._forwarding import ForwardingReader, ForwardingWriter

T = TypeVar("T")


class Call(Protocol):
    """What a process has done for it, by the name of the method: or not, as a test wants."""

    def __call__(self, kind: str, work: Callable[[], T], /) -> T: ...


class InterceptedWriter(ForwardingWriter):
    def __init__(self, inner: Writer, call: Call) -> None:
        super().__init__(inner)
        self._call = call

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        return self._call("commit", lambda: self.apply(batch, now))

    def apply(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """What a commit is, where nothing is in between."""
        return self.inner.commit(batch, now)

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

    def close(self) -> None:
        pass  # the others go on


class InterceptedReader(ForwardingReader):
    def __init__(self, inner: Reader, call: Call) -> None:
        super().__init__(inner)
        self._call = call

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return self._call("load", lambda: self.fetch(keys))

    def fetch(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        """What a load is, where nothing is in between."""
        return self.inner.load(keys)

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

    def close(self) -> None:
        pass
