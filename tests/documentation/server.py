"""The web server that a page starts, and the client that it calls it with."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from cli.support import environment

SHOWN = "localhost:8000"
"""What pages call. Each server gets a port of its own, as there may be many at once."""


class WebServer:
    """One that serves in the background until another takes its place, or the page ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def start(self, module: str, *arguments: str, folder: Path) -> None:
        """Start what a command starts, and wait until it serves.

        Raises:
            AssertionError: It ends before.
        """
        self.stop()
        self._port = free_port()
        address = f"127.0.0.1:{self._port}"
        place = {"hypercorn": ["--bind", address], "uvicorn": ["--port", str(self._port)]}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *place.get(module, [])],
            cwd=folder,
            env=environment() | {"LUNCH_BIND": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while not _serves(self._port):
            if self._process.poll() is not None:
                assert self._process.stdout
                raise AssertionError(f"{module} has ended:\n{self._process.stdout.read()}")
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """End it, if there is one: as a service is stopped, or with no time for anything."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        process.communicate(timeout=60)

    def curl(self, *arguments: str) -> str:
        """What ``curl`` with these arguments prints."""
        words = [word for word in arguments if word != "-s"]
        url = words.pop(0)
        options = dict(zip(words[::2], words[1::2], strict=True))
        body = options.pop("--json", None)
        method = options.pop("-X", "GET" if body is None else "POST")
        assert url.startswith(SHOWN), f"nothing stands for {url!r}"
        assert not options, f"nothing stands for {options}"
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self._port}{url.removeprefix(SHOWN)}",
            content=body,
            headers={} if body is None else {"Content-Type": "application/json"},
            timeout=30,
        )
        return answer.text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _serves(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
