"""Connections in memory, for tests of what reads and writes them."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream


class _Pipe:
    """One direction of a connection."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.is_ended = False
        self._changed = anyio.Event()

    def changed(self) -> None:
        event, self._changed = self._changed, anyio.Event()
        event.set()

    async def wait(self) -> None:
        await self._changed.wait()


class MemoryStream(ByteStream):
    """One end of a connection in memory. A sender waits while the other end has not read."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_closed = False
        self.sent: list[bytes] = []
        """All that was sent from this end, send by send."""
        self.most = 1 << 30
        """Bytes that one `receive` returns, at most."""

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        pipe = self._incoming
        while not pipe.data:
            if self._is_closed:
                raise anyio.ClosedResourceError
            if pipe.is_ended:
                raise anyio.EndOfStream
            await pipe.wait()
        size = min(max_bytes, self.most)
        data = bytes(pipe.data[:size])
        del pipe.data[:size]
        pipe.changed()
        return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(item)
        pipe, rest = self._outgoing, memoryview(item)
        while rest:
            if self._is_closed:
                raise anyio.ClosedResourceError
            if pipe.is_ended:
                raise anyio.BrokenResourceError
            room = pipe.capacity - len(pipe.data)
            if room > 0:
                pipe.data += rest[:room]
                rest = rest[room:]
                pipe.changed()
            else:
                await pipe.wait()

    async def send_eof(self) -> None:
        self._outgoing.is_ended = True
        self._outgoing.changed()

    async def aclose(self) -> None:
        self._is_closed = True
        for pipe in (self._incoming, self._outgoing):
            pipe.is_ended = True
            pipe.changed()
        await anyio.lowlevel.checkpoint()


def stream_pair(capacity: int = 1 << 16) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a connection, which holds ``capacity`` bytes in each direction."""
    one, two = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(one, two), MemoryStream(two, one)
