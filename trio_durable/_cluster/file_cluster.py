"""Cluster on a file: whoever holds the file's lock has all objects, and the others call it.

The kernel releases the lock at any death of its holder, so there is neither a lease nor a clock.
Beside the file are the owner's socket, and a note with its address and the secret that both sides
of a connection prove. When the connection to the owner ends, the others race for the lock.

Invariants:

- Only the holder of the lock listens at the socket, writes the note and serves; and it does so in
  this order, so that a note of a living owner leads to a socket that is served.
- Whatever fails after the lock was taken closes the storage, which releases it.
- While this process owns, what leads others to it is there: a note or a socket that was removed or
  replaced is restored.
- Entering is bounded. A holder that doesn't answer can't be overruled: entering raises
  `StorageInUse` with its name.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import anyio
import attrs

from .._errors import StorageInUse, StorageUnavailable
from .._eventloop.loop import Loop
from .._eventloop.tasks import OwnTasks
from .._eventloop.timeouts import Deadlines
from .._eventloop.wakeup import AutoResetEvent
from .._text import error_summary
from .address import (
    Address,
    SocketPathTooLong,
    TCPAddress,
    dial,
    local_address,
    parse_address,
)
from .file_endpoint import FileEndpoint, FileNode
from .handshake import Connection, HandshakeFailed, greet
from .incoming import Incoming
from .node_note import UnreadableNote, note_beside, read_note
from .nodes import Node, host_name, node_of, this_node
from .peer import Peer
from .peers import Peers, ask
from .places import OnePlace
from .settings import Cluster, Command

logger = logging.getLogger("trio_durable.cluster")

ENTER_SECONDS = 5.0
"""How long entering may take to find the owner, or to become it."""
_WARN_AFTER = 5.0


class _NoOwner(Exception):
    """The owner of the file can't be reached now."""


class FileCluster:
    """The part of a runtime that shares an SQLite file with others.

    Args:
        loop: The event loop.
        tasks: Runs the tasks, until `leave`.
        early_tasks: Runs those that use the storage, which end before it is drained.
        deadlines: Where requests time out.
        places: Learns where the objects are.
        settings: The user's.
        path: The file.
        node_id: The runtime's id.
        acquire: Takes the lock and opens the storage; returns an error if another process has it.
        release: Closes the storage, if it is open, which releases the lock.
        owns: Called when this process has begun to own the file.
        join: Opens what a process without the lock needs, once another has it.
        in_thread: Does the work of files.
        serve: Serves the requests of others.
        answered: Returns when all requests that have a task have their answers.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        loop: Loop,
        tasks: OwnTasks,
        early_tasks: OwnTasks,
        deadlines: Deadlines,
        places: OnePlace,
        settings: Cluster,
        path: Path,
        node_id: str,
        *,
        acquire: Callable[[], Awaitable[StorageInUse | None]],
        release: Callable[[], Awaitable[None]],
        owns: Callable[[], object],
        join: Callable[[], Awaitable[None]],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        serve: Callable[[Incoming], object],
        answered: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], object],
    ) -> None:
        node = this_node(node_id, serves=settings.serve, shards=0, group=settings.group)
        self._me = FileNode(node, settings.max_calls, settings.max_frame)
        self._loop = loop
        self._tasks = tasks
        self._early_tasks = early_tasks
        self._places = places
        self._settings = settings
        self._path = path
        self._note_path = note_beside(path)
        self._acquire = acquire
        self._release = release
        self._owns = owns
        self._join = join
        self._in_thread = in_thread
        self._answered = answered
        self._failed = failed
        self._address = self._checked_address()
        self._peers = Peers(
            loop, tasks, deadlines, settings, serve=serve, ended=self._ended, failed=failed
        )
        self._endpoint: FileEndpoint | None = None
        self._owner: Peer | None = None
        self._holder: int | None = None
        """The process that had the lock last, if that is known."""
        self._ended_peer = AutoResetEvent(loop)
        """Set whenever a connection has ended."""
        self._is_retired = False
        self._is_leaving = False

    def _checked_address(self) -> Address:
        listen_at = self._settings.listen
        try:
            if listen_at is None:
                return local_address(self._path.with_name(f"{self._path.name}-socket"))
            address = parse_address(listen_at)
        except SocketPathTooLong as error:
            raise StorageUnavailable(str(self._path), str(error)) from None
        if isinstance(address, TCPAddress) and not address.is_loopback:
            raise ValueError(
                f"listen={listen_at!r} can be reached from other machines, and processes on one "
                "SQLite file are on one machine; give tcp://127.0.0.1:0 or unix:///path"
            )
        return address

    # --- entering --------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Become the owner of the file, or find it.

        Raises:
            StorageInUse: The owner doesn't answer.
            StorageUnavailable: The storage can't be opened, or nothing serves it and this runtime
                doesn't either.
        """
        until, pauses = self._loop.now() + ENTER_SECONDS, _pauses()
        while True:
            try:
                if not await self._become_owner():
                    await self._find()
                break
            except _NoOwner as problem:
                if self._loop.now() >= until:
                    raise self._not_entered(problem) from None
            await anyio.sleep(next(pauses))
        self._early_tasks.start(self._follow, "trio_durable cluster", self._failed)

    def _not_entered(self, problem: _NoOwner) -> StorageUnavailable:
        location = str(self._path)
        if isinstance(self._settings, Command):
            return StorageUnavailable(location, str(problem))
        if not self._settings.serve:
            return StorageUnavailable(
                location,
                f"no process serves it ({problem}), and this one has serve=False; start one that "
                "serves it, such as `trio-durable serve`",
            )
        return StorageInUse(location, str(problem), self._holder)

    # --- the owner -------------------------------------------------------------------------------

    async def _become_owner(self) -> bool:
        """Take the lock, and serve; return False if another process has it."""
        if not self._settings.serve or self._is_retired:
            return False
        try:
            in_use = await self._acquire()
            if in_use is not None:
                self._holder = in_use.pid
                return False
            await self._begin_to_own()
        except Exception:
            await self._release()
            raise
        return True

    async def _begin_to_own(self) -> None:
        """Listen, write the note, and serve. The lock is held."""
        endpoint = FileEndpoint(
            self._loop,
            self._tasks,
            self._path,
            self._address,
            may_replace=self._settings.listen is None,
            me=self._me,
            is_shared=True,
            accepted=self._accepted,
            in_thread=self._in_thread,
            failed=self._failed,
        )
        await endpoint.open()
        self._endpoint = endpoint
        self._early_tasks.start(endpoint.watch, "trio_durable note", self._failed)
        self._places.acquired()
        self._owns()

    def _accepted(self, connection: Connection) -> None:
        if self._is_leaving:
            raise HandshakeFailed("this process leaves")
        node_of(connection.them.info)
        self._peers.add(connection)

    def nodes(self) -> list[Node]:
        """All nodes, the owner first; the owner knows them."""
        return [
            attrs.evolve(self._me.node, shards=1),
            *(node_of(peer.them.info) for peer in self._peers),
        ]

    async def ask_all(self, request: str, arguments: Sequence[object], timeout: float) -> list[Any]:
        """Make a request of the owner, if that is another process. See `Sharing.ask_all`."""
        if (owner := self._owner) is None:
            return []
        return [await ask(owner, request, arguments, timeout)]

    def _ended(self, peer: Peer, seconds: float) -> None:
        self._places.lost(peer)
        if peer is self._owner:
            self._owner = None
        self._ended_peer.set()

    # --- the others ------------------------------------------------------------------------------

    async def _find(self) -> None:
        """Connect to the owner that the note names.

        Raises:
            _NoOwner: It can't be reached.
        """
        try:
            note = await self._in_thread(partial(read_note, self._note_path))
        except UnreadableNote as error:
            raise _NoOwner(str(error)) from error
        if note is None:
            raise _NoOwner(f"there is no {self._note_path.name}")
        if not note.is_shared and not isinstance(self._settings, Command):
            raise _NoOwner(f"process {note.pid} has opened it without cluster=True")
        if note.host != host_name():
            raise _NoOwner(f"its owner is on another machine, {note.host}")
        try:
            address = parse_address(note.address)
            with anyio.fail_after(ENTER_SECONDS / 2):
                stream = await dial(address)
                connection = await greet(
                    stream, self._me.credentials(bytes.fromhex(note.secret)), note.node
                )
        except (OSError, ValueError, HandshakeFailed) as error:
            raise _NoOwner(f"process {note.pid} doesn't answer: {error_summary(error)}") from error
        try:
            await self._join()
        except BaseException:
            await anyio.aclose_forcefully(connection.stream)
            raise
        self._owner = peer = self._peers.add(connection)
        if peer.end is None:
            self._places.found(peer)
            logger.info("%s: process %d has the objects", self._path, note.pid)

    async def _follow(self) -> None:
        """While another process is the owner, wait for its end and race for its place."""
        while not self._places.is_owner and not self._is_leaving:
            while self._owner is not None:
                await self._ended_peer.wait()
            await self._race()

    async def _race(self) -> None:
        began, pauses, said = self._loop.now(), _pauses(), ""
        while not self._is_leaving:
            try:
                if await self._become_owner():
                    logger.info("%s: this process has the objects now", self._path)
                else:
                    await self._find()
                return
            except (_NoOwner, StorageUnavailable) as problem:
                waited = self._loop.now() - began
                if waited > _WARN_AFTER and str(problem) != said:
                    said = str(problem)
                    logger.warning(
                        "%s: no process has served it for %.0f s: %s", self._path, waited, problem
                    )
            await anyio.sleep(next(pauses))

    def forked(self) -> None:
        """The process is a forked one, and drops its copies of the sockets."""
        if self._endpoint is not None:
            self._endpoint.forked()
        self._peers.forked()

    # --- leaving ---------------------------------------------------------------------------------

    def retire(self) -> None:
        """Leave the file to others when its owner ends: the runtime closes."""
        self._is_retired = True

    async def leave(self) -> None:
        """Say goodbye to all peers, and return when they have it, behind all answers."""
        self._is_leaving = True
        if self._endpoint is not None:
            self._endpoint.close()
        await self._answered()
        await self._peers.leave()


def _pauses() -> Iterator[float]:
    """The seconds between attempts: some milliseconds for a second, then longer ones."""
    yield from (0.002, 0.005)
    yield from repeat(0.01, 100)
    yield from repeat(0.25)
