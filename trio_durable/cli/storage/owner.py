"""Owner: the side that may change what is stored, for commands that do.

While no runtime is open it is the command's own writer, which keeps runtimes out. While runtimes of
a cluster are open, the command joins them as a client, and each request is made by the process that
has the object. So the app goes on, and no live object is changed behind its back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ..._alarms.recurrence import stopped
from ..._api.objects import Objects
from ..._api.runtime import DurableRuntime
from ..._cluster.settings import Cluster
from ..._errors import CallTimeout, StaleObject, StorageInUse
from ..._keys import AlarmKey, ObjectKey
from ..._messages.message import message_id
from ..._persistence.restoring import is_unchanged, parts_of, restore_alarms, to_text
from ..._runtime.routed_administration import Request, RoutedAdministration
from ...storage import (
    AlarmChanges,
    AlarmRow,
    Commit,
    NewAlarm,
    ObjectRow,
    Onto,
    SharedStorage,
    Storage,
    StoredObject,
    Writer,
)
from ..errors import CommandError
from .members import client, cluster_of
from .open import open_writer
from .restore import Mail, changed_meanwhile, restore_mail, restore_objects, restoring_commit

_MAX_REQUESTS = 64
"""Concurrent requests. The owner commits concurrent changes in one transaction."""


class Owner(ABC):
    """The changes that commands make. Times are wall times in microseconds since 1970 UTC.

    Each change is durable when its method returns.
    """

    @abstractmethod
    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """Replace and delete objects, the latter with their alarms.

        Returns:
            The positions of the commits that did not apply, since another row is stored by now.
        """

    @abstractmethod
    def restore_objects(
        self, rows: Sequence[ObjectRow], stored: Mapping[ObjectKey, StoredObject]
    ) -> None:
        """Save exported objects. See `restore_objects`."""

    @abstractmethod
    def restore_alarms(self, rows: Sequence[AlarmRow], now: int) -> None:
        """Set exported alarms. See `restore_alarms`."""

    @abstractmethod
    def cancel_alarm(self, row: AlarmRow, now: int) -> None:
        """Remove an alarm, a dead letter or a mark. A recurring alarm leaves a mark."""

    @abstractmethod
    def set_alarms(self, alarms: Sequence[tuple[AlarmKey, NewAlarm]], now: int) -> None:
        """Set alarms of distinct objects."""

    @abstractmethod
    def retry_alarm(self, key: AlarmKey, now: int) -> bool:
        """Make a dead letter due. Returns whether it was one."""

    @property
    @abstractmethod
    def may_restore_messages(self) -> bool:
        """True if exported messages can be stored."""

    @abstractmethod
    def restore_mail(self, mail: Mail, now: int) -> Mail:
        """Store exported messages and once-keys of one tenant. See `Writer.restore_messages`.

        Returns:
            Those that were there already, and were left as they are there.
        """

    @abstractmethod
    def retry_message(self, token: int, tenant: str) -> bool:
        """Let a dead letter wait again. Returns whether it was one."""

    @abstractmethod
    def drop_message(self, token: int, tenant: str) -> bool:
        """Remove a dead letter. Returns whether it was one."""

    @abstractmethod
    def drop_tenant(self, name: str) -> bool:
        """Remove a tenant. Returns whether it existed."""


@contextmanager
def open_owner(storage: Storage) -> Iterator[Owner]:
    """Open the writer of a storage, or join the runtimes that have it.

    Raises:
        CommandError: The storage can't be written, or its runtimes can't be joined.
        StorageUnavailable: Likewise; `StorageInUse` if a runtime has it that is in no cluster.
    """
    with ExitStack() as stack:
        owner: Owner
        try:
            owner = OwnWriter(stack.enter_context(open_writer(storage)))
        except StorageInUse as in_use:
            cluster = cluster_of(storage, in_use.pid)
            if cluster is None:
                raise _refused(in_use, storage) from None
            owner = stack.enter_context(_joined(storage, cluster))
        yield owner


def _refused(error: StorageInUse, storage: Storage) -> StorageInUse:
    opening = "with cluster=True" if isinstance(storage, SharedStorage) else "without control=False"
    remedy = f"stop its process first, or open it {opening}"
    return StorageInUse(error.location, error.problem, error.pid, error.host, remedy)


@contextmanager
def _joined(storage: Storage, cluster: Cluster) -> Iterator[Owner]:
    with (
        start_blocking_portal("trio") as portal,
        portal.wrap_async_context_manager(client(storage, cluster)) as runtime,
    ):
        try:
            yield OtherRuntimes(portal, runtime)
        except CallTimeout as error:
            if cluster.tls is not None or not isinstance(storage, SharedStorage):
                raise
            raise CommandError(
                f"{error}; if the processes use TLS, name the certificates by "
                "TRIO_DURABLE_TLS_CERTIFICATE, TRIO_DURABLE_TLS_KEY and TRIO_DURABLE_TLS_AUTHORITY"
            ) from error


class OwnWriter(Owner):
    """The writer of this process.

    Args:
        writer: The writer.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """See `Owner.commit`."""
        return self._writer.commit(batch, now)

    def restore_objects(
        self, rows: Sequence[ObjectRow], stored: Mapping[ObjectKey, StoredObject]
    ) -> None:
        """See `Owner.restore_objects`."""
        restore_objects(self._writer, rows, stored)

    def restore_alarms(self, rows: Sequence[AlarmRow], now: int) -> None:
        """See `Owner.restore_alarms`."""
        restore_alarms(self._writer, rows, now)

    def cancel_alarm(self, row: AlarmRow, now: int) -> None:
        """See `Owner.cancel_alarm`."""
        key, leaves_mark = row.alarm.key, row.status in ("pending", "overdue")
        new = stopped(now) if leaves_mark and row.alarm.recurrence is not None else None
        changes = AlarmChanges(changed={key.name: new})
        self._writer.commit([Commit(key.object_key, None, alarms=changes)], now)

    def set_alarms(self, alarms: Sequence[tuple[AlarmKey, NewAlarm]], now: int) -> None:
        """See `Owner.set_alarms`."""
        self._writer.commit(
            [
                Commit(key.object_key, None, alarms=AlarmChanges(changed={key.name: new}))
                for key, new in alarms
            ],
            now,
        )

    def retry_alarm(self, key: AlarmKey, now: int) -> bool:
        """See `Owner.retry_alarm`."""
        return self._writer.revive(key, now)

    @property
    def may_restore_messages(self) -> bool:
        """See `Owner.may_restore_messages`."""
        return True

    def restore_mail(self, mail: Mail, now: int) -> Mail:
        """See `Owner.restore_mail`."""
        return restore_mail(self._writer, mail, now)

    def retry_message(self, token: int, tenant: str) -> bool:
        """See `Owner.retry_message`."""
        return bool(self._writer.retry_messages([token], tenant))

    def drop_message(self, token: int, tenant: str) -> bool:
        """See `Owner.drop_message`."""
        return bool(self._writer.drop_messages([token], tenant))

    def drop_tenant(self, name: str) -> bool:
        """See `Owner.drop_tenant`."""
        return self._writer.drop_tenant(name)


class OtherRuntimes(Owner):
    """The runtimes of other processes, each of which has some of the objects.

    The time of a change is theirs. They must know the types of the objects; the command need not.

    Args:
        portal: The event loop of the client.
        runtime: The client.
    """

    def __init__(self, portal: BlockingPortal, runtime: DurableRuntime) -> None:
        self._portal = portal
        self._runtime = runtime

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """See `Owner.commit`."""
        outcomes = self._make([_rewriting(commit) for commit in batch])
        return [at for at, outcome in enumerate(outcomes) if isinstance(outcome, StaleObject)]

    def restore_objects(
        self, rows: Sequence[ObjectRow], stored: Mapping[ObjectKey, StoredObject]
    ) -> None:
        """See `Owner.restore_objects`."""
        batch = [restoring_commit(row, stored.get(row.key)) for row in rows]
        for stale in self.commit(batch, 0):
            raise changed_meanwhile(batch[stale].key)

    def restore_alarms(self, rows: Sequence[AlarmRow], now: int) -> None:
        """See `Owner.restore_alarms`."""
        self._make([_restoring(row) for row in rows])

    def set_alarms(self, alarms: Sequence[tuple[AlarmKey, NewAlarm]], now: int) -> None:
        """See `Owner.set_alarms`."""
        self._make(
            [
                Request(
                    *("schedule_alarm", key.object_key, key.name, new.due_at, None),
                    *(new.recurrence, new.onto.value),
                )
                for key, new in alarms
            ]
        )

    def cancel_alarm(self, row: AlarmRow, now: int) -> None:
        """See `Owner.cancel_alarm`."""
        key = row.alarm.key
        # To cancel what was turned off would leave its mark there.
        request = "remove_alarm" if row.status == "stopped" else "cancel_alarm"
        self._make([Request(request, key.object_key, key.name)])

    def retry_alarm(self, key: AlarmKey, now: int) -> bool:
        """See `Owner.retry_alarm`."""
        [is_revived] = self._make([Request("retry_alarm", key.object_key, key.name)])
        return bool(is_revived)

    @property
    def may_restore_messages(self) -> bool:
        """See `Owner.may_restore_messages`: no runtime would learn of them."""
        return False

    def restore_mail(self, mail: Mail, now: int) -> Mail:
        """See `Owner.restore_mail`."""
        raise CommandError("messages can't be imported while runtimes are open; stop them first")

    def retry_message(self, token: int, tenant: str) -> bool:
        """See `Owner.retry_message`."""
        return self._portal.call(self._objects(tenant).retry_message, message_id(token))

    def drop_message(self, token: int, tenant: str) -> bool:
        """See `Owner.drop_message`."""
        return self._portal.call(self._objects(tenant).drop_message, message_id(token))

    def _objects(self, tenant: str) -> Objects:
        return self._runtime.tenant(tenant) if tenant else self._runtime

    def drop_tenant(self, name: str) -> bool:
        """See `Owner.drop_tenant`."""
        return self._portal.call(self._runtime.drop_tenant, name)

    def _make(self, requests: Sequence[Request]) -> list[Any]:
        """Make requests at the same time.

        Returns:
            The result of each, or its `StaleObject`.

        Raises:
            Exception: The first other error. Other requests may have been done.
        """
        return self._portal.call(self._make_all, requests)

    async def _make_all(self, requests: Sequence[Request]) -> list[Any]:
        administration = self._runtime._administered()
        assert isinstance(administration, RoutedAdministration)
        outcomes: list[Any] = [None] * len(requests)
        errors: list[Exception] = []
        waiting = iter(enumerate(requests))

        async def work() -> None:
            for at, request in waiting:
                if errors:
                    return
                try:
                    outcomes[at] = await administration.make(request)
                except StaleObject as stale:
                    outcomes[at] = stale
                except Exception as error:  # noqa: BLE001  # raised below, without a group
                    errors.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(len(requests), _MAX_REQUESTS)):
                tasks.start_soon(work)
        if errors:
            raise errors[0]
        return outcomes


def _rewriting(commit: Commit) -> Request:
    row = None if commit.delete else to_text(commit.state)
    return Request("rewrite", commit.key, commit.revision, commit.epoch, row)


def _restoring(row: AlarmRow) -> Request:
    alarm = row.alarm
    key = alarm.key
    # Both do, but only the former shares a transaction with others.
    if is_unchanged(row) and (alarm.payload or b"").isascii():
        payload = None if alarm.payload is None else alarm.payload.decode()
        marks = [] if alarm.recurrence is None else [alarm.recurrence, Onto.ANYTHING.value]
        return Request("schedule_alarm", key.object_key, key.name, alarm.due_at, payload, *marks)
    return Request("restore_alarm", key.object_key, *parts_of(row))
