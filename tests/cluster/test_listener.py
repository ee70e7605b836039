"""The listener: who can't prove the secret costs a place for a moment, and no more."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.clock import settle
from support.streams import MemoryStream, stream_pair

from trio_durable._cluster.address import Listening, TCPAddress
from trio_durable._cluster.handshake import (
    Connection,
    WrongSecret,
    greet,
)
from trio_durable._cluster.listener import MAX_UNPROVED, Listener
from trio_durable._eventloop.running import running_loop

from .nodes import Raw, credentials

pytestmark = pytest.mark.anyio


class Door:
    """A listening socket in memory."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Any](100_000)
        self.is_closed = False

    def connect(self) -> MemoryStream:
        mine, others = stream_pair(1000)
        self._send.send_nowait(others)
        return mine

    def fail(self, error: BaseException) -> None:
        self._send.send_nowait(error)

    async def accept(self) -> MemoryStream:
        stream: MemoryStream | BaseException = await self._receive.receive()
        if isinstance(stream, BaseException):
            raise stream
        return stream

    async def aclose(self) -> None:
        self.is_closed = True
        self._send.close()
        self._receive.close()


class Place:
    """A listener at a door."""

    def __init__(self, accepted: Any = None) -> None:
        self.door = Door()
        self.connections: list[Connection] = []
        door: Any = self.door
        self.listener = Listener(
            running_loop(),
            Listening(TCPAddress("127.0.0.1", 1), door),
            credentials("b"),
            accepted=accepted or self.connections.append,
            timeout=5,
        )


@asynccontextmanager
async def listening(accepted: Any = None) -> AsyncIterator[Place]:
    place = Place(accepted)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.listener.run)
        yield place
        tasks.cancel_scope.cancel()
    assert place.door.is_closed


async def test_a_node_is_handed_over() -> None:
    async with listening() as place:
        dialed = await greet(place.door.connect(), credentials("a"), "b")
        await settle()
        assert [each.them.node_id for each in place.connections] == ["a"]
        assert not place.listener._unproved
        await anyio.sleep(100)
    assert isinstance(dialed.stream, MemoryStream)
    assert not dialed.stream.is_closed  # it isn't the listener's any more


async def test_who_says_nothing_is_cut_off_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as place:
        raw = Raw(place.door.connect())
        start = anyio.current_time()
        await raw.ends()
        assert anyio.current_time() - start == pytest.approx(5)
        await settle()
    assert len(caplog.records) == 1


async def test_who_says_little_at_a_time_is_cut_off_in_time() -> None:
    async with listening() as place:
        stream = place.door.connect()
        start = anyio.current_time()
        with pytest.raises(anyio.BrokenResourceError):  # noqa: PT012
            while True:
                await stream.send(b"\0")
                await anyio.sleep(0.9 if anyio.current_time() - start > 2 else 1.5)
        assert anyio.current_time() - start <= 6.5


async def test_thousands_of_open_connections_leave_room_for_a_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening() as place:
        streams = []
        for _ in range(2000):
            streams.append(place.door.connect())
            if len(streams) % 20 == 0:
                await settle()
            assert len(place.listener._unproved) <= MAX_UNPROVED
        await settle()
        assert len(place.listener._unproved) == MAX_UNPROVED
        assert sum(not stream._outgoing.is_ended for stream in streams) == MAX_UNPROVED
        await greet(place.door.connect(), credentials("a"), "b")
        await settle()
        assert len(place.connections) == 1
        assert len(caplog.records) == 1
        await anyio.sleep(61)
        place.door.connect()  # one more that says nothing
        await anyio.sleep(6)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "(1999 more since the last such line)" in caplog.records[1].getMessage()


async def test_without_the_secret_nothing_is_handed_over() -> None:
    async with listening() as place:
        with pytest.raises(WrongSecret):
            await greet(place.door.connect(), credentials("a", secret=b"x" * 32), "b")
        await settle()
        assert not place.connections


async def test_who_accepts_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    def accepted(connection: Connection) -> None:
        raise LookupError("a fault")

    async with listening(accepted) as place:
        stream = place.door.connect()
        await greet(stream, credentials("a"), "b")
        await Raw(stream).ends()
        raw = Raw(place.door.connect())
        await raw.stream.send(b"x" * 10)
        await raw.ends()
        await settle()
    assert "LookupError: a fault" in caplog.records[0].getMessage()


@pytest.mark.parametrize("converted", [True, False])
async def test_without_file_descriptors_it_tries_again(
    converted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening() as place:
        start = anyio.current_time()
        for code in (errno.EMFILE, errno.ECONNABORTED, errno.EMFILE):
            error = OSError(code, "no")
            if converted:  # as on trio
                wrapped = anyio.BrokenResourceError()
                wrapped.__cause__ = error
                place.door.fail(wrapped)
            else:
                place.door.fail(error)
        await greet(place.door.connect(), credentials("a"), "b")
        assert anyio.current_time() - start == pytest.approx(0.2, abs=0.01)
    assert len(caplog.records) == 1
