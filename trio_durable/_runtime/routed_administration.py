"""Routed administration: requests about an object, made in the process that has it.

A request crosses as its name and plain JSON. `AdministrationRequests` makes it on the other side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from .._activations.calls import LocalCalls
from .._activations.info import ActivationInfo
from .._cluster.nodes import Node, node_of
from .._cluster.router import HERE, Router
from .._keys import AlarmKey, ObjectKey
from ..storage import NewAlarm
from .administration import Administration
from .open_runtime import OpenRuntime

T = TypeVar("T")


class RoutedAdministration(Administration):
    """The requests of one runtime of a cluster.

    Args:
        opened: The runtime's parts.
        router: The way to other processes.
        timeout_of: Returns the timeout of the calls of a type, by its stored name; of the
            runtime's calls, for no name.
    """

    def __init__(
        self, opened: OpenRuntime, router: Router, timeout_of: Callable[[str], float | None]
    ) -> None:
        super().__init__(opened)
        self._router = router
        self._timeout_of = timeout_of

    async def ensure_started(self, calls: LocalCalls, address: str) -> ActivationInfo:
        """See `Administration.ensure_started`."""
        key = calls.object_type.key(address)
        found = await self._elsewhere("ensure_started", key)
        if found is HERE:
            return await super().ensure_started(calls, address)
        status, depth, revision = found
        return ActivationInfo(key, status, depth, revision)

    async def stop(self, calls: LocalCalls, address: str, interrupt: bool) -> None:
        """See `Administration.stop`."""
        if await self._elsewhere("stop", calls.object_type.key(address), interrupt) is HERE:
            await super().stop(calls, address, interrupt)

    async def get_state(self, calls: LocalCalls, address: str) -> Any:
        """See `Administration.get_state`."""
        key = calls.object_type.key(address)
        found = await self._elsewhere("get_state", key, repeatable=True)
        if found is HERE:
            return await super().get_state(calls, address)
        return calls.object_type.codec.decode_fields(key, found.encode())

    async def put_state(self, calls: LocalCalls, address: str, fields: bytes) -> None:
        """See `Administration.put_state`."""
        key = calls.object_type.key(address)
        if await self._elsewhere("put_state", key, fields.decode()) is HERE:
            await super().put_state(calls, address, fields)

    async def exists(self, calls: LocalCalls, address: str) -> bool:
        """See `Administration.exists`."""
        key = calls.object_type.key(address)
        found = await self._elsewhere("exists", key, repeatable=True)
        return await super().exists(calls, address) if found is HERE else bool(found)

    async def delete(self, calls: LocalCalls, address: str) -> None:
        """See `Administration.delete`."""
        if await self._elsewhere("delete", calls.object_type.key(address)) is HERE:
            await super().delete(calls, address)

    async def schedule_alarm(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """See `Administration.schedule_alarm`."""
        payload = None if new.payload is None else new.payload.decode()
        if await self._elsewhere("schedule_alarm", key, name, new.due_at, payload) is HERE:
            await super().schedule_alarm(key, name, new)

    async def cancel_alarm(self, key: ObjectKey, name: str) -> None:
        """See `Administration.cancel_alarm`."""
        if await self._elsewhere("cancel_alarm", key, name) is HERE:
            await super().cancel_alarm(key, name)

    async def cancel_all_alarms(self, key: ObjectKey) -> None:
        """See `Administration.cancel_all_alarms`."""
        if await self._elsewhere("cancel_all_alarms", key) is HERE:
            await super().cancel_all_alarms(key)

    async def retry_alarm(self, key: AlarmKey) -> bool:
        """See `Administration.retry_alarm`."""
        found = await self._elsewhere("retry_alarm", key.object_key, key.name)
        return await super().retry_alarm(key) if found is HERE else bool(found)

    async def fire_alarm(self, key: AlarmKey) -> bool:
        """See `Administration.fire_alarm`."""
        found = await self._elsewhere("fire_alarm", key.object_key, key.name)
        return await super().fire_alarm(key) if found is HERE else bool(found)

    async def list_nodes(self) -> list[Node]:
        """See `Administration.list_nodes`."""
        found = await self._elsewhere("list_nodes", ObjectKey("", "", ""), repeatable=True)
        return await super().list_nodes() if found is HERE else list(map(node_of, found))

    async def drop_tenant(self, name: str) -> bool:
        """See `Administration.drop_tenant`."""
        found = await self._elsewhere("drop_tenant", ObjectKey("", "", name), is_timed=False)
        return await super().drop_tenant(name) if found is HERE else bool(found)

    async def _elsewhere(
        self,
        name: str,
        key: ObjectKey,
        *arguments: object,
        repeatable: bool = False,
        is_timed: bool = True,
    ) -> Any:
        """Make a request where the object is; `HERE` if that is this process."""
        if self._router.is_owner:
            return HERE
        subject = [name, [key.type_name, key.object_id, key.tenant, *arguments]]
        body = b'"a",' + orjson.dumps(subject)[1:-1]
        timeout = self._timeout_of(key.type_name) if is_timed else None
        return await self._router.forward(lambda: key, name, body, timeout, repeatable=repeatable)


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
        """Make the request that `RoutedAdministration` has sent, and return its result as JSON."""
        type_name, object_id, tenant, *rest = arguments
        made = self._administration
        key = ObjectKey(type_name, object_id, tenant)
        match name:
            case "schedule_alarm":
                alarm, due_at, payload = rest
                new = NewAlarm(due_at, None if payload is None else payload.encode())
                await made.schedule_alarm(key, alarm, new)
            case "cancel_alarm":
                await made.cancel_alarm(key, *rest)
            case "cancel_all_alarms":
                await made.cancel_all_alarms(key)
            case "retry_alarm":
                return orjson.dumps(await made.retry_alarm(key.alarm(*rest)))
            case "fire_alarm":
                return orjson.dumps(await made.fire_alarm(key.alarm(*rest)))
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
            case "exists":
                return await made.exists(calls, address)
            case "delete":
                await made.delete(calls, address)
            case _:
                raise ValueError(f"{name!r:.80} is no request of this release")
        return None
