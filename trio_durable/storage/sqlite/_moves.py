"""Table of marks in an SQLite file. It exists once the first mark was made."""

from __future__ import annotations

import sqlite3

from .._moves import Move

_CREATE = """
CREATE TABLE IF NOT EXISTS durable_moves (
    tenant   TEXT PRIMARY KEY NOT NULL,  -- '' is the whole file
    target   TEXT NOT NULL,
    moved_at INTEGER NOT NULL            -- microseconds since 1970 UTC
) WITHOUT ROWID
"""
_EXISTS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durable_moves'"


def list_moves(connection: sqlite3.Connection) -> list[Move]:
    """All marks."""
    if connection.execute(_EXISTS).fetchone() is None:
        return []
    return [Move(*row) for row in connection.execute("SELECT * FROM durable_moves ORDER BY tenant")]


def mark(connection: sqlite3.Connection, move: Move) -> None:
    """Make a mark. Part of a transaction."""
    connection.execute(_CREATE)
    connection.execute(
        "INSERT OR REPLACE INTO durable_moves VALUES (?, ?, ?)",
        (move.tenant, move.target, move.moved_at),
    )


def take_back(connection: sqlite3.Connection, tenant: str) -> bool:
    """Remove a mark. Returns whether there was one."""
    if connection.execute(_EXISTS).fetchone() is None:
        return False
    removed = connection.execute("DELETE FROM durable_moves WHERE tenant = ?", (tenant,))
    return removed.rowcount > 0
