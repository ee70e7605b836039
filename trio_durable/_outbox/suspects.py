"""Suspects: messages that waited when their receivers came here, delivered one at a time.

When a process dies, any of the messages that it was delivering may have killed it, and the table
doesn't tell which these were. So the first message of each lane that waits when the runtime opens,
or acquires its receiver, is a suspect; so are those without a lane that were due. A suspect's
delivery begins alone, after a durable mark. A process that dies then is counted against this
message and no other. Later messages are handed over in memory, mark nothing, and cost nothing here.
`Suspects` of alarms in `scheduler` have the same rules; they know what was claimed.

A delivery that has ended ends the suspicion; so does one that outlasts its probation. After a crash
that was counted, the message waits as after as many failures, and its lane with it. A crash that
was counted is remembered: such a message is a suspect whenever it is read.

All begin within a minute, since there may be a hundred thousand lanes, and each mark is a commit.
Those left by then, without a crash of their own, are delivered as others are. A process that dies
early again and again still comes to each message, because those before it are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from .._activations.services import Services
from .._errors import RuntimeClosed
from .._eventloop.timed_queue import TimedQueue
from ..storage import Deferral, StorageFault, StoredMessage
from .inbox import Flight, Lane
from .lanes import Lanes

logger = logging.getLogger("trio_durable.messages")

PROBATION_SECONDS = 10.0
"""How long a suspect runs alone at most."""
ALL_BEGIN_WITHIN_SECONDS = 60.0
"""By when all suspects have begun."""
RETRY_SECONDS = 1.0
"""The pause after a fault of the storage."""
CLOSING_SECONDS = 1.0
"""How long the end of a mark may take when the runtime closes."""


class Suspects:
    """The suspects of one runtime.

    Args:
        services: The runtime's parts.
        lanes: Where the messages are.
        delay_of: Seconds that a message waits because of its crashes; None if this release can't
            handle it, or it is to be buried, so that its delivery kills nothing.
        begin: Begins the delivery of a message of a lane.
    """

    def __init__(
        self,
        services: Services,
        lanes: Lanes,
        delay_of: Callable[[StoredMessage], float | None],
        begin: Callable[[Lane, StoredMessage], Flight],
    ) -> None:
        self._services = services
        self._lanes = lanes
        self._delay_of = delay_of
        self._begin = begin
        self._suspicion = lanes.suspicion
        self._waiting = TimedQueue[tuple[Lane, StoredMessage]](services.loop)
        self._queued: set[int] = set()
        """The tokens of these."""

    def must_wait(self, lane: Lane, message: StoredMessage) -> bool:
        """True if the message of a lane is a suspect, which is delivered when its turn comes."""
        if not self._suspicion.falls_on(message):
            return False
        if message.key.token not in self._queued:
            delay = self._delay_of(message)
            if delay is None or self._is_late(message):
                self._suspicion.ends(message)
                return False
            self._queue(lane, message, delay)
        return True

    def _is_late(self, message: StoredMessage) -> bool:
        """True if all suspects had to begin by now, and nothing else speaks against this one."""
        until = self._suspicion.since + ALL_BEGIN_WITHIN_SECONDS
        return not message.crashes and self._services.loop.now() > until

    def _queue(self, lane: Lane, message: StoredMessage, delay: float) -> None:
        self._waiting.add((lane, message), delay)
        self._queued.add(message.key.token)

    # --- their deliveries ------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver suspects, one after the other, until cancelled."""
        while True:
            lane, message = await self._waiting.take()
            self._queued.discard(message.key.token)
            if not await self._deliver(lane, message):
                self._lanes.advance_current(message.key)

    def _is_there(self, lane: Lane, message: StoredMessage) -> bool:
        """True if the message is in memory as it was. Else it is met again when it is read."""
        is_there = self._lanes.has(lane) and any(each is message for each in lane.possible)
        return is_there and not self._services.closing

    async def _deliver(self, lane: Lane, message: StoredMessage) -> bool:
        """Deliver a suspect. False if it isn't in memory any more, or was read once more."""
        if not self._is_there(lane, message):
            return False
        if self._is_late(message):
            self._suspicion.ends(message)
            self._begin(lane, message)
            return True
        try:
            is_waiting = await self._services.group_commit.perform(
                lambda writer: writer.mark_message(message.key)
            )
        except StorageFault as fault:
            logger.warning("could not mark a message that is delivered: %s", fault)
            self._queue(lane, message, RETRY_SECONDS)
            return True
        except RuntimeClosed:
            return True  # the runtime ends without waiting for the writer any longer
        if not is_waiting:
            self._suspicion.ends(message)
            self._lanes.look(message.key.to)
        elif not self._is_there(lane, message):
            await self._acquit(message)
            return False
        else:
            self._suspicion.ends(message)
            await self._end_probation(self._begin(lane, message))
        return True

    async def _end_probation(self, flight: Flight) -> None:
        """Wait for the end of a delivery, or end the mark if that takes too long."""
        seconds = min(PROBATION_SECONDS, ALL_BEGIN_WITHIN_SECONDS / (len(self._waiting) + 1))
        try:
            with anyio.move_on_after(seconds):
                assert flight.over is not None
                await flight.over.wait()
        finally:
            # The record of what became of the message ends the mark, if there is one.
            if not flight.is_decided:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSING_SECONDS):
                    await self._acquit(flight.stored)

    async def _acquit(self, message: StoredMessage) -> None:
        """End the mark of a message that waits."""
        same = Deferral(message.key, message.wake_at, message.failures, message.last_error)
        try:
            await self._services.group_commit.perform(lambda writer: writer.defer_messages([same]))
        except (StorageFault, RuntimeClosed) as fault:
            # The mark is left. It is counted only if the process dies before this delivery ends.
            logger.warning("could not end the mark of a message: %s", fault)
