"""What goes wrong with a PostgreSQL server, in words that say what to do.

Before a connection is there libpq gives no codes, only text, so what is known is told by its text.
Servers may speak another language; then what they say is passed on, with less advice.
"""

from __future__ import annotations

import re

import attrs
import psycopg


@attrs.frozen
class Problem:
    """Why there is no connection."""

    text: str
    is_transient: bool = True
    """Whether it may be over by itself before long."""
    is_starting: bool = False
    """Whether the server is there and about to serve."""


_CONNECT_ADVICE: tuple[tuple[str, str, bool], ...] = (
    (
        r"password authentication failed|no password supplied|SASL|authentication failed",
        "check user and password (in the connection string, PGPASSWORD or the password file)",
        False,
    ),
    (r'role ".*" does not exist', "check the user's name, or have the role made", False),
    (
        r'database ".*" does not exist',
        "check the database's name, or make it: CREATE DATABASE …",
        False,
    ),
    (r"permission denied for database", "have the role granted CONNECT on the database", False),
    (
        r"server does not support SSL",
        "the server has no TLS: use sslmode=prefer, or have TLS set up there",
        False,
    ),
    (
        r"no encryption|SSL off",
        "the server admits this user with TLS only: use sslmode=require, or stronger",
        False,
    ),
    (
        r"certificate verify failed|SSL error|root certificate|server certificate",
        "check sslmode, sslrootcert and the server's certificate",
        False,
    ),
    (r"no pg_hba.conf entry", "have the server admit this user from here (pg_hba.conf)", False),
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
    (r"starting up|shutting down|recovery mode", "the server is about to start or to stop", True),
    (
        r"timeout expired|timed out|unreachable|No route",
        "check host and port, and the firewall between",
        True,
    ),
)


def connect_problem(error: psycopg.Error) -> Problem:
    """Why it can't be connected to."""
    said = _one_line(str(error))
    for pattern, advice, is_transient in _CONNECT_ADVICE:
        if re.search(pattern, said):
            return Problem(f"{said}; {advice}", is_transient, is_starting="starting up" in said)
    return Problem(said)


def statement_problem(error: psycopg.Error) -> str:
    """What a statement failed with; without details, which may hold what is stored."""
    said = error.diag.message_primary
    if not said:
        return _one_line(str(error)) or type(error).__name__
    advice = {
        "25006": "; the server takes no changes (a standby, or default_transaction_read_only)",
        "57014": "; see statement_timeout",
        "53100": "; the server's disk is full",
        "42501": "; have the role granted what it needs, see docs/postgres.md",
        "42P01": "; a table was removed, or the role can't see its schema",
        "26000": _POOLER,
        "42P05": _POOLER,
    }.get(error.sqlstate or "", "")
    return f"{_one_line(said)} ({error.sqlstate}){advice}"


_POOLER = (
    "; is there a pooler in between that shares connections? Give PostgresStorage(…, "
    "prepared_statements=False)"
)


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line)
