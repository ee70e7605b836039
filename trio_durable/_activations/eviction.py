"""Eviction: idle objects hibernate, then leave memory, and the number of resident ones is bounded.

Objects of one type have the same limits, so they fall due in the order of their last use. Each
directory keeps its objects in that order, the active and the hibernated ones apart; a call moves
its object to the end, and one task looks at the beginnings. So no object costs a task or a timer,
and an object that leaves memory leaves nothing there.

The same order selects the objects that make room for others, by the CLOCK algorithm: the least
recently used one leaves memory if it is idle; if it is busy, it goes to the end of the order, as if
it had been used just now. Each newcomer pays for `_LOOKS` looks, which add up to one round of all
objects at most. So the cost per newcomer is constant, amortised, even while all objects are busy.
The number of objects exceeds the bound by the busy ones that don't fit, and by few idle ones, which
the next newcomers or the next second find.
"""

from __future__ import annotations

from typing import Protocol

import anyio

from .._eventloop.loop import Loop

DEFAULT_MAX_RESIDENT = 1_000_000
NEVER = float("inf")

_LOOKS = 16
"""The looks at candidates that each newcomer pays for."""
_LOOKS_PER_RETRY = 10_000
_RETRY_SECONDS = 1.0
"""How often candidates are looked at while there are too many objects and no newcomers."""


class Evictable(Protocol):
    """The resident objects of one type: a directory."""

    def retire(self, now: float) -> float:
        """Hibernate and shut down the objects that are due; return when the next one is."""
        ...

    def oldest_use(self) -> float:
        """The last use of the next candidate for eviction; `NEVER` if there is none."""
        ...

    def evict_oldest(self, now: float) -> bool:
        """Shut that object down; if it is busy, treat it as used at ``now`` and return False."""
        ...


class ResidentSet:
    """Counts the objects in memory and retires idle ones."""

    def __init__(self, loop: Loop, max_resident: int) -> None:
        self._loop = loop
        self._max_resident = max_resident
        self._evictables: list[Evictable] = []
        self._sleeps_until = NEVER
        self._changed = anyio.Event()
        self._looks = 0
        self.count: int = 0

    def add(self, evictable: Evictable) -> None:
        """Look after the objects of one more type."""
        self._evictables.append(evictable)

    def enter(self, due: float) -> None:
        """Count one more object, which retires at ``due`` if it isn't used again; make room."""
        self.count += 1
        self._looks = min(self._looks + _LOOKS, self.count)
        self.expect(min(due, self._make_room()))

    def _make_room(self) -> float:
        """Evict idle objects while there are too many; return when to try again."""
        if self.count <= self._max_resident:
            return NEVER
        now = self._loop.now()
        while self.count > self._max_resident and self._looks > 0:
            self._looks -= 1
            oldest = min(self._evictables, key=lambda evictable: evictable.oldest_use())
            if not oldest.evict_oldest(now):
                # Last among types whose candidates were used at the same time, or these might all
                # be looked at in vain while another type has idle ones.
                self._evictables.remove(oldest)
                self._evictables.append(oldest)
        return NEVER if self.count <= self._max_resident else now + _RETRY_SECONDS

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
            next_due = min((evictable.retire(now) for evictable in self._evictables), default=NEVER)
            self._looks = min(self._looks + _LOOKS_PER_RETRY, self.count)
            self._sleeps_until = min(next_due, self._make_room())
            if self._sleeps_until == NEVER:
                await self._changed.wait()
            else:
                with anyio.move_on_after(self._sleeps_until - now):
                    await self._changed.wait()
