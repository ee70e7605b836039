"""The end of a link, whose two sides see it at different times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from support.clock import settle

from trio_durable._cluster.frames import FRAME_SIZE, FrameDecoder, encode_frame
from trio_durable._cluster.link import BEATS, EndKind, Link, LinkClosed, LinkEnd
from trio_durable._eventloop.running import running_loop

pytestmark = pytest.mark.anyio

TTL = 4.0


class OneWay(ByteStream):
    """A connection whose other side has closed: there is something to read, and nothing to write.

    Args:
        may_write: Writing doesn't fail.
    """

    def __init__(self, *, may_write: bool) -> None:
        self._may_write = may_write
        self._sending, self._receiving = anyio.create_memory_object_stream[bytes](10)
        self.is_closed = False

    def arrive(self, message: bytes) -> None:
        self._sending.send_nowait(encode_frame([message]))

    def end(self) -> None:
        self._sending.close()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._receiving.receive()

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if not self._may_write:
            raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.is_closed = True
        self._sending.close()
        self._receiving.close()
        await anyio.lowlevel.checkpoint()


class Watched:
    """A link, and what it reports."""

    def __init__(self, *, may_write: bool) -> None:
        self.stream = OneWay(may_write=may_write)
        self.replies: list[Any] = []
        self.ends: list[LinkEnd] = []
        self.link = Link(
            running_loop(),
            self.stream,
            FrameDecoder(FRAME_SIZE),
            name="peer",
            max_frame=FRAME_SIZE,
            ttl=TTL,
            kinds={"r": lambda message: self.replies.append(message[1])},
            wrote=lambda: None,
            ended=self.ends.append,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the link to its end; the block begins when it waits."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.link.run)
            await settle()
            yield


async def test_a_link_that_can_not_write_reads_to_the_end() -> None:
    watched = Watched(may_write=False)
    async with watched.running():
        watched.link.send(b'["c",1]')
        await settle()
        with pytest.raises(LinkClosed):
            watched.link.send(b'["c",2]')
        watched.stream.arrive(b'["r",1]')
        await settle()
        assert (watched.replies, watched.ends) == ([1], [])
        watched.stream.end()
    assert [end.kind for end in watched.ends] == [EndKind.LOST]


async def test_a_link_that_can_not_write_ends_after_a_ttl() -> None:
    watched = Watched(may_write=False)
    began = anyio.current_time()
    async with watched.running():
        watched.link.send(b'["c",1]')
    assert anyio.current_time() - began == pytest.approx(TTL, abs=TTL / BEATS)
    assert [end.kind for end in watched.ends] == [EndKind.LOST]


async def test_who_says_goodbye_waits_a_beat_for_the_other_side_to_close() -> None:
    watched = Watched(may_write=True)
    began = anyio.current_time()
    async with watched.running():
        watched.link.close("it leaves", 0)
        await settle()
        watched.stream.arrive(b'["r",1]')
        await settle()
        assert (watched.replies, watched.stream.is_closed) == ([1], False)
    assert anyio.current_time() - began == pytest.approx(TTL / BEATS, abs=0.1)
    assert [end.kind for end in watched.ends] == [EndKind.CLOSED]


async def test_a_goodbye_that_was_read_ends_the_link_at_once() -> None:
    watched = Watched(may_write=True)
    began = anyio.current_time()
    async with watched.running():
        watched.link.close("it leaves", 0)
        await settle()
        watched.stream.end()
    assert anyio.current_time() - began < TTL / BEATS
    assert [end.kind for end in watched.ends] == [EndKind.CLOSED]
