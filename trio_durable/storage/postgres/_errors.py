"""Texts for errors of a PostgreSQL server, with advice.

A failed connection has no SQLSTATE, so its errors are recognized by libpq's text. A server may use
another language; then its text is passed on without advice.
"""

from __future__ import annotations

import re

import attrs
import psycopg


@attrs.frozen
class Problem:
    """The reason why connecting failed."""

    text: str
    is_transient: bool = True
    """True if a retry may succeed without anyone changing anything."""
    is_starting: bool = False
    """True if the server is starting up and will accept connections soon."""


_CONNECT_ADVICE: tuple[tuple[str, str, bool], ...] = (
    (
        r"password authentication failed|no password supplied|SASL|authentication failed",
        "check user and password (in the connection string, PGPASSWORD or the password file)",
        False,
    ),
    (
        r'role ".*" does not exist',
        "check the user's name, or create the role: CREATE ROLE … LOGIN",
        False,
    ),
    (
        r'database ".*" does not exist',
        "check the database's name, or create it: CREATE DATABASE …",
        False,
    ),
    (r"permission denied for database", "grant the role CONNECT on the database", False),
    (
        r"server does not support SSL",
        "the server has no TLS: use sslmode=prefer, or set up TLS on the server",
        False,
    ),
    (
        r"no encryption|SSL off",
        "the server admits this user with TLS only: use sslmode=require or stronger",
        False,
    ),
    (
        r"certificate verify failed|SSL error|root certificate|server certificate",
        "check sslmode, sslrootcert and the server's certificate",
        False,
    ),
    (
        r"no pg_hba.conf entry",
        "let the server admit this user from this host, in its pg_hba.conf",
        False,
    ),
    (
        r"too many clients|too many connections|connection slots are reserved|no more connections",
        "a runtime takes three connections: close others, raise max_connections, or use a pooler",
        True,
    ),
    (
        r"session is read-only|session is not in hot standby|server is in hot standby",
        "the server is a standby, or has default_transaction_read_only: name the primary",
        True,
    ),
    (
        r"could not translate host name|failed to resolve|[Nn]ame or service not known",
        "check the host's name",
        True,
    ),
    (
        r"[Cc]onnection refused|No such file or directory",
        "check host and port, and that the server runs",
        True,
    ),
    (
        r"starting up|shutting down|recovery mode",
        "the server is starting or stopping: try again soon",
        True,
    ),
    (
        r"timeout expired|timed out|unreachable|No route",
        "check host and port, and any firewall in between",
        True,
    ),
)


def connect_problem(error: psycopg.Error) -> Problem:
    """The `Problem` for an error of connecting."""
    said = _one_line(str(error))
    for pattern, advice, is_transient in _CONNECT_ADVICE:
        if re.search(pattern, said):
            return Problem(f"{said}; {advice}", is_transient, is_starting="starting up" in said)
    return Problem(said)


def statement_problem(error: psycopg.Error) -> str:
    """Text for an error of a statement, without its DETAIL, which may quote stored data."""
    said = error.diag.message_primary
    if not said:
        return _one_line(str(error)) or type(error).__name__
    advice = {
        "25006": "; the server is a standby or has default_transaction_read_only: name the primary",
        "57014": "; see statement_timeout",
        "42P06": "; another application in this database may have a tenant of that name",
        "55P03": "; another session holds the lock",
        "53200": "; raise max_locks_per_transaction if it says so",
        "53100": "; the server's disk is full",
        "42501": "; grant the role what it needs, see docs/postgres.md",
        "42P01": "; a table was removed, or the role has no USAGE on its schema",
        "26000": _POOLER,
        "42P05": _POOLER,
    }.get(error.sqlstate or "", "")
    return f"{_one_line(said)} ({error.sqlstate}){advice}"


_POOLER = (
    "; if a pooler in between shares connections, use PostgresStorage(…, prepared_statements=False)"
)


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line)
