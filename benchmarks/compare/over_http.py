"""Contenders that are a server, called over HTTP: workerd, and ours behind Starlette.

Both serve the same paths, both read and change their objects in the server's process. The client is
minimal, so that the server is measured: it keeps a connection open for each caller, with one
request on each at a time, and knows no more of HTTP than the contenders' answers need: a status and
a body of ``Content-Length`` bytes.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio
import attrs

from benchmarks.callers import call_each

from .contender import Alarms, Counters, Operation, Parts, Place

_WORKERD = Path(__file__).parent / "workerd"
_PATIENCE = 20.0


class UnexpectedAnswer(Exception):
    """A server answered something else than 200 and a number."""


class Client:
    """Asks one server for numbers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()

    async def number(self, method: str, path: str) -> int:
        """The number in the server's answer.

        Raises:
            UnexpectedAnswer: Not a number.
        """
        reader, writer = await self._connection()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"\r\ncontent-length:")
        if not rest or not head.startswith(b"http/1.1 200 "):
            writer.close()
            raise UnexpectedAnswer(f"{method} {path}: {head.decode()}")
        body = await reader.readexactly(int(rest[: rest.index(b"\r")]))
        self._idle.append((reader, writer))
        return int(body)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # the server has closed it: it was idle for too long
        return await asyncio.open_connection("127.0.0.1", self._port)


def _uvicorn(_: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "benchmarks.compare.served:app"]
    return [*command, "--port", str(port), "--log-level", "warning", "--no-access-log"]


def _workerd(folder: Path, port: int) -> list[str]:
    storage = folder / "storage"
    storage.mkdir()
    command = [str(workerd_program()), "serve", str(_WORKERD / "config.capnp")]
    return [*command, f"--socket-addr=http=127.0.0.1:{port}", f"--directory-path=storage={storage}"]


def workerd_program() -> Path | None:
    """The program, if npm has installed it for this system."""
    machine = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "64"
    name = f"workerd-{platform.system().lower()}-{machine}"
    programs = (_WORKERD / "node_modules" / "@cloudflare" / name / "bin").glob("workerd*")
    return next(iter(programs), None)


@asynccontextmanager
async def _client(command: Callable[[Path, int], list[str]], place: Place) -> AsyncIterator[Client]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    with subprocess.Popen(  # noqa: ASYNC220  # nothing else runs yet
        command(place.folder, port),
        stdout=subprocess.DEVNULL,
        env=os.environ | {"COMPARED_FOLDER": str(place.folder)},
    ) as process:
        try:
            await _listening(process, port)
            with closing(Client(port)) as client:
                yield client
        finally:
            process.terminate()


@asynccontextmanager
async def _serving(command: Callable[[Path, int], list[str]], place: Place) -> AsyncIterator[Parts]:
    async with _client(command, place) as client:
        number = client.number

        async def schedule(keys: Sequence[str], due_at: datetime) -> None:
            at = round(due_at.timestamp() * 1000)
            paths = [f"/counters/{key}/alarm?at={at}" for key in keys]
            await call_each(partial(number, "PUT", path) for path in paths)

        alarms = Alarms(schedule, partial(number, "GET", "/alarms-handled"), lead=5.0)
        yield [_counters(client), alarms]


@asynccontextmanager
async def _driving(command: Callable[[Path, int], list[str]], place: Place) -> AsyncIterator[Parts]:
    """The server has a driver of its own, which one request starts."""
    async with _client(command, place) as client:

        async def drive(operation: Operation, callers: int, objects: int, seconds: float) -> int:
            query = f"callers={callers}&objects={objects}&ms={round(seconds * 1000)}"
            return await client.number("POST", f"/drive/{operation}?{query}")

        yield [attrs.evolve(_counters(client), drive=drive)]


@asynccontextmanager
async def _answering(
    command: Callable[[Path, int], list[str]], place: Place
) -> AsyncIterator[Parts]:
    """The server answers each request with the same number."""
    async with _client(command, place) as client:
        value = partial(client.number, "GET")
        yield [
            Counters(
                increment=lambda key: partial(value, f"/constant/{key}"),
                value=lambda key: partial(value, f"/constant/{key}"),
                fill=lambda keys: None,
            )
        ]


def _counters(client: Client) -> Counters:
    return Counters(
        increment=lambda key: partial(client.number, "POST", f"/counters/{key}"),
        value=lambda key: partial(client.number, "GET", f"/counters/{key}"),
    )


async def _listening(process: subprocess.Popen[bytes], port: int) -> None:
    with anyio.fail_after(_PATIENCE):
        while process.poll() is None:
            with suppress(OSError):
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            await anyio.sleep(0.02)
    raise RuntimeError(f"the server ended with exit status {process.returncode}")


ours = partial(_serving, _uvicorn)
"""trio_durable behind Starlette and uvicorn, with uvloop and httptools."""
workerd = partial(_serving, _workerd)
"""A Durable Object with SQLite storage on the local disk."""
workerd_inside = partial(_driving, _workerd)
"""The same, called by a Worker in the same process."""
constant = partial(_answering, _uvicorn)
"""The same server and client as `ours`, without objects."""
constant_of_workerd = partial(_answering, _workerd)
"""The same server and client as `workerd`, without objects."""
