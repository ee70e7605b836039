"""Claims: exclusive rights to deliver alarms, each for a limited time.

An alarm is claimed before it is delivered, so that of several runtimes that find it due only one
delivers it. The claim is part of the alarm's row. The commit that acknowledges the alarm requires
it, and ends it. A claim also ends when it is postponed: after a failure until the next attempt, or
as a dead letter; and without one if the alarm is given back, which makes it available again from
its ``due_at``. A claim runs out ``claim_ttl`` after its runtime died. A running delivery has its
claim renewed three times in that time.

A claim is one transaction and takes about as long as an fsync, so alarms are claimed that much
ahead of their time: the lead.

An effect on state happens once whatever happens here, because every acknowledging commit checks
the claim. Faults in this module make alarms late.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

import anyio

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey
from ..._persistence.group_commit import GroupCommit
from ...storage import Postponement, StorageFault, StoredAlarm
from .in_flight import InFlight, InFlightDeliveries
from .upcoming import UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

MAX_LEAD_MICROSECONDS = 20_000
RETRY_SECONDS = 1.0
"""The pause after a write that the storage refused."""
_NEVER = float("inf")


class Claims:
    """The claims of one scheduler.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage.
        upcoming: Gets alarms that are postponed.
        in_flight: The deliveries that have claims.
        claim_ttl: How long a claim holds unless it is renewed, in microseconds.
        room_made: Set when a delivery is settled, so that another one may begin.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        upcoming: UpcomingAlarms,
        in_flight: InFlightDeliveries,
        claim_ttl: int,
        room_made: AutoResetEvent,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._upcoming = upcoming
        self._in_flight = in_flight
        self._claim_ttl = claim_ttl
        self._room_made = room_made
        self._postponed: list[tuple[InFlight, Postponement]] = []
        self._has_work = AutoResetEvent(loop)
        self._renew_at = _NEVER
        """When claims are renewed, by the loop's clock; never if there were none."""
        self.lead = 0
        """How long a claim takes, and so how much ahead of its time an alarm is claimed.
        In microseconds."""

    # --- from the claim to the end ---------------------------------------------------------------

    def begin(self, flight: InFlight) -> None:
        """Count a delivery as in flight, before its claim is made.

        A commit that changes the alarm while it is being claimed finds the delivery, then, and
        marks it superseded.
        """
        self._in_flight.add(flight, self._loop.now())
        if self._renew_at == _NEVER:
            self._has_work.set()

    async def claim(self, flights: Sequence[InFlight], available_at: int) -> None:
        """Claim the alarms that are available at a time, and set ``stored`` of their deliveries.

        Deliveries that get no claim are settled: the alarm was cancelled, has another time, or is
        claimed by another runtime.

        Args:
            flights: Deliveries that have begun, all with the same claim.
            available_at: The time, in microseconds since 1970 UTC.

        Raises:
            StorageFault: The claim failed, though it may have been made all the same. All of
                ``flights`` are settled.
        """
        try:
            claimed = await self._write_claim(flights, available_at)
        except StorageFault:
            for flight in flights:
                self.settle(flight)
            raise
        for flight in flights:
            flight.stored = claimed.get(flight.key)
            if flight.stored is None:
                self.settle(flight)

    async def _write_claim(
        self, flights: Sequence[InFlight], available_at: int
    ) -> dict[AlarmKey, StoredAlarm]:
        keys = [flight.key for flight in flights]
        claim = flights[0].delivery.claim
        until = self._clock.now() + self._claim_ttl
        began = self._loop.now()
        stored: list[StoredAlarm] = []
        # Shielded, because a claim that was made but isn't known here would not be given back.
        with anyio.CancelScope(shield=True):
            stored = await self._group_commit.perform(
                lambda writer: writer.claim(keys, claim, available_at, until)
            )
        # A moving average, so that one claim that had to wait for the writer counts for little.
        took = round((self._loop.now() - began) * 1e6)
        self.lead = min((3 * self.lead + took) // 4, MAX_LEAD_MICROSECONDS)
        return {alarm.key: alarm for alarm in stored}

    def postpone(self, flight: InFlight, postponement: Postponement) -> None:
        """Write a delivery's failure, or give its alarm back; in the background. Then settle it."""
        self._postponed.append((flight, postponement))
        self._has_work.set()

    def settle(self, flight: InFlight) -> None:
        """End a delivery whose outcome is durable, or that got no claim."""
        self._in_flight.remove(flight)
        self._upcoming.unpark(flight.key.owner)
        self._room_made.set()
        watchers, flight.watchers = flight.watchers, None
        for watcher in watchers or ():
            watcher.settle()

    # --- in the background -----------------------------------------------------------------------

    async def maintain(self) -> None:
        """Write postponements and renew the claims of long deliveries, until cancelled."""
        self._has_work.set()  # what an earlier run that was cut off has left
        while True:
            await self._has_work.wait(max(0.0, self._renew_at - self._loop.now()))
            if not await self._write_postponed():
                await anyio.sleep(RETRY_SECONDS)
            if self._loop.now() >= self._renew_at:
                await self._renew()
                self._renew_at = _NEVER
            if self._in_flight and self._renew_at == _NEVER:
                self._renew_at = self._loop.now() + self._claim_ttl / 3e6

    async def _write_postponed(self) -> bool:
        """Write the postponements so far; False if the storage refused."""
        postponed = list(self._postponed)
        if not postponed:
            return True
        records = [record for _, record in postponed]
        try:
            await self._group_commit.perform(lambda writer: writer.postpone(records))
        except StorageFault as fault:
            logger.warning("could not postpone %d alarms: %s", len(records), fault)
            self._has_work.set()
            return False
        for flight, record in postponed:
            self.settle(flight)
            # A superseded alarm is known by its new time already. But if the change came before
            # the claim, the alarm may have become due and been skipped: its next delivery got no
            # claim, because this one still held it.
            if record.available_at is not None and flight.key not in self._upcoming:
                self._upcoming.arm(flight.key, record.available_at)
        del self._postponed[: len(postponed)]  # last: all of that can be repeated
        return True

    async def _renew(self) -> None:
        claims = [(flight.key, flight.delivery.claim) for flight in self._in_flight]
        if not claims:
            return
        until = self._clock.now() + self._claim_ttl
        try:
            await self._group_commit.perform(lambda writer: writer.renew(claims, until))
        except StorageFault as fault:
            logger.warning("could not renew the claims of %d alarms: %s", len(claims), fault)

    async def give_back(self) -> None:
        """End all claims, as far as the storage allows, and settle all deliveries.

        Other runtimes can deliver the alarms then, without waiting for the claims to run out.
        """
        written = {id(flight) for flight, _ in self._postponed}
        for flight in list(self._in_flight):
            if flight.stored is not None and id(flight) not in written:
                self._postponed.append((flight, unchanged(flight, flight.stored)))
        await self._write_postponed()
        for flight in list(self._in_flight):  # nothing else will release its watchers
            self.settle(flight)


def new_claim() -> int:
    """A random number for a claim, so that two runtimes don't make the same."""
    return secrets.randbits(62) + 1


def unchanged(flight: InFlight, stored: StoredAlarm) -> Postponement:
    """A postponement that gives the alarm back as it was, available again from ``due_at``."""
    claim = flight.delivery.claim
    return Postponement(stored.key, claim, stored.due_at, stored.failures, stored.last_error)
