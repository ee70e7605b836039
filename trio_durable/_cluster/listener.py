"""Listener: accepts connections, and hands them over after their handshake.

Any client that reaches the port can connect. So the number of connections before their proof is
bounded: beyond it the oldest is closed, since a handshake takes milliseconds, and idle connections
would block the others. Failures are logged at most once in `_LOG_INTERVAL`.
"""

from __future__ import annotations

import errno
import logging
import math
import ssl
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream

from .._eventloop.loop import Loop
from .._text import error_summary
from .address import Listening, check_user, close_copy, start_tls
from .handshake import Connection, Credentials, HandshakeFailed, welcome

logger = logging.getLogger("trio_durable.cluster")

MAX_UNPROVED: Final = 64
"""Connections before their proof."""

_LOG_INTERVAL: Final = 60.0
_PAUSE: Final = 0.1
"""Seconds until the next attempt to accept, where the process has no file descriptors left."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Accepts the connections of one address.

    Args:
        loop: The event loop.
        listening: The socket. `run` closes it.
        credentials: This node's.
        accepted: Called with each connection after its handshake; it takes the stream over. If it
            raises, the connection is closed.
        tls: Encrypts connections, and checks certificates of clients as it says.
        timeout: Seconds for a handshake, TLS included.
    """

    def __init__(
        self,
        loop: Loop,
        listening: Listening,
        credentials: Credentials,
        *,
        accepted: Callable[[Connection], object],
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.address = listening.address
        self._loop = loop
        self._listening = listening
        self.credentials: Credentials | None = credentials
        """This process'; while it is None all connections are refused before their handshake."""
        self._accepted = accepted
        self._tls = tls
        self._timeout = timeout
        # In order of their arrival.
        self._unproved: dict[anyio.CancelScope, None] = {}
        self._logs_from = -math.inf
        self._unlogged = 0

    async def run(self) -> None:
        """Accept connections until it is cancelled, then close the socket.

        Connections that were handed over stay.
        """
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    stream = await self._accept()
                    if stream is not None:
                        scope = anyio.CancelScope()
                        self._unproved[scope] = None
                        if len(self._unproved) > MAX_UNPROVED:
                            oldest = next(iter(self._unproved))
                            del self._unproved[oldest]
                            oldest.cancel()
                        tasks.start_soon(self._admit, stream, scope)
        finally:
            with anyio.CancelScope(shield=True):
                await self._listening.close()

    def forked(self) -> None:
        """Close the copy of the socket in a forked process; the parent's stays open.

        Connections before their handshake stay open in it, for as long as it lives. They end by
        themselves in the parent.
        """
        close_copy(self._listening.socket)

    async def _accept(self) -> SocketStream | None:
        """The next connection; None if there was none."""
        try:
            return await self._listening.socket.accept()
        except (OSError, anyio.BrokenResourceError) as error:
            self._log("could not accept a connection", error)
            # Without descriptors it would fail again at once; else the connection was lost.
            cause = error if isinstance(error, OSError) else error.__cause__
            exhausted = isinstance(cause, OSError) and cause.errno in _EXHAUSTED
            await anyio.sleep(_PAUSE if exhausted else 0)
            return None

    async def _admit(self, stream: SocketStream, scope: anyio.CancelScope) -> None:
        """Shake hands with a new connection, and hand it over or close it."""
        remote = _remote(stream)  # as long as it is open
        connection: Connection | None = None
        try:
            check_user(stream, has_dialled=False)
            with scope, anyio.fail_after(self._timeout):
                secured = stream if self._tls is None else await start_tls(stream, self._tls)
                if self.credentials is None:
                    raise HandshakeFailed("this process serves nothing now")
                connection = await welcome(secured, self.credentials)
            if connection is None:
                raise HandshakeFailed(f"{MAX_UNPROVED} newer connections wait for theirs")
            self._accepted(connection)
        except Exception as error:  # noqa: BLE001  # of anyone who can connect
            self._log("closed a connection", error, remote)
            await anyio.aclose_forcefully(stream)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        finally:
            self._unproved.pop(scope, None)

    def _log(self, event: str, error: Exception, remote: object = None) -> None:
        now = self._loop.now()
        if now < self._logs_from:
            self._unlogged += 1
            return
        logger.warning(
            "%s %s%s: %s (%d more since the last such line)",
            self.address,
            event,
            f" from {remote}" if remote else "",
            error if isinstance(error, HandshakeFailed) else error_summary(error),
            self._unlogged,
        )
        self._logs_from = now + _LOG_INTERVAL
        self._unlogged = 0


def _remote(stream: SocketStream) -> object:
    try:
        return stream.extra(SocketAttribute.remote_address, None)  # noqa: S610  # not Django's
    except Exception:  # noqa: BLE001  # reset already: OSError, or of other types by the event loop
        return None
