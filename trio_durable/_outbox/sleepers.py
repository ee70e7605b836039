"""Sleepers: messages that are delayed, or have failed, until their time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .._clock import Clock
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from .._eventloop.wakeup import AutoResetEvent
from ..storage import DueMessage, MessageKey, Reader
from .lanes import Lanes

T = TypeVar("T")

PAGE = 256
"""Entries of a page, and tenants that are read in one job."""
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
        """The time of each, since the table returns those that are in the heap, too."""
        self._numbers = itertools.count()
        self._waking: MessageKey | None = None
        """The one that is being woken."""
        self._horizon = 0
        """Up to when all sleepers are in the heap, in microseconds since 1970 UTC."""
        self._has_earlier = AutoResetEvent(loop)

    def expect(self, wake_at: int, key: MessageKey) -> None:
        """A message sleeps until then. One beyond the horizon is left to the table."""
        if wake_at <= self._horizon:
            self._push(wake_at, key)
            if self._heap[0][0] == wake_at:
                self._has_earlier.set()

    def expect_in_any_case(self, wake_at: int, key: MessageKey) -> None:
        """The same for one that the table doesn't return, since its lane is in memory."""
        self._horizon = max(self._horizon, wake_at)
        self.expect(wake_at, key)

    def are_settled(self, now: int) -> bool:
        """True if all that are in the table are known as far as they are due, and none is due."""
        return self._waking is None and self._horizon > now and not self._is_due(now)

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
            while self._is_due(now):
                self._waking = self._pop()
                try:
                    if self._waking is not None:
                        await self._wake(self._waking)
                finally:
                    self._waking = None
            self._lanes.tell_watchers()
            seconds = self._polling_interval
            if self._heap:
                seconds = min(seconds, max(0.0, (self._heap[0][0] - now) / 1e6))
            if self._clock.may_jump:
                seconds = min(seconds, CLOCK_POLL_SECONDS)
            await self._has_earlier.wait(seconds)

    async def _read(self, horizon: int) -> None:
        """Read the sleepers up to a new horizon."""

        def page(tenant: str, after: DueMessage | None) -> list[DueMessage]:
            return self._reader.due_messages(horizon, after, PAGE, (), tenant)

        def take(due: list[DueMessage]) -> None:
            for each in due:
                self._push(each.wake_at, each.key)

        await each_page(self._runner, self._reader, page, take)
        self._horizon = max(self._horizon, horizon)

    async def _wake(self, key: MessageKey) -> None:
        """A message may be delivered now."""
        lanes = self._lanes
        if not lanes.serves(key.to):
            return
        if key.lane:
            inbox = lanes.inboxes.get(key.to)
            lane = None if inbox is None else inbox.lanes.get(key.lane)
            if inbox is None:
                lanes.note_unread(key.to)
            elif lane is None:
                inbox.is_whole = False
                lanes.let_go(inbox)
            elif lane.is_asleep:
                wake_at = lane.queue[0].wake_at or 0
                if wake_at > self._clock.now():
                    self.expect_in_any_case(wake_at, lane.queue[0].key)  # it was deferred meanwhile
                else:
                    lane.is_asleep = False
                    lanes.advance(lane)
            return
        known = lanes.inboxes.known
        if key.token in known:
            return  # it is being delivered
        # From now on, since what is read here may be handled before it arrives.
        known.add(key.token)
        message, wake_at = None, 0
        try:
            (message,) = await self._runner.run(partial(self._reader.load_messages, [key]))
            now = self._clock.now()
            if message is not None:
                wake_at = message.wake_at or 0
                if wake_at <= now and lanes.woken(message):
                    return
                wake_at = max(wake_at, now + _NO_ROOM_MICROSECONDS)
        except BaseException:
            self.expect(self._clock.now() + _NO_ROOM_MICROSECONDS, key)
            known.discard(key.token)
            raise
        known.discard(key.token)
        if message is not None:
            self.expect(wake_at, key)


async def each_page(
    runner: Runner,
    reader: Reader,
    read: Callable[[str, T | None], list[T]],
    take: Callable[[list[T]], None],
) -> None:
    """Read pages of all tenants, the first ones of many tenants in one job of the reader.

    Args:
        runner: The reader's.
        reader: The side of the storage that lists the tenants.
        read: Reads a page of a tenant, after an entry.
        take: Takes over a page.
    """
    tenants = [""]
    while tenants:
        first_pages = await runner.run(partial(_first_pages, read, tenants))
        for tenant, first_page in zip(tenants, first_pages, strict=True):
            page = first_page
            take(page)
            while len(page) == PAGE:
                page = await runner.run(partial(read, tenant, page[-1]))
                take(page)
        tenants = await runner.run(partial(reader.list_tenants, tenants[-1], PAGE))


def _first_pages(read: Callable[[str, T | None], list[T]], tenants: list[str]) -> list[list[T]]:
    return [read(tenant, None) for tenant in tenants]
