"""Contenders that are a server, which the driver talks HTTP to: workerd, and ours behind Starlette.

Both serve the same paths, both read and change their objects in the server's process.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio

from benchmarks.callers import call_each

from .contender import Alarms, Contender, Counters, Step
from .http_client import Client

_HERE = Path(__file__).parent
_PATIENCE = 20.0


class _Served(Counters, Alarms):
    lead = 5.0

    def __init__(self, client: Client) -> None:
        self._number = client.number

    def increment(self, key: str) -> Step:
        return partial(self._number, "POST", f"/counters/{key}")

    def value(self, key: str) -> Step:
        return partial(self._number, "GET", f"/counters/{key}")

    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        at = round(due_at.timestamp() * 1000)
        await call_each(
            partial(self._number, "PUT", f"/counters/{key}/alarm?at={at}") for key in keys
        )

    async def handled(self) -> int:
        return await self._number("GET", "/alarms-handled")


class Server(Contender):
    """One that is started as a process."""

    @abstractmethod
    def command(self, folder: Path, port: int) -> list[str]:
        """What starts it."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Served]:
        port = _free_port()
        environment = os.environ | {"COMPARED_FOLDER": str(folder)}
        with subprocess.Popen(
            self.command(folder, port), stdout=subprocess.DEVNULL, env=environment
        ) as process:
            try:
                await _listening(process, port)
                async with Client(port) as client:
                    yield _Served(client)
            finally:
                process.terminate()


class Ours(Server):
    """trio_durable behind Starlette and uvicorn, with uvloop and httptools."""

    def command(self, folder: Path, port: int) -> list[str]:
        application = "benchmarks.compare.served:app"
        server = [sys.executable, "-m", "uvicorn", application, "--port", str(port)]
        return [*server, "--log-level", "warning", "--no-access-log"]


class Workerd(Server):
    """A Durable Object with SQLite storage on the local disk."""

    def command(self, folder: Path, port: int) -> list[str]:
        storage = folder / "storage"
        storage.mkdir()
        serve = [str(workerd()), "serve", str(_HERE / "workerd" / "config.capnp")]
        return [
            *serve,
            f"--socket-addr=http=127.0.0.1:{port}",
            f"--directory-path=storage={storage}",
        ]


def workerd() -> Path | None:
    """The program, if npm has installed it for this system."""
    system = {"Windows": "windows"}.get(platform.system(), platform.system().lower())
    machine = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "64"
    package = _HERE / "workerd" / "node_modules" / "@cloudflare" / f"workerd-{system}-{machine}"
    return next(iter((package / "bin").glob("workerd*")), None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


async def _listening(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit status {process.returncode}")
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            if time.monotonic() > end:
                raise
            await anyio.sleep(0.02)
        else:
            await stream.aclose()
            return
