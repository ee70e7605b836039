"""Deliverer that tells of the alarms under way."""

from __future__ import annotations

from contextvars import Context, copy_context

from .._clock import EARLIEST, LATEST, Clock, instant
from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .._persistence.group_commit import GroupCommit
from .._telemetry.events import AlarmDelivery, DeadLettered
from .._telemetry.notifier import Notifier, request
from ..scheduler._contract import Destination
from ..scheduler._wheel.delivery import Deliverer
from ..scheduler._wheel.in_flight import InFlight
from ..scheduler._wheel.upcoming import UpcomingAlarms
from ..storage import Postponement, StoredAlarm


class InstrumentedDeliverer(Deliverer):
    """Tells of every alarm from when it is handed over until it is acknowledged or has failed."""

    def __init__(
        self,
        telemetry: Notifier,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        upcoming: UpcomingAlarms,
        destination: Destination,
        claim_ttl: int,
        room_made: AutoResetEvent,
    ) -> None:
        super().__init__(loop, clock, group_commit, upcoming, destination, claim_ttl, room_made)
        self._telemetry = telemetry
        self._told: dict[InFlight, tuple[AlarmDelivery, Context, float]] = {}
        """What was handed over: its event, the context that is told in, and when it began."""

    def _hand_over(self, flight: InFlight, stored: StoredAlarm) -> None:
        context = copy_context()
        # A row that somebody else wrote may say anything; its handing over is refused below.
        due_at = instant(min(max(stored.due_at, EARLIEST), LATEST))
        delivery = AlarmDelivery(
            key=flight.key.object_key,
            name=flight.key.name,
            due_at=due_at,
            lateness=(self._clock.now() - stored.due_at) / 1e6,
            attempt=stored.failures + 1,
        )
        self._told[flight] = delivery, context, context.run(self._telemetry.start, delivery)
        context.run(request.set, delivery)
        # In a copy, for it may end on the spot, and a context can't be entered twice.
        context.copy().run(super()._hand_over, flight, stored)

    def _ended(self, flight: InFlight) -> None:
        delivery, context, began = self._told.pop(flight)
        duration = self._telemetry.now() - began
        if flight.error is None:
            context.run(self._telemetry.stop, delivery, duration)
        else:
            context.run(self._telemetry.fail, delivery, duration, flight.error)
        super()._ended(flight)

    def _postponement(
        self, flight: InFlight, stored: StoredAlarm, error: BaseException
    ) -> Postponement:
        postponement = super()._postponement(flight, stored, error)
        if postponement.available_at is None:
            key = flight.key
            self._telemetry.tell(DeadLettered(key.object_key, key.name, postponement.failures))
        return postponement
