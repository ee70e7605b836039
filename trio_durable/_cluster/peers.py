"""Peers: the open links of one process, from their handshakes to their goodbyes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import orjson

from .._eventloop.loop import Loop
from .._eventloop.tasks import OwnTasks
from .._eventloop.timeouts import Deadlines
from .._eventloop.wakeup import AutoResetEvent
from .handshake import Connection
from .incoming import Incoming
from .link import LinkEnd
from .outcomes import ErrorReply
from .peer import Peer
from .remote_errors import decode_error
from .settings import Cluster


async def ask(peer: Peer, request: str, arguments: Sequence[object], timeout: float) -> Any:
    """Make a request of another process itself; return its answer.

    Args:
        peer: The process.
        request: The request's name.
        arguments: Plain JSON.
        timeout: Seconds.

    Raises:
        RequestFailed: It wasn't answered.
        BaseException: The error of the request.
    """
    body = b'"n",' + orjson.dumps([request, list(arguments)])[1:-1]
    try:
        return await peer.request(body, timeout)
    except ErrorReply as reply:
        raise decode_error(reply.value) from None


class Peers:
    """The open links of one process.

    Args:
        loop: The event loop.
        tasks: Runs them.
        deadlines: Where requests time out.
        settings: The user's.
        serve: Serves the requests of others.
        ended: Called when a link has ended, with the seconds for which it was open.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        loop: Loop,
        tasks: OwnTasks,
        deadlines: Deadlines,
        settings: Cluster,
        *,
        serve: Callable[[Incoming], object],
        ended: Callable[[Peer, float], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._tasks = tasks
        self._deadlines = deadlines
        self._settings = settings
        self._serve = serve
        self._on_end = ended
        self._failed = failed
        self._began: dict[Peer, float] = {}
        self._one_ended = AutoResetEvent(loop)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._began))

    def __len__(self) -> int:
        return len(self._began)

    def add(self, connection: Connection) -> Peer:
        """Use a connection after its handshake."""
        peer = Peer(
            self._loop,
            connection,
            self._deadlines,
            ttl=self._settings.ttl,
            serve=self._serve,
            ended=lambda end: self._ended(peer, end),
        )
        self._began[peer] = self._loop.now()
        self._tasks.start(peer.run, f"trio_durable link to {peer.them.node_id}", self._failed)
        return peer

    def _ended(self, peer: Peer, end: LinkEnd) -> None:
        now = self._loop.now()
        began = self._began.pop(peer, now)
        self._one_ended.set()
        self._on_end(peer, now - began)

    def abort(self, reason: str) -> None:
        """End all at once, without a goodbye."""
        for peer in self:
            peer.abort(reason)

    async def leave(self) -> None:
        """Say goodbye to all, behind all answers, and return when they have it."""
        for peer in self:
            peer.close("the runtime closes")
        while self._began:
            await self._one_ended.wait()

    def forked(self) -> None:
        """The process is a forked one, and drops its copies of the sockets."""
        for peer in self:
            with suppress(OSError):
                peer.forked()
