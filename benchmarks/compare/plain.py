"""What Python has without a library: for scale."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from .contender import SELECT, TABLE, UPSERT, Contender, Counters, Step


class _Dict(Counters):
    def __init__(self) -> None:
        self._totals: defaultdict[str, int] = defaultdict(int)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def increment(self, key: str) -> Step:
        async def step() -> int:
            async with self._locks[key]:
                await asyncio.sleep(0)  # as whoever does something there does
                self._totals[key] += 1
                return self._totals[key]

        return step

    def value(self, key: str) -> Step:
        async def step() -> int:
            await asyncio.sleep(0)
            return self._totals[key]

        return step


class DictAndLocks(Contender):
    """A module's dictionary with a lock for each key."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Dict]:
        yield _Dict()


class _Rows(Counters):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def increment(self, key: str) -> Step:
        return self._step(UPSERT.format(id="?"), key)

    def value(self, key: str) -> Step:
        return self._step(SELECT.format(id="?"), key)

    def _step(self, statement: str, key: str) -> Step:
        async def step() -> Any:
            await asyncio.sleep(0)  # others have their turn between two statements
            return self._connection.execute(statement, (key,)).fetchone()[0]

        return step


class RawSqlite(Contender):
    """sqlite3 in the event loop's thread, a transaction for each increment."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[_Rows]:
        with closing(connect(folder / "counters.db")) as connection:
            yield _Rows(connection)


def connect(path: Path) -> sqlite3.Connection:
    """A file with the table of counters in it, which is as durable as ours is."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(TABLE)
    return connection
