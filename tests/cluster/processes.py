"""Starts the processes of `members`, and talks with them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from .members import Spec

PATIENCE = 20.0
"""Seconds for whatever should take milliseconds, on a busy machine."""


class MemberError(Exception):
    """An error of a request, as its class and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text


class Gone(Exception):
    """The process has ended."""


class MemberProcess:
    """A process of a cluster, as its test sees it."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._connection.settimeout(PATIENCE)
        self._lines = connection.makefile("rb")
        self._numbers = count(1)
        self._answers: dict[int, tuple[str, list[Any]]] = {}

    def begin(self, name: str, *args: Any) -> int:
        """Make a request; return its number, for `outcome`."""
        number = next(self._numbers)
        self._connection.sendall(json.dumps([number, name, *args]).encode() + b"\n")
        return number

    def outcome(self, number: int) -> Any:
        """Wait for the reply to a request.

        Raises:
            MemberError: It is an error.
            Gone: The process has ended before.
        """
        while number not in self._answers:
            line = self._lines.readline()
            if not line.endswith(b"\n"):
                raise Gone(self.pid)
            found, kind, *rest = json.loads(line)
            self._answers[found] = kind, rest
        kind, rest = self._answers.pop(number)
        if kind == "error":
            raise MemberError(*rest)
        return rest[0]

    def ask(self, name: str, *args: Any) -> Any:
        """Make a request, and wait for its reply. See `outcome`."""
        return self.outcome(self.begin(name, *args))

    def call(self, handler: str, object_id: str, *args: Any) -> Any:
        """Call a handler of a ledger."""
        return self.ask("call", handler, object_id, *args)

    def entered(self) -> None:
        """Wait until it has entered its runtime. See `outcome`."""
        self.outcome(0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def gone(self) -> None:
        """Wait for its end."""
        while self._lines.readline():
            pass

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self._lines.close()
        self._connection.close()


@attrs.define
class Processes:
    """Starts processes on one file."""

    path: Path
    _server: subprocess.Popen[str]
    _listener: socket.socket
    _started: list[MemberProcess] = attrs.field(factory=list)

    def start(self, backend: str = "trio", *, enters: bool = True, **spec: Any) -> MemberProcess:
        """Start a process.

        Args:
            backend: One of `members.BACKENDS`.
            enters: Wait until it has entered its runtime.
            spec: See `Spec`.
        """
        address = self._listener.getsockname()
        given = Spec(path=str(self.path), control=address, backend=backend, **spec)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(attrs.asdict(given)) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        connection, _ = self._listener.accept()
        process = MemberProcess(pid, connection)
        self._started.append(process)
        if enters:
            process.entered()
        return process

    def log(self) -> str:
        """All log lines of all processes."""
        with contextlib.suppress(FileNotFoundError):
            return Path(f"{self.path}.log").read_text()
        return ""

    def close(self) -> None:
        for process in self._started:
            process.close()


@contextlib.contextmanager
def server_of_processes() -> Iterator[subprocess.Popen[str]]:
    """The program `members`."""
    with subprocess.Popen(
        [sys.executable, "-m", "cluster.members"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def run_module(*arguments: str) -> str:
    """Run a program of the tests; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout


@contextlib.contextmanager
def processes_on(server: subprocess.Popen[str], path: Path) -> Iterator[Processes]:
    """Processes on the file ``path``; killed at the end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(str(path.with_name("control")))
        listener.listen()
        processes = Processes(path, server, listener)
        try:
            yield processes
        finally:
            processes.close()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other processes bring about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
