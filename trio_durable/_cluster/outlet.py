"""Outlet: the sending side of a connection.

A plain socket is sent to directly, through a descriptor of its own, which never blocks. The streams
of AnyIO let other tasks run before or after each send, which on a link with one call in flight is
a fifth of its time. Bytes to other streams, such as TLS, pass through these.
"""

from __future__ import annotations

import os
import socket

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from .frames import FRAME_SIZE

_PIECE = FRAME_SIZE
"""Bytes that are handed over at once, so that progress shows within a large frame."""


class Outlet:
    """The sending side of a connection. For one task at a time.

    Args:
        stream: The connection.
    """

    def __init__(self, stream: ByteStream) -> None:
        self.pieces = 0
        """How many pieces were handed over."""
        self._stream = stream
        self._socket = _second_descriptor(stream)
        self._rest: bytes | memoryview = b""

    @property
    def is_empty(self) -> bool:
        """True if all that was put into it was handed over."""
        return not self._rest

    def put(self, frame: bytes) -> None:
        """The next frame to send. It must be empty."""
        self._rest = frame

    def send_now(self) -> bool:
        """Send as much as the socket takes without waiting; return whether that is all.

        A broken connection takes nothing: `send` has its error.
        """
        if self._socket is None:
            return self.is_empty
        try:
            while self._rest:
                self._send_piece(self._socket)
        except OSError:  # it would block, or is broken
            return False
        return True

    async def send(self) -> None:
        """Send the rest.

        Raises:
            OSError: The connection is broken.
            anyio.BrokenResourceError: Likewise.
        """
        while self._rest:
            if self._socket is None:
                await self._stream.send(bytes(self._rest[:_PIECE]))
                self._rest = self._rest[_PIECE:]
                self.pieces += 1
                continue
            try:
                self._send_piece(self._socket)
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    def _send_piece(self, to: socket.socket) -> None:
        piece = self._rest if len(self._rest) <= _PIECE else memoryview(self._rest)[:_PIECE]
        sent = to.send(piece)
        self._rest = b"" if sent == len(self._rest) else memoryview(self._rest)[sent:]
        self.pieces += 1

    def close(self) -> None:
        """Close the second descriptor, or its copy in a forked process. May be repeated.

        Before the stream is closed, since the peer sees the end of the connection only then.
        """
        if self._socket is not None:
            self._socket.close()
            self._rest = b""


def _second_descriptor(stream: ByteStream) -> socket.socket | None:
    """A socket for sending, of the same connection; None if bytes must pass through the stream."""
    if os.name != "posix" or not isinstance(stream, SocketStream):
        return None
    raw = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610  # not Django's
    if raw is None:
        return None
    second = socket.socket(fileno=os.dup(raw.fileno()))
    second.setblocking(False)
    return second
