"""Two nodes and the link between them, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import orjson
from anyio.abc import ByteStream
from support.streams import MemoryStream, stream_pair

from trio_durable._cluster.frames import FrameDecoder, Message, encode_frame
from trio_durable._cluster.handshake import (
    PROTOCOLS,
    Connection,
    Credentials,
    Introduction,
    greet,
    welcome,
)
from trio_durable._cluster.incoming import Incoming
from trio_durable._cluster.link import LinkEnd
from trio_durable._cluster.peer import Peer
from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.timeouts import Deadlines

SECRET = b"s" * 32
MAX_FRAME = 1 << 20
TTL = 4.0


def introduction(
    node_id: str, max_calls: int = 8, max_frame: int = MAX_FRAME, info: Any = None
) -> Introduction:
    return Introduction(node_id, "1.0", max_calls, max_frame, info)


def credentials(
    node_id: str, secret: bytes = SECRET, cluster: str = "shop", **limits: Any
) -> Credentials:
    return Credentials(cluster, secret, introduction(node_id, **limits))


async def handshake(
    dialer: ByteStream,
    acceptor: ByteStream,
    one: Credentials | None = None,
    two: Credentials | None = None,
) -> tuple[Connection, Connection]:
    """The connections of nodes a, which dials, and b."""
    connections: dict[str, Connection] = {}

    async def accept() -> None:
        connections["b"] = await welcome(acceptor, two or credentials("b"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        connections["a"] = await greet(dialer, one or credentials("a"), "b")
    return connections["a"], connections["b"]


class Node:
    """One side of a link, which answers requests as its test says."""

    def __init__(self, connection: Connection, deadlines: Deadlines, serve: Any = None) -> None:
        self.requests: list[Incoming] = []
        """Requests of the other side, in order, unless a test serves them."""
        self.ends: list[LinkEnd] = []
        self.deadlines = deadlines
        self.peer = Peer(
            running_loop(),
            connection,
            deadlines,
            ttl=TTL,
            serve=serve or self.requests.append,
            ended=self.ends.append,
        )


@asynccontextmanager
async def linked(
    serve: Callable[[Incoming], object] | None = None,
    *,
    max_calls: int = 8,
    max_frame: int = MAX_FRAME,
    capacity: int = 1 << 16,
) -> AsyncIterator[tuple[Node, Node]]:
    """Nodes a and b, which is served by ``serve`` and has these limits."""
    streams = stream_pair(capacity)
    b = credentials("b", max_calls=max_calls, max_frame=max_frame)
    one, two = await handshake(*streams, two=b)
    deadlines = Deadlines(running_loop())
    nodes = Node(one, deadlines), Node(two, deadlines, serve)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.run)
        for node in nodes:
            tasks.start_soon(node.peer.run)
        yield nodes
        tasks.cancel_scope.cancel()


class Raw:
    """The other side of a link, for a test that writes its bytes itself."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder(1 << 26)
        self._inbox: list[Message] = []

    async def send(self, *messages: Any) -> None:
        """Send messages in one frame."""
        await self.stream.send(encode_frame([orjson.dumps(message) for message in messages]))

    async def frame(self) -> list[Message]:
        """The next frame."""
        while (messages := self._decoder.pop()) is None:
            self._decoder.push(await self.stream.receive())
        return messages

    async def receive(self) -> Message:
        """The next message."""
        while not self._inbox:
            self._inbox = await self.frame()
        return self._inbox.pop(0)

    async def ends(self) -> None:
        """Return when the other side has closed the connection."""
        try:
            while True:
                await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass


def raw_connection(
    max_calls: int = 8, credit: int = 8, capacity: int = 1 << 16
) -> tuple[Connection, Raw]:
    """A connection of node b, which has ``credit`` places at the other side; and that side."""
    mine, others = stream_pair(capacity)
    connection = Connection(
        mine,
        FrameDecoder(MAX_FRAME),
        PROTOCOLS[1],
        introduction("b", max_calls),
        introduction("raw", credit),
    )
    return connection, Raw(others)


@asynccontextmanager
async def raw_link(
    serve: Callable[[Incoming], object] | None = None,
    *,
    max_calls: int = 8,
    credit: int = 8,
    capacity: int = 1 << 16,
) -> AsyncIterator[tuple[Node, Raw]]:
    """Node b, and the other side of its link."""
    connection, raw = raw_connection(max_calls, credit, capacity)
    deadlines = Deadlines(running_loop())
    node = Node(connection, deadlines, serve)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.run)
        tasks.start_soon(node.peer.run)
        yield node, raw
        tasks.cancel_scope.cancel()
