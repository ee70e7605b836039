"""Lanes at work: lanes to read, messages ready for delivery, and inboxes to read again.

Synchronous: each method is a step between two waits of the tasks that read and deliver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .._activations.services import Services
from .._eventloop.loop import CallbackWaiter, Waiter
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from ..storage import MessageKey, StoredMessage
from .inbox import Inbox, Lane
from .inboxes import LANES, Inboxes
from .suspicion import Suspicion


class Lanes:
    """The lanes of all receivers in memory, and the receivers whose messages aren't.

    Args:
        services: The runtime's parts.
        is_here: False if an object lives in another process.
    """

    def __init__(self, services: Services, is_here: Callable[[ObjectKey], bool]) -> None:
        self._services = services
        self._is_here = is_here
        self.inboxes = Inboxes()
        self.suspicion = Suspicion()
        self.unread: dict[ObjectKey, None] = {}
        """Receivers whose messages are in the table alone, in the order in which they are read."""
        self.is_scanned = False
        """All receivers with messages in the table are known, except those of `unscanned`."""
        self.unscanned: set[str] = set()
        """Tenants whose receivers aren't known: they can't be read, or are read once more."""
        self.ready: deque[Lane] = deque()
        self.to_read: deque[Lane] = deque()
        """Lanes with more messages in the table, and none in memory."""
        self.unknown_types: set[str] = set()
        """Types that this runtime doesn't serve. Messages to their objects are kept."""
        self.has_ready = AutoResetEvent(services.loop)
        self.has_unread = AutoResetEvent(services.loop)
        self._watchers: list[Waiter] = []

    def serves(self, to: ObjectKey) -> bool:
        """True if messages to an object are delivered by this runtime, as far as it knows."""
        return to.type_name not in self.unknown_types and self._is_here(to)

    def _knows(self, to: ObjectKey) -> bool:
        """True if what waits for an object is in memory, if it has an inbox there."""
        return self.is_scanned and to not in self.unread and to.tenant not in self.unscanned

    def has(self, lane: Lane) -> bool:
        """True if a lane is in memory, and its messages are delivered by this runtime."""
        inbox = lane.inbox
        is_there = self.inboxes.get(inbox.key) is inbox and inbox.lanes.get(lane.name) is lane
        return is_there and not inbox.is_stale and self.serves(inbox.key)

    def arrived(self, message: StoredMessage) -> None:
        """A message that isn't delayed was committed just now."""
        to = message.key.to
        inbox = self.inboxes.get(to)
        if inbox is None:
            if not self._knows(to):
                self.note_unread(to)
                return
            inbox = self.inboxes.add(to, is_whole=True)
        lane = self.inboxes.arrived(inbox, message)
        if lane is not None:
            self.advance(lane)
        elif not inbox.lanes:
            self.let_go(inbox)  # there was no room for it at all, or its lane sleeps

    def woken(self, message: StoredMessage) -> bool:
        """A message without a lane may be delivered now. False if there is no room for it."""
        to = message.key.to
        self.suspicion.woken(message)
        lane = self.inboxes.woken(message, is_known=self._knows(to))
        if lane is None:
            return False
        self.advance(lane)
        return True

    def fall_asleep(self, lane: Lane) -> None:
        """The first message of a lane isn't due. Its place is free for another lane."""
        self.inboxes.fall_asleep(lane)
        self.let_go(lane.inbox)

    def awaken(self, to: ObjectKey, name: str) -> None:
        """The first message of a lane that has slept is due."""
        inbox = self.inboxes.get(to)
        if inbox is None:
            if not self._knows(to):
                self.inboxes.sleeping.remove(to, name)
                self.note_unread(to)
                return
            inbox = self.inboxes.add(to, is_whole=True)
        lane = self.inboxes.awakened(inbox, name)
        if lane is not None:
            self.advance(lane)
        else:
            self.let_go(inbox)

    def note_unread(self, to: ObjectKey) -> None:
        """An object has messages that aren't in memory."""
        self.unread[to] = None
        self.has_unread.set()

    def look(self, to: ObjectKey) -> None:
        """Read what waits for an object, of which memory may know less, or something else."""
        inbox = self.inboxes.get(to)
        if inbox is None:
            self.inboxes.sleeping.forget(to)
            self.note_unread(to)
        else:
            self.invalidate(inbox)

    def deleted(self, to: ObjectKey) -> None:
        """The messages that waited for an object are gone."""
        self.inboxes.sleeping.forget(to)
        inbox = self.inboxes.get(to)
        if inbox is not None:
            self.invalidate(inbox)

    def hinted(self, to: ObjectKey) -> None:
        """Another process has committed messages to an object.

        An inbox isn't stale then: a crowd of senders elsewhere would keep it from being delivered.
        """
        inbox = self.inboxes.get(to)
        if inbox is None:
            self.note_unread(to)
        elif not inbox.is_stale:
            self.inboxes.outgrown(inbox)
            self.let_go(inbox)

    def rescan(self) -> None:
        """Read all inboxes again, since an object may have been elsewhere, or a hint was lost."""
        self.is_scanned = False
        self.inboxes.sleeping.clear()
        for inbox in self.inboxes.all():
            if self.serves(inbox.key):
                self.invalidate(inbox)
            else:
                self.inboxes.discard(inbox)
        self.has_unread.set()

    def rescan_tenant(self, tenant: str) -> None:
        """Read all inboxes of a tenant again, since it could not be read, or was dropped."""
        self.unscanned.add(tenant)
        self.inboxes.sleeping.forget_tenant(tenant)
        for inbox in self.inboxes.all():
            if inbox.key.tenant == tenant:
                self.invalidate(inbox)
        self.has_unread.set()

    def advance(self, lane: Lane) -> None:
        """Have the next message of a lane delivered if it may be. A lane without any is let go."""
        inbox = lane.inbox
        if inbox.is_stale:
            self.reread(inbox)
        elif inbox.lanes.get(lane.name) is not lane:
            self.let_go(inbox)  # it was forgotten
        elif lane.may_deliver:
            self.note_ready(lane)
        elif not lane.queue and not lane.running and not lane.is_reading:
            if lane.is_whole:
                self.inboxes.drop(lane)
                self.let_go(inbox)
            else:
                lane.is_reading = True
                self.to_read.append(lane)
                self.has_unread.set()

    def note_ready(self, lane: Lane) -> None:
        """A lane has a message that may be delivered."""
        if not lane.is_ready:
            lane.is_ready = True
            self.ready.append(lane)
            self.has_ready.set()

    def next_ready(self) -> Lane:
        """Take the first of the lanes that have one."""
        lane = self.ready.popleft()
        lane.is_ready = False
        return lane

    def advance_current(self, key: MessageKey) -> None:
        """`advance` the lane of a message as it is in memory now, if it is."""
        inbox = self.inboxes.get(key.to)
        lane = None if inbox is None else inbox.lanes.get(key.lane)
        if lane is not None:
            self.advance(lane)

    def let_go(self, inbox: Inbox) -> None:
        """Forget an inbox without lanes. Read on if the table has more of it, and there is room."""
        if self.inboxes.get(inbox.key) is not inbox:
            return  # it was forgotten
        if inbox.is_stale:
            self.reread(inbox)
            return
        if inbox.lanes and (inbox.is_whole or len(inbox.lanes) >= LANES):
            return
        if not inbox.is_whole:
            if not inbox.is_reading:
                self.note_unread(inbox.key)
        elif not inbox.in_flight and not inbox.is_reading:
            self.inboxes.discard(inbox)

    def invalidate(self, inbox: Inbox, delay: float = 0.0) -> None:
        """An inbox in memory may differ from the table: read it again, after a delay."""
        self.inboxes.sleeping.forget(inbox.key)
        if delay and not inbox.is_stale:
            inbox.is_stale = inbox.is_paused = True
            waiter = CallbackWaiter(lambda _: self._end_pause(inbox))
            self._services.deadlines.watch(waiter, self._services.loop.now(), delay)
        else:
            inbox.is_stale = True
            self.reread(inbox)

    def _end_pause(self, inbox: Inbox) -> None:
        inbox.is_paused = False
        self.reread(inbox)

    def reread(self, inbox: Inbox) -> None:
        """Read a stale inbox again, if nothing of it is in flight."""
        is_idle = not inbox.in_flight and not inbox.is_reading and not inbox.is_paused
        if inbox.is_stale and is_idle and self.inboxes.get(inbox.key) is inbox:
            self.inboxes.discard(inbox)
            self.note_unread(inbox.key)

    # --- waiting ---------------------------------------------------------------------------------

    def is_settled(self, to: ObjectKey) -> bool:
        """True if, as far as is in memory, nothing of an object is delivered or may be."""
        if not self._knows(to):
            return False
        inbox = self.inboxes.get(to)
        if inbox is None:
            return True
        return inbox.is_settled

    @property
    def are_settled(self) -> bool:
        """True if, as far as is in memory, nothing is delivered or may be."""
        is_known = self.is_scanned and not self.unscanned and not self.unread
        return is_known and self.inboxes.are_settled

    async def changed(self) -> None:
        """Return when a delivery has ended, or something was read."""
        waiter = self._services.loop.waiter()
        self._watchers.append(waiter)
        await waiter.wait()

    def tell_watchers(self) -> None:
        """A delivery has ended, or something was read."""
        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for waiter in watchers:
                waiter.settle()
