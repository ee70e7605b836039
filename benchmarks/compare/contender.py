"""The interface of a contender, as the driver uses it, and the SQL of some."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import attrs

Step = Callable[[], Any]
"""Makes one call. It returns an awaitable, unless its contender blocks."""

CALLERS = 64

UPSERT = """
INSERT INTO counters (id, count, total, label) VALUES ({id}, 1, 1, 'a benchmark''s counter')
ON CONFLICT (id) DO UPDATE SET count = counters.count + 1, total = counters.total + 1
RETURNING total
"""
"""Adds 1 to a counter with the same three fields as ours, for contenders without state of their
own. To be formatted with a placeholder, as the next two are."""
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


Operation = Literal["add", "value"]
Drive = Callable[[Operation, int, int, float], Awaitable[int]]
"""Lets so many callers call so many of the `object_ids`, for so many seconds, in the process of the
contender. Returns the calls that were answered."""


@attrs.frozen
class Counters:
    """Named counters."""

    increment: Callable[[str], Step]
    """A step that adds 1 to a counter and returns once that is as durable as it gets."""
    value: Callable[[str], Step]
    """A step that reads a counter, which is there."""
    fill: Callable[[Sequence[str]], None] | None = None
    """Makes the counters at 0 without calling each, if they can't be in memory anyway."""
    blocking: bool = False
    """A step blocks its thread until it is done, so that each caller needs a thread."""
    drive: Drive | None = None
    """The contender's own driver, in place of ours, if its process isn't ours."""

    async def make(self, keys: Sequence[str]) -> int:
        """Make the counters, in memory if that is possible. Returns the sum of all."""
        if self.fill is not None:
            self.fill(keys)
            return 0
        steps = iter([self.increment(key) for key in keys])

        async def caller() -> None:
            for step in steps:
                if self.blocking:
                    await anyio.to_thread.run_sync(step)
                else:
                    await step()

        async with anyio.create_task_group() as tasks:
            for _ in range(CALLERS):
                tasks.start_soon(caller)
        return len(keys)


@attrs.frozen
class Alarms:
    """Alarms, timers or jobs that are due once and then make a durable change."""

    schedule: Callable[[Sequence[str], datetime], Awaitable[None]]
    """Sets one for each of the keys, all at the same time."""
    handled: Callable[[], Awaitable[int]]
    """The number of alarms that have made their change since the contender was opened."""
    lead: float = 1.5
    """The seconds that setting a thousand of them may take."""


@attrs.frozen
class Place:
    """An empty folder, and the connection string of a PostgreSQL server for contenders with one."""

    folder: Path
    server: str | None = None


Parts = Sequence[Counters | Alarms]
Contender = Callable[[Place], AbstractAsyncContextManager[Parts]]
