"""Requests over a link of the cluster, beside bare sockets: ``python -m benchmarks.link``.

Two processes on this machine, joined by a Unix socket, and three ways to ask: in each round one
after the other, in an order that rotates. For each event loop it prints requests per second,
medians of all rounds, and the median, least and greatest of the ratios of the link to each bare
socket, round by round.

The bare sockets have the same stream API, frames and JSON, and nothing else: no bounds, timeouts,
cancellation, pings, or end. "window" is one task that sends all requests in flight in one frame,
and then receives until it has all replies; its requests have no callers. "callers" has as many
tasks as requests in flight, each of which waits for its own reply, a task that writes, and one that
reads, as the link has.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import anyio
from anyio.abc import ByteStream, SocketStream

from trio_durable._cluster.address import dial, listen, unix_address
from trio_durable._cluster.frames import FrameDecoder, encode_frame
from trio_durable._cluster.handshake import Connection, Credentials, Introduction, greet
from trio_durable._cluster.incoming import Incoming
from trio_durable._cluster.listener import Listener
from trio_durable._cluster.peer import Peer
from trio_durable._eventloop.loop import Waiter
from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.timeouts import Deadlines
from trio_durable._eventloop.wakeup import AutoResetEvent

from . import loops
from .serving import serve, serving

_BODY = b'"shop.Counter","object-17","add",[1]'
_REPLY = b"17"
_TIMEOUT = 30.0
_LIMIT = 1 << 24
_WARM_UP = 0.1
_MANY = 64

Request = Callable[[], Awaitable[object]]


def _credentials(name: str) -> Credentials:
    return Credentials("benchmark", b"s" * 32, Introduction(name, "1", 1024, _LIMIT))


# --- the server, in a process of its own ---------------------------------------------------------


async def _serve(folder: Path) -> None:
    loop = running_loop()
    deadlines = Deadlines(loop)
    listening = await listen(unix_address(folder / "link"))
    bare = await anyio.create_unix_listener(folder / "bare")
    async with anyio.create_task_group() as tasks:

        def accepted(connection: Connection) -> None:
            peer = Peer(loop, connection, deadlines, ttl=5, serve=_answer)
            tasks.start_soon(peer.run)

        listener = Listener(loop, listening, _credentials("server"), accepted=accepted)
        tasks.start_soon(listener.run)
        tasks.start_soon(deadlines.run)
        tasks.start_soon(bare.serve, _answer_bare)
        await serve()
        tasks.cancel_scope.cancel()


@contextmanager
def server(loop: str, folder: Path) -> Iterator[None]:
    """The server in a process, with its sockets in ``folder``."""
    with serving("benchmarks.link", "--serve", loop, str(folder)):
        yield


def _answer(request: Incoming) -> None:
    request.reply(_REPLY)


async def _answer_bare(stream: SocketStream) -> None:
    decoder = FrameDecoder(_LIMIT)
    while True:
        try:
            decoder.push(await stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return
        while (messages := decoder.pop()) is not None:
            await stream.send(encode_frame([b"[%d,%b]" % (each[0], _REPLY) for each in messages]))


# --- clients -------------------------------------------------------------------------------------


async def _next_frame(stream: ByteStream, decoder: FrameDecoder) -> list[Any]:
    while (messages := decoder.pop()) is None:
        decoder.push(await stream.receive())
    return messages


async def _bare_window(stream: ByteStream, decoder: FrameDecoder, width: int) -> None:
    await stream.send(encode_frame([b"[%d,%b]" % (n, _BODY) for n in range(width)]))
    replies = 0
    while replies < width:
        replies += len(await _next_frame(stream, decoder))


class _BareCallers:
    """Many requests in flight on a bare socket."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._loop = running_loop()
        self._wakeup = AutoResetEvent(self._loop)
        self._queue: list[bytes] = []
        self._waiting: dict[int, Waiter] = {}
        self._issued = 0

    async def request(self) -> object:
        self._issued = number = self._issued + 1
        self._waiting[number] = waiter = self._loop.waiter()
        self._queue.append(b"[%d,%b]" % (number, _BODY))
        self._wakeup.set()
        return await waiter.wait()

    async def write(self) -> None:
        while True:
            await self._wakeup.wait()
            messages, self._queue = self._queue, []
            await self._stream.send(encode_frame(messages))

    async def read(self) -> None:
        decoder = FrameDecoder(_LIMIT)
        while True:
            for number, value in await _next_frame(self._stream, decoder):
                self._waiting.pop(number).settle(value)


async def _rate(request: Request, callers: int, width: int, seconds: float) -> float:
    """Requests per second of so many callers."""
    done = 0
    end = perf_counter() + seconds

    async def call() -> None:
        nonlocal done
        while perf_counter() < end:
            await request()
            done += width

    begin = perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(callers):
            tasks.start_soon(call)
    return done / (perf_counter() - begin)


@asynccontextmanager
async def _link(folder: Path) -> AsyncIterator[Request]:
    loop = running_loop()
    deadlines = Deadlines(loop)
    stream = await dial(unix_address(folder / "link"))
    connection = await greet(stream, _credentials("client"), "server")
    peer = Peer(loop, connection, deadlines, ttl=5, serve=_answer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.run)
        tasks.start_soon(peer.run)
        yield partial(peer.request, _BODY, _TIMEOUT)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def bare_callers(folder: Path) -> AsyncIterator[Request]:
    async with (
        await anyio.connect_unix(folder / "bare") as stream,
        anyio.create_task_group() as tasks,
    ):
        client = _BareCallers(stream)
        tasks.start_soon(client.write)
        tasks.start_soon(client.read)
        yield client.request
        tasks.cancel_scope.cancel()


async def _measure(folder: Path, callers: int, rounds: int, seconds: float) -> None:
    results: list[list[float]] = [[], [], []]
    async with (
        _link(folder) as over_link,
        bare_callers(folder) as over_bare,
        await anyio.connect_unix(folder / "bare") as stream,
    ):
        window = partial(_bare_window, stream, FrameDecoder(_LIMIT), callers)
        runs = [
            partial(_rate, window, 1, callers),
            partial(_rate, over_bare, callers, 1),
            partial(_rate, over_link, callers, 1),
        ]
        for run in runs:
            await run(_WARM_UP)
        for number in range(rounds):
            for place in range(3):
                way = (number + place) % 3
                results[way].append(await runs[way](seconds))
    rates = "".join(f"{statistics.median(each):12,.0f}" for each in results)
    print(f"{callers:18}{rates}", *(_ratios(results[2], bare) for bare in results[:2]), flush=True)


def _ratios(link: list[float], bare: list[float]) -> str:
    ratios = [one / other for one, other in zip(link, bare, strict=True)]
    return f"   {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"


def main() -> None:
    """Print the figures of each event loop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    parser.add_argument("--only", choices=get_args(loops.LoopName))
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        loops.run(arguments.serve[0], partial(_serve, Path(arguments.serve[1])))
        return
    for loop in loops.LOOPS:
        if arguments.only not in (None, loop) or loops.obstacle(loop):
            continue
        names = "".join(f"{name:>12}" for name in ("window", "callers", "link"))
        print(f"{loop:9}in flight{names}    link / window       link / callers")
        with (
            tempfile.TemporaryDirectory(prefix="link-") as folder,
            server(loop, Path(folder)),
        ):
            for callers in (1, _MANY):
                measure = partial(
                    _measure, Path(folder), callers, arguments.rounds, arguments.seconds
                )
                loops.run(loop, measure)


if __name__ == "__main__":
    main()
