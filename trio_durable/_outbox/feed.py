"""Feed: reads what waits in the table into memory, as far as there is room.

There is no polling. The table is read when the runtime opens, and when it is known that it has more
than memory: a lane that was cut off, a commit whose outcome wasn't known, an inbox that is stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .._clock import Clock
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from ..storage import Reader, Receiver, StoredMessage
from .inboxes import DEPTH, LANES, Inbox, Lane
from .lanes import Lanes
from .sleepers import PAGE, Sleepers, each_page

_FULL_SECONDS = 1.0
"""The pause of reading while memory is full."""


class Feed:
    """Reads messages.

    Args:
        clock: The time.
        runner: The reader's.
        reader: The side of the storage that reads messages.
        lanes: Where they go.
        sleepers: Where those go that sleep.
    """

    def __init__(
        self, clock: Clock, runner: Runner, reader: Reader, lanes: Lanes, sleepers: Sleepers
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._reader = reader
        self._lanes = lanes
        self._sleepers = sleepers
        self._scans = 0
        """How often the receivers had to be found once more."""

    async def run(self) -> None:
        """Read, until cancelled."""
        lanes = self._lanes
        while True:
            if not lanes.is_scanned:
                await self._scan()
            elif lanes.to_read:
                await self._read_lane(lanes.to_read[0])
                lanes.to_read.popleft()
            elif lanes.unread and not lanes.inboxes.is_full:
                await self._read_inbox(next(iter(lanes.unread)))
            else:
                await lanes.has_unread.wait(_FULL_SECONDS if lanes.unread else math.inf)

    def rescan(self) -> None:
        """Find the receivers once more, since the table may return others."""
        self._scans += 1
        self._lanes.rescan()

    async def _scan(self) -> None:
        """Find all receivers with messages in the table."""
        number = self._scans

        def page(tenant: str, after: Receiver | None) -> list[Receiver]:
            last = None if after is None else after.key
            return self._reader.list_receivers(last, PAGE, tenant)

        def take(receivers: list[Receiver]) -> None:
            for each in receivers:
                if each.is_awake and self._lanes.inboxes.get(each.key) is None:
                    self._lanes.note_unread(each.key)

        await each_page(self._runner, self._reader, page, take)
        self._lanes.is_scanned = number == self._scans
        self._lanes.tell_watchers()

    async def _read_inbox(self, to: ObjectKey) -> None:
        """Read the next lanes of a receiver."""
        lanes, inbox = self._lanes, self._lanes.inboxes.get(to)
        is_busy = inbox is not None and inbox.is_stale  # it is noted again when it can be read
        if is_busy or not lanes.serves(to):
            del lanes.unread[to]
            lanes.tell_watchers()
            return
        if inbox is None:
            inbox = lanes.inboxes.add(to, is_whole=False)
        inbox.is_reading = True
        inbox.missed.clear()
        inbox.has_missed = False
        if inbox.cursor is None:
            inbox.is_complete = True  # unless one is missed until the last lane was read
        room = max(LANES - len(inbox.lanes), 1)
        try:
            found, ended = await self._read(
                inbox, partial(self._reader.read_mail, to, inbox.cursor, room, DEPTH)
            )
        finally:
            inbox.is_reading = False
        lanes.unread.pop(to, None)
        if inbox.is_stale:
            lanes.reread(inbox)
        else:
            self._take_in(inbox, found, ended, room)
        lanes.tell_watchers()

    def _take_in(
        self, inbox: Inbox, found: list[StoredMessage], ended: set[int], room: int
    ) -> None:
        """Take over the lanes that were read."""
        by_lane: dict[str, list[StoredMessage]] = {}
        for message in found:
            by_lane.setdefault(message.key.lane, []).append(message)
        is_end = len(by_lane) < room
        inbox.cursor = None if is_end else list(by_lane)[-1]
        # If one was missed, the first lanes are read once more after the last one.
        inbox.is_whole = is_end and inbox.is_complete
        for name, messages in by_lane.items():
            if name not in inbox.lanes:
                is_missed = inbox.has_missed or name in inbox.missed
                is_whole = len(messages) < DEPTH and not is_missed
                self._append(Lane(inbox, name, is_whole), messages, ended)
        for lane in list(inbox.lanes.values()):
            self._lanes.advance(lane)
        self._lanes.let_go(inbox)

    async def _read_lane(self, lane: Lane) -> None:
        """Read the next messages of a lane whose messages in memory have been delivered."""
        inbox = lane.inbox
        if not self._is_current(lane):
            return
        lane.is_whole = True  # unless a message arrives meanwhile, see `Inboxes.arrived`
        try:
            found, ended = await self._read(
                inbox, partial(self._reader.read_lane, inbox.key, lane.name, lane.last, DEPTH)
            )
        finally:
            lane.is_reading = False
        if not self._is_current(lane):
            self._lanes.reread(inbox)
            return
        is_end, is_beginning = len(found) < DEPTH, not lane.last
        if not is_end:
            lane.is_whole = False
        self._append(lane, found, ended)
        if is_end and not lane.name and not is_beginning:
            # Its messages are of many senders, whose numbers needn't come in the order of their
            # commits, so lower ones may be there now.
            lane.is_whole, lane.last = False, 0
        self._lanes.advance(lane)
        self._lanes.tell_watchers()

    async def _read(
        self, inbox: Inbox, read: Callable[[], list[StoredMessage]]
    ) -> tuple[list[StoredMessage], set[int]]:
        """Read messages. Returns these, and the tokens of those that were handled meanwhile."""
        inbox.reads += 1
        try:
            found = await self._runner.run(read)
            return found, set(inbox.ended)
        finally:
            inbox.reads -= 1
            if not inbox.reads:
                inbox.ended.clear()

    def _is_current(self, lane: Lane) -> bool:
        return not lane.inbox.is_stale and lane.inbox.lanes.get(lane.name, lane) is lane

    def _append(self, lane: Lane, messages: list[StoredMessage], ended: set[int]) -> None:
        """Put messages into a lane, which sleeps if the first of them does."""
        lane.inbox.lanes[lane.name] = lane
        for message in messages:
            self._lanes.inboxes.append(lane, message, ended)
        head = lane.queue[0] if lane.queue else None
        if head is not None and head.wake_at is not None and head.wake_at > self._clock.now():
            lane.is_asleep = True
            self._sleepers.expect_in_any_case(head.wake_at, head.key)
