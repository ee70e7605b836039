"""Errors of a PostgreSQL server: kinds by SQLSTATE, and texts with advice.

The kinds come from SQLSTATEs and other fields that no server translates. Only advice is chosen by
words: a failed connection has no SQLSTATE, and a server may use another language. Then its text is
passed on without advice.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import attrs
import psycopg


@attrs.frozen
class Problem:
    """The reason why connecting failed."""

    text: str
    is_passing: bool = False
    """True if the server is starting, or a failover may be in progress."""
    is_timeout: bool = False
    """True if the time was over before there was another reason."""


class Kind(Enum):
    """The consequence of a statement's error."""

    REFUSED = auto()
    """The statement failed, and would fail again. Nothing was applied."""
    ABORTED = auto()
    """The server rolled the transaction back because of another one. It may succeed now."""
    READ_ONLY = auto()
    """The server takes no changes. Nothing was applied. Another server may take them."""
    UNPREPARED = auto()
    """A prepared statement is gone or another one. Nothing was applied."""
    LOST = auto()
    """The connection is lost, and whether a change was applied is unknown."""


def kind_of(error: psycopg.Error) -> Kind:
    """The `Kind` of a statement's error, as far as the server has reported it."""
    code = error.sqlstate or ""
    if code == "25006":
        return Kind.READ_ONLY
    if code in ("40001", "40P01"):  # serialization failure, deadlock
        return Kind.ABORTED
    if code in ("26000", "42P05") or error.diag.source_function == "RevalidateCachedQuery":
        return Kind.UNPREPARED
    # Connection exception, operator intervention except query_canceled, completion unknown, and
    # idle_in_transaction_session_timeout.
    if (code[:2] in ("08", "57") and code != "57014") or code in ("40003", "25P03"):
        return Kind.LOST
    return Kind.REFUSED


def is_unreplicated(notice: psycopg.errors.Diagnostic) -> bool:
    """True for the warning of a commit that no longer waits for its synchronous standby.

    Its SQLSTATE is that of all warnings, and its text is translated.
    """
    return notice.source_function == "SyncRepWaitForLSN"


_CONNECT_ADVICE = (
    (
        r"password authentication failed|no password supplied|SASL|authentication failed",
        "check user and password (in the connection string, PGPASSWORD or the password file)",
    ),
    (
        r'role ".*" does not exist',
        "check the user's name, or create the role: CREATE ROLE … LOGIN",
    ),
    (
        r'database ".*" does not exist',
        "check the database's name, or create it: CREATE DATABASE …",
    ),
    (r"permission denied for database", "grant the role CONNECT on the database"),
    (
        r"server does not support SSL",
        "the server has no TLS: use sslmode=prefer, or set up TLS on the server",
    ),
    (
        r"no encryption|SSL off",
        "the server admits this user with TLS only: use sslmode=require or stronger",
    ),
    (
        r"certificate verify failed|SSL error|root certificate|server certificate",
        "check sslmode, sslrootcert and the server's certificate",
    ),
    (
        r"no pg_hba.conf entry",
        "let the server admit this user from this host, in its pg_hba.conf",
    ),
    (
        r"too many clients|too many connections|connection slots are reserved|no more connections",
        "a runtime takes three connections: close others, raise max_connections, or use a pooler",
    ),
    (
        r"unsupported startup parameter",
        "the pooler accepts no such parameter: set it for the role (ALTER ROLE … SET …)",
    ),
    (
        r"could not translate host name|failed to resolve|[Nn]ame or service not known",
        "check the host's name",
    ),
    (
        r"[Cc]onnection refused|No such file or directory",
        "check host and port, and that the server runs",
    ),
    (
        r"starting up|shutting down|recovery mode",
        "the server is starting or stopping: try again soon",
    ),
    (
        r"timeout expired|timed out|unreachable|No route|no answer",
        "check host and port, and any firewall in between",
    ),
)


def connect_problem(error: psycopg.Error) -> str:
    """Text for an error of connecting."""
    said = _one_line(str(error)) or type(error).__name__
    for pattern, advice in _CONNECT_ADVICE:
        if re.search(pattern, said):
            return f"{said}; {advice}"
    return said


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
