"""Connection to a PostgreSQL server that reconnects after it is lost.

Prior art: the pre-ping of SQLAlchemy's pools, libpq's ``PQreset``, and the retries of aborted
transactions in every client of a serializable database. A writer or a reader uses one connection in
one thread, so there is no pool.

Invariants:

- An idle connection is checked before each use. A server that has stopped has closed its side,
  which the socket shows without a round trip; then the connection is replaced first. So a restart
  of the server between two uses causes no error.
- A connection is replaced, too, if another connection of the storage leads to another server.
- A connection that fails during a statement is never used again. The outcome of a write is then
  unknown: it isn't repeated, and the `StorageFault` says so. A read is repeated.
- A statement that the server is known not to have applied, because of a serialization failure, a
  deadlock or a read-only server, is retried after a short random pause.
- At most one backend of a writer waits for a missing synchronous standby. After a commit that was
  given up during that wait, no other one is sent until the backend has ended.
"""

from __future__ import annotations

import logging
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TypeVar

import psycopg
from psycopg import pq

from .._batch import Stale
from .._faults import LeaseOver, StorageFault
from . import _errors as problems
from ._connecting import Settings, Side, Unreachable
from ._connection import Connection, ResponseTimeout, WrongServer
from ._errors import Kind
from ._leases import CurrentLease, NodeLease
from ._nodes import is_deposed
from ._objects import is_stale

logger = logging.getLogger("trio_durable.storage")

T = TypeVar("T")

_MAX_ATTEMPTS = 3
_RETRY_SECONDS = (0.01, 0.05)
"""Bounds of the random pause before a retry, multiplied by the number of attempts so far."""
_STANDBY_POLL_SECONDS = 0.1

_DEPOSED = (
    "the node of this process isn't in the database any more, or the server was started or "
    "replaced since"
)
_MOVED = "the server was started or replaced since"
_MAY_LACK_COMMITS = 'a connection was lost, after which durability="normal" may have lost commits'


# Backends of other roles show no state, and need none: they aren't ours.
_WAITS_FOR_STANDBY = """
SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND wait_event = 'SyncRep'
"""


class ReconnectingConnection:
    """A connection that is replaced when it is lost. Used by one thread.

    Args:
        settings: For new connections.
        connection: The first one, open.
        current: The lease under which it is used.
        read_only: All work only reads, so it may run again after the connection was lost.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        current: CurrentLease,
        *,
        read_only: bool,
    ) -> None:
        self._settings = settings
        self._current = current
        self._connection: Connection | None = connection
        self._read_only = read_only
        self._frozen: Connection | None = None
        """The connection of the open `snapshot`."""
        self._abandoned_pid: int | None = None
        """The backend of a commit that was given up, until it is known not to wait."""
        if not read_only:
            settings.current.writers += 1

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call ``work`` with an open connection, and return its result.

        Args:
            work: May be called several times.

        Raises:
            Stale: A commit of a batch is stale. The server has rolled back the transaction.
            StorageFault: It failed. Nothing was applied, unless the text says that the outcome is
                unknown.
        """
        if self._frozen is not None:
            return self._run_frozen(self._frozen, work)
        attempts = 0
        while True:
            attempts += 1
            connection = self._usable()
            connection.is_unreplicated = False
            lease = self._enter_lease(connection)
            try:
                result = connection.perform(work)
                if self._read_only:
                    connection.require_primary()
                elif connection.is_unreplicated:
                    raise StorageFault(
                        "the server stopped waiting for its synchronous standby, which may lack "
                        "the change; the outcome is unknown"
                    )
                return result
            except WrongServer as error:
                self._drop()
                if attempts == _MAX_ATTEMPTS:
                    raise StorageFault(str(error)) from None
                _pause(attempts)
            except psycopg.Error as error:
                if is_stale(error):
                    raise Stale from None
                if is_deposed(error):
                    self._current.lose(lease, _DEPOSED)
                    raise LeaseOver(f"{_DEPOSED}; nothing was written") from None
                kind = _kind(connection, error)
                if kind in (Kind.LOST, Kind.READ_ONLY, Kind.UNPREPARED):
                    if isinstance(error, ResponseTimeout) and not self._read_only:
                        self._abandoned_pid = connection.backend_pid
                    self._drop()
                if kind is Kind.UNPREPARED:
                    self._settings.current.may_prepare = False
                if attempts < _MAX_ATTEMPTS and kind is not Kind.REFUSED:
                    if kind is not Kind.LOST:
                        _pause(attempts)
                        continue
                    if self._read_only:
                        continue
                text = problems.statement_problem(error)
                if kind is Kind.LOST and not self._read_only:
                    text = f"the connection was lost ({text}); the outcome of the change is unknown"
                raise StorageFault(self._settings.conninfo.censored(text)) from error
            except (struct.error, OverflowError, UnicodeError) as error:
                raise StorageFault.of(error) from error
            except BaseException:
                # Such as Control-C during a statement, which leaves its result unread.
                if not connection.is_usable():
                    self._drop()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all work of the block see the state of its first read, on one connection.

        Nothing of it is repeated: after a loss of the connection, the rest of the block fails.

        Raises:
            StorageFault: The connection was lost.
        """
        connection = self._usable()
        self._enter_lease(connection)
        try:
            self._run_frozen(connection, lambda each: each.freeze())
            self._frozen = connection
            yield
        finally:
            self._frozen = None
            try:
                self._run_frozen(connection, lambda each: each.execute("ROLLBACK"))
            except StorageFault:
                self._drop()

    def _run_frozen(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        try:
            return work(connection)
        except WrongServer as error:
            raise StorageFault(str(error)) from None
        except psycopg.Error as error:
            text = problems.statement_problem(error)
            raise StorageFault(self._settings.conninfo.censored(text)) from error
        except (struct.error, OverflowError, UnicodeError) as error:
            raise StorageFault.of(error) from error

    def close(self) -> None:
        """Close the connection."""
        self.renew()
        if not self._read_only:
            self._settings.current.writers -= 1

    def renew(self) -> None:
        """Use another connection from now on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()

    def _enter_lease(self, connection: Connection) -> NodeLease | None:
        """Use a connection under the current lease, if the storage has one.

        Raises:
            LeaseOver: It can't be used: the lease is one of another incarnation of the server.
        """
        lease = connection.lease = self._current.lease
        if lease is None:
            return None
        if lease.is_reported and not self._read_only:
            raise LeaseOver("the lease of this process is over; nothing was written")
        server = connection.session.server.incarnation
        if self._read_only and server != lease.server and connection.session.needs_primary:
            self._current.lose(lease, _MOVED)
            raise LeaseOver(f"{_MOVED}; nothing was read")
        connection.fence = lease.node_id, server
        return lease

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.discard()
        # The server may have crashed, and lost what was committed.
        if self._settings.durability == "normal" and connection.lease is self._current.lease:
            self._current.lose(self._current.lease, _MAY_LACK_COMMITS)

    def _usable(self) -> Connection:
        connection = self._connection
        if connection is not None:
            session = connection.session
            if session.needs_primary and not self._settings.current.is_(session.server):
                logger.info("another connection to %s leads to another server", self._location)
                self._drop()
            elif not connection.is_usable():
                logger.warning("lost the connection to %s; reconnecting", self._location)
                self._drop()
        if self._connection is None:
            self._connection = self._reconnected()
        if self._abandoned_pid is not None:
            self._await_abandoned(self._connection, self._abandoned_pid)
        return self._connection

    def _reconnected(self) -> Connection:
        side: Side = "reader" if self._read_only else "writer"
        connection, problem = None, ""
        try:
            connection = self._settings.connect_with_retries(side, opening=False)
        except Unreachable as error:
            problem = error.problem.text
        if connection is None:
            raise StorageFault(f"no connection: {problem}")
        logger.info("reconnected to %s", self._location)
        return connection

    def _await_abandoned(self, connection: Connection, pid: int) -> None:
        """Wait until the backend of an abandoned commit doesn't wait for a standby any more.

        Raises:
            StorageFault: It still waits after the connect timeout.
        """
        deadline = monotonic() + self._settings.connect_timeout
        try:
            while connection.execute(_WAITS_FOR_STANDBY, (pid,)).fetchone() is not None:
                if monotonic() > deadline:
                    raise StorageFault(
                        "an earlier change still waits on the server for a synchronous standby; "
                        "start the standby, or change synchronous_standby_names"
                    )
                sleep(_STANDBY_POLL_SECONDS)
        except psycopg.Error as error:
            self._drop()
            raise StorageFault(problems.statement_problem(error)) from error
        self._abandoned_pid = None

    @property
    def _location(self) -> str:
        return self._settings.conninfo.location


def _pause(attempts: int) -> None:
    sleep(attempts * random.uniform(*_RETRY_SECONDS))  # noqa: S311  # jitter


def _kind(connection: Connection, error: psycopg.Error) -> Kind:
    """The kind of an error, from its SQLSTATE and from the state of the connection."""
    kind = problems.kind_of(error)
    if kind is not Kind.REFUSED and kind is not Kind.ABORTED:
        return kind
    if (
        isinstance(error, ResponseTimeout)
        or connection.closed
        or connection.pgconn.transaction_status != pq.TransactionStatus.IDLE
    ):
        return Kind.LOST
    return kind
