"""Eviction: idle objects hibernate, then leave memory, and the number of resident ones is bounded.

Objects of one type have the same limits, so they fall due in the order of their last use. Each
directory keeps its objects in that order, the active and the hibernated ones apart; a call moves
its object to the end, and one task looks at the beginnings. So no object costs a task or a timer,
and an object that leaves memory leaves nothing there.

The same order selects the object that makes room for another: the least recently used (LRU).
"""

from __future__ import annotations

from typing import Protocol

import anyio

from .._eventloop.loop import Loop

DEFAULT_MAX_RESIDENT = 1_000_000
NEVER = float("inf")


class Evictable(Protocol):
    """The resident objects of one type: a directory."""

    def retire(self, now: float) -> float:
        """Hibernate and shut down the objects that are due; return when the next one is."""
        ...

    def oldest_use(self) -> float:
        """The last use of the idle object that is idle for longest; `NEVER` if none is idle."""
        ...

    def evict_oldest(self) -> None:
        """Shut that object down."""
        ...


class ResidentSet:
    """Counts the objects in memory and retires idle ones."""

    def __init__(self, loop: Loop, max_resident: int) -> None:
        self._loop = loop
        self._max_resident = max_resident
        self._evictables: list[Evictable] = []
        self._sleeps_until = NEVER
        self._changed = anyio.Event()
        self.count = 0

    def add(self, evictable: Evictable) -> None:
        """Look after the objects of one more type."""
        self._evictables.append(evictable)

    def enter(self, due: float) -> None:
        """Count one more object, which retires at ``due`` if it isn't used again; make room."""
        self.count += 1
        self.expect(due)
        while self.count > self._max_resident:
            oldest = min(self._evictables, key=lambda evictable: evictable.oldest_use())
            if oldest.oldest_use() == NEVER:
                break  # all are busy, each with a caller that waits for it
            oldest.evict_oldest()

    def leave(self) -> None:
        """Count one less."""
        self.count -= 1

    def expect(self, due: float) -> None:
        """Look at ``due`` at the latest."""
        if due < self._sleeps_until:
            self._sleeps_until = due
            self._changed.set()

    async def run(self) -> None:
        """Retire objects that have been idle for long enough, for ever."""
        while True:
            self._changed = anyio.Event()
            now = self._loop.now()
            self._sleeps_until = min(
                (evictable.retire(now) for evictable in self._evictables), default=NEVER
            )
            if self._sleeps_until == NEVER:
                await self._changed.wait()
            else:
                with anyio.move_on_after(self._sleeps_until - now):
                    await self._changed.wait()
