"""Transactions of a connection in autocommit mode."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(connection: sqlite3.Connection, *, writes: bool = True) -> Iterator[None]:
    """Run the block in one transaction: commit at its end, roll back if it raises.

    Args:
        connection: It has no transaction open.
        writes: Take the write lock at the beginning, within the busy timeout. A transaction that
            begins by reading can't wait for that lock later: SQLite fails it at once, since its
            snapshot may be out of date.
    """
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
