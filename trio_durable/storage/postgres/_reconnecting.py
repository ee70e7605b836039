"""Connection to a PostgreSQL server that reconnects after it is lost.

Prior art: the pre-ping of SQLAlchemy's pools, libpq's ``PQreset``, and the retries of aborted
transactions in every client of a serializable database. A writer or a reader uses one connection in
one thread, so there is no pool.

Invariants:

- An idle connection is checked before each use. A server that has stopped has closed its side,
  which the socket shows without a round trip; then the connection is replaced first. So a restart
  of the server between two uses causes no error.
- A connection that fails during a statement is never used again. The outcome of a write is then
  unknown: it isn't repeated, and the `StorageFault` says so. A read is repeated.
- A statement that the server is known not to have applied, because of a serialization failure, a
  deadlock or a read-only server, is retried after a short random pause.
"""

from __future__ import annotations

import logging
import random
import struct
from collections.abc import Callable
from time import sleep
from typing import TypeVar

import psycopg
from psycopg import pq

from .._batch import Stale
from .._contract import StorageFault
from . import _errors as problems
from ._connection import Connection, ResponseTimeout, Settings, Unreachable
from ._objects import is_stale

logger = logging.getLogger("trio_durable.storage")

T = TypeVar("T")

_MAX_ATTEMPTS = 3
_RETRY_SECONDS = (0.01, 0.05)
"""Bounds of the random pause before a retry, multiplied by the number of attempts so far."""

_READ_ONLY_SQLSTATE = "25006"
_ABORTED_SQLSTATES = {"40001", "40P01", _READ_ONLY_SQLSTATE}  # serialization failure, deadlock


class ReconnectingConnection:
    """A connection that is replaced when it is lost. Used by one thread.

    Args:
        settings: For new connections.
        connection: The first one, open.
        read_only: All work only reads, so it may run again after the connection was lost.
    """

    def __init__(self, settings: Settings, connection: Connection, *, read_only: bool) -> None:
        self._settings = settings
        self._connection: Connection | None = connection
        self._read_only = read_only

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call ``work`` with an open connection, and return its result.

        Args:
            work: May be called several times.

        Raises:
            Stale: A commit of a batch is stale. The server has rolled back the transaction.
            StorageFault: It failed. Nothing was applied, unless the text says that the outcome is
                unknown.
        """
        attempts = 0
        while True:
            attempts += 1
            connection = self._usable()
            try:
                return work(connection)
            except psycopg.Error as error:
                if is_stale(error):
                    raise Stale from None
                is_lost = _is_lost(connection, error)
                if is_lost or error.sqlstate == _READ_ONLY_SQLSTATE:
                    self._drop()
                if attempts < _MAX_ATTEMPTS:
                    if error.sqlstate in _ABORTED_SQLSTATES:
                        sleep(attempts * random.uniform(*_RETRY_SECONDS))  # noqa: S311  # jitter
                        continue
                    if is_lost and self._read_only:
                        continue
                text = problems.statement_problem(error)
                if is_lost and not self._read_only:
                    text = f"the connection was lost ({text}); the outcome of the change is unknown"
                raise StorageFault(self._settings.conninfo.censored(text)) from error
            except (struct.error, OverflowError, UnicodeError) as error:
                raise StorageFault.of(error) from error
            except BaseException:
                # Such as Control-C during a statement, which leaves its result unread.
                if not connection.is_usable():
                    self._drop()
                raise

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.discard()
            self._connection = None

    def _usable(self) -> Connection:
        if self._connection is not None:
            if self._connection.is_usable():
                return self._connection
            self._drop()
            logger.warning(
                "lost the connection to %s; reconnecting", self._settings.conninfo.location
            )
        problem = None
        try:
            self._connection = self._settings.connect_with_retries(
                lambda problem: problem.is_transient
            )
        except Unreachable as error:
            problem = error.problem.text
        if self._connection is None:
            raise StorageFault(f"no connection: {problem}")
        logger.info("reconnected to %s", self._settings.conninfo.location)
        return self._connection


def _is_lost(connection: Connection, error: psycopg.Error) -> bool:
    if isinstance(error, ResponseTimeout) or (
        (error.sqlstate or "")[:2] in ("08", "57") and (error.sqlstate != "57014")
    ):
        return True
    return connection.closed or (connection.pgconn.transaction_status != pq.TransactionStatus.IDLE)
