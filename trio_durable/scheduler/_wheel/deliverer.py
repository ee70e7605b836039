"""Deliverer of the timing wheel: takes the alarms that are due, and claims them.

The number of deliveries in flight is bounded, and the bound is lower while there are calls: a
backlog of alarms must not keep calls waiting. For the same reason they begin a few at a time, with
the event loop's other tasks in between. A delivery that has run for a while waits for something
other than the processor, so it no longer counts: slow handlers must not keep other alarms waiting.
An object gets only a few at once, because they fill its mailbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._keys import AlarmKey
from ..._persistence.group_commit import GroupCommit
from ..._persistence.other_commits import OtherCommits
from ..._telemetry.notifier import Notifier
from ...storage import PartialFault, StorageFault, StoredAlarm
from .._contract import Destination
from .._delivery.claims import MAX_LEAD_MICROSECONDS, RETRY_SECONDS, Claims, new_claim
from .._delivery.deliverer import Deliverer
from .._delivery.in_flight import InFlight, InFlightDeliveries
from .upcoming import UpcomingAlarms

DELIVERIES_PER_SLICE = 8
"""How many deliveries begin without a checkpoint."""
_END_OF_TIME = 2**62
"""Later than any alarm is available, in microseconds since 1970 UTC."""


class WheelDeliverer(Deliverer):
    """Claims alarms that are due, and delivers them.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: Counts the commits of calls.
        upcoming: The alarms that are due.
        in_flight: The deliveries that have begun.
        claims: Claims alarms, and writes their failures.
        destination: Handles alarms.
        notifier: The receiver of telemetry, if there are instruments.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        upcoming: UpcomingAlarms,
        in_flight: InFlightDeliveries,
        claims: Claims,
        destination: Destination,
        notifier: Notifier | None,
    ) -> None:
        super().__init__(loop, clock, in_flight, claims, destination, notifier)
        self._other_commits = OtherCommits(group_commit)
        self._upcoming = upcoming

    @property
    def room(self) -> int:
        """How many more deliveries may begin."""
        now = self._loop.now()
        are_calls = self._other_commits.are_expected(self.delivered, now)
        return self._in_flight.room(now, are_calls=are_calls)

    async def begin(self) -> None:
        """Claim and deliver as many due alarms as there is room for.

        Raises:
            StorageFault: The claim failed, though it may have been made all the same.
        """
        flights: list[InFlight] = []
        try:
            self._take(flights)
            if flights:
                await self._claim_and_deliver(flights)
        except BaseException:
            self._give_back(flights)
            raise

    async def _claim_and_deliver(self, flights: list[InFlight]) -> None:
        try:
            refused = await self._claims.claim(
                flights, max(self._clock.now(), self._upcoming.reached)
            )
        except StorageFault:
            # A superseded alarm is known by its new time already.
            self._upcoming.put_back(
                flight.key for flight in flights if not flight.delivery.superseded
            )
            raise
        if refused:
            self._claim_later(flights, refused)
        begun = 0
        for flight in flights:
            if flight.stored is not None:
                if begun and begun % DELIVERIES_PER_SLICE == 0:
                    await self._loop.checkpoint()
                begun += 1
                await self._deliver(flight, flight.stored)

    def _claim_later(
        self, flights: Sequence[InFlight], refused: Mapping[AlarmKey, PartialFault]
    ) -> None:
        """Claim the alarms again that the storage refused, after a pause and behind all others."""
        fault = next(iter(refused.values()))
        self._claims.warn("could not claim %d alarms that are due: %s", len(refused), fault)
        again_at = self._clock.now() + round(RETRY_SECONDS * 1e6)
        for flight in flights:
            if flight.key in refused and not flight.delivery.superseded:
                self._upcoming.arm(flight.key, again_at)

    def _take(self, flights: list[InFlight]) -> None:
        """Take as many due alarms as there is room for, and begin their deliveries."""
        claim = new_claim()
        for _ in range(self.room):
            key = self._upcoming.take(self._in_flight.is_full)
            if key is None:
                break
            if key in self._in_flight or not self._destination.is_here(key):
                self._upcoming.unpark(key.owner)  # a parked alarm of the object takes its place
            else:
                self._begin(key, claim, flights)

    async def _deliver(self, flight: InFlight, stored: StoredAlarm) -> None:
        # A retry has a time of its own, which may be before the one the alarm was set for.
        is_time = stored.failures > 0 or await self._is_time(stored.due_at)
        if not is_time:
            self._return(flight, stored)
        elif stored.crashes is None:
            self._hand_over(flight, stored)
        else:
            self._deliver_suspect(flight, stored.crashes)

    async def _is_time(self, due_at: int) -> bool:
        """Wait for a time that is near. False if it is far, because the clock was set back."""
        while (ahead := due_at - self._clock.now()) > 0:
            if ahead > 2 * MAX_LEAD_MICROSECONDS:
                return False
            await anyio.sleep(ahead / 1e6)
        return True

    async def _claim_now(self, key: AlarmKey) -> InFlight | None:
        """Claim an alarm before its time and hand it over; None if there is none."""
        flights: list[InFlight] = []
        try:
            return await self._claim_alone(key, flights)
        except BaseException:
            self._give_back(flights)
            raise

    async def _claim_alone(self, key: AlarmKey, flights: list[InFlight]) -> InFlight | None:
        flight = self._begin(key, new_claim(), flights)
        try:
            refused = await self._claims.claim([flight], _END_OF_TIME)
            if refused:
                raise refused[key]
        except StorageFault:
            if not flight.delivery.superseded and key not in self._upcoming:
                # It may have been due meanwhile, and skipped because this was in flight.
                self._upcoming.put_back([key])
            raise
        stored = flight.stored
        if stored is None:
            return None
        # No checkpoint from here to the hand-over, or a cancelled caller would lose the alarm.
        if not flight.delivery.superseded:
            self._upcoming.disarm(key)  # the time that is known is its old one
        if stored.crashes is None:
            self._hand_over(flight, stored)
        else:
            self._deliver_suspect(flight, stored.crashes, delayed=False)
        return flight
