"""Endpoint of an SQLite file: where other processes reach the one that has its lock.

A socket with the mode 0600, and a note beside the file with its address and a secret. So only
processes of the same user, or of root, can connect. Both are removed when the process gives the
lock up; what a killed process has left is replaced by the next one with the lock.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs

from .._errors import StorageUnavailable
from .._eventloop.loop import Loop
from .._eventloop.tasks import OwnTask, OwnTasks
from .._text import error_summary
from .address import Address, AddressInUse, Listening, listen
from .handshake import Connection, Credentials, Introduction
from .listener import Listener
from .node_note import NodeNote, is_noted_at, note_beside, remove_note, write_note
from .nodes import Node

logger = logging.getLogger("trio_durable.cluster")

WATCH_SECONDS = 1.0
"""The interval at which an endpoint looks for its note and its socket."""
_NAME = "file"


@attrs.frozen
class FileNode:
    """A process, as the others of a file see it."""

    node: Node
    max_calls: int
    max_frame: int

    def credentials(self, secret: bytes) -> Credentials:
        """Its credentials for connections among the processes of a file."""
        node = self.node
        introduction = Introduction(
            node.node_id, node.release, self.max_calls, self.max_frame, node.as_info()
        )
        return Credentials(_NAME, secret, introduction)


class FileEndpoint:
    """The socket and the note of the process that has the lock of a file.

    Args:
        loop: The event loop.
        tasks: Runs the task that accepts connections.
        path: The file.
        address: Where it listens.
        may_replace: The address is the file's own. Whatever listens there on Linux is no owner's,
            since the lock follows the file however its lock file was removed.
        me: This process.
        is_shared: Runtimes of other processes may join; else commands only.
        accepted: Called with each connection after its handshake.
        in_thread: Does the work of files.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        loop: Loop,
        tasks: OwnTasks,
        path: Path,
        address: Address,
        *,
        may_replace: bool,
        me: FileNode,
        is_shared: bool,
        accepted: Callable[[Connection], object],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._tasks = tasks
        self._path = path
        self._note_path = note_beside(path)
        self._address = address
        self._may_replace = may_replace and sys.platform == "linux"
        self._me = me
        self._is_shared = is_shared
        self._accepted = accepted
        self._in_thread = in_thread
        self._failed = failed
        self._secret = b""
        self._is_closed = False
        self._listening: Listening | None = None
        self._listener: Listener | None = None
        self._accepting: OwnTask | None = None

    async def open(self) -> None:
        """Listen, write the note, and accept connections. The lock is held.

        Raises:
            StorageUnavailable: The socket or the note can't be had.
        """
        self._secret = secrets.token_bytes(32)
        listening = await self._listen()
        try:
            await self._write_note(listening.address)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await listening.close()
            raise
        self._accept_at(listening)

    async def _listen(self) -> Listening:
        try:
            return await listen(self._address, replace=self._may_replace)
        except AddressInUse as error:
            raise StorageUnavailable(str(self._path), str(error)) from error
        except OSError as error:
            problem = f"can't listen at {self._address} ({error_summary(error)})"
            raise StorageUnavailable(str(self._path), problem) from error

    async def _write_note(self, address: Address) -> None:
        node = self._me.node
        note = NodeNote(
            *(node.node_id, node.host, node.pid, str(address), self._secret.hex()),
            self._is_shared,
        )
        try:
            await self._in_thread(partial(write_note, self._note_path, note))
        except OSError as error:
            problem = f"its note can't be written ({error_summary(error)})"
            raise StorageUnavailable(str(self._path), problem) from error

    def _accept_at(self, listening: Listening) -> None:
        self._listening = listening
        self._listener = Listener(
            self._loop,
            listening,
            self._me.credentials(self._secret),
            accepted=self._accepted,
        )
        self._accepting = self._tasks.start(
            self._listener.run, "trio_durable listener", self._failed
        )

    async def watch(self) -> None:
        """Look for the note and the socket, and restore what another process has removed."""
        said = ""
        while not self._is_closed:
            await anyio.sleep(WATCH_SECONDS)
            try:
                await self._restore()
                said = ""
            except StorageUnavailable as problem:
                if str(problem) != said:
                    said = str(problem)
                    logger.warning("%s: no other process can join: %s", self._path, problem)

    async def _restore(self) -> None:
        assert self._listening is not None
        assert self._accepting is not None
        if not self._listening.is_at_path:
            listening = await self._listen()
            self._accepting.cancel()
            self._accept_at(listening)
            logger.warning("%s was removed, and is there again", listening.address)
        node = self._me.node.node_id
        is_noted = await self._in_thread(partial(is_noted_at, self._note_path, node))
        if not is_noted and not self._is_closed:
            await self._write_note(self._listening.address)
            logger.warning("%s was removed, and is there again", self._note_path)

    def close(self) -> None:
        """Remove the note, before the lock is given up. The socket ends with its task."""
        self._is_closed = True
        remove_note(self._note_path, self._me.node.node_id)

    def forked(self) -> None:
        """The process is a forked one, and drops its copy of the socket.

        Else it would stay open after the death of its parent, which others would not notice.
        """
        if self._listener is not None:
            self._listener.forked()
