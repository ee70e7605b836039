"""Watch: the durable states of objects as they change, for a task outside of turns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

from .._activations.object_type import ObjectType
from .._errors import UsageError, WatchInTurn
from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from .._runtime.open_runtime import OpenRuntime
from .._watching.cell import Cell
from .durable_object import DurableObject
from .snapshot import Snapshot

T_co = TypeVar("T_co", bound=DurableObject, covariant=True)


class Watch(Generic[T_co]):
    """An asynchronous iterator over the durable states of one object, or of several.

    ::

        async with runtime.watch(Room, "lobby") as snapshots:
            async for snapshot in snapshots:
                print(snapshot.revision, snapshot.state)

    The first snapshot is the state at that time, and each later one the latest. A watcher that is
    slower than the commits gets fewer of them, and none that is older than one it has had. Each is
    durable. A snapshot of an object that isn't stored has revision 0 and the defaults; one that was
    deleted gives such a snapshot, too, and the watch goes on.

    In a cluster the object may live in another process, and the watch goes on when it moves. After
    a failover of the storage that has lost commits, the revision may be lower than before. While no
    process has the object, or one of an older release has, nothing is returned.

    A watch changes nothing. It neither loads nor creates the object, and lets it hibernate. It ends
    when the runtime closes, after the last commits; at `DurableRuntime.end_watches`; and when its
    tenant is dropped. It is for one task at a time, and can be entered once.

    Raises:
        PersistenceError: The state can't be read; from iterating, which may go on.
        WatchInTurn: The caller is a turn; from entering.
        RuntimeClosed: The runtime has failed, or is closed at entering.
        TenantDropped: The tenant is being dropped; from entering.
    """

    def __init__(
        self, opened: OpenRuntime, watched: Sequence[tuple[ObjectType, ObjectKey]]
    ) -> None:
        self._opened = opened
        self._watched = dict.fromkeys(watched)
        self._is_entered = False
        self._seen: dict[Cell, int] = {}
        """The mark of each cell that was seen, see `Cell.parked`; the last snapshot's cell at the
        end."""
        self._types = {key: object_type for object_type, key in watched}

    @property
    def keys(self) -> tuple[ObjectKey, ...]:
        """The watched objects, each once, in the order that they were given in."""
        return tuple(self._types)

    def __repr__(self) -> str:
        return f"<watch of {', '.join(str(key) for _, key in islice(self._watched, 3))}>"

    async def __aenter__(self) -> Self:
        opened = self._opened
        if self._is_entered:
            raise UsageError(f"{self!r} was entered before; make another one")
        opened.check_usable()
        for _, key in self._watched:
            opened.services.refuse_dropped(key)
            if opened.services.wait_graph.caller() is not None:
                raise WatchInTurn(key)
        self._is_entered = True
        for _, key in self._watched:
            cell, seen = opened.hub.enter(key)
            self._seen[cell] = seen
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cells, self._seen = self._seen, {}
        for cell in cells:
            self._opened.hub.leave(cell)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Snapshot[T_co]:
        opened = self._opened
        await opened.loop.checkpoint()
        waited = False
        while True:
            for cell, seen in self._seen.items():
                # The first one at once, and the last one, which nothing wakes for; see `Pacing`.
                if cell.has_version(seen) and (waited or seen <= 0 or cell.has_ended):
                    return self._snapshot(cell)
                if cell.fault is not None:
                    error = cell.load_error(cell.fault)
                    opened.hub.look(cell)
                    raise error
            if all(cell.has_ended for cell in self._seen):
                if opened.hub.failure is not None:
                    raise opened.hub.failure()
                raise StopAsyncIteration
            await self._wait()
            waited = True

    def _snapshot(self, cell: Cell) -> Snapshot[T_co]:
        del self._seen[cell]
        self._seen[cell] = cell.version
        return Snapshot(self._types[cell.key], cell.key, cell.revision, cell.row)

    async def _wait(self) -> None:
        """Wait until a cell has another version than was seen, an error, or the end."""
        hub = self._opened.hub
        waiter: Waiter = hub.loop.waiter()
        try:
            for cell, seen in self._seen.items():
                if not cell.has_ended:
                    hub.park(cell, waiter, seen)
            await waiter.wait()
        finally:
            for cell in self._seen:
                cell.parked.pop(waiter, None)
