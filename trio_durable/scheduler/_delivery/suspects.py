"""Suspects: alarms whose claims have outlived a process, delivered one at a time.

When a process dies, any of the alarms that it was delivering may have killed it. The storage makes
suspects of them all. A suspect's delivery begins alone, after a durable mark, so that a process
that dies then is counted against this alarm and no other. An alarm that isn't a suspect is
delivered as usual, and costs nothing here.

A delivery that ends has let its process live, which ends the suspicion; so does one that runs for
longer than its probation. Without that bound the crashes of other alarms and kills from outside
would be counted against an alarm that takes hours, and the suspects behind it would wait for as
long. An alarm that kills its process later than that is never identified.

After a crash that was counted, the delivery is delayed as after as many failures. A process that
keeps dying of something else dies during these delays, which isn't counted. The count stays: it
must not begin again if another alarm kills the process first.

Claims are held, and renewed, while suspects wait. The waits of suspects don't hold up other alarms,
except for those of an object that has as many in flight as it may have.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import attrs

from ..._clock import Clock
from ..._errors import AlarmSuperseded
from ..._eventloop.loop import Loop
from ..._eventloop.timed_queue import TimedQueue
from ...storage import StorageFault, StoredAlarm
from .claims import RETRY_SECONDS, Claims, postponed, unchanged
from .in_flight import InFlight

PROBATION_SECONDS = 10.0
"""How long a suspect runs alone at most."""
ALL_BEGIN_WITHIN_SECONDS = 60.0
"""By when all suspects that are due have begun, however many there are: their probations are
shorter then."""


class Suspects:
    """The suspects among the alarms that one scheduler has claimed.

    Args:
        loop: The event loop.
        clock: The time.
        claims: Marks and acquits suspects, and gives them back.
        hand_over: Begins the delivery of an alarm.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        claims: Claims,
        hand_over: Callable[[InFlight, StoredAlarm], object],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._claims = claims
        self._hand_over = hand_over
        self._waiting = TimedQueue[InFlight](loop)

    def add(self, flight: InFlight, delay: float) -> None:
        """Deliver a suspect that is claimed, ``delay`` seconds from now or later."""
        self._waiting.add(flight, delay)
        flight.is_handed_over = True

    async def run(self) -> None:
        """Deliver suspects, one after the other, until cancelled."""
        while True:
            flight = await self._waiting.take()
            if await self._begin(flight):
                await self._end_probation(flight)

    async def _begin(self, flight: InFlight) -> bool:
        """Mark a suspect and begin its delivery. False if it doesn't begin."""
        key, stored = flight.key, flight.stored
        assert stored is not None, "a suspect that isn't claimed"
        try:
            if await self._claims.mark(flight):
                self._hand_over(flight, stored)
                return True
            # The claim is lost: the alarm was set or cancelled, or another runtime has it.
            flight.fail(AlarmSuperseded(key.object_key, key.name))
        except StorageFault as fault:
            self._claims.warn("could not mark %d alarms that are due: %s", 1, fault)
            again_at = self._clock.now() + round(RETRY_SECONDS * 1e6)
            self._claims.postpone(flight, postponed(flight, stored, again_at))
        except BaseException:
            self._claims.postpone(flight, unchanged(flight, stored))
            raise
        return False

    async def _end_probation(self, flight: InFlight) -> None:
        """Wait for the end of a delivery, or acquit the alarm if that takes too long."""
        seconds = min(PROBATION_SECONDS, ALL_BEGIN_WITHIN_SECONDS / (len(self._waiting) + 1))
        waiter = self._loop.waiter()
        if flight.watchers is None:
            return
        flight.watchers.append(waiter)
        with anyio.move_on_after(seconds):
            await waiter.wait()
        if flight.ended or flight.stored is None:
            return  # the record of its outcome ends the suspicion
        try:
            await self._claims.acquit(flight)
        except StorageFault as fault:
            # The mark is left. It is counted only if the process dies before this delivery ends.
            self._claims.warn("could not acquit %d alarms: %s", 1, fault)
        else:
            flight.stored = attrs.evolve(flight.stored, crashes=None)
