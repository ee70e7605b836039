"""A port of this machine on which a test listens in place of a PostgreSQL server."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable


class Listener(ABC):
    """Accepts connections in a thread until it is closed.

    Args:
        listener: Where it listens; by default a port of its own.
    """

    def __init__(self, listener: socket.socket | None = None) -> None:
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    def url(self, query: str = "") -> str:
        """Where to connect to."""
        port = self._listener.getsockname()[1]
        return f"postgresql://postgres@127.0.0.1:{port}/postgres{query}"

    def close(self) -> None:
        hang_up(self._listener)

    @abstractmethod
    def _connected(self, client: socket.socket) -> None:
        """A client has connected. Called in the thread that accepts, so it must not wait."""

    def _start(self, target: Callable[..., object], *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connected(client)


def hang_up(*sockets: socket.socket) -> None:
    """Close sockets, also under a thread that waits for them."""
    for each in sockets:
        # Closing alone would leave the thread in accept() or recv().
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
