"""Connection to a PostgreSQL server with a bound on every wait.

psycopg waits for the result of a statement without a timeout. TCP keepalives don't help against a
server or proxy that hangs with its connections open, since its kernel still answers them. So a
`Connection` wraps the generator that psycopg waits in, and gives up after a period of silence.

A connection through a pooler may lead to another backend in each transaction. There `perform` makes
the settings in each transaction, for that transaction only, and nothing is prepared. So no setting
reaches another client of the pooler, and a statement that another client prepared under the same
name is never executed.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
from collections.abc import Callable, Generator, Sequence
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import attrs
import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen

from .._membership import Lease
from ._errors import is_unreplicated
from ._servers import Server

logger = logging.getLogger("trio_durable.storage")

T = TypeVar("T")


class ResponseTimeout(psycopg.OperationalError):
    """The server sent nothing within the silence timeout."""


class WrongServer(Exception):
    """The connection leads to a server that must not be used. Nothing was applied."""


@attrs.frozen
class Session:
    """The server, the database and the settings at the end of a connection."""

    server: Server
    encoding: str
    """The database's encoding."""
    search_path: str
    schemas: tuple[str, ...]
    """The schemas of the search path that exist and that the role may use."""
    needs_primary: bool
    """False if the user asked for a standby, and the connection only reads."""
    begin: str | None = None
    """Behind a pooler, statements that begin a transaction with the settings of the library."""

    @property
    def is_pooled(self) -> bool:
        """True if a pooler may give each transaction another backend."""
        return self.begin is not None


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A psycopg connection with a bound on every wait."""

    silence_timeout: float | None = None
    """Seconds without a byte from the server after which a wait fails; None for no bound."""
    timeout_error: ResponseTimeout | None = None
    """The error of the wait that failed, if one did."""
    is_ending: bool = False
    """True if the server has announced that it will close the connection."""
    is_unreplicated: bool = False
    """True if a commit may be missing on a synchronous standby, though the server applied it."""
    socket_selector: selectors.BaseSelector
    session: Session
    fence: tuple[UUID, str] | None = None
    """The writer's node, and the incarnation of the server at the other end."""
    lease: Lease | None = None
    """The lease under which it was used last."""
    backend_pid: int = 0
    """The process id of the server's process in the latest transaction."""
    _binary_cursor: psycopg.Cursor[tuple[Any, ...]] | None = None

    def execute_binary(
        self, query: bytes, parameters: Sequence[object]
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """Execute a statement whose rows are read before the next one is executed this way.

        They come in the binary format. The cursor is the same each time, since making one takes a
        tenth of the client's time for a small statement.
        """
        cursor = self._binary_cursor
        if cursor is None:
            cursor = self._binary_cursor = self.cursor(binary=True)
        return cursor.execute(query, parameters)

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Run a wait of psycopg within `silence_timeout`."""
        if self.silence_timeout is not None:
            gen = _with_silence_timeout(gen, self.silence_timeout)
        try:
            return super().wait(gen, *args, **kwargs)
        except ResponseTimeout as error:
            self.timeout_error = error
            self.silence_timeout = 0  # psycopg now cleans up, and must not wait once more
            raise

    def perform(self, work: Callable[[Connection], T]) -> T:
        """Call ``work``; behind a pooler, in a transaction with the settings of the library.

        Raises:
            WrongServer: The pooler leads to another server than it did when connecting.
        """
        begin = self.session.begin
        if begin is None:
            return work(self)
        try:
            self._begin(begin)
            result = work(self)
        except BaseException:
            if self.timeout_error is None:
                with contextlib.suppress(psycopg.Error):
                    self.execute("ROLLBACK")
            raise
        if self.execute("COMMIT").statusmessage != "COMMIT":
            raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")
        return result

    def _begin(self, begin: str) -> None:
        """Begin a transaction behind a pooler.

        Raises:
            WrongServer: It leads to another server than when connecting.
        """
        cursor = self.execute(begin.encode())
        cursor.nextset()  # the first result is that of BEGIN
        found = cursor.fetchone()
        assert found is not None
        self.backend_pid = int(found[0])
        started_at, is_read_only = found[1:3]
        server = self.session.server
        if (started_at, is_read_only) != (server.started_at, server.is_read_only):
            raise WrongServer("the pooler leads to another server than before")

    def freeze(self) -> None:
        """Begin a transaction that sees the state of its first statement.

        Raises:
            WrongServer: A pooler leads to another server than when connecting.
        """
        if self.session.begin is None:
            self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        else:
            self._begin(self.session.begin.replace("READ COMMITTED", "REPEATABLE READ"))

    def pipelined(self, send: Callable[[], None]) -> None:
        """Send the statements that ``send`` executes in one round trip, as one transaction.

        If one fails, the server skips the following ones, and its error is raised here.
        """
        failure: psycopg.Error | None = None
        try:
            with self.pipeline():
                try:
                    send()
                except psycopg.Error as error:
                    failure = error  # raised inside, it would make psycopg log a second error
        except psycopg.Error as error:
            failure = failure or error
        if failure is None:
            return
        if self.prepare_threshold is not None and self.is_usable():
            # psycopg counts the skipped statements as prepared. A rollback clears its cache.
            with self.transaction(force_rollback=True):
                pass
        raise self.timeout_error or failure

    def fenced(self, *parameters: object) -> tuple[object, ...]:
        """The parameters of a statement that begins with the fence, see `_nodes.FENCE`."""
        assert self.fence is not None
        return *self.fence, *parameters

    def is_usable(self) -> bool:
        """True if it is idle and its socket shows no sign of an end. Takes no round trip."""
        try:
            for _ in range(100):
                if self.closed or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                    return False
                if not self.socket_selector.select(0):
                    return True
                # Something has arrived: the end of the connection, or an asynchronous message such
                # as a changed setting. A message about the end may arrive before the end itself.
                self.pgconn.consume_input()
                self.pgconn.is_busy()  # parses what has arrived
                if self.is_ending:
                    return False
        except (psycopg.Error, OSError, ValueError):
            pass
        return False

    def require_primary(self) -> None:
        """Check after a statement that the server still takes changes. Takes no round trip.

        A server reports these two settings with the result of a statement if they have changed.
        Poolers may report those of another server, and `perform` checks there.

        Raises:
            WrongServer: It doesn't, and the user didn't ask for such a server.
        """
        session = self.session
        if session.needs_primary and not session.is_pooled:
            report = self.pgconn.parameter_status
            if b"on" in (report(b"default_transaction_read_only"), report(b"in_hot_standby")):
                raise WrongServer("the server has become read-only; name the primary")

    def on_notice(self, said: psycopg.errors.Diagnostic) -> None:
        """Handle an asynchronous message or a warning of the server."""
        severity = said.severity_nonlocalized
        if is_unreplicated(said):
            self.is_unreplicated = True
        if severity in ("FATAL", "PANIC") or (said.sqlstate or "").startswith("57"):
            self.is_ending = True  # a crashing server warns before it closes the connection
        elif severity == "WARNING" and not self.is_unreplicated:
            logger.warning("the PostgreSQL server warns: %s", said.message_primary)

    def discard(self) -> None:
        """Close the connection, whatever its state."""
        self.socket_selector.close()
        self.close()


def _with_silence_timeout(gen: PQGen[RV], silence_timeout: float) -> Generator[Any, Any, RV]:
    """Wrap a generator that psycopg waits in, with a bound on the time between two events."""
    deadline = monotonic() + silence_timeout
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                deadline = monotonic() + silence_timeout
            elif monotonic() > deadline:
                raise ResponseTimeout(f"no answer came within {silence_timeout:g} s")
            wanted = gen.send(ready)
    except StopIteration as stop:
        result: RV = stop.value
        return result
