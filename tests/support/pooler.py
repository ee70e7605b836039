"""Connection poolers in front of PostgreSQL servers, which share backends between clients.

Like PgBouncer with transaction pooling, they give a client a backend until its transaction ends. So
two transactions of a client may be on different backends, or servers, with other settings.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Sequence

from .listener import Listener, hang_up
from .postgres import Server
from .proxy import error

_NO_ENCRYPTION = (80877103, 80877104)  # requests of TLS and of GSSAPI encryption
_CANCEL = 80877102


class Backend:
    """A connection to a server, which clients use in turn."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lock = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(server.socket))
        body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self.greeting = b""
        """What the server has reported of itself."""
        self.pid = 0
        while (message := _message(self.socket))[:1] != b"Z":
            if message[:1] == b"S":
                self.greeting += message
            elif message[:1] == b"K":
                (self.pid,) = struct.unpack("!i", message[5:9])


class Pooler(Listener):
    """Listens on a port of this machine.

    Args:
        backends: For writes and transactions; used in turn.
        for_reads: For lone ``SELECT``s of functions that don't write; ``backends`` by default.
        announced_pid: The process id in the greeting; None for that of the first backend.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        for_reads: Sequence[Backend] = (),
        announced_pid: int | None = 1234567,
    ) -> None:
        self.backends = list(backends)
        self._for_reads = list(for_reads)
        self._announced_pid = announced_pid
        self._turn = 0
        self.is_hanging = False
        """If true, nothing that clients send is passed on."""
        self.pools_statements = False
        """If true, transactions are refused."""
        self._clients: list[socket.socket] = []
        super().__init__()

    def close(self) -> None:
        super().close()
        hang_up(*self._clients, *(backend.socket for backend in self._all()))

    # --- inside ----------------------------------------------------------------------------------

    def _all(self) -> list[Backend]:
        return [*self.backends, *self._for_reads]

    def _connected(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.append(client)
        self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):  # closed meanwhile
            if self._greet(client):
                while message := _message(client):
                    if self.pools_statements and b"BEGIN" in message:
                        client.sendall(error("08P01", "transaction blocks not allowed"))
                        break
                    if not self.is_hanging:
                        self._transaction(client, message)
        client.close()

    def _greet(self, client: socket.socket) -> bool:
        while True:
            (size,) = struct.unpack("!i", _exactly(client, 4))
            (code,) = struct.unpack("!i", _exactly(client, size - 4)[:4])
            if code == _CANCEL:
                return False
            if code not in _NO_ENCRYPTION:
                break
            client.sendall(b"N")
        first = self.backends[0]
        pid = first.pid if self._announced_pid is None else self._announced_pid
        key = b"K" + struct.pack("!iii", 12, pid, 7)
        client.sendall(b"R" + struct.pack("!ii", 8, 0) + first.greeting + key)
        client.sendall(b"Z" + struct.pack("!ic", 5, b"I"))
        return True

    def _transaction(self, client: socket.socket, message: bytes) -> None:
        """Pass a transaction on to one backend, from its first message to its end."""
        is_read = b"SELECT" in message and b"pg_is_in_recovery" not in message
        pool = self._for_reads if self._for_reads and is_read else self.backends
        self._turn += 1
        backend = pool[self._turn % len(pool)]
        with backend.lock, selectors.DefaultSelector() as waiting:
            waiting.register(client, selectors.EVENT_READ)
            waiting.register(backend.socket, selectors.EVENT_READ)
            expected = 0
            while True:
                if message[:1] == b"X":
                    raise EOFError
                expected += message[:1] in (b"Q", b"S")  # a query, or the end of a pipeline
                backend.socket.sendall(message)
                message = b""
                while not message:
                    ready = [key.fileobj for key, _ in waiting.select()]
                    if backend.socket in ready:
                        reply = _message(backend.socket)
                        client.sendall(reply)
                        expected -= reply[:1] == b"Z"
                        if reply[:1] == b"Z" and reply[5:] == b"I" and not expected:
                            return
                    elif client in ready:
                        message = _message(client)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _message(source: socket.socket) -> bytes:
    header = _exactly(source, 5)
    return header + _exactly(source, struct.unpack("!i", header[1:])[0] - 4)


@contextlib.contextmanager
def pooled(
    *servers: Server,
    for_reads: Server | None = None,
    announced_pid: int | None = 1234567,
) -> Iterator[Pooler]:
    """A pooler for the block, with a backend on each of ``servers``."""
    backends = [Backend(server) for server in servers]
    reads = [Backend(for_reads)] if for_reads is not None else []
    pooler = Pooler(backends, reads, announced_pid)
    try:
        yield pooler
    finally:
        pooler.close()
