"""Hints of alarms between the processes that use a PostgreSQL database, by LISTEN and NOTIFY.

Prior art: the notifier of Oban and other job queues on PostgreSQL, which also poll besides.

A NOTIFY takes a lock of the whole database until its transaction ends, so that in transactions
that wait for the disk it lets them commit one after the other. Here each is a transaction of its
own, which writes nothing, on a connection of its own; and one says it for all that comes within a
moment. So commits neither wait for hints nor fail with them.

Invariants:

- A thread has the connection. What others do is to note a time, and to wake it.
- A connection that is lost is made anew, ever more seldom. Whenever there is one, `heard` is told
  that something may have been missed, since then or before there was one.
- Nothing waits for the thread longer than a moment. It ends when it has nothing more to wait for.

Where connections are shared between clients, as poolers do for each transaction, there is no
listening: it would be to what comes by on somebody's connection. A pooler gives itself away by
telling another process id of the server's side than the server does.
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
from ._connection import Connection, Settings, Unreachable
from ._errors import statement_problem

logger = logging.getLogger("trio_durable.storage")

_HINT_INTERVAL_SECONDS = 0.1
"""Seconds from one to the next, at the least."""
_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.1, 30.0
"""Seconds between attempts to connect."""
_CLOSE_TIMEOUT_SECONDS = 1.0
"""Seconds that closing waits, at the most."""
_MAX_NAME_BYTES = 63
"""Bytes."""


class PostgresHints(Hints):
    """One runtime's hints.

    Args:
        settings: What to connect to, and how.
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
        # A daemon, because it may be about to connect when the process ends.
        self._thread = threading.Thread(target=self._run, name="trio_durable hints", daemon=True)
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
        self._is_closing = True
        self._wake_up()
        self._thread.join(_CLOSE_TIMEOUT_SECONDS)

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._wake.send(b"\0")

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        with self._woken, self._wake, selectors.DefaultSelector() as waiting:
            waiting.register(self._woken, selectors.EVENT_READ)
            pause = _MIN_BACKOFF_SECONDS
            while True:
                began = monotonic()
                problem = "it ended"
                try:
                    self._serve(waiting)
                except Unreachable as error:
                    problem = error.problem.text
                except psycopg.Error as error:
                    problem = self._settings.conninfo.censored(statement_problem(error))
                if self._is_closing:
                    return
                logger.info("no hints by %s: %s", self._settings.conninfo.location, problem)
                if monotonic() - began > _MAX_BACKOFF_SECONDS:
                    pause = _MIN_BACKOFF_SECONDS
                self._pause(waiting, pause * random.uniform(0.5, 1))
                if self._is_closing:
                    return
                pause = min(2 * pause, _MAX_BACKOFF_SECONDS)

    def _pause(self, waiting: selectors.BaseSelector, seconds: float) -> None:
        """Wait so long, or until it is closed; what is to be sent can wait."""
        deadline = monotonic() + seconds
        while not self._is_closing and (left := deadline - monotonic()) > 0:
            waiting.select(left)
            self._drain()

    def _serve(self, waiting: selectors.BaseSelector) -> None:
        """Send and hear, until it is closed.

        Raises:
            Unreachable: There is no connection.
            psycopg.Error: There is none any more.
        """
        connection = self._settings.connect(self._settings.connect_timeout)
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
        channel = _channel(connection.schema)
        self._listen(connection, channel)
        send_at = monotonic()
        while True:
            if self._to_send is not None and (self._is_closing or monotonic() >= send_at):
                self._notify(connection, channel)
                send_at = monotonic() + _HINT_INTERVAL_SECONDS
            if self._is_closing:
                return
            # What comes while a statement runs is given to the handler by psycopg.
            waiting.select(None if self._to_send is None else max(0.0, send_at - monotonic()))
            self._drain()
            connection.pgconn.consume_input()
            while (notification := connection.pgconn.notifies()) is not None:
                self._received(notification.be_pid, notification.extra)

    def _listen(self, connection: Connection, channel: str) -> None:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        if row != (connection.info.backend_pid,):
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%s is reached through a pooler: alarms that other processes leave to this one "
                    "are found at the polling interval only; for hints of them connect directly",
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
            with contextlib.suppress(ValueError):  # anybody may send anything
                self._heard(int(payload))

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(64):
                pass


def _channel(schema: str | None) -> str:
    """One for all that use the same tables. Those of very long names may share one, for nothing."""
    name = f"durable_alarms {schema}".encode()
    return name[:_MAX_NAME_BYTES].decode(errors="ignore")
