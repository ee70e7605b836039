"""The durable classes that are called."""

from __future__ import annotations

from trio_durable import DurableObject, handler


class Counter(DurableObject, hibernate_after=3600):
    """A small object: three fields, some 50 bytes of JSON."""

    count: int = 0
    total: int = 0
    label: str = "a benchmark's counter"

    @handler
    def add(self, by: int) -> int:
        """A change."""
        self.count += 1
        self.total += by
        return self.total

    @handler
    async def add_async(self, by: int) -> int:
        """The same change in an ``async def``, whose turn needs a task."""
        self.count += 1
        self.total += by
        return self.total

    @handler(readonly=True)
    def value(self) -> int:
        """A read."""
        return self.total

    @handler(readonly=True)
    async def value_async(self) -> int:
        """The same read in an ``async def``."""
        return self.total


class SleepyCounter(Counter, hibernate_after=0.05):
    """A counter that hibernates after 50 ms."""


def object_ids(count: int) -> list[str]:
    """The ids of ``count`` objects."""
    return [f"object-{number:07}" for number in range(count)]
