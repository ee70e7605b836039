"""Which objects stay in memory: idle ones hibernate, then shut down, and their number is bounded.

Objects of one type have the same limits, so they fall due in the order of their last use. Each
type keeps its objects in that order, the active and the hibernated ones apart (see `_directory`);
a call moves its object to the end, and one task looks at the beginnings. So no object costs a
task or a timer, and an object that leaves leaves nothing behind.

The same order says who makes room when there are too many: the one that was used longest ago.
"""

from __future__ import annotations

from typing import Protocol

import anyio

from .._eventloop.loop import Loop

DEFAULT_MAX_RESIDENT = 1_000_000
NEVER = float("inf")


class Population(Protocol):
    """The objects of one type in memory, as far as their stay goes: a directory."""

    def retire(self, now: float) -> float:
        """Hibernate and shut down what is due; tell when the next one is."""
        ...

    def oldest_use(self) -> float:
        """When the idle object was last used that is idle for longest; `NEVER` if none is idle."""
        ...

    def evict_oldest(self) -> None:
        """Shut that object down."""
        ...


class Residency:
    """Counts the objects in memory and retires idle ones."""

    def __init__(self, loop: Loop, max_resident: int) -> None:
        self._loop = loop
        self._max_resident = max_resident
        self._populations: list[Population] = []
        self._sleeps_until = NEVER
        self._changed = anyio.Event()
        self.count = 0

    def add(self, population: Population) -> None:
        """Look after the objects of one more type."""
        self._populations.append(population)

    def enter(self, due: float) -> None:
        """Count one more object, which retires at ``due`` if it isn't used again; make room."""
        self.count += 1
        self.expect(due)
        while self.count > self._max_resident:
            oldest = min(self._populations, key=lambda population: population.oldest_use())
            if oldest.oldest_use() == NEVER:
                break  # all are busy, each with a caller who waits for it
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
        """Retire what has been idle for long enough, for ever."""
        while True:
            self._changed = anyio.Event()
            now = self._loop.now()
            self._sleeps_until = min(
                (population.retire(now) for population in self._populations), default=NEVER
            )
            if self._sleeps_until == NEVER:
                await self._changed.wait()
            else:
                with anyio.move_on_after(self._sleeps_until - now):
                    await self._changed.wait()
