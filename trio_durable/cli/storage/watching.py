"""Watching: the durable states of one object as they change, for commands.

The process that has the object says when there is another state. Without one that can be asked, the
storage is read twice a second. Either way each state is durable, and states that come faster than
they are taken are skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from ..._activations.encoded import row_digest
from ..._api.commands import version_of
from ..._browsing import find_object, has_tenant
from ..._errors import CallTimeout, OwnerLost, StorageUnavailable, UsageError
from ..._keys import ObjectKey
from ...storage import Storage
from ..errors import CommandError
from .open import open_reader
from .running import WATCH_SECONDS, RunningApp, WatchedState, running_app

POLL_SECONDS = 0.5
"""The interval at which a storage is read that no app has open."""
_PATIENCE_SECONDS = 5.0
"""How long an app may take for an answer, beyond the time that it waits for a change."""

_IS_GONE = (CallTimeout, OwnerLost, StorageUnavailable)
_CANT_WATCH = (UsageError, ValueError)
"""Errors of an app that can't watch the object; the latter is that of an older release."""


class StateWatch:
    """The states of one object.

    Args:
        storage: The storage.
        key: The object.
        app: The app that has it; None if none can be asked.
    """

    def __init__(self, storage: Storage, key: ObjectKey, app: RunningApp | None) -> None:
        self._storage = storage
        self._key = key
        self._app = app
        self._seen: str | None = None

    @property
    def is_of_app(self) -> bool:
        """True while an app is asked, and False while the storage is read."""
        return self._app is not None

    async def next(self) -> WatchedState | None:
        """The next state; the first one at once. None when the app that was asked has ended.

        After that the storage is read.

        Raises:
            CommandError: The storage can't be read.
            PersistenceError: The app can't read it.
            UnknownObjectType: The app doesn't know the type.
        """
        if self._app is not None:
            try:
                return self._saw(await self._app.next_state(self._key, self._seen))
            except _IS_GONE:
                return self._saw(None)
            except _CANT_WATCH:
                self._app = None
        while True:
            found = await self._read()
            if found.version != self._seen:
                return self._saw(found)
            await anyio.sleep(POLL_SECONDS)

    def _saw(self, found: WatchedState | None) -> WatchedState | None:
        if found is None:
            self._app = None
        else:
            self._seen = found.version
        return found

    async def _read(self) -> WatchedState:
        return await anyio.to_thread.run_sync(self._read_in_thread)

    def _read_in_thread(self) -> WatchedState:
        # Opened for each look, since another file may be in its place meanwhile.
        key, row = self._key, None
        with open_reader(self._storage) as reader:
            if not key.tenant or has_tenant(reader, key.tenant):
                row = find_object(reader, key)
        if row is None:
            return WatchedState(version_of(0, None), 0, None)
        version = version_of(row.revision, row_digest(row.state))
        return WatchedState(version, row.revision, row.state)


@asynccontextmanager
async def state_watch(storage: Storage, key: ObjectKey) -> AsyncIterator[StateWatch]:
    """Watch an object in the app that has the storage open, or else in the storage."""
    async with AsyncExitStack() as stack:
        app: RunningApp | None = None
        try:
            connecting = running_app(storage, timeout=WATCH_SECONDS + _PATIENCE_SECONDS)
            app = await stack.enter_async_context(connecting)
        except CommandError:
            pass  # no app has it open that can be asked
        yield StateWatch(storage, key, app)
