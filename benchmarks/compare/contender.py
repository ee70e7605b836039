"""What the driver asks of a contender."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread

from benchmarks.loops import LoopName

Step = Callable[[], Any]
"""Makes one call. It returns what is awaited, unless its contender blocks."""

CALLERS = 64

POLLING_INTERVAL = 0.1
"""Seconds, for those that look for what is due every so often."""

UPSERT = """
INSERT INTO counters (id, count, total, label) VALUES ({id}, 1, 1, 'a benchmark''s counter')
ON CONFLICT (id) DO UPDATE SET count = counters.count + 1, total = counters.total + 1
RETURNING total
"""
"""One more, where the user writes the SQL; the same three fields that ours has. To be formatted."""

SELECT = "SELECT total FROM counters WHERE id = {id}"

ROW = "INSERT INTO counters (id, count, total, label) VALUES ({id}, 0, 0, '')"
"""A counter that nobody has called yet. To be formatted."""

TABLE = """
CREATE TABLE counters (
    id TEXT PRIMARY KEY, count BIGINT NOT NULL, total BIGINT NOT NULL, label TEXT NOT NULL
)
"""


class Counters(ABC):
    """Named counters."""

    blocking: ClassVar[bool] = False
    """Whether a step blocks its thread until it is done, so that each caller needs a thread."""

    async def make(self, keys: Sequence[str]) -> int:
        """Make the counters, and bring them into memory if they can be there.

        By calling each once, unless there is another way. Returns the sum of all.
        """
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

    @abstractmethod
    def increment(self, key: str) -> Step:
        """What adds 1 to a counter and comes back once that is as durable as it gets."""

    @abstractmethod
    def value(self, key: str) -> Step:
        """What reads a counter, which is there."""


class Alarms(ABC):
    """Alarms, timers or jobs that are due once and then make a durable change."""

    lead: float = 1.5
    """The seconds that setting a thousand of them may take."""

    @abstractmethod
    async def schedule(self, keys: Sequence[str], due_at: datetime) -> None:
        """Set one for each of ``keys``, all at the same time."""

    @abstractmethod
    async def handled(self) -> int:
        """How many have made their change since the contender was opened."""


class Contender(ABC):
    """Something that can be opened and then is `Counters`, `Alarms` or both."""

    loop: ClassVar[LoopName] = "asyncio"

    @abstractmethod
    def opened(self, folder: Path) -> AbstractAsyncContextManager[Counters | Alarms]:
        """It at work, with all it stores in ``folder``, which is empty."""
