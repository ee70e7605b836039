"""Connection to a PostgreSQL server with a bound on every wait, and its settings.

psycopg waits for the result of a statement without a timeout. TCP keepalives don't help against a
server or proxy that hangs with its connections open, since its kernel still answers them. So a
`Connection` wraps the generator that psycopg waits in, and gives up after a period of silence.

Invariants:

- Every wait is bounded: connecting by the connect timeout, and a result by the server's
  ``statement_timeout`` plus one second.
- A psycopg error of connecting is never kept as a ``__cause__``, because it holds the connection's
  parameters with the password.
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
"""Bounds of the pause between attempts to connect."""

_ROUND_TRIP_SECONDS = 1.0
"""Time that a result may take to arrive after the server's ``statement_timeout``."""

_MAX_PREPARED = 1000
"""Bound on prepared statements per connection. Each tenant has statements of its own."""

_SET_UP = """
SELECT current_setting('server_encoding'), current_schema(),
    set_config('default_transaction_isolation', 'read committed', false),
    CASE WHEN %(durability)s = 'normal' THEN set_config('synchronous_commit', 'off', false)
        WHEN current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'on', false) END,
    CASE WHEN current_setting('idle_in_transaction_session_timeout') = '0'
        THEN set_config('idle_in_transaction_session_timeout', %(timeout)s, false) END,
    CASE WHEN current_setting('lock_timeout') = '0'
        THEN set_config('lock_timeout', %(lock_timeout)s, false) END,
    CASE WHEN %(may_set_timeout)s AND current_setting('statement_timeout') = '0'
        THEN set_config('statement_timeout', %(timeout)s, false) END
"""
_LOCK_TIMEOUT = "1s"
"""How long a statement waits for a lock of another session, unless the user sets another bound. All
commits of a batch wait that long for one row."""
_TIMEOUT = "SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'"


class Unreachable(Exception):
    """Connecting failed. The argument is the `Problem`."""

    problem: Problem

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class ResponseTimeout(psycopg.OperationalError):
    """The server sent nothing within the silence timeout."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A psycopg connection with a bound on every wait."""

    silence_timeout: float | None = None
    """Seconds without a byte from the server after which a wait fails; None for no bound."""
    timeout_error: ResponseTimeout | None = None
    """The error of the wait that failed, if one did."""
    is_ending = False
    """True if the server has announced that it will close the connection."""
    socket_selector: selectors.BaseSelector
    encoding = ""
    """The database's encoding."""
    schema: str | None = None
    """The first existing schema of the search path."""

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

    def on_notice(self, said: psycopg.errors.Diagnostic) -> None:
        """Handle an asynchronous message of the server."""
        if said.severity_nonlocalized in ("FATAL", "PANIC"):
            self.is_ending = True

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


@attrs.frozen
class Settings:
    """Parameters of all connections of a storage. Durations are in seconds."""

    conninfo: Conninfo
    durability: Durability
    connect_timeout: float
    statement_timeout: float
    prepared_statements: bool

    def connect(self, timeout: float) -> Connection:
        """Connect once.

        Raises:
            Unreachable: Connecting failed.
        """
        may_set_timeout = "statement_timeout" not in self.conninfo.options
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
                self._set_up(connection, may_set_timeout, str(milliseconds))
                return connection
            except psycopg.Error as error:
                problem = problems.connect_problem(error)
                connection.discard()
        raise Unreachable(attrs.evolve(problem, text=self.conninfo.censored(problem.text)))

    def connect_with_retries(self, should_retry: Callable[[Problem], bool]) -> Connection:
        """Connect, with retries until the connect timeout while ``should_retry`` says so.

        Raises:
            Unreachable: Connecting failed.
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
            # Jitter, because many processes may have lost the same server at once.
            sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # jitter
            pause = min(2 * pause, _MAX_BACKOFF_SECONDS)

    def _set_up(self, connection: Connection, may_set_timeout: bool, timeout: str) -> None:
        """Set the session's parameters, and read the ones that the server has decided on."""
        connection.silence_timeout = self.statement_timeout + _ROUND_TRIP_SECONDS
        connection.socket_selector.register(connection.pgconn.socket, selectors.EVENT_READ)
        parameters = {
            "durability": self.durability,
            "may_set_timeout": may_set_timeout,
            "timeout": timeout,
            "lock_timeout": _LOCK_TIMEOUT,
        }
        row = connection.execute(_SET_UP, parameters).fetchone()
        assert row is not None
        connection.encoding, connection.schema = row[:2]
        row = connection.execute(_TIMEOUT).fetchone()
        assert row is not None
        connection.prepared_max = _MAX_PREPARED
        connection.silence_timeout = row[0] / 1000 + _ROUND_TRIP_SECONDS if row[0] else None
        register_dumpers(connection)


def _selector() -> selectors.BaseSelector:
    # Not epoll, which takes one more file descriptor per connection, nor select, which can't handle
    # descriptors above 1023.
    return getattr(selectors, "PollSelector", selectors.SelectSelector)()
