"""Counters as rows of SQL, with the same three fields as ours, for contenders without state."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from .contender import Place

UPSERT = """
INSERT INTO counters (id, count, total, label) VALUES ({id}, 1, 1, 'a benchmark''s counter')
ON CONFLICT (id) DO UPDATE SET count = counters.count + 1, total = counters.total + 1
RETURNING total
"""
"""Adds 1. To be formatted with a placeholder, as the next two are."""
SELECT = "SELECT total FROM counters WHERE id = {id}"
ROW = "INSERT INTO counters (id, count, total, label) VALUES ({id}, 0, 0, '')"
TABLE = """
CREATE TABLE counters (
    id TEXT PRIMARY KEY, count BIGINT NOT NULL, total BIGINT NOT NULL, label TEXT NOT NULL
)
"""


def connect(path: Path) -> sqlite3.Connection:
    """A file with the table of counters in it, which is as durable as ours is."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE)
    return connection


@asynccontextmanager
async def changes(place: Place) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """A function that adds 1, in a file or on the server by a pool of connections."""
    if place.server is None:
        with closing(connect(place.folder / "counters.db")) as file:

            async def change(key: str) -> None:
                file.execute(UPSERT.format(id="?"), (key,)).fetchone()

            yield change
        return
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(place.server, min_size=4, max_size=16, open=False) as pool:
        async with pool.connection() as connection:
            await connection.execute(TABLE)

        async def change_on_server(key: str) -> None:
            async with pool.connection() as connection:
                await connection.execute(UPSERT.format(id="%s"), (key,))

        yield change_on_server


def sqlalchemy_url(place: Place, file: str) -> str:
    """The address of a database, as SQLAlchemy writes it."""
    if place.server is None:
        return f"sqlite:///{place.folder / file}"
    return place.server.replace("postgresql://", "postgresql+psycopg://", 1)
