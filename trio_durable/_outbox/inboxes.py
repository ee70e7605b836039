"""Inboxes: the part of the waiting messages that is in memory, by receiver and lane.

The table is the truth, and may hold a million messages for one object. Memory holds a window of it:
a bounded number of lanes for each receiver, and of messages for each lane, in the order of the
table. Of the rest only its existence is known: a lane is *whole* if all of its
messages in the table are here, and an inbox if all of its lanes are.

A message that has just been committed is put into memory directly only behind a lane that is whole.
Else it would overtake what waits in the table (Wolverine's issue 1724 is of that kind).

A lane whose first message isn't due is no part of that, see `sleeping_lanes`.

Pure: no I/O, and no time of its own.
"""

from __future__ import annotations

from collections.abc import Collection

from .._keys import ObjectKey
from ..storage import StoredMessage
from .inbox import DEPTH, Inbox, Lane
from .sleeping_lanes import SleepingLanes

LANES = 16
"""Lanes of one receiver in memory, at most. Sleeping ones don't count."""
MAX_MESSAGES = 10_000
"""Messages in memory, of all receivers."""
MAX_BYTES = 16_000_000
"""Bytes of their arguments."""


class Inboxes:
    """All inboxes in memory."""

    def __init__(self) -> None:
        self._by_key: dict[ObjectKey, Inbox] = {}
        self.sleeping = SleepingLanes()
        self.known: set[int] = set()
        """Tokens of the messages in memory or in flight. The table returns them as well, for as
        long as they aren't handled."""
        self.messages = 0
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """True if no more messages may come into memory."""
        return self.messages >= MAX_MESSAGES or self.bytes >= MAX_BYTES

    def all(self) -> list[Inbox]:
        """The inboxes in memory."""
        return list(self._by_key.values())

    @property
    def are_settled(self) -> bool:
        """True if each of them is."""
        return all(inbox.is_settled for inbox in self._by_key.values())

    def get(self, key: ObjectKey) -> Inbox | None:
        """The inbox of an object, if it is in memory."""
        return self._by_key.get(key)

    def add(self, key: ObjectKey, *, is_whole: bool) -> Inbox:
        """An inbox for an object that has none."""
        inbox = self._by_key[key] = Inbox(key, is_whole)
        return inbox

    def discard(self, inbox: Inbox) -> None:
        """Forget an inbox with all that it holds."""
        for lane in list(inbox.lanes.values()):
            self.drop(lane)
        if self._by_key.get(inbox.key) is inbox:
            del self._by_key[inbox.key]

    # --- messages --------------------------------------------------------------------------------

    def arrived(self, inbox: Inbox, message: StoredMessage) -> Lane | None:
        """Put a message that was committed just now behind its lane, if that is whole.

        Returns:
            The lane; None if the message has to be read from the table later.
        """
        name = message.key.lane
        if inbox.is_stale or self.sleeping.knows(inbox.key, name):
            return None  # it is read with the inbox, or when the lane wakes
        lane = inbox.lanes.get(name)
        if lane is None:
            if inbox.is_reading:
                inbox.miss(name)  # the read may have come before the commit
                inbox.is_complete = False
                return None
            if not inbox.is_whole or len(inbox.lanes) >= LANES or self.is_full:
                inbox.is_whole = inbox.is_complete = False
                return None
            if name and not self.sleeping.are_all:
                return self._unread_lane(inbox, name)  # it may sleep
            lane = inbox.lanes[name] = Lane(inbox, name, is_whole=True)
        if lane.is_reading or not lane.is_whole or len(lane.queue) >= DEPTH or self.is_full:
            lane.is_whole = False
            return None
        self.append(lane, message)
        return lane

    def awakened(self, inbox: Inbox, name: str) -> Lane | None:
        """The first message of a lane that has slept is due.

        Returns:
            The lane, which has to be read; None if it is in memory, or is read with the inbox.
        """
        self.sleeping.remove(inbox.key, name)
        if name in inbox.lanes or inbox.is_stale:
            return None
        if inbox.is_reading:
            inbox.miss(name)
            inbox.is_complete = False
            return None
        if len(inbox.lanes) >= LANES or self.is_full:
            inbox.is_whole = inbox.is_complete = False
            return None
        return self._unread_lane(inbox, name)

    def _unread_lane(self, inbox: Inbox, name: str) -> Lane:
        """A lane of which nothing is in memory."""
        lane = inbox.lanes[name] = Lane(inbox, name, is_whole=False)
        return lane

    def fall_asleep(self, lane: Lane) -> None:
        """Forget a lane whose first message isn't due, but for its name."""
        self.drop(lane)
        self.sleeping.add(lane.inbox.key, lane.name)

    def outgrown(self, inbox: Inbox) -> None:
        """The table has messages of an inbox that another process has committed.

        The messages in memory stay the beginning of each lane.
        """
        inbox.has_missed = True
        inbox.is_whole = inbox.is_complete = False
        for lane in inbox.lanes.values():
            lane.is_whole = False

    def woken(self, message: StoredMessage, *, is_known: bool) -> Lane | None:
        """Put a message without a lane into memory that has slept until now.

        Args:
            message: The message.
            is_known: What waits for its receiver is in memory, if there is an inbox.

        Returns:
            The lane; None if there is no room.
        """
        inbox = self._by_key.get(message.key.to)
        if inbox is None:
            inbox = self.add(message.key.to, is_whole=is_known)
        if inbox.is_stale or self.is_full:
            return None
        lane = inbox.lanes.get("")
        if lane is None:
            is_whole = inbox.is_whole and not inbox.is_reading
            lane = inbox.lanes[""] = Lane(inbox, "", is_whole)
        lane.queue.append(message)  # its number says nothing about what else was read
        self._enter(message)
        return lane

    def append(
        self, lane: Lane, message: StoredMessage, ended: Collection[int] = frozenset()
    ) -> None:
        """Put a message at the end of a lane, unless it is in memory, or was handled meanwhile.

        Args:
            lane: The lane.
            message: The message.
            ended: Tokens of messages that were handled while it was read.
        """
        lane.last, token = message.key.seq, message.key.token
        if token not in self.known and token not in ended:
            lane.queue.append(message)
            self._enter(message)

    def ended(self, inbox: Inbox, message: StoredMessage) -> None:
        """A delivery is over."""
        self.known.discard(message.key.token)
        if inbox.ended is not None:
            inbox.ended.add(message.key.token)

    def take(self, lane: Lane, message: StoredMessage) -> None:
        """Take a message of a lane, the first one unless the lane has no name, for its delivery."""
        if lane.queue[0] is message:
            lane.queue.popleft()
        else:
            lane.queue.remove(message)
        self._leave(message)  # it is known still, since it is in flight

    def drop(self, lane: Lane) -> None:
        """Forget a lane with all that it holds."""
        for message in lane.queue:
            self._leave(message)
            self.known.discard(message.key.token)
        lane.queue.clear()
        if lane.inbox.lanes.get(lane.name) is lane:
            del lane.inbox.lanes[lane.name]

    def _enter(self, message: StoredMessage) -> None:
        self.known.add(message.key.token)
        self.messages += 1
        self.bytes += len(message.arguments)

    def _leave(self, message: StoredMessage) -> None:
        self.messages -= 1
        self.bytes -= len(message.arguments)
