"""Connecting to a PostgreSQL server: hosts, timeouts and retries.

Hosts are tried one by one. Each gets an equal share of the time that is left, so that a host that
accepts and says nothing doesn't use it up. The host of the latest connection comes first.

Invariants:

- Each wait for a server ends with the timeout. The system resolves names without one.
- A psycopg error of connecting is never kept as a ``__cause__``, because it holds the connection's
  parameters with the password.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Literal

import attrs
import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from .._contract import Durability
from . import _errors as problems
from ._connection import Connection, ResponseTimeout, Session
from ._conninfo import Conninfo
from ._errors import Problem
from ._servers import CurrentServer, Server
from ._session import start_session

Side = Literal["writer", "reader", "node", "admin", "doctor"]
"""The user of a connection, as its ``application_name`` says."""

_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.05, 1.0
"""Bounds of the pause between attempts to connect."""


class Unreachable(Exception):
    """Connecting failed. The argument is the `Problem`."""

    problem: Problem

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


@attrs.frozen
class Settings:
    """Parameters of all connections of a storage. Durations are in seconds."""

    conninfo: Conninfo
    durability: Durability
    connect_timeout: float
    statement_timeout: float
    prepared_statements: bool
    current: CurrentServer = attrs.field(factory=CurrentServer, init=False)

    def connect(self, side: Side, timeout: float, *, opening: bool = False) -> Connection:
        """Connect to the first suitable host.

        Args:
            side: The user of the connection.
            timeout: For all hosts together.
            opening: Find out whether a problem may pass.

        Raises:
            Unreachable: Connecting failed.
        """
        deadline = monotonic() + timeout
        attempts = list(self._attempts(side))
        found: list[Problem] = []
        for number, (host, wanted) in enumerate(attempts):
            share = max(0.001, (deadline - monotonic()) / (len(attempts) - number))
            try:
                return self._connect_to(host, side, wanted, share)
            except Unreachable as error:
                problem = error.problem
            text = self.conninfo.censored(problem.text)
            if len(attempts) > 1:
                text = f"{_name(host)}: {text}"
            is_passing = problem.is_passing and len(attempts) > 1
            if opening and not is_passing and not problem.is_timeout:
                is_passing = _is_starting(host)
            found.append(attrs.evolve(problem, text=text, is_passing=is_passing))
        raise Unreachable(
            Problem(
                " | ".join(dict.fromkeys(problem.text for problem in found)),
                is_passing=any(problem.is_passing for problem in found),
                is_timeout=all(problem.is_timeout for problem in found),
            )
        )

    def connect_with_retries(self, side: Side, *, opening: bool) -> Connection:
        """Connect, with retries until the connect timeout.

        Args:
            side: The user of the connection.
            opening: Retry only if the server is starting or a failover may be in progress. Once a
                storage has been open, each reason may pass: an old primary is fenced by its
                pg_hba.conf, or a database is still being restored.

        Raises:
            Unreachable: Connecting failed.
        """
        deadline = monotonic() + self.connect_timeout
        pause = _MIN_BACKOFF_SECONDS
        problem = None
        while True:
            try:
                return self.connect(side, deadline - monotonic(), opening=opening)
            except Unreachable as error:
                # The last attempt may have too little time to find the reason.
                if problem is None or not error.problem.is_timeout:
                    problem = error.problem
            if (opening and not problem.is_passing) or monotonic() + pause > deadline:
                raise Unreachable(problem)
            # Jitter, because many processes may have lost the same server at once.
            sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # jitter
            pause = min(2 * pause, _MAX_BACKOFF_SECONDS)

    def servers(self) -> list[tuple[str, Server | str]]:
        """The server at each address, or the reason why it isn't reached."""
        found: list[tuple[str, Server | str]] = []
        hosts = list(self._attempts("doctor"))
        for host, _ in hosts:
            server: Server | str
            try:
                share = self.connect_timeout / len(hosts)
                connection = self._connect_to(host, "doctor", "any", share)
            except Unreachable as error:
                server = self.conninfo.censored(error.problem.text)
            else:
                server = connection.session.server
                connection.discard()
            found.append((_name(host), server))
        return found

    # --- hosts -----------------------------------------------------------------------------------

    def _attempts(self, side: Side) -> Iterator[tuple[dict[str, str], str]]:
        """The parameters of each address to connect to, with the wanted kind of server.

        Raises:
            Unreachable: No host's name can be resolved.
        """
        asked = self.conninfo.get("target_session_attrs")
        wanted = ["read-write"]
        if asked and side in ("reader", "admin") and not self.current.writers:
            wanted = ["standby", "any"] if asked == "prefer-standby" else [asked]
        addresses: list[dict[str, str]] = []
        problem = ""
        for host in self.conninfo.hosts():
            try:
                addresses += _addresses(host)
            except OSError as error:
                problem = f"failed to resolve host {host['host']!r}: {error.strerror or error}"
        if not addresses:
            text = problems.connect_problem(psycopg.OperationalError(problem))
            raise Unreachable(Problem(text))
        if self.conninfo.get("load_balance_hosts") == "random":
            random.shuffle(addresses)
        if len(wanted) == 1:
            addresses.sort(key=lambda each: _address(each) != self.current.address)
        return ((each, kind) for kind in wanted for each in addresses)

    def _connect_to(
        self, host: dict[str, str], side: Side, wanted: str, timeout: float
    ) -> Connection:
        """Connect to one address.

        Raises:
            Unreachable: Connecting failed, or the server isn't the wanted one. The latter may pass
                if there are other hosts.
        """
        deadline = monotonic() + timeout
        parameters = self.conninfo.parameters(
            fallback_application_name=f"trio_durable {side}",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=max(1, round(self.statement_timeout * 1000)) + 1000,
        )
        parameters.update(host, client_encoding="UTF8", target_session_attrs="any")
        connection = None
        try:
            limit = monotonic() + self._limit_of_libpq()
            connection = _open(make_conninfo(**parameters), min(deadline, limit))
            connection.silence_timeout = max(0.001, deadline - monotonic())
            session = start_session(
                connection,
                durability="full" if side == "node" else self.durability,
                statement_timeout=self.statement_timeout,
                may_prepare=self.prepared_statements and self.current.may_prepare,
                wanted=wanted,
            )
        except psycopg.Error as error:
            is_timeout = isinstance(error, (ResponseTimeout, psycopg.errors.ConnectionTimeout))
            problem = Problem(problems.connect_problem(error), is_timeout=is_timeout)
        except BaseException:  # such as Control-C
            if connection is not None:
                connection.discard()
            raise
        else:
            refusal = self._refusal(session, wanted)
            if refusal is None:
                if session.needs_primary:
                    self.current.address = _address(host)
                    self.current.move(session.server)
                return connection
            problem = Problem(refusal, is_passing=session.server.is_read_only)
        if connection is not None:
            connection.discard()
        raise Unreachable(problem)

    def _limit_of_libpq(self) -> float:
        """The bound that the user sets for each host; infinite without one."""
        try:
            limit = float(self.conninfo.get("connect_timeout") or 0)
        except ValueError:
            return float("inf")  # libpq reports it
        return limit if limit > 0 else float("inf")

    def _refusal(self, session: Session, wanted: str) -> str | None:
        """The reason why a server isn't the wanted one; None if it is."""
        server = session.server
        if wanted in ("read-write", "primary") and server.is_standby:
            return "the session is read-only: the server is a standby; name the primary"
        if wanted == "read-write" and server.is_read_only:
            return "the session is read-only: default_transaction_read_only is on; name the primary"
        if wanted == "standby" and not server.is_standby:
            return "the server is not a standby, and target_session_attrs asks for one"
        if wanted == "read-only" and not server.is_read_only:
            return "the session is not read-only, and target_session_attrs asks for that"
        if session.needs_primary and self.current.is_newer_than(server):
            return "the server is an old primary: another one was promoted since; stop the old one"
        return None


# --- libpq ---------------------------------------------------------------------------------------


def _open(conninfo: str, deadline: float) -> Connection:
    """Connect to one address.

    Raises:
        psycopg.OperationalError: It failed, or took too long. Doesn't refer to the parameters.
    """
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    polled = pq.PollingStatus.WRITING
    with new_selector() as selector:
        while polled != pq.PollingStatus.OK:
            if pgconn.status == pq.ConnStatus.BAD or polled == pq.PollingStatus.FAILED:
                text = pgconn.get_error_message()
                pgconn.finish()
                raise psycopg.OperationalError(f"connection failed: {text}")
            wanted = selectors.EVENT_READ
            if polled == pq.PollingStatus.WRITING:
                wanted = selectors.EVENT_WRITE
            key = selector.register(pgconn.socket, wanted)
            try:
                is_ready = selector.select(max(0.0, deadline - monotonic()))
            except BaseException:  # such as Control-C
                pgconn.finish()
                raise
            selector.unregister(key.fileobj)
            if not is_ready and monotonic() >= deadline:
                pgconn.finish()
                raise psycopg.errors.ConnectionTimeout("connection failed: timeout expired")
            if is_ready:
                polled = pq.PollingStatus(pgconn.connect_poll())
    pgconn.nonblocking = 1
    connection = Connection(pgconn, tuple_row)
    connection.autocommit = True
    connection.prepare_threshold = None
    connection.socket_selector = new_selector()
    connection.socket_selector.register(pgconn.socket, selectors.EVENT_READ)
    connection.add_notice_handler(connection.on_notice)
    return connection


def _is_starting(host: dict[str, str]) -> bool:
    """True if a server reports that it can't take connections now (SQLSTATE 57P03).

    The server reports that first, whatever the user and before any encryption. libpq keeps the
    SQLSTATE of a failed connection to itself, and psycopg holds the interpreter's lock in its
    ``PQping``.
    """
    place, port = host.get("hostaddr") or host.get("host", ""), int(host.get("port") or 5432)
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    address: str | tuple[str, int] = (place, port)
    if place.startswith("/"):
        family, address = socket.AF_UNIX, f"{place}/.s.PGSQL.{port}"
    startup = struct.pack("!i", 3 << 16) + b"user\0postgres\0\0"
    try:
        with socket.socket(family) as client:
            client.settimeout(1)
            client.connect(address)
            client.sendall(struct.pack("!i", len(startup) + 4) + startup)
            reply = client.recv(8192)
    except OSError:
        return False
    return reply.startswith(b"E") and b"\0C57P03\0" in reply


def _addresses(host: dict[str, str]) -> list[dict[str, str]]:
    """The parameters of each address of a host, because libpq would wait for each one in turn.

    Raises:
        OSError: The name can't be resolved.
    """
    name = host.get("host", "")
    if not name or name.startswith(("/", "@")) or host.get("hostaddr"):
        return [host]
    found = socket.getaddrinfo(
        name, host.get("port") or "5432", proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM
    )
    return [{**host, "hostaddr": str(address[0])} for *_, address in found]


def _address(host: dict[str, str]) -> tuple[str, str, str]:
    return host.get("host", ""), host.get("hostaddr", ""), host.get("port", "")


def _name(host: dict[str, str]) -> str:
    name = host.get("host") or host.get("hostaddr") or "localhost"
    return f"{name}:{host['port']}" if host.get("port") else name


def new_selector() -> selectors.BaseSelector:
    """A selector for one or two sockets."""
    # Not epoll, which takes one more file descriptor per connection, nor select, which can't handle
    # descriptors above 1023.
    return getattr(selectors, "PollSelector", selectors.SelectSelector)()
