"""Feed: reads what waits in the table into memory, as far as there is room.

There is no polling. The table is read when the runtime opens, and when it is known that it has more
than memory: a lane that was cut off, a commit whose outcome wasn't known, an inbox that is stale.

A tenant whose messages can't be read keeps no others waiting: its receivers are forgotten, and
found once more after a pause.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .._clock import Clock
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from ..storage import PartialFault, Reader, Receiver, StoredMessage
from .failing_tenants import FailingTenants
from .inbox import DEPTH, Inbox, Lane
from .inboxes import LANES
from .lanes import Lanes
from .paging import each_page
from .sleepers import Sleepers

_FULL_SECONDS = 1.0
"""The pause of reading while memory is full."""


class Feed:
    """Reads messages.

    Args:
        loop: The event loop.
        clock: The time.
        runner: The reader's.
        reader: The side of the storage that reads messages.
        lanes: Where they go.
        sleepers: Where those go that sleep.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        runner: Runner,
        reader: Reader,
        lanes: Lanes,
        sleepers: Sleepers,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._runner = runner
        self._reader = reader
        self._lanes = lanes
        self._sleepers = sleepers
        self._failing = FailingTenants(loop, "could not read messages")
        self._scans = 0
        """How often the receivers had to be found once more."""

    async def run(self) -> None:
        """Read, until cancelled."""
        lanes = self._lanes
        while True:
            if not lanes.is_scanned:
                await self._scan()
            elif not self._failing.first_pause(lanes.unscanned):
                await self._scan_again()
            elif lanes.to_read:
                await self._read_lane(lanes.to_read[0])
                lanes.to_read.popleft()
            elif lanes.unread and not lanes.inboxes.is_full:
                await self._read_inbox(next(iter(lanes.unread)))
            else:
                pause = _FULL_SECONDS if lanes.unread else math.inf
                pause = min(pause, self._failing.first_pause(lanes.unscanned))
                await lanes.has_unread.wait(pause)

    def rescan(self) -> None:
        """Find the receivers once more, since the table may return others."""
        self._scans += 1
        self._lanes.rescan()

    def rescan_tenant(self, tenant: str) -> None:
        """Find the receivers of one tenant once more."""
        self._scans += 1
        self._lanes.rescan_tenant(tenant)

    async def _scan(self) -> None:
        """Find all receivers with messages in the table."""
        number = self._scans
        self._lanes.unscanned.clear()
        self._lanes.suspicion.scanning(self._loop.now(), self._clock.now())
        left_out = await each_page(
            self._runner, self._reader, self._receivers, self._take_receivers, self._failing
        )
        self._lanes.unscanned |= left_out
        self._lanes.is_scanned = number == self._scans
        self._lanes.tell_watchers()

    async def _scan_again(self) -> None:
        """Find the receivers of the tenants that aren't known, but may be read now."""
        lanes, failing = self._lanes, self._failing
        tenants = {each for each in lanes.unscanned if not failing.must_wait(each)}
        for tenant in tenants:
            lanes.rescan_tenant(tenant)
        number = self._scans
        left_out = await each_page(
            self._runner, self._reader, self._receivers, self._take_receivers, failing, tenants
        )
        if number == self._scans:
            lanes.unscanned -= tenants - left_out
        lanes.tell_watchers()

    def _receivers(self, tenant: str, after: Receiver | None, limit: int) -> list[Receiver]:
        """A page of receivers; in the reader's thread."""
        return self._reader.list_receivers(None if after is None else after.key, limit, tenant)

    def _take_receivers(self, tenant: str, receivers: list[Receiver]) -> None:
        if not receivers:
            self._failing.ended(tenant)
        for each in receivers:
            if each.is_awake and self._lanes.inboxes.get(each.key) is None:
                self._lanes.suspicion.found(each.key)
                self._lanes.note_unread(each.key)

    def _failed(self, tenant: str, fault: PartialFault) -> None:
        """A tenant's messages can't be read."""
        self._failing.failed(tenant, fault)
        self._lanes.unscanned.add(tenant)

    async def _read_inbox(self, to: ObjectKey) -> None:
        """Read the next lanes of a receiver."""
        lanes, inbox = self._lanes, self._lanes.inboxes.get(to)
        is_busy = inbox is not None and inbox.is_stale  # it is noted again when it can be read
        if is_busy or not lanes.serves(to) or self._failing.must_wait(to.tenant):
            del lanes.unread[to]
            lanes.tell_watchers()
            return
        if inbox is None:
            inbox = lanes.inboxes.add(to, is_whole=False)
        inbox.is_reading = True
        inbox.missed = set()
        inbox.has_missed = False
        if inbox.cursor is None:
            inbox.is_complete = True  # unless one is missed until the last lane was read
        room = max(LANES - len(inbox.lanes), 1)
        try:
            found, ended = await self._read(
                inbox, partial(self._reader.read_mail, to, inbox.cursor, room, DEPTH)
            )
        except PartialFault as fault:
            lanes.unread.pop(to, None)
            if not inbox.lanes and not inbox.in_flight:
                lanes.inboxes.discard(inbox)
            self._failed(to.tenant, fault)
            return
        finally:
            inbox.is_reading = False
        self._failing.ended(to.tenant)
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
            self._lanes.suspicion.read(inbox.key, messages)
            # One that has fallen asleep meanwhile may be awake in what was read.
            if name not in inbox.lanes and not self._lanes.inboxes.sleeping.knows(inbox.key, name):
                is_missed = inbox.has_missed or name in (inbox.missed or ())
                is_whole = len(messages) < DEPTH and not is_missed
                lane = inbox.lanes[name] = Lane(inbox, name, is_whole)
                self._append(lane, messages, ended)
        if is_end:
            self._lanes.suspicion.read_all(inbox.key)
        for lane in list(inbox.lanes.values()):
            self._lanes.advance(lane)
        self._lanes.let_go(inbox)

    async def _read_lane(self, lane: Lane) -> None:
        """Read the next messages of a lane whose messages in memory have been delivered."""
        inbox = lane.inbox
        if not self._is_current(lane) or self._failing.must_wait(inbox.key.tenant):
            lane.is_reading = False
            return
        lane.is_whole = True  # unless a message arrives meanwhile, see `Inboxes.arrived`
        try:
            found, ended = await self._read(
                inbox, partial(self._reader.read_lane, inbox.key, lane.name, lane.last, DEPTH)
            )
        except PartialFault as fault:
            self._failed(inbox.key.tenant, fault)
            return
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
        """Read messages. Returns these, and the tokens of messages that were handled meanwhile."""
        if inbox.ended is None:
            inbox.ended = set()
        inbox.reads += 1
        try:
            found = await self._runner.run(read)
            return found, set(inbox.ended)
        finally:
            inbox.reads -= 1
            if not inbox.reads:
                inbox.ended = None

    def _is_current(self, lane: Lane) -> bool:
        return not lane.inbox.is_stale and lane.inbox.lanes.get(lane.name) is lane

    def _append(self, lane: Lane, messages: list[StoredMessage], ended: set[int]) -> None:
        """Put messages into a lane, which falls asleep if the first of them isn't due."""
        for message in messages:
            self._lanes.inboxes.append(lane, message, ended)
        inbox, head = lane.inbox, lane.queue[0] if lane.queue else None
        if head is not None and head.wake_at is not None and head.wake_at > self._clock.now():
            self._lanes.inboxes.fall_asleep(lane)
            self._sleepers.expect(head.wake_at, head.key)
        else:
            self._lanes.inboxes.sleeping.remove(inbox.key, lane.name)
