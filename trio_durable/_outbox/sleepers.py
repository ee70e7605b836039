"""Sleepers: messages that are delayed, or have failed, until their time.

A tenant whose messages can't be read keeps no others waiting.
"""

from __future__ import annotations

import heapq
import itertools
from functools import partial

from .._clock import Clock
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from .._eventloop.wakeup import AutoResetEvent
from ..storage import DueMessage, MessageKey, PartialFault, Reader
from .failing_tenants import FailingTenants
from .lanes import Lanes
from .paging import each_page

CLOCK_POLL_SECONDS = 1.0
"""The longest sleep under a clock that may jump."""
_NO_ROOM_MICROSECONDS = 10**6
_NEVER = 2**63


class Sleepers:
    """The messages that sleep until a time before the horizon. The table has all of them.

    Args:
        loop: The event loop.
        clock: The time.
        runner: The reader's.
        reader: The side of the storage that reads messages.
        lanes: Where those go that may be delivered.
        polling_interval: Seconds between looks at the table.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        runner: Runner,
        reader: Reader,
        lanes: Lanes,
        polling_interval: float,
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._reader = reader
        self._lanes = lanes
        self._polling_interval = polling_interval
        self._heap: list[tuple[int, int, MessageKey]] = []
        """The time of each, a running number, and the message."""
        self._times: dict[MessageKey, int] = {}
        """The time of each, since the table returns the ones in the heap, too."""
        self._numbers = itertools.count()
        self._waking: MessageKey | None = None
        """The one that is being woken."""
        self._horizon = 0
        """Up to when all sleepers are in the heap, in microseconds since 1970 UTC."""
        self._reads_up_to = 0
        """The same as soon as the read begins, which may miss what is committed meanwhile."""
        self._failing = FailingTenants(loop, "could not find sleeping messages")
        self._not_loading = FailingTenants(loop, "could not load sleeping messages")
        self._left_out: set[str] = set()
        """Tenants whose sleepers aren't all in the heap, because they can't be read."""
        self._has_earlier = AutoResetEvent(loop)

    def expect(self, wake_at: int, key: MessageKey) -> None:
        """A message sleeps until then. One beyond the horizon is left to the table."""
        if wake_at <= self._reads_up_to:
            self._push(wake_at, key)
            if self._heap[0][0] == wake_at:
                self._has_earlier.set()

    def are_settled(self, now: int) -> bool:
        """True if all that are in the table are known as far as they are due, and none is due."""
        are_known = self._horizon > now and not self._left_out
        return are_known and self._waking is None and not self._is_due(now)

    def _is_due(self, now: int) -> bool:
        return bool(self._heap) and self._heap[0][0] <= now

    def rescan(self) -> None:
        """Read them again, since the table may return others."""
        self._horizon = 0
        self._has_earlier.set()

    def _push(self, wake_at: int, key: MessageKey) -> None:
        if self._times.get(key, _NEVER) > wake_at:
            self._times[key] = wake_at
            heapq.heappush(self._heap, (wake_at, next(self._numbers), key))

    def _pop(self) -> MessageKey | None:
        """The first one; None if an earlier time has taken the place of this one."""
        wake_at, _, key = heapq.heappop(self._heap)
        if self._times.get(key) != wake_at:
            return None
        del self._times[key]
        return key

    async def run(self) -> None:
        """Wake them at their times, until cancelled."""
        while True:
            now = self._clock.now()
            interval = round(self._polling_interval * 1e6)
            if self._horizon <= now + interval:
                await self._read(now + 2 * interval)
            elif not self._failing.first_pause(self._left_out):
                await self._read_again()
            while self._is_due(now):
                self._waking = self._pop()
                try:
                    if self._waking is not None:
                        await self._wake(self._waking)
                finally:
                    self._waking = None
            self._lanes.tell_watchers()
            seconds = min(self._polling_interval, self._failing.first_pause(self._left_out))
            if self._heap:
                seconds = min(seconds, max(0.0, (self._heap[0][0] - now) / 1e6))
            if self._clock.may_jump:
                seconds = min(seconds, CLOCK_POLL_SECONDS)
            await self._has_earlier.wait(seconds)

    async def _read(self, horizon: int) -> None:
        """Read the sleepers up to a new horizon."""
        self._reads_up_to = max(self._reads_up_to, horizon)
        self._left_out = await self._read_pages(horizon)
        self._horizon = max(self._horizon, horizon)

    async def _read_again(self) -> None:
        """Read those of the tenants that were left out, and may be read now."""
        ready = {tenant for tenant in self._left_out if not self._failing.must_wait(tenant)}
        self._left_out -= ready - await self._read_pages(self._horizon, ready)

    async def _read_pages(self, horizon: int, only: set[str] | None = None) -> set[str]:
        def page(tenant: str, after: DueMessage | None, limit: int) -> list[DueMessage]:
            return self._reader.due_messages(horizon, after, limit, (), tenant)

        def take(tenant: str, due: list[DueMessage]) -> None:
            self._failing.ended(tenant)
            for each in due:
                self._push(each.wake_at, each.key)

        return await each_page(self._runner, self._reader, page, take, self._failing, only)

    async def _wake(self, key: MessageKey) -> None:
        """A message may be delivered now."""
        lanes = self._lanes
        if not lanes.serves(key.to):
            return
        if key.lane:
            lanes.awaken(key.to, key.lane)
            return
        if pause := self._not_loading.pause(key.to.tenant):
            self.expect(self._clock.now() + round(pause * 1e6), key)
            return
        known = lanes.inboxes.known
        if key.token in known:
            return  # it is being delivered
        # From now on, since what is read here may be handled before it arrives.
        known.add(key.token)
        message, wake_at = None, 0
        try:
            (message,) = await self._runner.run(partial(self._reader.load_messages, [key]))
            self._not_loading.ended(key.to.tenant)
            now = self._clock.now()
            if message is not None:
                wake_at = message.wake_at or 0
                if wake_at <= now and lanes.woken(message):
                    return
                wake_at = max(wake_at, now + _NO_ROOM_MICROSECONDS)
        except PartialFault as fault:
            known.discard(key.token)
            self._not_loading.failed(key.to.tenant, fault)
            await self._wake(key)  # which waits until it may be read
            return
        except BaseException:
            self.expect(self._clock.now() + _NO_ROOM_MICROSECONDS, key)
            known.discard(key.token)
            raise
        known.discard(key.token)
        if message is not None:
            self.expect(wake_at, key)
