"""Call timeouts, without a timer or a cancel scope per call.

Calls with the same timeout expire in the order in which they begin. So each distinct timeout has a
queue, to which a call appends its waiter, and one task watches the heads of all queues. The waiter
of a call that ended in time stays in its queue until it gets to the head, or until such waiters are
half of the queue. Either way the work per call is constant.
"""

from __future__ import annotations

from collections import deque

import anyio

from .loop import Loop, Waiter

_SPARE = 1024
"""Waiters that a queue may hold beyond twice those of running calls."""


class _Queue:
    __slots__ = ("entries", "limit")

    def __init__(self) -> None:
        self.entries: deque[Waiter] = deque()
        self.limit = _SPARE

    def compact(self) -> None:
        self.entries = deque(waiter for waiter in self.entries if not waiter.ended)
        self.limit = 2 * len(self.entries) + _SPARE


class Deadlines:
    """Expires waiters at their deadlines."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queues: dict[float, _Queue] = {}
        self._sleeps_until = float("inf")
        self._changed = anyio.Event()

    def watch(self, waiter: Waiter, now: float, timeout: float) -> None:
        """Expire ``waiter`` unless it ends within ``timeout`` seconds from ``now``."""
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = _Queue()
        waiter.deadline = deadline = now + timeout
        entries = queue.entries
        entries.append(waiter)
        if deadline < self._sleeps_until:
            self._sleeps_until = deadline
            self._changed.set()
        elif len(entries) > queue.limit:
            queue.compact()

    async def run(self) -> None:
        """Expire waiters as they fall due, forever."""
        while True:
            self._changed = anyio.Event()
            self._sleeps_until = self._sweep()
            if self._sleeps_until == float("inf"):
                await self._changed.wait()
            else:
                with anyio.move_on_after(self._sleeps_until - self._loop.now()):
                    await self._changed.wait()

    def _sweep(self) -> float:
        """Expire the waiters that are due; the next deadline, or infinity."""
        now = self._loop.now()
        earliest = float("inf")
        for timeout, queue in list(self._queues.items()):
            entries = queue.entries
            while entries and (entries[0].ended or entries[0].deadline <= now):
                entries.popleft().expire()
            if entries:
                earliest = min(earliest, entries[0].deadline)
            else:
                del self._queues[timeout]
        return earliest
