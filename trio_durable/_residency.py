"""Which objects stay in memory: idle ones hibernate, then shut down, and their number is bounded.

A call only notes the time on its activation. Each activation has one entry in a heap of the times
at which to look at it next; if it was used since, the entry goes back with a later time. So a
busy object costs one heap operation per ``hibernate_after``, not one per call, and no object
costs a task.

The same heap says whom to shut down when there are too many: who is due first was, near enough,
used longest ago.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

import anyio

from ._rendezvous import Loop

DEFAULT_MAX_RESIDENT = 1_000_000
_LOOKS_PER_PLACE = 16
_BUSY_RECHECK = 1.0
"""Seconds after which to look again at what should retire but is busy."""
NEVER = float("inf")


class Resident(Protocol):
    """An activation, as far as its stay in memory goes."""

    looked_at: float
    """When its entry in the heap is due. Another entry of it is a leftover."""

    def retires_at(self) -> float:
        """When to hibernate or shut down if it isn't used again."""
        ...

    def retire(self, now: float) -> bool:
        """Hibernate or shut down if that is due. Whether it is still in memory."""
        ...

    def shut_down(self) -> bool:
        """Leave memory, unless there is something to do or to commit. Whether it did."""
        ...


class Residency:
    """Keeps count of the activations in memory and retires idle ones."""

    def __init__(self, loop: Loop, max_resident: int) -> None:
        self._loop = loop
        self._max_resident = max_resident
        self._heap: list[tuple[float, int, Resident]] = []
        self._sequence = itertools.count()
        self._sleeps_until = NEVER
        self._changed = anyio.Event()
        self.count = 0

    def enter(self) -> None:
        """Count one more, and make room for it if need be."""
        self.count += 1
        if self.count > self._max_resident:
            self._make_room()

    def leave(self) -> None:
        """Count one less; the heap forgets it when it comes to its entry."""
        self.count -= 1

    def watch(self, resident: Resident) -> None:
        """Look at ``resident`` when it next retires. To be called whenever it becomes active."""
        self._push(resident)
        if resident.looked_at < self._sleeps_until:
            self._changed.set()

    def _push(self, resident: Resident, not_before: float = 0.0) -> None:
        resident.looked_at = max(resident.retires_at(), not_before)
        heapq.heappush(self._heap, (resident.looked_at, next(self._sequence), resident))

    def _pop(self) -> Resident | None:
        due, _, resident = heapq.heappop(self._heap)
        return resident if resident.looked_at == due else None

    def _make_room(self) -> None:
        too_many = self.count - self._max_resident
        passed_over = []
        for _ in range(_LOOKS_PER_PLACE * too_many):
            if self.count <= self._max_resident or not self._heap:
                break
            seen = self._heap[0][0]
            resident = self._pop()
            if resident is None:
                continue
            if resident.retires_at() > seen:  # used since: not the one idle for longest
                self._push(resident)
            elif not resident.shut_down():
                passed_over.append(resident)
        for resident in passed_over:
            self._push(resident)

    async def run(self) -> None:
        """Retire what has been idle for long enough, for ever."""
        while True:
            self._changed = anyio.Event()
            now = self._loop.now()
            while self._heap and self._heap[0][0] <= now:
                resident = self._pop()
                if resident is not None and resident.retire(now):
                    self._push(resident, now + _BUSY_RECHECK)
            self._sleeps_until = self._heap[0][0] if self._heap else NEVER
            if self._sleeps_until == NEVER:
                await self._changed.wait()
            else:
                with anyio.move_on_after(self._sleeps_until - now):
                    await self._changed.wait()
