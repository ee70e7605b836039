"""Real web servers in child processes, which a terminal's Control-C stops and a test may kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.support import ROOT, environment
from documentation.page import files
from documentation.server import free_port

SECONDS = 60.0
"""How long a test waits for another process. Nothing takes that long unless it is stuck."""

# With graceful timeouts that no test waits for: the app has to end its streams by itself.
SERVERS = {
    "uvicorn": ("uvicorn", "--timeout-graceful-shutdown", "1000", "--port"),
    "uvicorn-uvloop": (
        *("uvicorn", "--loop", "uvloop", "--timeout-graceful-shutdown", "1000", "--port"),
    ),
    "hypercorn-asyncio": ("hypercorn", "--graceful-timeout", "1000", "--bind"),
    "hypercorn-trio": (
        *("hypercorn", "--worker-class", "trio", "--graceful-timeout", "1000", "--bind"),
    ),
}


class Server:
    """A server of ``live:app`` on one port and one file, which can be started again.

    Args:
        folder: Where its program and its file are.
        name: One of `SERVERS`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it serves."""
        module, *options = SERVERS[self._name]
        place = str(self.port) if options[-1] == "--port" else f"127.0.0.1:{self.port}"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "live:app", *options, place],
                cwd=self.folder,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        connect(self.port).close()

    def interrupt(self) -> int:
        """Stop it as Control-C does, which signals all of its processes; its exit status."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(SECONDS)

    def kill(self) -> None:
        """End it with no time for anything."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self.kill()


def save_app(folder: Path) -> None:
    """Save the program of the how-to."""
    program = files(ROOT / "docs" / "howto" / "sse.md")["live.py"]
    (folder / "live.py").write_text(program)


def connect(port: int) -> socket.socket:
    """A connection to a server that starts."""
    for _ in range(round(SECONDS / 0.02)):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("nothing serves")


class Stream:
    """An open stream of events, as a client reads it from its socket."""

    def __init__(self, port: int, path: str, headers: str = "") -> None:
        self._socket = connect(port)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        self.text = ""

    def read_until(self, text: str) -> None:
        """Read until this was sent."""
        while text not in self.text:
            chunk = self._socket.recv(65536)
            assert chunk, f"the stream has ended:\n{self.text}"
            self.text += chunk.decode()

    def read_to_end(self) -> bool:
        """Read to the end; whether the response was ended by the server, and not cut off."""
        try:
            while chunk := self._socket.recv(65536):
                self.text += chunk.decode()
        except ConnectionResetError:
            return False
        return self.text.endswith("\r\n0\r\n\r\n")

    def close(self) -> None:
        self._socket.close()
