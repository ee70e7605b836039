"""The source of an inspector that is mounted into the app: the app's own runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
import orjson

from .._api.commands import CommandRequests
from .._api.editing import edit_state
from .._api.objects import Objects
from .._api.runtime import DurableRuntime
from .._cluster.nodes import Node
from .._keys import AlarmKey, ObjectKey
from ..storage import Reader
from ._history import TurnHistory
from ._source import Expected, Source

T = TypeVar("T")

_PATIENCE_SECONDS = 10.0
"""How long a page waits for other processes."""


class RuntimeSource(Source):
    """A runtime of this process.

    Args:
        runtime: The runtime, open or not. One that isn't yet gets a `TurnHistory`.
    """

    def __init__(self, runtime: DurableRuntime) -> None:
        self._runtime = runtime
        self._requests: CommandRequests | None = None
        self.history = runtime._instrument(TurnHistory)

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._runtime._storage.location

    async def read(self, work: Callable[[Reader], T]) -> T:
        """See `Source.read`. The reader is one of its own, so loads don't wait for it."""
        opened = self._runtime._usable()
        with opened.storage_errors():
            return await opened.sides.scan(work)

    async def ask(self, request: str, arguments: Sequence[object] = ()) -> list[Any]:
        """See `Source.ask`."""
        opened = self._runtime._usable()
        if self._requests is None:
            runtime = self._runtime
            self._requests = CommandRequests(opened, runtime._registry, runtime.statistics)
        own = self._requests.of_process(request, arguments)
        assert own is not None
        answers = [orjson.loads(own)]
        if opened.sharing is not None:
            answers += await opened.sharing.ask_all(request, arguments, _PATIENCE_SECONDS)
        return answers

    async def nodes(self) -> list[Node]:
        """See `Source.nodes`."""
        return await self._runtime.list_nodes()

    async def edit(self, key: ObjectKey, state: str, expected: Expected) -> None:
        """See `Source.edit`."""
        await edit_state(self._objects(key.tenant), key, state, expected)

    async def retry_alarm(self, key: AlarmKey) -> bool:
        """See `Source.retry_alarm`."""
        objects = self._objects(key.tenant)
        return await objects.retry_alarm(key.type_name, key.object_id, key.name)

    async def drop_alarm(self, key: AlarmKey) -> None:
        """See `Source.drop_alarm`."""
        objects = self._objects(key.tenant)
        await objects.cancel_alarm(key.type_name, key.object_id, key.name)

    async def retry_message(self, tenant: str, message_id: str) -> bool:
        """See `Source.retry_message`."""
        return await self._objects(tenant).retry_message(message_id)

    async def drop_message(self, tenant: str, message_id: str) -> bool:
        """See `Source.drop_message`."""
        return await self._objects(tenant).drop_message(message_id)

    async def wait(self, seconds: float) -> bool:
        """See `Source.wait`. Web servers wait for open streams before they leave the runtime."""
        await anyio.sleep(seconds)
        opened = self._runtime._usable()
        return not (opened.hub.has_ended or opened.services.closing)

    def tell(self, event: object) -> None:
        """See `Source.tell`."""
        notifier = self._runtime._usable().notifier
        if notifier is not None:
            notifier.tell(event)

    def _objects(self, tenant: str) -> Objects:
        return self._runtime.tenant(tenant) if tenant else self._runtime
