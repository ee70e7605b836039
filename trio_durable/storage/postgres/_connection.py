"""A connection to a PostgreSQL server that doesn't wait for ever, and how it is made.

psycopg waits for the result of a statement without a bound, and no keepalive notices a server or a
proxy that stands still with its connections open. So here it waits in a generator that counts
silence.

Invariants:

- Nothing waits for ever: for a connection no longer than the connect timeout, for the result of a
  statement no longer than the server's own timeout for statements and a second.
- No error of psycopg from connecting is kept as a cause: it holds the connection's parameters.
"""

from __future__ import annotations

import random
import selectors
from collections.abc import Callable, Generator
from time import monotonic, sleep
from typing import Any

import attrs
import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo

from .._contract import Durability
from . import _errors as problems
from ._arrays import register_dumpers
from ._conninfo import Conninfo
from ._errors import Problem

_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.05, 1.0
_ROUND_TRIP_SECONDS = 1.0
"""Seconds that a result may be on its way after the server's own timeout."""

_MAX_PREPARED = 1000
"""Statements kept prepared; there are some for each tenant."""

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


class ResponseTimeout(psycopg.OperationalError):
    """The server has been silent for too long."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that doesn't wait for ever."""

    silence_timeout: float | None = None
    """Seconds of silence after which it gives up."""
    timeout_error: ResponseTimeout | None = None
    """That it has given up."""
    is_ending = False
    """The server has said that it is about to close its side."""
    socket_selector: selectors.BaseSelector
    encoding = ""
    """The database's."""
    schema: str | None = None
    """The first of the search path that is there."""

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """What psycopg does with the server, within `silence_timeout`."""
        if self.silence_timeout is not None:
            gen = _with_silence_timeout(gen, self.silence_timeout)
        try:
            return super().wait(gen, *args, **kwargs)
        except ResponseTimeout as error:
            self.silence_timeout, self.timeout_error = (
                0,
                error,
            )  # none for what psycopg does to tidy up
            raise

    def pipelined(self, send: Callable[[], None]) -> None:
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
        raise self.timeout_error or failure

    def is_usable(self) -> bool:
        """Whether it is idle and, as far as a look at its socket tells, still open."""
        try:
            for _ in range(100):
                if self.closed or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                    return False
                if not self.socket_selector.select(0):
                    return True
                # Its end, or news of settings, which the server sends without being asked. What it
                # says at its end may be here before the end is.
                self.pgconn.consume_input()
                self.pgconn.is_busy()  # which reads it
                if self.is_ending:
                    return False
        except (psycopg.Error, OSError, ValueError):
            pass
        return False

    def on_notice(self, said: psycopg.errors.Diagnostic) -> None:
        """Hear what the server says without being asked."""
        if said.severity_nonlocalized in ("FATAL", "PANIC"):
            self.is_ending = True

    def discard(self) -> None:
        """Close it, whatever its state."""
        self.socket_selector.close()
        self.close()


def _with_silence_timeout(gen: PQGen[RV], silence_timeout: float) -> Generator[Any, Any, RV]:
    """What psycopg waits with, but for the time it takes."""
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


@attrs.frozen
class Settings:
    """What to connect to, and how. Durations are in seconds."""

    conninfo: Conninfo
    durability: Durability
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
            problem = problems.connect_problem(error)
        else:
            connection.socket_selector = _selector()
            connection.add_notice_handler(connection.on_notice)
            try:
                self._set_up(connection, own, str(milliseconds))
                return connection
            except psycopg.Error as error:
                problem = problems.connect_problem(error)
                connection.discard()
        raise Unreachable(attrs.evolve(problem, text=self.conninfo.censored(problem.text)))

    def connect_with_retries(self, should_retry: Callable[[Problem], bool]) -> Connection:
        """Make a connection, and try again while that is worth it and the timeout allows.

        Raises:
            Unreachable: There is none to be had.
        """
        deadline = monotonic() + self.connect_timeout
        pause = _MIN_BACKOFF_SECONDS
        while True:
            try:
                return self.connect(deadline - monotonic())
            except Unreachable as error:
                problem = error.problem
            if not should_retry(problem) or monotonic() + pause > deadline:
                raise Unreachable(problem)
            # Not all at once, when many processes have lost the same server.
            sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _MAX_BACKOFF_SECONDS)

    def _set_up(self, connection: Connection, own: bool, timeout: str) -> None:
        connection.silence_timeout = self.statement_timeout + _ROUND_TRIP_SECONDS
        connection.socket_selector.register(connection.pgconn.socket, selectors.EVENT_READ)
        parameters = {"durability": self.durability, "own": own, "timeout": timeout}
        row = connection.execute(_SET_UP, parameters).fetchone()
        assert row is not None
        connection.encoding, connection.schema = row[:2]
        row = connection.execute(_TIMEOUT).fetchone()
        assert row is not None
        connection.prepared_max = _MAX_PREPARED
        connection.silence_timeout = row[0] / 1000 + _ROUND_TRIP_SECONDS if row[0] else None
        register_dumpers(connection)


def _selector() -> selectors.BaseSelector:
    # Not epoll, which would be one more file to each connection; nor select, which doesn't take
    # numbers of files beyond 1023.
    return getattr(selectors, "PollSelector", selectors.SelectSelector)()
