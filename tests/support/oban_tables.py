"""Oban's tables for tests, as its package installs them. Works without the package."""

from __future__ import annotations

from pathlib import Path

import psycopg

SQL = (Path(__file__).parent / "oban_tables.sql").read_text()
"""The package's own SQL, of oban 0.7.0; a test compares them where the package is installed."""


def install_tables(conninfo: str) -> None:
    """Make Oban's tables in the current schema of a connection."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(SQL.encode())
