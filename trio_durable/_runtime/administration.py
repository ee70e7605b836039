"""Administration: requests about one object from outside of its turns, where the object is served.

Each request is a method with plain arguments and a plain result, so that it can be named, and made
in another process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio

from .._activations.calls import LocalCalls
from .._activations.encoded import row_digest
from .._activations.info import ActivationInfo
from .._activations.operations import (
    DELETE,
    ENSURE_STARTED,
    EXISTS,
    GET_STATE,
    PUT_STATE,
    REPLACE_STATE,
    REWRITE,
    STOP,
)
from .._activations.services import NO_MESSAGES
from .._cluster.nodes import Node, this_node
from .._errors import InvalidMessage, ObjectNotRunning, StaleObject
from .._keys import AlarmKey, ObjectKey
from .._messages.request import SendRequest
from .._persistence.restoring import as_new, restore_alarms
from ..storage import (
    AlarmChanges,
    AlarmRow,
    Commit,
    NewAlarm,
    NewMessage,
    OnceReply,
    StoredAlarm,
    Writer,
)
from .open_runtime import OpenRuntime
from .tenant_drop import drop_tenant

T = TypeVar("T")


class Administration:
    """The requests of one runtime. Its callers have checked that the runtime is open.

    Args:
        opened: The runtime's parts.
    """

    def __init__(self, opened: OpenRuntime) -> None:
        self._opened = opened

    # --- objects ---------------------------------------------------------------------------------

    async def ensure_started(self, calls: LocalCalls, address: str) -> ActivationInfo:
        """See `Objects.ensure_started`."""
        await calls.operate(address, ENSURE_STARTED)
        found = calls.directory.find(address)
        if found is not None:
            return found.info()
        # Already gone again, in the moment between; it did start.
        return ActivationInfo(calls.object_type.key(address), "hibernated", 0, 0)

    async def stop(self, calls: LocalCalls, address: str, interrupt: bool) -> None:
        """See `Objects.stop`."""
        if calls.directory.find(address) is None:
            await self._opened.loop.checkpoint()
        elif interrupt:
            await calls.interrupt(address)
        else:
            await calls.operate(address, STOP)

    async def get_state(self, calls: LocalCalls, address: str) -> Any:
        """See `Objects.get_state`."""
        if calls.directory.find(address) is None:
            raise ObjectNotRunning(calls.object_type.key(address), "get_state")
        return await calls.operate(address, GET_STATE)

    async def put_state(self, calls: LocalCalls, address: str, fields: bytes) -> None:
        """See `Objects.put_state`; ``fields`` are encoded."""
        await calls.operate(address, PUT_STATE, fields)

    async def replace_state(
        self, calls: LocalCalls, address: str, fields: bytes, revision: int, digest: str | None
    ) -> tuple[int, bytes | None] | None:
        """See `Objects.put_state` with ``expected``; ``fields`` are encoded.

        Returns:
            The revision and the state that are stored instead of the expected ones; None if the
            state was replaced.
        """
        stale: StaleObject | None = None
        try:
            if await calls.operate(address, REPLACE_STATE, fields, revision, digest):
                return None
        except StaleObject as error:
            stale = error
        key = calls.object_type.key(address)
        [row] = await self._opened.read(lambda reader: reader.load([key]))
        found = (0, None) if row is None else (row.revision, row.state)
        found_digest = None if row is None else row_digest(row.state)
        if stale is not None and (found[0], found_digest) == (revision, digest):
            raise stale  # for another reason
        return found

    async def rewrite(
        self, calls: LocalCalls, address: str, revision: int, epoch: int, row: bytes | None
    ) -> None:
        """Replace or delete a stored row for the command line. See `Resident.rewrite`.

        Raises:
            StaleObject: Another row is stored.
        """
        await calls.operate(address, REWRITE, revision, epoch, row)

    async def exists(self, calls: LocalCalls, address: str) -> bool:
        """See `Objects.exists`."""
        if calls.directory.find(address) is not None:
            return bool(await calls.operate(address, EXISTS))
        key = calls.object_type.key(address)
        [row] = await self._opened.read(lambda reader: reader.load([key]))
        return row is not None

    async def delete(self, calls: LocalCalls, address: str) -> None:
        """See `Objects.delete`."""
        await calls.operate(address, DELETE)

    # --- alarms ----------------------------------------------------------------------------------

    async def schedule_alarm(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """See `Objects.schedule_alarm`."""
        await self._opened.scheduler.schedule(key, name, new)

    async def cancel_alarm(self, key: ObjectKey, name: str) -> None:
        """See `Objects.cancel_alarm`."""
        await self._opened.scheduler.cancel(key, name)

    async def cancel_all_alarms(self, key: ObjectKey) -> None:
        """See `Objects.cancel_all_alarms`."""
        await self._opened.scheduler.cancel_all(key)

    async def retry_alarm(self, key: AlarmKey) -> bool:
        """See `Objects.retry_alarm`."""
        opened = self._opened
        opened.services.refuse_dropped(key.object_key)
        await opened.leave_turn()
        with opened.storage_errors():
            return await opened.scheduler.revive(key)

    async def restore_alarm(self, row: AlarmRow) -> None:
        """Set an alarm with its failures, as it was exported. See `restore_alarms`."""
        opened, key = self._opened, row.alarm.key
        owner = key.object_key
        opened.services.refuse_dropped(owner)
        now, new = opened.clock.now(), as_new(row)
        # Shielded, because a delivery of the alarm before it may go on.
        with opened.storage_errors(), anyio.CancelScope(shield=True):
            await opened.group_commit.perform(lambda writer: restore_alarms(writer, [row], now))
            opened.scheduler.committed(owner, AlarmChanges(changed={key.name: new}))
            opened.scheduler.uncertain()  # it is due at another time than its own

    async def remove_alarm(self, key: AlarmKey) -> None:
        """Remove the row of an alarm, also if it is the mark of one that was turned off."""
        opened, owner = self._opened, key.object_key
        opened.services.refuse_dropped(owner)
        changes = AlarmChanges(changed={key.name: None})
        batch, now = [Commit(owner, None, alarms=changes)], opened.clock.now()
        with opened.storage_errors(), anyio.CancelScope(shield=True):
            await opened.group_commit.perform(lambda writer: writer.commit(batch, now))
            opened.scheduler.committed(owner, changes)

    async def fire_alarm(self, key: AlarmKey) -> bool:
        """Deliver an alarm now, for tests; return whether there was one."""
        scheduler, tenure = self._opened.scheduler, self._opened.services.tenure
        with self._opened.storage_errors():
            if tenure is None:
                return await scheduler.fire(key)
            return await tenure.guard(
                lambda: key.object_key, "fire_alarm", None, lambda _: scheduler.fire(key)
            )

    async def deliver_alarm(self, stored: StoredAlarm, claim: int) -> None:
        """Deliver an alarm that a process of the cluster has claimed; return at its outcome."""
        opened = self._opened
        if opened.services.placement is not None:
            opened.services.placement.check(stored.key.object_key)
        await opened.scheduling.deliver(stored, claim)

    # --- messages --------------------------------------------------------------------------------

    def compose(
        self, request: SendRequest, key: ObjectKey, once: str | None
    ) -> tuple[NewMessage, OnceReply | None]:
        """The message of a request from outside of turns, and the promise of its reply.

        Raises:
            InvalidMessage: It can't be sent.
            InvalidOnceKey: ``once`` can't be a once-key.
        """
        opened, now = self._opened, self._opened.clock.now()
        if opened.messaging is None:
            raise InvalidMessage(key, request.handler, NO_MESSAGES)
        new = opened.messaging.outbox.compose(request, key.tenant, now, None, None)
        if once is None:
            return new, None
        return new, opened.messaging.once_calls.promise(new, once)

    async def send_message(self, new: NewMessage, promise: OnceReply | None) -> int:
        """See `Messages.send`. Returns the token of the message with its once-key."""
        opened, key = self._opened, new.to
        opened.services.refuse_dropped(key)
        messaging, tenure = opened.messaging, opened.services.tenure
        assert messaging is not None
        timeout = messaging.outbox.timeout_of(key)
        send = partial(messaging.once_calls.send, new, promise)
        if tenure is None:
            return await send(timeout)
        return await tenure.guard(lambda: key, "send", timeout, send)

    async def retry_message(self, key: ObjectKey, token: int) -> bool:
        """Let a dead letter wait again. See `Messages.retry_message`."""
        retried: object = True  # as long as that isn't known
        try:
            retried = await self._perform(
                key, lambda writer: writer.retry_messages([token], key.tenant)
            )
        finally:
            if retried and self._opened.outbox is not None:
                self._opened.outbox.look(key)
        return bool(retried)

    async def drop_message(self, key: ObjectKey, token: int) -> bool:
        """Remove a dead letter. See `Messages.drop_message`."""
        return bool(
            await self._perform(key, lambda writer: writer.drop_messages([token], key.tenant))
        )

    async def _perform(self, key: ObjectKey, job: Callable[[Writer], T]) -> T:
        """Run a job about an object with the writer."""
        opened = self._opened
        opened.services.refuse_dropped(key)
        await opened.leave_turn()
        with opened.storage_errors():
            return await opened.group_commit.perform(job)

    async def look_for_messages(self, key: ObjectKey) -> None:
        """Messages wait for an object that another process has sent."""
        await self._opened.loop.checkpoint()
        if self._opened.outbox is not None:
            self._opened.outbox.hinted(key)

    async def settled(self, key: ObjectKey) -> None:
        """See `Messages.settled`."""
        await self._opened.loop.checkpoint()
        if self._opened.outbox is not None:
            await self._opened.outbox.settled(key)

    # --- nodes -----------------------------------------------------------------------------------

    async def list_nodes(self) -> list[Node]:
        """See `DurableRuntime.list_nodes`."""
        opened = self._opened
        await opened.loop.checkpoint()
        if opened.sharing is None:
            return [this_node(opened.node_id, serves=True, shards=1)]
        return opened.sharing.nodes()

    async def locate(self, key: ObjectKey) -> Node:  # all of them are in one place
        """See `Objects.locate`."""
        return (await self.list_nodes())[0]

    # --- tenants ---------------------------------------------------------------------------------

    async def drop_tenant(self, name: str) -> bool:
        """See `DurableRuntime.drop_tenant`."""
        await self._opened.leave_turn()
        return await drop_tenant(self._opened, name)
