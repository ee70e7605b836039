"""Queries of users on an SQLite file, which can't change anything.

Neither ``mode=ro`` nor ``query_only`` makes a connection read-only: a statement can still attach
another file and write to that, or copy the database to a file by ``VACUUM INTO``. So SQLite's
authorizer is asked about each action while it compiles the statement, and allows those of a
``SELECT`` alone. Python compiles one statement at a time, and refuses a text with several.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

from .._faults import StorageFault
from .._query import QueryResult, RowLimit

_ACTIONS = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)
"""The actions of statements that only read."""
_FUNCTIONS = frozenset({"fts3_tokenizer", "load_extension"})
"""Functions that reach outside of the database."""
_BUSY_SECONDS = 2.0
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock, some 100 µs."""
_MOST_VALUE_BYTES = 64 * 1024 * 1024
"""The longest text that an expression may make. A state is stored in 16 MiB by default."""


def run_query(path: Path, sql: str, limit: int, seconds: float) -> QueryResult:
    """Run a query on a database that may be in use.

    Args:
        path: The database file, which exists.
        sql: One ``SELECT`` or ``VALUES``, or an ``EXPLAIN`` of one.
        limit: The most rows.
        seconds: How long it may run.

    Raises:
        StorageFault: The query is invalid, isn't a ``SELECT``, or takes too long, or the file
            can't be read.
    """
    uri, deadline = f"{path.absolute().as_uri()}?mode=rw", monotonic() + seconds
    refused: list[int] = []

    def authorize(action: int, _: str | None, name: str | None, *_more: str | None) -> int:
        is_function = action == sqlite3.SQLITE_FUNCTION
        if action not in _ACTIONS or (is_function and (name or "").lower() in _FUNCTIONS):
            refused.append(action)
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE_BYTES)
            connection.text_factory = lambda data: data.decode(errors="replace")
            # These make tables of themselves, which only their names in a statement bring about.
            connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
            connection.set_authorizer(authorize)
            connection.set_progress_handler(lambda: monotonic() > deadline, _STEPS)
            with closing(connection.execute(sql)) as cursor:
                if cursor.description is None:
                    raise StorageFault("it returns no rows; write a SELECT")
                fetched = RowLimit(limit)
                fetched.take(cursor)
                columns = tuple(each[0] for each in cursor.description)
                return QueryResult(columns, fetched.taken, not fetched.is_exceeded)
    except sqlite3.Error as error:
        raise StorageFault(_problem(error, refused, seconds)) from error


def _problem(error: sqlite3.Error, refused: list[int], seconds: float) -> str:
    if refused:
        return f"it does more than read ({error}); write one SELECT"
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        return f"it ran for longer than {seconds:g} s; narrow it, or raise --timeout"
    if isinstance(error, sqlite3.ProgrammingError):
        return f"{error}; write one SELECT"
    return str(error)
