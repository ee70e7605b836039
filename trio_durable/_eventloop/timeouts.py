"""Call timeouts, without a timer or a cancel scope per call.

Calls with the same timeout expire in the order in which they begin. So each distinct timeout has a
queue, to which a call appends its waiter, and one task watches the heads of all queues. Callers
that pass on the rest of a deadline of their own have a different timeout for each call; beyond
`_QUEUES` distinct timeouts, waiters share one heap. The waiter of a call that ended in time stays
where it is until it gets to the head, or until such waiters are half of the queue or heap. Either
way the work per call is constant in a queue, and a logarithm in the heap.

A call expires only if its result has not arrived: the results that the storage's threads have
handed to the loop by the time of the sweep are delivered first. That matters when something has
blocked the loop, because deadline and result are then noticed together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count

import anyio

from .loop import Loop, Waiter

_QUEUES = 32
"""Distinct timeouts with a queue of their own; each sweep looks at all of them."""

_SPARE = 1024
"""Waiters that a queue or the heap may hold beyond twice those of running calls."""

_NEVER = float("inf")


class _Pending(ABC):
    """Waiters in order of their deadlines."""

    __slots__ = ("limit",)

    limit: int
    """The number of waiters, ended ones included, from which `compact` pays."""

    @abstractmethod
    def head(self) -> Waiter | None:
        """The waiter with the earliest deadline."""

    @abstractmethod
    def drop_head(self) -> None:
        """Remove that waiter."""

    @abstractmethod
    def compact(self) -> None:
        """Remove the waiters that have ended."""

    def sweep(self, now: float) -> float:
        """Expire the waiters that are due at ``now``; the next deadline, or infinity."""
        while (waiter := self.head()) is not None:
            if not waiter.ended:
                if waiter.deadline > now:
                    return waiter.deadline
                _expire(waiter)
            if self.head() is waiter:  # else the expiry has added one, and all that ended are gone
                self.drop_head()
        return _NEVER


class _Queue(_Pending):
    """Waiters with one timeout, which begin in the order in which they expire."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: deque[Waiter] = deque()
        self.limit = _SPARE

    def head(self) -> Waiter | None:
        return self.entries[0] if self.entries else None

    def drop_head(self) -> None:
        self.entries.popleft()

    def compact(self) -> None:
        self.entries = deque(waiter for waiter in self.entries if not waiter.ended)
        self.limit = 2 * len(self.entries) + _SPARE


class _Heap(_Pending):
    """Waiters with any timeouts."""

    __slots__ = ("_entries", "_numbers")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Waiter]] = []
        self._numbers = count()  # waiters with equal deadlines can't be compared
        self.limit = _SPARE

    def add(self, waiter: Waiter) -> None:
        heappush(self._entries, (waiter.deadline, next(self._numbers), waiter))
        if len(self._entries) > self.limit:
            self.compact()

    def head(self) -> Waiter | None:
        return self._entries[0][2] if self._entries else None

    def drop_head(self) -> None:
        heappop(self._entries)

    def compact(self) -> None:
        self._entries = [entry for entry in self._entries if not entry[2].ended]
        heapify(self._entries)
        self.limit = 2 * len(self._entries) + _SPARE


class Deadlines:
    """Expires waiters at their deadlines."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queues: dict[float, _Queue] = {}
        self._heap = _Heap()
        self._sleeps_until = _NEVER
        self._changed = anyio.Event()

    def watch(self, waiter: Waiter, now: float, timeout: float) -> None:
        """Expire ``waiter`` unless it ends within ``timeout`` seconds from ``now``."""
        waiter.deadline = deadline = now + timeout
        queue = self._queues.get(timeout)
        if queue is None and len(self._queues) < _QUEUES:
            queue = self._queues[timeout] = _Queue()
        if queue is None:
            self._heap.add(waiter)
        else:
            entries = queue.entries
            entries.append(waiter)
            if len(entries) > queue.limit:
                queue.compact()
        if deadline < self._sleeps_until:
            self._sleeps_until = deadline
            self._changed.set()

    async def run(self) -> None:
        """Expire waiters as they fall due, forever."""
        due_by = -_NEVER
        while True:
            self._changed = anyio.Event()
            self._sleeps_until = _NEVER  # or one that an expiry adds could be missed
            next_deadline = min(self._sweep(due_by), self._sleeps_until)
            self._sleeps_until = next_deadline
            now = self._loop.now()
            if next_deadline <= now:
                await self._arrivals()
                # Not the present: since then the loop may have been blocked once more.
                due_by = now
            elif next_deadline == _NEVER:
                await self._changed.wait()
            else:
                with anyio.move_on_after(next_deadline - now):
                    await self._changed.wait()

    async def _arrivals(self) -> None:
        """Let the loop handle all that threads have handed to it so far, which is in order."""
        barrier = self._loop.waiter()
        self._loop.call_soon_threadsafe(barrier.settle)
        await barrier.wait()

    def _sweep(self, due_by: float) -> float:
        """Expire the waiters that were due at ``due_by``; the next deadline, or infinity."""
        earliest = self._heap.sweep(due_by)
        for timeout, queue in list(self._queues.items()):
            earliest = min(earliest, queue.sweep(due_by))
            if not queue.entries:
                del self._queues[timeout]
        return earliest


def _expire(waiter: Waiter) -> None:
    """Expire ``waiter``; what its error's making raises, its caller gets instead."""
    try:
        waiter.expire()
    except BaseException as error:  # noqa: BLE001  # other waiters must not miss their deadlines
        waiter.fail(error)
