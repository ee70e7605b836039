"""A connection to a PostgreSQL server that is made anew when it is lost.

Prior art: the pre-ping of SQLAlchemy's pools, libpq's PQreset, the retries of what is known to be
without effect in every client of a database that aborts transactions. A writer or a reader has one
connection and one thread, so there is no pool.

Invariants:

- Before each use an idle connection is looked at. A server that went away has closed its side,
  which a look at the socket tells without a round trip; then a new connection is made first. So a
  restart costs nobody an error if nothing was under way.
- A connection that fails in the middle is never used again. Whether what was under way has been
  applied is unknown then: that is a `StorageFault`, and nothing is repeated, unless it only reads.
- What the server says it has not applied, for others stood in the way or it takes no changes, is
  tried again, after a moment in which the others can go on.
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
from ._migrations import GONE

logger = logging.getLogger("trio_durable.storage")

T = TypeVar("T")

_MAX_ATTEMPTS = 3
_RETRY_SECONDS = (0.01, 0.05)

_STALE_SQLSTATES = {GONE, "22012"}  # a division by zero, see `_objects.REQUIRE_ALL`
_READ_ONLY_SQLSTATE = "25006"
_ABORTED_SQLSTATES = {"40001", "40P01", _READ_ONLY_SQLSTATE}  # serialization failure, deadlock


class ReconnectingConnection:
    """A connection that heals. Used by one thread.

    Args:
        settings: What to connect to, and how.
        connection: The first one.
        read_only: Whether what runs here only reads, so that it may run again if it was cut off.
    """

    def __init__(self, settings: Settings, connection: Connection, *, read_only: bool) -> None:
        self._settings = settings
        self._connection: Connection | None = connection
        self._read_only = read_only

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` on a connection that is open, and return what it returns.

        Raises:
            Stale: Something in a batch isn't as it was expected. All of it was undone.
            StorageFault: It failed; nothing was applied, or nobody knows whether it was.
        """
        attempts = 0
        while True:
            attempts += 1
            connection = self._usable()
            try:
                return work(connection)
            except psycopg.Error as error:
                if error.sqlstate in _STALE_SQLSTATES:
                    raise Stale from None
                is_lost = _is_lost(connection, error)
                if is_lost or error.sqlstate == _READ_ONLY_SQLSTATE:
                    self._drop()
                if attempts < _MAX_ATTEMPTS:
                    if error.sqlstate in _ABORTED_SQLSTATES:
                        sleep(attempts * random.uniform(*_RETRY_SECONDS))
                        continue
                    if is_lost and self._read_only:
                        continue
                text = problems.statement_problem(error)
                if is_lost and not self._read_only:
                    text = (
                        f"the connection was lost ({text}), and whether the change was applied is "
                        "not known"
                    )
                raise StorageFault(self._settings.conninfo.censored(text)) from error
            except (struct.error, OverflowError, UnicodeError) as error:
                raise StorageFault.of(error) from error
            except BaseException:
                # Control-C in the middle, say: what the connection is up to isn't known.
                if not connection.is_usable():
                    self._drop()
                raise

    def close(self) -> None:
        """Let go of the connection."""
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
            logger.warning("lost the connection to %s", self._settings.conninfo.location)
        problem = None
        try:
            self._connection = self._settings.connect_with_retries(
                lambda problem: problem.is_transient
            )
        except Unreachable as error:
            problem = error.problem.text
        if self._connection is None:
            raise StorageFault(f"there is no connection: {problem}")
        logger.info("connected to %s again", self._settings.conninfo.location)
        return self._connection


def _is_lost(connection: Connection, error: psycopg.Error) -> bool:
    if isinstance(error, ResponseTimeout) or (
        (error.sqlstate or "")[:2] in ("08", "57") and (error.sqlstate != "57014")
    ):
        return True
    return connection.closed or (connection.pgconn.transaction_status != pq.TransactionStatus.IDLE)
