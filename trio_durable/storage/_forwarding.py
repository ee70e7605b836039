"""Forwarding storage, writer and reader: base classes for a storage that wraps another one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager

from .._keys import AlarmKey, ObjectKey
from ._contract import Reader, Storage, Writer
from ._membership import Membership
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
from ._moves import Move
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

    @property
    def foreign_alarms(self) -> str | None:
        """See `Storage.foreign_alarms`."""
        return self.inner.foreign_alarms

    @property
    def keeps_messages(self) -> bool:
        """Whether ``inner`` keeps messages."""
        return self.inner.keeps_messages

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

    def list_moves(self) -> list[Move]:
        return self.inner.list_moves()

    def reopen(self, tenant: str = "") -> bool:
        return self.inner.reopen(tenant)


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

    def maintain(self) -> None:
        self.inner.maintain()

    def rename_type(self, old: str, new: str, tenant: str = "") -> int:
        return self.inner.rename_type(old, new, tenant)

    def mark_moved(self, target: str, now: int, tenant: str = "") -> None:
        self.inner.mark_moved(target, now, tenant)

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

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self.inner.defer_messages(deferrals)

    def mark_message(self, message: MessageKey) -> bool:
        return self.inner.mark_message(message)

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        return self.inner.retry_messages(tokens, tenant)

    def drop_messages(self, tokens: Sequence[int], tenant: str = "") -> list[int]:
        return self.inner.drop_messages(tokens, tenant)

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        return self.inner.clean_once(now, limit, tenant)

    def rename_messages(self, old: str, new: str, tenant: str = "") -> None:
        self.inner.rename_messages(old, new, tenant)

    def restore_messages(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
        once: Sequence[OnceReply],
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        return self.inner.restore_messages(waiting, dead, once, now)

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

    def load_alarms(self, alarms: Sequence[AlarmKey], now: int) -> list[AlarmRow | None]:
        return self.inner.load_alarms(alarms, now)

    def recurring_alarms(
        self,
        type_name: str,
        name: str,
        due_after: int,
        after: AlarmKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredAlarm]:
        return self.inner.recurring_alarms(type_name, name, due_after, after, limit, tenant)

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

    def snapshot(self) -> AbstractContextManager[None]:
        return self.inner.snapshot()

    def list_receivers(
        self, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[Receiver]:
        return self.inner.list_receivers(after, limit, tenant)

    def read_mail(
        self, to: ObjectKey, after: str | None, lanes: int, limit: int
    ) -> list[StoredMessage]:
        return self.inner.read_mail(to, after, lanes, limit)

    def read_lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        return self.inner.read_lane(to, lane, after, limit)

    def load_messages(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        return self.inner.load_messages(keys)

    def due_messages(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueMessage]:
        return self.inner.due_messages(before, after, limit, except_types, tenant)

    def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        return self.inner.find_sent(sender, sender_key)

    def list_messages(
        self,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredMessage]:
        return self.inner.list_messages(type_name, object_id, after, limit, tenant)

    def list_dead_messages(
        self, type_name: str | None, after: int, limit: int, tenant: str = ""
    ) -> list[DeadMessage]:
        return self.inner.list_dead_messages(type_name, after, limit, tenant)

    def load_dead_messages(
        self, tokens: Sequence[int], tenant: str = ""
    ) -> list[DeadMessage | None]:
        return self.inner.load_dead_messages(tokens, tenant)

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        return self.inner.find_once(keys, now)

    def list_once(self, after: OnceKey | None, limit: int, tenant: str = "") -> list[OnceReply]:
        return self.inner.list_once(after, limit, tenant)

    def summarize_messages(self, tenant: str = "") -> list[MessageSummary]:
        return self.inner.summarize_messages(tenant)

    def close(self) -> None:
        self.inner.close()
