"""The sending side of a connection: a socket of the system, or another stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from support.streams import stream_pair
from support.tasks import calls

from trio_durable._cluster.outlet import Outlet

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 40_000
"""More than the buffers of a socket hold."""


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    with anyio.fail_after(60):
        listener = await anyio.create_unix_listener(folder / "s")
        accepted: list[SocketStream] = []
        came, done = anyio.Event(), anyio.Event()

        async def accept(stream: SocketStream) -> None:
            accepted.append(stream)
            came.set()
            await done.wait()

        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, accept)
            async with await anyio.connect_unix(folder / "s") as mine:
                await came.wait()
                async with accepted[0] as other:
                    yield mine, other
            done.set()
            tasks.cancel_scope.cancel()


async def received(stream: anyio.abc.ByteReceiveStream, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await stream.receive()
    return found


async def test_a_socket_takes_at_once_what_fits(tmp_path: Path) -> None:
    async with connected(tmp_path) as (mine, other):
        outlet = Outlet(mine)
        for number in range(3):
            outlet.put(b"frame %d" % number)
            assert outlet.send_now()
            assert outlet.is_empty
        assert await received(other, 21) == b"frame 0frame 1frame 2"
        outlet.close()


async def test_the_rest_follows_when_the_peer_reads(tmp_path: Path) -> None:
    async with connected(tmp_path) as (mine, other), calls() as group:
        outlet = Outlet(mine)
        outlet.put(LARGE)
        assert not outlet.send_now()
        assert not outlet.is_empty
        sent_at_once = outlet.pieces
        sending = group.start(outlet.send)
        assert await received(other, len(LARGE)) == LARGE
        await sending.wait()
        assert outlet.is_empty
        assert outlet.pieces > sent_at_once
        outlet.put(b"next")
        assert outlet.send_now()
        assert await received(other, 4) == b"next"
        outlet.close()


async def test_a_broken_connection_takes_nothing_and_says_so_to_the_writer(tmp_path: Path) -> None:
    async with connected(tmp_path) as (mine, other):
        outlet = Outlet(mine)
        await other.aclose()
        outlet.put(b"frame")
        assert not outlet.send_now()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await outlet.send()
        outlet.close()


async def test_the_peer_sees_the_end_once_outlet_and_stream_are_closed(tmp_path: Path) -> None:
    async with connected(tmp_path) as (mine, other):
        outlet = Outlet(mine)
        outlet.put(b"last")
        assert outlet.send_now()
        outlet.close()
        await mine.aclose()
        assert await received(other, 4) == b"last"
        with pytest.raises(anyio.EndOfStream):
            await other.receive()


async def test_other_streams_are_sent_to_as_streams() -> None:
    mine, other = stream_pair(10)
    outlet = Outlet(mine)
    outlet.put(b"more than the stream holds")
    assert not outlet.send_now()
    async with calls() as group:
        sending = group.start(outlet.send)
        assert await received(other, 26) == b"more than the stream holds"
        await sending.wait()
    assert outlet.is_empty
    outlet.close()
