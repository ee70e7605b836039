"""Timed queue: entries that are taken one after the other, each at its time or later."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Generic, TypeVar

from .loop import Loop
from .wakeup import AutoResetEvent

T = TypeVar("T")


class TimedQueue(Generic[T]):
    """A queue in order of times. One task takes from it.

    Args:
        loop: The event loop, whose clock has the times.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, T]] = []
        """The time of each entry, a running number, and the entry."""
        self._numbers = itertools.count()
        self._has_more = AutoResetEvent(loop)

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, entry: T, delay: float) -> None:
        """Add an entry that may be taken ``delay`` seconds from now."""
        heapq.heappush(self._heap, (self._loop.now() + delay, next(self._numbers), entry))
        self._has_more.set()

    async def take(self) -> T:
        """Wait for the time of the first entry, and take it."""
        while (seconds := self._seconds_left()) > 0:
            await self._has_more.wait(seconds)
        return heapq.heappop(self._heap)[2]

    def _seconds_left(self) -> float:
        return self._heap[0][0] - self._loop.now() if self._heap else math.inf
