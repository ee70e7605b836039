"""The interface of a contender, as the driver uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

Step = Callable[[], Any]
"""Makes one call. It returns an awaitable, unless its contender blocks."""

CALLERS = 64

POLLING_INTERVAL = 0.1
"""Seconds between two looks at the table of jobs, for contenders that poll."""


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
