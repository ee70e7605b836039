"""A network between a client and a PostgreSQL server, for as long as a test lets it be one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .listener import Listener, hang_up


class Proxy(Listener):
    """Passes on what comes in on a port of this machine to a Unix socket, and back."""

    def __init__(self, target: Path, listener: socket.socket | None = None) -> None:
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self._losing: tuple[str, int | None] | None = None
        self._refuses = False
        self.rejection: bytes | None = None
        """An error that clients get when they connect, without a connection to the server."""
        self.alter: Callable[[bytes], bytes] | None = None
        """What to make of what the server says."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.connections = 0
        """How many were accepted."""
        self.lost = threading.Event()
        """Set when what was to be lost is."""
        super().__init__(listener)

    # --- what a test does to it ------------------------------------------------------------------

    def cut(self) -> None:
        """Cut off all connections."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            hang_up(*pair)

    def say(self, message: bytes) -> None:
        """Let all clients hear this, as if the server had said it."""
        for client, _ in self._pairs:
            client.sendall(message)

    def freeze(self) -> None:
        """Let nothing through in either direction, without a sign of it."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def refuse(self, refuses: bool = True) -> None:
        """Hang up on whoever connects."""
        self._refuses = refuses

    def lose_next(self, what: str, connection: int | None = None) -> None:
        """Cut off a connection where the next "request" or "reply" comes on it, in its stead.

        The one of that number, from 1 in the order in which they were made; or any.
        """
        self.lost.clear()
        self._losing = (what, connection)

    def close(self) -> None:
        super().close()
        self._flows.set()
        self.cut()

    # --- inside ----------------------------------------------------------------------------------

    def _connected(self, client: socket.socket) -> None:
        self.connections += 1
        if self.rejection is not None:
            self._start(_reject, client, self.rejection)
            return
        server = socket.socket(socket.AF_UNIX)
        try:
            if self._refuses:
                raise ConnectionRefusedError
            server.connect(str(self._target))
        except OSError:
            hang_up(client, server)
            return
        self._pairs.append((client, server))
        self._start(self._pump, client, server, "request", self.connections)
        self._start(self._pump, server, client, "reply", self.connections)

    def _pump(self, source: socket.socket, target: socket.socket, what: str, number: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if self._losing in ((what, None), (what, number)):
                    self._losing = None
                    self.lost.set()
                    break
                if self.alter is not None and what == "reply":
                    data = self.alter(data)
                target.sendall(data)
        hang_up(source, target)


def _reject(client: socket.socket, rejection: bytes) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65536) in (b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x08\x04\xd2\x16\x30"):
            client.sendall(b"N")  # no encryption
        client.sendall(rejection)
    hang_up(client)


def error(code: str, text: str) -> bytes:
    """A message of the server that ends a connection."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{text}\0\0".encode()
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


@contextlib.contextmanager
def proxied(target: Path) -> Iterator[Proxy]:
    """A proxy for the block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
