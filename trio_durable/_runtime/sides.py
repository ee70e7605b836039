"""Sides of a storage: its writer and its reader, each opened and closed in a thread of its own.

A member of a cluster on one file opens its sides when it becomes the file's owner, which may be
long after it has opened. Until then its writer and reader are `LateWriter` and `LateReader`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from .._errors import StorageInUse, StorageUnavailable
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from ..storage import (
    ForwardingReader,
    ForwardingWriter,
    Membership,
    NewMember,
    Reader,
    Storage,
    StorageFault,
    Writer,
)
from .host import Host
from .settings import ClusterOfMembers, ClusterOnFile

if TYPE_CHECKING:
    from .._cluster.endpoint import Endpoint

R = TypeVar("R")
S = TypeVar("S", Writer, Reader)


class Side(Generic[S]):
    """The writer or the reader, and the thread that it is used in. The host closes both.

    Args:
        loop: The event loop.
        host: The runtime's host.
        storage: The storage.
        runner_type: The kind of thread.
        name: ``"writer"`` or ``"reader"``.
        open_side: Opens the side; called in the thread.
    """

    def __init__(
        self,
        loop: Loop,
        host: Host,
        storage: Storage,
        runner_type: type[Runner],
        name: str,
        open_side: Callable[[], S],
    ) -> None:
        self.runner: Runner = runner_type(loop, f"trio_durable {name}")
        host.push(self.runner.stop)
        self._host = host
        self._storage = storage
        self._open_side: Callable[[], S] = open_side
        self._opened: list[S] = []
        self._is_given_up = False
        host.push(self._close_in_thread)

    def opened_by(self, open_side: Callable[[], S]) -> None:
        """Open it by another function than at first."""
        self._open_side = open_side

    async def open(self) -> S:
        """Open the side, while the runtime opens.

        Raises:
            StorageUnavailable: It can't be opened, or takes too long for a runtime that is left.
        """
        with self._host.opening():
            await self.open_later()
        if not self._opened:
            self._is_given_up = True
            problem = "it didn't open in time; it was given up"
            raise StorageUnavailable(self._storage.location, problem)
        return self._opened[0]

    async def open_later(self) -> None:
        """Open the side while the runtime is open. May be repeated after an error."""
        await self.runner.run(lambda: self._opened.append(self._open_side()))

    async def close_early(self) -> None:
        """Close the side while the runtime goes on. It may be opened once more."""
        await self.runner.run(self._close)

    @property
    def inner(self) -> S:
        """The open side.

        Raises:
            StorageFault: It isn't open.
        """
        if not self._opened:
            raise StorageFault("another process of the cluster has the file")
        return self._opened[0]

    @property
    def is_open(self) -> bool:
        """True once it is open."""
        return bool(self._opened)

    def _close(self) -> None:
        # In the side's thread, after the job that opens it: so it doesn't matter whether something
        # waited for that to the end.
        while self._opened:
            self._opened.pop().close()

    async def _close_in_thread(self) -> None:
        # The job stays in the thread's queue when the time is over, and closes the side in the end.
        if self._is_given_up:
            self.runner.post(self._close)
            return
        with self._host.closing():
            await self.runner.run(self._close)


class LateWriter(ForwardingWriter):
    """The writer of a side that may not be open yet."""

    def __init__(self, side: Side[Writer]) -> None:
        self._side = side

    @property
    def inner(self) -> Writer:
        """See `Side.inner`."""
        return self._side.inner

    @property
    def membership(self) -> Membership | None:
        """None: it owns its storage until it is closed."""
        return None

    @property
    def log_bytes(self) -> int | None:
        """None until it is open."""
        return self._side.inner.log_bytes if self._side.is_open else None


class LateReader(ForwardingReader):
    """The reader of a side that may not be open yet."""

    def __init__(self, side: Side[Reader]) -> None:
        self._side = side

    @property
    def inner(self) -> Reader:
        """See `Side.inner`."""
        return self._side.inner


class Sides:
    """Both sides of a storage."""

    def __init__(self, loop: Loop, host: Host, storage: Storage, runner_type: type[Runner]) -> None:
        parts = (loop, host, storage, runner_type)
        self.writing: Side[Writer] = Side[Writer](*parts, "writer", storage.open_writer)
        self.reading: Side[Reader] = Side[Reader](*parts, "reader", storage.open_reader)
        self.writer: Writer = LateWriter(self.writing)
        self.reader: Reader = LateReader(self.reading)
        self.runners: list[Runner] = [self.writing.runner, self.reading.runner]
        """The threads of all sides."""
        self._parts = parts
        self._scanning: Side[Reader] | None = None
        self.endpoint: Endpoint | None = None
        """Where the runtime listens, if it is a member of a cluster."""

    async def acquire(self) -> StorageInUse | None:
        """Open both as the owner of the storage; return an error if another process is the owner.

        May be repeated, after an error as well.
        """
        if not self.writing.is_open:
            try:
                await self.writing.open_later()
            except StorageInUse as error:
                return error
        await self.open_reader()
        return None

    async def open_reader(self) -> None:
        """Open the reader, if it isn't open."""
        if not self.reading.is_open:
            await self.reading.open_later()

    async def open(self) -> None:
        """Open both, while the runtime opens."""
        self.writer = await self.writing.open()
        self.reader = await self.reading.open()

    async def read(self, read: Callable[[Reader], R]) -> R:
        """Run ``read`` in the reader's thread.

        Raises:
            StorageFault: The storage can't be read.
        """
        return await self.reading.runner.run(lambda: read(self.reader))

    async def scan(self, read: Callable[[Reader], R]) -> R:
        """Run ``read`` with a reader and a thread of its own, so that no load waits for it.

        Both are opened by the first scan.

        Raises:
            StorageFault: The storage can't be read.
            StorageUnavailable: The reader can't be opened.
        """
        scanning = self._scanning
        if scanning is None:
            storage = self._parts[2]
            scanning = Side[Reader](*self._parts, "scanner", storage.open_reader)
            scanning.runner.failed = self.reading.runner.failed
            self._scanning = scanning
            self.runners.append(scanning.runner)
        if not scanning.is_open:
            await scanning.open_later()
        return await scanning.runner.run(lambda: read(scanning.inner))


async def open_sides(
    sides: Sides, host: Host, cluster: ClusterOnFile | ClusterOfMembers | None
) -> None:
    """Open both sides, while the runtime opens. In a cluster on a file that comes later.

    A member of a cluster listens first, since its row in the storage has its address.
    """
    if isinstance(cluster, ClusterOnFile):
        return
    if cluster is not None:
        from .._cluster.endpoint import begin_to_listen  # here, since it takes long to import

        settings, storage = cluster.settings, cluster.storage
        sides.endpoint = endpoint = await begin_to_listen(settings, storage.location)
        host.push(endpoint.listening.close)
        member = NewMember(
            group=settings.group,
            address=endpoint.address,
            serves=settings.serve,
            ttl=settings.ttl,
            types=cluster.types(),
            release=settings.release,
        )
        sides.writing.opened_by(partial(storage.open_member, member))
    await sides.open()
