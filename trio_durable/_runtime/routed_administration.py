"""Routed administration: requests about an object, made in the process that has it.

A request crosses as its name and plain JSON. `AdministrationRequests` makes it on the other side.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import orjson

from .._activations.calls import LocalCalls
from .._activations.info import ActivationInfo
from .._activations.placement import NotHere
from .._cluster.nodes import Node, node_of
from .._cluster.places import HERE
from .._cluster.service import unknown_request
from .._keys import AlarmKey, ObjectKey
from .._persistence.restoring import alarm_of, of_text, to_text
from ..storage import NewAlarm, NewMessage, OnceKey, OnceReply, Onto, StoredAlarm
from .administration import Administration
from .open_runtime import OpenRuntime
from .request_arguments import check_arguments
from .sharing import Sharing
from .tenant_barrier import TenantBarrier

T = TypeVar("T")


class Request:
    """A request for another process.

    Args:
        name: The method.
        key: The object; without a type for requests of the runtime itself.
        arguments: The other arguments, plain JSON.
        repeatable: It may run twice.
        is_timed: It takes no longer than calls of the object may.
    """

    def __init__(
        self,
        name: str,
        key: ObjectKey,
        *arguments: object,
        repeatable: bool = False,
        is_timed: bool = True,
    ) -> None:
        self.name = name
        self.key = key
        self.repeatable = repeatable
        self.is_timed = is_timed
        self._arguments = arguments

    def body(self) -> bytes:
        """See `Router.forward`."""
        key = self.key
        subject = [self.name, [key.type_name, key.object_id, key.tenant, *self._arguments]]
        return b'"a",' + orjson.dumps(subject)[1:-1]


def _nothing(found: Any) -> Any:
    """Decode the answer to a request without a result."""


class RoutedAdministration(Administration):
    """The requests of one runtime of a cluster.

    Args:
        opened: The runtime's parts.
        sharing: The cluster.
        barrier: Drops tenants in a cluster of members; None where one process has all objects.
        timeout_of: Returns the timeout of the calls of a type, by its stored name; of the
            runtime's calls, for no name.
    """

    def __init__(
        self,
        opened: OpenRuntime,
        sharing: Sharing,
        barrier: TenantBarrier | None,
        timeout_of: Callable[[str], float | None],
    ) -> None:
        super().__init__(opened)
        self._sharing = sharing
        self._barrier = barrier
        self._router = sharing.router
        self._timeout_of = timeout_of

    async def make(self, request: Request) -> Any:
        """Make a request of another process, whose types aren't known here. Returns its result.

        For a runtime that only calls, as that of the command line. See `AdministrationRequests`.

        Raises:
            UnknownObjectType: The type isn't known there either.
            CallTimeout: No answer came within the runtime's timeout.
            Exception: The request failed.
        """
        found = await self._forward(request, "")
        assert found is not HERE
        return found

    async def _forward(self, request: Request, timed_as: str) -> Any:
        """See `Router.forward`. The timeout is that of a type's calls, or the runtime's."""
        timeout = self._timeout_of(timed_as) if request.is_timed else None
        return await self._router.forward(
            lambda: request.key,
            request.key.object_id,
            request.name,
            request.body(),
            timeout,
            repeatable=request.repeatable,
        )

    async def ensure_started(self, calls: LocalCalls, address: str) -> ActivationInfo:
        """See `Administration.ensure_started`."""
        key = calls.object_type.key(address)

        def info(found: Any) -> ActivationInfo:
            status, depth, revision = found
            return ActivationInfo(key, status, depth, revision)

        here = partial(super().ensure_started, calls, address)
        return await self._routed(Request("ensure_started", key), here, info)

    async def stop(self, calls: LocalCalls, address: str, interrupt: bool) -> None:
        """See `Administration.stop`."""
        request = Request("stop", calls.object_type.key(address), interrupt)
        await self._routed(request, partial(super().stop, calls, address, interrupt))

    async def get_state(self, calls: LocalCalls, address: str) -> Any:
        """See `Administration.get_state`."""
        key, codec = calls.object_type.key(address), calls.object_type.codec
        return await self._routed(
            Request("get_state", key, repeatable=True),
            partial(super().get_state, calls, address),
            lambda found: codec.decode_fields(key, found.encode()),
        )

    async def put_state(self, calls: LocalCalls, address: str, fields: bytes) -> None:
        """See `Administration.put_state`."""
        request = Request("put_state", calls.object_type.key(address), fields.decode())
        await self._routed(request, partial(super().put_state, calls, address, fields))

    async def replace_state(
        self, calls: LocalCalls, address: str, fields: bytes, revision: int, digest: str | None
    ) -> tuple[int, bytes | None] | None:
        """See `Administration.replace_state`.

        An older release refuses the request by its name. It would ignore arguments that it doesn't
        know.
        """

        def decode(found: Any) -> tuple[int, bytes | None] | None:
            return None if found is None else (found[0], of_text(found[1]))

        key, expected = calls.object_type.key(address), (revision, digest)
        request = Request("replace_state", key, fields.decode(), *expected)
        here = partial(super().replace_state, calls, address, fields, *expected)
        return await self._routed(request, here, decode)

    async def exists(self, calls: LocalCalls, address: str) -> bool:
        """See `Administration.exists`."""
        request = Request("exists", calls.object_type.key(address), repeatable=True)
        return await self._routed(request, partial(super().exists, calls, address), bool)

    async def delete(self, calls: LocalCalls, address: str) -> None:
        """See `Administration.delete`."""
        request = Request("delete", calls.object_type.key(address))
        await self._routed(request, partial(super().delete, calls, address))

    async def schedule_alarm(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """See `Administration.schedule_alarm`."""
        payload = None if new.payload is None else new.payload.decode()
        # Marks only if there are some: an older release in the cluster doesn't know them.
        marks = [new.recurrence, new.onto.value] if new.recurrence or new.is_conditional else []
        request = Request("schedule_alarm", key, name, new.due_at, payload, *marks)
        await self._routed(request, partial(super().schedule_alarm, key, name, new))

    async def cancel_alarm(self, key: ObjectKey, name: str) -> None:
        """See `Administration.cancel_alarm`."""
        request = Request("cancel_alarm", key, name)
        await self._routed(request, partial(super().cancel_alarm, key, name))

    async def cancel_all_alarms(self, key: ObjectKey) -> None:
        """See `Administration.cancel_all_alarms`."""
        request = Request("cancel_all_alarms", key)
        await self._routed(request, partial(super().cancel_all_alarms, key))

    async def retry_alarm(self, key: AlarmKey) -> bool:
        """See `Administration.retry_alarm`."""
        request = Request("retry_alarm", key.object_key, key.name)
        return await self._routed(request, partial(super().retry_alarm, key), bool)

    async def fire_alarm(self, key: AlarmKey) -> bool:
        """See `Administration.fire_alarm`."""
        request = Request("fire_alarm", key.object_key, key.name)
        return await self._routed(request, partial(super().fire_alarm, key), bool)

    async def deliver_alarm(self, stored: StoredAlarm, claim: int) -> None:
        """See `Administration.deliver_alarm`."""
        payload = None if stored.payload is None else stored.payload.decode()
        content = claim, stored.due_at, payload, stored.failures, stored.last_error, stored.crashes
        key = stored.key
        request = Request(
            "deliver_alarm",
            key.object_key,
            *(key.name, *content, stored.recurrence),
            is_timed=False,
        )
        await self._routed(request, partial(super().deliver_alarm, stored, claim))

    async def send_message(self, new: NewMessage, promise: OnceReply | None) -> int:
        """See `Administration.send_message`."""
        once = None
        if promise is not None:
            once = promise.key.key, promise.digest, promise.signature, promise.expires_at
        content = new.token, new.handler, new.arguments.decode(), new.sent_at, new.wake_at, once
        request = Request("send_message", new.to, *content, repeatable=promise is not None)
        return await self._routed(request, partial(super().send_message, new, promise), int)

    async def retry_message(self, key: ObjectKey, token: int) -> bool:
        """See `Administration.retry_message`."""
        request = Request("retry_message", key, token)
        return await self._routed(request, partial(super().retry_message, key, token), bool)

    async def drop_message(self, key: ObjectKey, token: int) -> bool:
        """See `Administration.drop_message`."""
        request = Request("drop_message", key, token)
        return await self._routed(request, partial(super().drop_message, key, token), bool)

    async def look_for_messages(self, key: ObjectKey) -> None:
        """See `Administration.look_for_messages`. Repeated until the owner has answered."""
        request = Request("look_for_messages", key, repeatable=True, is_timed=False)
        await self._routed(request, partial(super().look_for_messages, key))

    async def settled(self, key: ObjectKey) -> None:
        """See `Administration.settled`."""
        request = Request("settled", key, repeatable=True, is_timed=False)
        await self._routed(request, partial(super().settled, key))

    async def list_nodes(self) -> list[Node]:
        """See `Administration.list_nodes`."""
        if not self._sharing.is_central:
            return await super().list_nodes()
        request = Request("list_nodes", ObjectKey("", "", ""), repeatable=True)
        return await self._routed(
            request, super().list_nodes, lambda found: list(map(node_of, found))
        )

    async def locate(self, key: ObjectKey) -> Node:
        """See `Administration.locate`."""
        if self._sharing.is_central:
            return await super().locate(key)
        await self._opened.loop.checkpoint()
        place = await self._router.locate(key, "locate", self._timeout_of(""))
        node_id = self._opened.node_id if place is HERE else place.them.node_id
        return next(node for node in self._sharing.nodes() if node.node_id == node_id)

    async def drop_tenant(self, name: str) -> bool:
        """See `Administration.drop_tenant`."""
        if self._barrier is not None:
            await self._opened.leave_turn()
            return await self._barrier.drop(name)
        request = Request("drop_tenant", ObjectKey("", "", name), is_timed=False)
        return await self._routed(request, partial(super().drop_tenant, name), bool)

    async def _routed(
        self,
        request: Request,
        here: Callable[[], Awaitable[T]],
        decode: Callable[[Any], T] = _nothing,
    ) -> T:
        """Make a request where the object is.

        Args:
            request: The request, for another process.
            here: Makes it in this process.
            decode: Decodes the other process' answer.
        """
        key = request.key
        while True:
            found = HERE
            if not self._router.has(key.object_id):
                found = await self._forward(request, key.type_name)
            if found is not HERE:
                return decode(found)
            with suppress(NotHere):  # it has left in this moment
                return await here()


def _sent(
    key: ObjectKey,
    token: int,
    handler: str,
    text: str,
    sent_at: int,
    wake_at: int | None,
    once: list[Any] | None,
) -> tuple[NewMessage, OnceReply | None]:
    """A message that another process sends, and the promise of its reply."""
    new = NewMessage(key, "", token, handler, text.encode(), sent_at, wake_at)
    if once is None:
        return new, None
    new.once_key, digest, signature, expires_at = once
    once_key = OnceKey(key, once[0])
    return new, OnceReply(once_key, handler, digest, signature, None, expires_at, token)


def _claimed(
    key: ObjectKey,
    name: str,
    claim: int,
    due_at: int,
    payload: str | None,
    failures: int,
    last_error: str | None,
    crashes: int | None,
    recurrence: str | None,
) -> tuple[StoredAlarm, int]:
    """An alarm that another process has claimed, and the claim."""
    text = None if payload is None else payload.encode()
    alarm = key.alarm(name)
    return StoredAlarm(alarm, due_at, text, failures, last_error, crashes, recurrence), claim


class AdministrationRequests:
    """The requests that come from other processes.

    Args:
        administration: Makes them.
        calls: Returns the calls of a type, by its stored name.
    """

    def __init__(self, administration: Administration, calls: Callable[[str], LocalCalls]) -> None:
        self._administration = administration
        self._calls = calls

    async def make(self, name: str, arguments: list[Any]) -> bytes:
        """Make the request that `RoutedAdministration` has sent, and return its result as JSON.

        Raises:
            ValueError: An argument can't be what it stands for.
            Exception: As the method of `Administration` does.
        """
        check_arguments(name, arguments)
        type_name, object_id, tenant, *rest = arguments
        made = self._administration
        key = ObjectKey(type_name, object_id, tenant)
        match name:
            case "schedule_alarm":
                alarm, due_at, payload, *marks = rest
                recurrence, onto = marks or (None, Onto.ANYTHING)
                new = NewAlarm(
                    due_at, None if payload is None else payload.encode(), recurrence, Onto(onto)
                )
                await made.schedule_alarm(key, alarm, new)
            case "cancel_alarm":
                await made.cancel_alarm(key, *rest)
            case "cancel_all_alarms":
                await made.cancel_all_alarms(key)
            case "retry_alarm":
                return orjson.dumps(await made.retry_alarm(key.alarm(*rest)))
            case "remove_alarm":
                await made.remove_alarm(key.alarm(*rest))
            case "restore_alarm":
                await made.restore_alarm(alarm_of(key, rest))
            case "fire_alarm":
                return orjson.dumps(await made.fire_alarm(key.alarm(*rest)))
            case "deliver_alarm":
                await made.deliver_alarm(*_claimed(key, *rest))
            case "send_message":
                return orjson.dumps(await made.send_message(*_sent(key, *rest)))
            case "retry_message":
                return orjson.dumps(await made.retry_message(key, *rest))
            case "drop_message":
                return orjson.dumps(await made.drop_message(key, *rest))
            case "look_for_messages":
                await made.look_for_messages(key)
            case "settled":
                await made.settled(key)
            case "list_nodes":
                return orjson.dumps([node.as_info() for node in await made.list_nodes()])
            case "drop_tenant":
                return orjson.dumps(await made.drop_tenant(tenant))
            case _:
                return orjson.dumps(await self._of_object(name, self._calls(type_name), key, rest))
        return b"null"

    async def _of_object(
        self, name: str, calls: LocalCalls, key: ObjectKey, rest: list[Any]
    ) -> object:
        made, address = self._administration, key.address
        match name:
            case "ensure_started":
                info = await made.ensure_started(calls, address)
                return [info.status, info.mailbox_depth, info.revision]
            case "stop":
                await made.stop(calls, address, *rest)
            case "get_state":
                instance = await made.get_state(calls, address)
                return calls.object_type.codec.encode_fields(key, instance).decode()
            case "put_state":
                await made.put_state(calls, address, rest[0].encode())
            case "replace_state":
                fields, revision, digest = rest
                other = await made.replace_state(calls, address, fields.encode(), revision, digest)
                return None if other is None else [other[0], to_text(other[1])]
            case "rewrite":
                revision, epoch, row = rest
                await made.rewrite(calls, address, revision, epoch, of_text(row))
            case "exists":
                return await made.exists(calls, address)
            case "delete":
                await made.delete(calls, address)
            case _:
                raise unknown_request(name)
        return None
