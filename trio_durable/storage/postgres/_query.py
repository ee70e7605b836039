"""Queries of users on a PostgreSQL database, in a transaction that can't write.

A read-only transaction alone isn't enough: a text with ``COMMIT`` ends it, and the rest runs in
one of its own. So the query is the operand of ``DECLARE CURSOR``, which takes a ``SELECT`` or
``VALUES`` alone, and goes by the extended protocol, which takes one statement.

Functions may do what the role may do on the server, such as a superuser's read of its files. A role
that has few privileges is the bound of these.
"""

from __future__ import annotations

from time import monotonic

import psycopg

from .._faults import StorageFault
from .._query import QueryResult, RowLimit
from ._errors import statement_problem

_CONNECT_SECONDS = 10
_PAGE_ROWS = 100
_BEGIN = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def run_query(conninfo: str, sql: str, limit: int, seconds: float) -> QueryResult:
    """Run a query. All its rows are of one moment.

    Args:
        conninfo: The connection string.
        sql: One ``SELECT`` or ``VALUES``.
        limit: The most rows.
        seconds: How long it may run.

    Raises:
        StorageFault: The query is invalid, isn't a ``SELECT``, or takes too long, or the server
            can't be reached.
    """
    try:
        connection = psycopg.connect(
            conninfo,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="trio_durable query",
        )
    except psycopg.Error as error:
        # Without the error as the cause, which holds the password.
        raise StorageFault(f"the server can't be reached: {str(error).strip()}") from None
    try:
        with connection:
            return _fetched(connection, sql, limit, monotonic() + seconds)
    except psycopg.errors.QueryCanceled as error:
        problem = f"it ran for longer than {seconds:g} s; narrow it, or raise --timeout"
        raise StorageFault(problem) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        said = error.diag.message_primary
        raise StorageFault(f"it does more than read ({said}); write one SELECT") from error
    except psycopg.errors.SyntaxError as error:
        raise StorageFault(f"{statement_problem(error)}; write one SELECT") from error
    except psycopg.Error as error:
        raise StorageFault(statement_problem(error)) from error


def _fetched(
    connection: psycopg.Connection[tuple[object, ...]], sql: str, limit: int, deadline: float
) -> QueryResult:
    connection.execute(_BEGIN)
    _limit_time(connection, deadline)
    # ``binary`` has psycopg use the extended protocol.
    connection.execute(f"DECLARE asked NO SCROLL CURSOR FOR {sql}".encode(), binary=True)
    fetched, columns = RowLimit(limit), tuple[str, ...]()
    while True:
        _limit_time(connection, deadline)  # again, since the query may have changed it
        page = connection.execute(f"FETCH {min(_PAGE_ROWS, limit + 1)} FROM asked".encode())
        columns = tuple(each.name for each in page.description or ())
        rows = page.fetchall()
        if not fetched.take(rows) or not rows:
            break
    connection.execute("ROLLBACK")
    return QueryResult(columns, fetched.taken, not fetched.is_exceeded)


def _limit_time(connection: psycopg.Connection[tuple[object, ...]], deadline: float) -> None:
    left = max(1, int(1000 * (deadline - monotonic())))
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(f"SET LOCAL {name} = {left}".encode())
