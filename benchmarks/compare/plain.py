"""Python without a library: for scale."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

from .contender import Counters, Parts, Place, Step
from .rows import SELECT, UPSERT, connect


@asynccontextmanager
async def dictionary(_: Place) -> AsyncIterator[Parts]:
    """A module's dictionary with a lock for each key."""
    totals: defaultdict[str, int] = defaultdict(int)
    locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def increment(key: str) -> Step:
        async def step() -> int:
            async with locks[key]:
                await asyncio.sleep(0)  # as an application would that does something there
                totals[key] += 1
                return totals[key]

        return step

    def value(key: str) -> Step:
        async def step() -> int:
            await asyncio.sleep(0)
            return totals[key]

        return step

    yield [Counters(increment, value)]


@asynccontextmanager
async def raw_sqlite(place: Place) -> AsyncIterator[Parts]:
    """sqlite3 in the event loop's thread, a transaction for each increment."""
    with closing(connect(place.folder / "counters.db")) as connection:

        def stepping(statement: str, key: str) -> Step:
            async def step() -> Any:
                await asyncio.sleep(0)  # others have their turn between two statements
                return connection.execute(statement, (key,)).fetchone()[0]

            return step

        yield [
            Counters(
                increment=lambda key: stepping(UPSERT.format(id="?"), key),
                value=lambda key: stepping(SELECT.format(id="?"), key),
            )
        ]
