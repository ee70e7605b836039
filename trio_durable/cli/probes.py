"""Probes: places at which a supervisor, such as Kubernetes, sees that a process is ready or alive.

A probe is a file or a socket. A file is written when the process is ready, and once a second while
its event loop turns, so its time says how long that is ago; it is removed at the end. A socket
accepts connections for as long as that holds, and ends each at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from .._cluster.address import listen, parse_address

if TYPE_CHECKING:
    from anyio.abc import SocketStream

_INTERVAL = 1.0


@asynccontextmanager
async def probe(place: str | None) -> AsyncIterator[None]:
    """Keep a probe at a path or an address for the block; none without a place.

    Raises:
        ValueError: ``place`` has ``://`` and is no address.
        OSError: The file can't be written, or the address is in use.
    """
    if place is None:
        yield
        return
    async with contextlib.AsyncExitStack() as stack:
        if "://" in place:
            listening = await listen(parse_address(place))
            stack.push_async_callback(listening.close)
            run = partial(listening.socket.serve, _hang_up)
        else:
            path = anyio.Path(place)
            await path.touch()
            stack.push_async_callback(path.unlink, missing_ok=True)
            run = partial(_touch, path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield
            tasks.cancel_scope.cancel()


async def _hang_up(stream: SocketStream) -> None:
    await stream.aclose()


async def _touch(path: anyio.Path) -> None:
    while True:
        await path.touch()
        await anyio.sleep(_INTERVAL)
