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
- Nothing waits for ever: for a connection no longer than the connect timeout, for the result of a
  statement no longer than the server's own timeout for statements and a second.
- No error of psycopg from connecting is kept as a cause: it holds the connection's parameters.
"""

from __future__ import annotations

import logging
import random
import selectors
import struct
from collections.abc import Callable, Generator
from time import monotonic, sleep
from typing import Any, TypeVar

import attrs
import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo

from . import _postgres_problems as problems
from ._batch import Stale
from ._contract import StorageFault
from ._postgres_arrays import register
from ._postgres_conninfo import Conninfo
from ._postgres_migrations import GONE
from ._postgres_problems import Problem

logger = logging.getLogger("trio_durable.storage")

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_MARGIN = 1.0
"""Seconds that a result may be on its way after the server's own timeout."""

_MAX_PREPARED = 1000
"""Statements kept prepared; there are some for each tenant."""

_ATTEMPTS = 3
_MOMENT = (0.01, 0.05)

_STALE = {GONE, "22012"}  # a division by zero, see `_postgres_objects.REQUIRE_ALL`
_READ_ONLY = "25006"
_NOT_APPLIED = {"40001", "40P01", _READ_ONLY}  # serialization failure, deadlock

_SET_UP = """
SELECT current_setting('server_encoding'), current_schema(),
    set_config('default_transaction_isolation', 'read committed', false),
    CASE WHEN %(durability)s = 'normal' THEN set_config('synchronous_commit', 'off', false)
        WHEN current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'on', false) END,
    CASE WHEN current_setting('idle_in_transaction_session_timeout') = '0'
        THEN set_config('idle_in_transaction_session_timeout', %(timeout)s, false) END,
    CASE WHEN %(own)s AND current_setting('statement_timeout') = '0'
        THEN set_config('statement_timeout', %(timeout)s, false) END
"""
_TIMEOUT = "SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'"


class Unreachable(Exception):
    """There is no connection; the argument is the `Problem`."""

    problem: Problem

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class NoAnswer(psycopg.OperationalError):
    """The server has been silent for too long."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that doesn't wait for ever."""

    patience: float | None = None
    """Seconds of silence after which it gives up."""
    silence: NoAnswer | None = None
    """That it has given up."""
    has_parted = False
    """The server has said that it is about to close its side."""
    idle: selectors.BaseSelector
    encoding = ""
    """The database's."""
    schema: str | None = None
    """The first of the search path that is there."""

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """What psycopg does with the server, within `patience`."""
        if self.patience is not None:
            gen = _bounded(gen, self.patience)
        try:
            return super().wait(gen, *args, **kwargs)
        except NoAnswer as error:
            self.patience, self.silence = 0, error  # none for what psycopg does to tidy up
            raise

    def together(self, send: Callable[[], None]) -> None:
        """Let the statements that ``send`` executes go to the server together, and wait for all.

        They are one transaction. If one fails, those behind it aren't run, and it raises its error.
        """
        failure: psycopg.Error | None = None
        try:
            with self.pipeline():
                try:
                    send()
                except psycopg.Error as error:
                    failure = error  # or psycopg would log what the pipeline's end says to it
        except psycopg.Error as error:
            failure = failure or error
        if failure is None:
            return
        if self.prepare_threshold is not None and self.is_usable():
            # psycopg believes that it prepared what was cut off. A rollback lets it forget all.
            with self.transaction(force_rollback=True):
                pass
        raise self.silence or failure

    def is_usable(self) -> bool:
        """Whether it is idle and, as far as a look at its socket tells, still open."""
        try:
            for _ in range(100):
                if self.closed or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                    return False
                if not self.idle.select(0):
                    return True
                # Its end, or news of settings, which the server sends without being asked. What it
                # says at its end may be here before the end is.
                self.pgconn.consume_input()
                self.pgconn.is_busy()  # which reads it
                if self.has_parted:
                    return False
        except (psycopg.Error, OSError, ValueError):
            pass
        return False

    def note(self, said: psycopg.errors.Diagnostic) -> None:
        """Hear what the server says without being asked."""
        if said.severity_nonlocalized in ("FATAL", "PANIC"):
            self.has_parted = True

    def discard(self) -> None:
        """Close it, whatever its state."""
        self.idle.close()
        self.close()


def _bounded(gen: PQGen[RV], patience: float) -> Generator[Any, Any, RV]:
    """What psycopg waits with, but for the time it takes."""
    deadline = monotonic() + patience
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                deadline = monotonic() + patience
            elif monotonic() > deadline:
                raise NoAnswer(f"no answer came within {patience:g} s")
            wanted = gen.send(ready)
    except StopIteration as stop:
        result: RV = stop.value
        return result


@attrs.frozen
class Settings:
    """How a link behaves. Durations are in seconds."""

    conninfo: Conninfo
    durability: str
    connect_timeout: float
    statement_timeout: float
    prepared_statements: bool

    def connect(self, timeout: float) -> Connection:
        """Make a connection.

        Raises:
            Unreachable: There is none to be had.
        """
        own = "statement_timeout" not in self.conninfo.options
        milliseconds = max(1, round(self.statement_timeout * 1000))
        parameters = self.conninfo.parameters(
            connect_timeout=max(1, round(timeout)),
            fallback_application_name="trio_durable",
            target_session_attrs="read-write",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=milliseconds + 1000,
        )
        try:
            connection = Connection.connect(
                make_conninfo(**{**parameters, "client_encoding": "UTF8"}),
                autocommit=True,
                prepare_threshold=5 if self.prepared_statements else None,
            )
        except psycopg.Error as error:
            problem = problems.of_connecting(error)
        else:
            connection.idle = _selector()
            connection.add_notice_handler(connection.note)
            try:
                self._set_up(connection, own, str(milliseconds))
                return connection
            except psycopg.Error as error:
                problem = problems.of_connecting(error)
                connection.discard()
        raise Unreachable(attrs.evolve(problem, text=self.conninfo.censored(problem.text)))

    def connect_patiently(self, is_worth_it: Callable[[Problem], bool]) -> Connection:
        """Make a connection, and try again while that is worth it and the timeout allows.

        Raises:
            Unreachable: There is none to be had.
        """
        deadline = monotonic() + self.connect_timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                return self.connect(deadline - monotonic())
            except Unreachable as error:
                problem = error.problem
            if not is_worth_it(problem) or monotonic() + pause > deadline:
                raise Unreachable(problem)
            # Not all at once, when many processes have lost the same server.
            sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _set_up(self, connection: Connection, own: bool, timeout: str) -> None:
        connection.patience = self.statement_timeout + _MARGIN
        connection.idle.register(connection.pgconn.socket, selectors.EVENT_READ)
        parameters = {"durability": self.durability, "own": own, "timeout": timeout}
        row = connection.execute(_SET_UP, parameters).fetchone()
        assert row is not None
        connection.encoding, connection.schema = row[:2]
        row = connection.execute(_TIMEOUT).fetchone()
        assert row is not None
        connection.prepared_max = _MAX_PREPARED
        connection.patience = row[0] / 1000 + _MARGIN if row[0] else None
        register(connection)


def _selector() -> selectors.BaseSelector:
    # Not epoll, which would be one more file to each connection; nor select, which doesn't take
    # numbers of files beyond 1023.
    return getattr(selectors, "PollSelector", selectors.SelectSelector)()


class Link:
    """A connection that heals. Used by one thread.

    Args:
        settings: What to connect to, and how.
        connection: The first one.
        repeats: Whether what runs here only reads, so that it may run again if it was cut off.
    """

    def __init__(self, settings: Settings, connection: Connection, *, repeats: bool) -> None:
        self._settings = settings
        self._connection: Connection | None = connection
        self._repeats = repeats

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
                if error.sqlstate in _STALE:
                    raise Stale from None
                is_lost = _is_lost(connection, error)
                if is_lost or error.sqlstate == _READ_ONLY:
                    self._drop()
                if attempts < _ATTEMPTS:
                    if error.sqlstate in _NOT_APPLIED:
                        sleep(attempts * random.uniform(*_MOMENT))
                        continue
                    if is_lost and self._repeats:
                        continue
                text = problems.of_statement(error)
                if is_lost and not self._repeats:
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
            self._connection = self._settings.connect_patiently(lambda problem: problem.passing)
        except Unreachable as error:
            problem = error.problem.text
        if self._connection is None:
            raise StorageFault(f"there is no connection: {problem}")
        logger.info("connected to %s again", self._settings.conninfo.location)
        return self._connection


def _is_lost(connection: Connection, error: psycopg.Error) -> bool:
    if isinstance(error, NoAnswer) or (
        (error.sqlstate or "")[:2] in ("08", "57") and (error.sqlstate != "57014")
    ):
        return True
    return connection.closed or (connection.pgconn.transaction_status != pq.TransactionStatus.IDLE)
