"""The durable class that is under load."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from trio_durable import alarm, handler

from ..objects import Counter


class Cell(Counter, hibernate_after=2):
    """A small object that can do everything, and hibernates soon."""

    rings: int = 0

    @handler
    def fail(self) -> None:
        """A change that is taken back."""
        self.count += 1
        raise ZeroDivisionError("as it was asked to")

    @handler
    async def linger(self) -> int:
        """A change with a stop in it."""
        self.count += 1
        await checkpoint()
        return self.count

    @handler
    async def take(self, seconds: float) -> int:
        """A change that takes so long."""
        self.count += 1
        await anyio.sleep(seconds)
        return self.count

    @handler
    def remind(self, after: float) -> None:
        """A change, and another one later."""
        self.count += 1
        self.ctx.schedule_alarm("ring", after=after)

    @alarm
    def ring(self) -> None:
        """What comes later."""
        self.rings += 1


class Stay(Cell, name="Cell", hibernate_after=3600):
    """The same objects, for a process in which they stay active."""
