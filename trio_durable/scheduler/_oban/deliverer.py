"""Deliverer of jobs: from the run of a job, which is a claim, to the result of its worker.

The worker returns when the outcome is durable. A failure is written first, as with the wheel, and
then raised for Oban's telemetry; Oban's own record of it finds the job in another state by then,
and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from ..._clock import Clock
from ..._errors import AlarmSuperseded
from ..._eventloop.loop import Loop
from ..._keys import AlarmKey
from ..._telemetry.notifier import Notifier
from ...storage import StoredAlarm
from .._contract import Destination
from .._delivery.claims import RETRY_SECONDS, Claims, postponed
from .._delivery.deliverer import Deliverer
from .._delivery.failures import was_cut_off
from .._delivery.in_flight import InFlight, InFlightDeliveries
from .bounces import Bounces

logger = logging.getLogger("trio_durable.alarms")

MAX_WAIT_MICROSECONDS = 50_000
"""How early a run may begin for its delivery to wait until it is time by the own clock. It was
staged early, and the server's clock may be ahead."""

Claimed = tuple[StoredAlarm, int]
"""An alarm and its claim."""


class JobDeliverer(Deliverer):
    """Delivers the alarms whose jobs run here.

    Args:
        loop: The event loop.
        clock: The time.
        in_flight: The deliveries that have begun.
        claims: Writes the failures of alarms.
        destination: Handles alarms.
        notifier: The receiver of telemetry, if there are instruments.
        claim: Begins a run of an alarm's job, whatever its time; None if it has no job.
        pause: The longest time until an alarm of a type that isn't served here is run once more,
            in seconds.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        in_flight: InFlightDeliveries,
        claims: Claims,
        destination: Destination,
        notifier: Notifier | None,
        claim: Callable[[AlarmKey], Awaitable[Claimed | None]],
        pause: float,
    ) -> None:
        super().__init__(loop, clock, in_flight, claims, destination, notifier)
        self._claim = claim
        self._bounces = Bounces(pause)
        self.elsewhere: Callable[[StoredAlarm, int], Awaitable[None]] | None = None
        """Delivers an alarm in the process that has its object, in a cluster; as `run` does."""

    async def run(self, stored: StoredAlarm, claim: int, cancelled: Callable[[], bool]) -> None:
        """Deliver an alarm whose job has begun to run, in the process that has its object.

        Returns when the outcome is durable, as `run_here` does.

        Args:
            stored: The alarm.
            claim: The claim that the run has on it.
            cancelled: True if the job was cancelled meanwhile. Then its turn doesn't begin, or
                doesn't commit, and the job is left to its worker to end.

        Raises:
            Exception: What its handler raised. The retry, or the end, is stored.
        """
        if self.elsewhere is None or self._destination.is_here(stored.key):
            await self.run_here(stored, claim, cancelled)
        else:
            await self._run_elsewhere(self.elsewhere, stored, claim)

    async def run_here(
        self, stored: StoredAlarm, claim: int, cancelled: Callable[[], bool] | None = None
    ) -> None:
        """Deliver an alarm of an object of this process; return when the outcome is durable.

        Args:
            stored: The alarm.
            claim: The claim that the run has on it.
            cancelled: See `run`; None if that isn't known in this process.

        Raises:
            Exception: What its handler raised. The retry, or the end, is stored.
        """
        flights: list[InFlight] = []
        try:
            flight = self._begin(stored.key, claim, flights)
            flight.stored = stored
            flight.delivery.withdrawn = cancelled
            await self._wait_until_due(stored)
            self._deliver(flight, stored, delayed=True)
        except BaseException:
            self._give_back(flights)
            raise
        await self._settlement(flight)
        error, delivery = flight.error, flight.delivery
        if error is None or delivery.is_superseded or isinstance(error, AlarmSuperseded):
            return
        if not was_cut_off(error, self._is_stopped):
            raise error

    async def _run_elsewhere(
        self,
        deliver: Callable[[StoredAlarm, int], Awaitable[None]],
        stored: StoredAlarm,
        claim: int,
    ) -> None:
        """Let the owner of the object deliver an alarm, whose record of the outcome counts.

        If the owner is lost, the alarm may have been acknowledged or not. It is given back then,
        which isn't an attempt, and changes nothing unless this run still has its claim.
        """
        try:
            await deliver(stored, claim)
        except Exception:
            flight = self._begin(stored.key, claim, [])
            flight.stored = stored
            flight.is_handed_over = True
            again_at = self._after(RETRY_SECONDS)
            self._claims.postpone(flight, postponed(flight, stored, again_at))
            await self._settlement(flight)
            raise

    async def _wait_until_due(self, stored: StoredAlarm) -> None:
        """Wait for the time of an alarm. A retry has a time of its own."""
        ahead = stored.due_at - self._clock.now()
        if 0 < ahead <= MAX_WAIT_MICROSECONDS and not stored.failures:
            await anyio.sleep(ahead / 1e6)

    def _deliver(self, flight: InFlight, stored: StoredAlarm, *, delayed: bool) -> None:
        key = flight.key
        if self._is_stopped:
            self._return(flight, stored)
        elif not self._destination.is_here(key):  # its object moves in this moment
            again_at = self._after(RETRY_SECONDS)
            self._claims.postpone(flight, postponed(flight, stored, again_at))
            flight.is_handed_over = True
        elif (reason := self._destination.obstacle(key.type_name)) is not None:
            logger.debug("alarm %s waits for another process: %s", key, reason)
            again_at = self._after(self._bounces.pause(key, self._loop.now()))
            self._claims.postpone(flight, postponed(flight, stored, again_at))
            flight.is_handed_over = True
        elif stored.crashes is None:
            self._hand_over(flight, stored)
        else:
            self._deliver_suspect(flight, stored.crashes, delayed=delayed)

    async def _claim_now(self, key: AlarmKey) -> InFlight | None:
        flights: list[InFlight] = []
        try:
            # Shielded, because a run that has begun but isn't known here would not be given back.
            with anyio.CancelScope(shield=True):
                claimed = await self._claim(key)
                if claimed is not None:
                    self._begin(key, claimed[1], flights).stored = claimed[0]
            for flight in flights:
                assert flight.stored is not None
                self._deliver(flight, flight.stored, delayed=False)
        except BaseException:
            self._give_back(flights)
            raise
        return flights[0] if flights else None
