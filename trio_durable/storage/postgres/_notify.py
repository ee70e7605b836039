"""Hints between the runtimes of a PostgreSQL database, by ``LISTEN`` and ``NOTIFY``.

Prior art: the notifiers of Oban and other job queues on PostgreSQL, which poll as well.

``NOTIFY`` takes a lock on the whole database until its transaction ends, so transactions that
notify and wait for the disk commit one after the other. Here each ``NOTIFY`` is a transaction of
its own that writes nothing, on a connection of its own, and one of them covers all hints within 0.1
s. So commits neither wait for hints nor fail because of them.

Invariants:

- One thread owns the connection. Other threads only set the time to send, and wake it.
- A lost connection is replaced, with exponential backoff. After each connect, ``heard`` is called
  with 0, because hints may have been missed.
- `close` waits at most one second for the thread.

- The connection is replaced when another one of the storage leads to another server.

A transaction pooler shares connections between clients, so that ``LISTEN`` would affect the
connection of another client. There hints are sent, but not received.
"""

from __future__ import annotations

import contextlib
import logging
import random
import selectors
import socket
import threading
from collections.abc import Callable
from time import monotonic

import psycopg
from psycopg import sql

from .._contract import Hints
from ._connecting import Settings, Unreachable
from ._connection import Connection
from ._errors import statement_problem
from ._verification import Unsuitable, home_schema

logger = logging.getLogger("trio_durable.storage")

_HINT_INTERVAL_SECONDS = 0.1
"""The least time between two hints."""
_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.1, 30.0
"""Bounds of the pause between attempts to connect."""
_CLOSE_TIMEOUT_SECONDS = 1.0
_MAX_NAME_BYTES = 63
"""PostgreSQL's limit for identifiers, such as the names of channels."""


class PostgresHints(Hints):
    """The hints of one runtime.

    Args:
        settings: For the connection.
        heard: See `Storage.open_hints`.
    """

    def __init__(self, settings: Settings, heard: Callable[[int], object]) -> None:
        self._settings = settings
        self._heard = heard
        self._lock = threading.Lock()
        self._to_send: int | None = None
        self._is_closing = False
        self._warned = False
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        # A daemon thread, so that a connection attempt doesn't delay the end of the process.
        self._thread = threading.Thread(target=self._run, name="trio_durable hints", daemon=True)
        settings.current.call_on_move(self._wake_up)
        self._thread.start()

    def send(self, available_at: int) -> None:
        """See `Hints.send`."""
        with self._lock:
            is_first = self._to_send is None
            if self._to_send is None or available_at < self._to_send:
                self._to_send = available_at
        if is_first:
            self._wake_up()

    def close(self) -> None:
        """See `Hints.close`."""
        self._settings.current.no_more_calls(self._wake_up)
        self._is_closing = True
        self._wake_up()
        self._thread.join(_CLOSE_TIMEOUT_SECONDS)

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # the thread has ended
            self._wake.send(b"\0")

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        with self._woken, self._wake, selectors.DefaultSelector() as waiting:
            waiting.register(self._woken, selectors.EVENT_READ)
            pause = _MIN_BACKOFF_SECONDS
            while True:
                began = monotonic()
                problem = "another connection leads to another server"
                try:
                    self._serve(waiting)
                except Unreachable as error:
                    problem = error.problem.text
                except Unsuitable as error:
                    problem = str(error)
                except psycopg.Error as error:
                    problem = self._settings.conninfo.censored(statement_problem(error))
                if self._is_closing:
                    return
                logger.info("no hints over %s: %s", self._settings.conninfo.location, problem)
                if monotonic() - began > _MAX_BACKOFF_SECONDS:
                    pause = _MIN_BACKOFF_SECONDS
                self._pause(waiting, pause * random.uniform(0.5, 1))  # noqa: S311  # jitter
                if self._is_closing:
                    return
                pause = min(2 * pause, _MAX_BACKOFF_SECONDS)

    def _pause(self, waiting: selectors.BaseSelector, seconds: float) -> None:
        """Wait so long, or until `close`. A hint to send doesn't end the pause."""
        deadline = monotonic() + seconds
        while not self._is_closing and (left := deadline - monotonic()) > 0:
            waiting.select(left)
            self._drain()

    def _serve(self, waiting: selectors.BaseSelector) -> None:
        """Connect, and send and receive hints until `close`, or until the server is another one.

        Raises:
            Unreachable: Connecting failed.
            Unsuitable: The schema isn't there.
            psycopg.Error: The connection was lost.
        """
        connection = self._settings.connect("hints", self._settings.connect_timeout)
        file = connection.pgconn.socket
        try:
            waiting.register(file, selectors.EVENT_READ)
            try:
                self._relay(connection, waiting)
            finally:
                waiting.unregister(file)
        finally:
            connection.discard()

    def _relay(self, connection: Connection, waiting: selectors.BaseSelector) -> None:
        channel = _channel(home_schema(connection))
        self._listen(connection, channel)
        send_at = monotonic()
        while True:
            if self._to_send is not None and (self._is_closing or monotonic() >= send_at):
                self._notify(connection, channel)
                send_at = monotonic() + _HINT_INTERVAL_SECONDS
            if self._is_closing or not self._settings.current.is_(connection.session.server):
                return
            # psycopg passes notifications that arrive during a statement to the handler.
            waiting.select(None if self._to_send is None else max(0.0, send_at - monotonic()))
            self._drain()
            connection.pgconn.consume_input()
            while (notification := connection.pgconn.notifies()) is not None:
                self._received(notification.be_pid, notification.extra)

    def _listen(self, connection: Connection, channel: str) -> None:
        if connection.session.is_pooled:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%s is reached through a pooler, so there are no hints: alarms that other "
                    "processes leave are found at the polling interval; connect directly for hints",
                    self._settings.conninfo.location,
                )
            return
        self._own = connection.info.backend_pid
        connection.add_notify_handler(
            lambda notification: self._received(notification.pid, notification.payload.encode())
        )
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self._heard(0)

    def _notify(self, connection: Connection, channel: str) -> None:
        with self._lock:
            available_at, self._to_send = self._to_send, None
        try:
            connection.execute("SELECT pg_notify(%s, %s)", (channel, str(available_at)))
        except psycopg.Error as error:
            if not connection.is_usable():
                raise
            logger.info("a hint was not sent: %s", statement_problem(error))

    def _received(self, sender: int, payload: bytes) -> None:
        if sender != self._own:
            with contextlib.suppress(ValueError):  # any client may send any payload
                self._heard(int(payload))

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(64):
                pass


def _channel(schema: str) -> str:
    """The channel of all runtimes on the same tables.

    Schemas with very long names may share one, which only causes spurious hints.
    """
    name = f"durable_alarms {schema}".encode()
    return name[:_MAX_NAME_BYTES].decode(errors="ignore")
