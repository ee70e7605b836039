"""Running app: the processes that have the objects of a storage, and the requests of commands to
them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from ..._api.commands import CALL, CHANGED, ENDED, STATISTICS, TURNS, WATCH
from ..._api.durable_object import DurableObject
from ..._api.runtime import DurableRuntime
from ..._cluster.outcomes import RequestFailed
from ..._errors import StorageUnavailable
from ..._keys import ObjectKey
from ..._runtime.routed_administration import Request, RoutedAdministration
from ...storage import SQLiteStorage, Storage
from ..errors import CommandError
from .members import PATIENCE_SECONDS, client, cluster_of

WATCH_SECONDS = 5.0
"""How long one request for the next state of an object may wait for it."""


@attrs.frozen
class WatchedState:
    """The durable state of an object that is watched."""

    version: str
    """Identifies it: see `version_of`."""
    revision: int
    state: bytes | None
    """The stored state; None if nothing is stored."""


class NotRunning(CommandError):
    """No app has a storage open that commands can reach."""


class RunningApp:
    """The app that has a storage open, as its client.

    Args:
        runtime: The client.
    """

    def __init__(self, runtime: DurableRuntime) -> None:
        self.runtime = runtime

    async def call(
        self,
        key: ObjectKey,
        handler: str,
        arguments: dict[str, Any],
        once: str | None,
        timeout: float,
    ) -> Any:
        """Call a handler with plain JSON; return the reply, plain JSON.

        Raises:
            Exception: As `DurableRuntime.call` does.
        """
        request = Request(CALL, key, handler, arguments, once, timeout, repeatable=once is not None)
        return await self.make(request)

    async def next_state(self, key: ObjectKey, seen: str | None) -> WatchedState | None:
        """The state of an object once its version isn't ``seen``; None when the app closes.

        Raises:
            CallTimeout: The app gives no answer.
            UsageError: The app can't watch the object.
            ValueError: The app has an older release, and knows no watches.
            UnknownObjectType: It doesn't know the type.
        """
        while True:
            request = Request(WATCH, key, seen, WATCH_SECONDS, repeatable=True)
            kind, *found = await self.make(request)
            if kind == CHANGED:
                version, revision, text = found
                return WatchedState(version, revision, None if text is None else text.encode())
            if kind == ENDED:
                return None

    async def statistics(self) -> list[dict[str, Any]]:
        """The counters of each process with objects."""
        return await self.ask_all(STATISTICS)

    async def turns(self) -> list[dict[str, Any]]:
        """The busy objects of all processes, those first that have been busy for longest."""
        found = [turn for turns in await self.ask_all(TURNS) for turn in turns]
        return sorted(found, key=lambda turn: -turn["seconds"])

    async def make(self, request: Request) -> Any:
        """Make a request of the process that has an object. See `RoutedAdministration.make`."""
        administration = self.runtime._administered()
        assert isinstance(administration, RoutedAdministration)
        return await administration.make(request)

    async def ask_all(self, request: str, arguments: Sequence[object] = ()) -> list[Any]:
        """Make a request of each process with objects.

        Raises:
            CommandError: One gave no answer.
        """
        try:
            return await self.runtime._open_sharing().ask_all(request, arguments, PATIENCE_SECONDS)
        except (RequestFailed, TimeoutError) as error:
            raise CommandError(
                f"a process of the app gave no answer ({error}); try again"
            ) from error


@asynccontextmanager
async def running_app(
    storage: Storage,
    *,
    objects: Iterable[type[DurableObject]] = (),
    timeout: float | None = None,
) -> AsyncIterator[RunningApp]:
    """Connect to the app that has a storage open.

    Args:
        storage: The storage.
        objects: The classes whose handles are used.
        timeout: Seconds that a request may take; None for `PATIENCE_SECONDS`.

    Raises:
        NotRunning: No app has it open that commands can reach.
    """
    command = cluster_of(storage, None)
    if command is None:
        raise _not_running(storage)
    runtime = client(storage, command, objects=objects, timeout=timeout)
    try:
        await runtime.__aenter__()
    except StorageUnavailable as error:
        raise NotRunning(f"{_not_running(storage).message} ({error.problem})") from error
    try:
        yield RunningApp(runtime)
    finally:
        await runtime.__aexit__(None, None, None)


def _not_running(storage: Storage) -> NotRunning:
    if isinstance(storage, SQLiteStorage):
        return NotRunning(
            f"no app has {storage.location} open that commands can reach; start it, without "
            "control=False"
        )
    return NotRunning(
        f"no process of a cluster has {storage.location} open; start the app, with cluster=True"
    )
