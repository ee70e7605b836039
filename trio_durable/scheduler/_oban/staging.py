"""Early staging: times at which alarms of this process become due.

Oban's stager looks for jobs that are due at intervals, so a job is late by half of one. The process
that has set an alarm knows its time, and stages it itself, as long before as it takes a job to run.
Times that have no place here, or are lost with the process, are left to the stagers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush

import anyio

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.wakeup import AutoResetEvent
from ...storage import StorageFault

logger = logging.getLogger("trio_durable.alarms")

CAPACITY = 16_384
"""How many times are kept."""
RETRY_SECONDS = 1.0
CLOCK_POLL_SECONDS = 1.0
"""The longest sleep under a clock that may jump."""
_MILLISECOND = 1000


class EarlyStaging:
    """The times of one scheduler.

    Args:
        loop: The event loop.
        clock: The time.
        stage: Stages the jobs that are due, and notifies the queues.
    """

    def __init__(self, loop: Loop, clock: Clock, stage: Callable[[], Awaitable[None]]) -> None:
        self._clock = clock
        self._stage = stage
        self._times: list[int] = []
        self._known: set[int] = set()
        self._changed = AutoResetEvent(loop)

    def __len__(self) -> int:
        return len(self._times)

    def expect(self, due_at: int) -> None:
        """Stage jobs at a time, in microseconds since 1970 UTC."""
        time = -(-due_at // _MILLISECOND) * _MILLISECOND  # many alarms of a millisecond are one
        if time in self._known or len(self._times) >= CAPACITY:
            return
        self._known.add(time)
        heappush(self._times, time)
        if self._times[0] == time:
            self._changed.set()

    async def run(self) -> None:
        """Stage jobs, until cancelled."""
        while True:
            await self._next_time()
            try:
                await self._stage()
            except StorageFault as fault:
                logger.warning("could not stage alarms that are due: %s", fault)
                await anyio.sleep(RETRY_SECONDS)

    async def _next_time(self) -> None:
        """Return when a time has come, and forget all that have."""
        while True:
            now = self._clock.now()
            if self._times and self._times[0] <= now:
                break
            seconds = (self._times[0] - now) / 1e6 if self._times else float("inf")
            if self._clock.may_jump:
                seconds = min(seconds, CLOCK_POLL_SECONDS)
            await self._changed.wait(seconds)
        while self._times and self._times[0] <= now:
            self._known.discard(heappop(self._times))
