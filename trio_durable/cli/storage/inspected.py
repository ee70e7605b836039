"""Sources of the inspector outside of the app: its storage, and its processes if some run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import Any, TypeVar

import anyio

from ..._api.commands import EDIT
from ..._api.objects import Objects
from ..._cluster.nodes import Node
from ..._errors import StorageUnavailable
from ..._keys import AlarmKey, ObjectKey
from ..._runtime.routed_administration import Request
from ...inspector._source import Expected, Source
from ...storage import Reader, Storage, StorageFault
from ..errors import CommandError
from .running import NotRunning, RunningApp, running_app

T = TypeVar("T")


class StoredSource(Source):
    """The storage of an app that is stopped, read only.

    Each read opens a reader, so that it needs no thread of its own, and none holds the storage up.

    Args:
        storage: The storage.
    """

    is_running = False

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._storage.location

    async def read(self, work: Callable[[Reader], T]) -> T:
        """See `Source.read`."""

        def read() -> T:
            try:
                with closing(self._storage.open_reader()) as reader:
                    return work(reader)
            except StorageFault as fault:
                raise StorageUnavailable(self.location, str(fault)) from fault

        return await anyio.to_thread.run_sync(read)


class RunningSource(StoredSource):
    """The processes of an app that runs, by the requests that commands make of it.

    Args:
        storage: The storage.
        app: The app.
    """

    is_running = True

    def __init__(self, storage: Storage, app: RunningApp) -> None:
        super().__init__(storage)
        self._app = app

    async def ask(self, request: str, arguments: Sequence[object] = ()) -> list[Any]:
        """See `Source.ask`."""
        try:
            return await self._app.ask_all(request, arguments)
        except CommandError as error:
            raise StorageUnavailable(self.location, error.message) from error

    async def nodes(self) -> list[Node]:
        """See `Source.nodes`."""
        runtime = self._app.runtime
        return [node for node in await runtime.list_nodes() if node.node_id != runtime.node_id]

    async def edit(self, key: ObjectKey, state: str, expected: Expected) -> None:
        """See `Source.edit`."""
        await self._app.make(Request(EDIT, key, state, *expected))

    async def retry_alarm(self, key: AlarmKey) -> bool:
        """See `Source.retry_alarm`."""
        return bool(await self._app.make(Request("retry_alarm", key.object_key, key.name)))

    async def drop_alarm(self, key: AlarmKey) -> None:
        """See `Source.drop_alarm`."""
        await self._app.make(Request("cancel_alarm", key.object_key, key.name))

    async def retry_message(self, tenant: str, message_id: str) -> bool:
        """See `Source.retry_message`."""
        return await self._objects(tenant).retry_message(message_id)

    async def drop_message(self, tenant: str, message_id: str) -> bool:
        """See `Source.drop_message`."""
        return await self._objects(tenant).drop_message(message_id)

    def _objects(self, tenant: str) -> Objects:
        runtime = self._app.runtime
        return runtime.tenant(tenant) if tenant else runtime


@asynccontextmanager
async def inspected(storage: Storage) -> AsyncIterator[Source]:
    """The source for a storage: its app if one runs that commands can reach, else the storage.

    Raises:
        StorageUnavailable: There is no storage at this location.
    """
    stored = StoredSource(storage)
    await stored.read(lambda _: None)
    async with AsyncExitStack() as stack:
        source: Source = stored
        with suppress(NotRunning):
            app = await stack.enter_async_context(running_app(storage))
            source = RunningSource(storage, app)
        yield source
