"""Deliverer of claimed alarms: from the claim to the retry after a failure, or the dead letter.

Each scheduler has its own way to claims, in a class that derives from `Deliverer`.

The acknowledgement isn't here. It is part of the commit of the handler's turn, which
`_activations.effects` stages before the handler runs; this module learns of it by `committed`.

A delivery is in flight from before its claim is made until its outcome is durable. A commit that
changes the alarm in that time finds the delivery, and marks it superseded.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextvars import Context, copy_context

import attrs

from ..._alarms.alarm import alarm_of
from ..._alarms.recurrence import FIRING, letter_name
from ..._clock import EARLIEST, LATEST, Clock, instant
from ..._errors import (
    AlarmCrashed,
    AlarmSuperseded,
    AlarmUnhandled,
    PersistenceError,
    RuntimeClosed,
    StateTooNew,
    TenantDropped,
)
from ..._eventloop.loop import Loop
from ..._keys import AlarmKey
from ..._telemetry.events import AlarmDelivery, DeadLettered
from ..._telemetry.notifier import Notifier, request
from ..._text import error_summary
from ...storage import (
    DeadFiring,
    Postponement,
    StoredAlarm,
)
from .._contract import Destination
from .claims import Claims, postponed, unchanged
from .failures import UNHANDLED_SECONDS, UnhandledAlarms, storable, was_cut_off
from .in_flight import InFlight, InFlightDeliveries
from .suspects import Suspects

logger = logging.getLogger("trio_durable.alarms")


class Deliverer(ABC):
    """Delivers alarms, and decides about retries.

    Args:
        loop: The event loop.
        clock: The time.
        in_flight: The deliveries that have begun.
        claims: Claims alarms, and writes their failures.
        destination: Handles alarms.
        notifier: The receiver of telemetry, if there are instruments.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        in_flight: InFlightDeliveries,
        claims: Claims,
        destination: Destination,
        notifier: Notifier | None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._in_flight = in_flight
        self._claims = claims
        self._destination = destination
        self._notifier = notifier
        self.suspects = Suspects(loop, clock, claims, self._hand_over)
        """The claimed alarms that are delivered one at a time."""
        self._observed: dict[InFlight, tuple[AlarmDelivery, Context, float]] = {}
        """The events of deliveries that were handed over, if there is a notifier: each with the
        context it is reported in, and the time it began."""
        self._is_stopped = False
        self._unhandled = UnhandledAlarms()
        self.delivered = 0
        """Alarms that were handled and acknowledged."""
        self.failed = 0
        """Attempts that failed."""

    # --- beginning -------------------------------------------------------------------------------

    def _begin(self, key: AlarmKey, claim: int, flights: list[InFlight]) -> InFlight:
        flight = InFlight(self._ended, key, claim)
        flights.append(flight)  # first, or a delivery that is cut off here stays in flight
        self._claims.begin(flight)
        return flight

    def _give_back(self, flights: list[InFlight]) -> None:
        """End deliveries that were cut off before they were handed over."""
        for flight in flights:
            if flight.is_handed_over:
                continue
            if flight.stored is None:
                self._claims.settle(flight)
            else:
                self._claims.postpone(flight, unchanged(flight, flight.stored))

    def _return(self, flight: InFlight, stored: StoredAlarm) -> None:
        """Give an alarm back that isn't delivered."""
        self._claims.postpone(flight, unchanged(flight, stored))
        flight.is_handed_over = True

    def _deliver_suspect(self, flight: InFlight, crashes: int, *, delayed: bool = True) -> None:
        """Let a suspect wait until it is delivered, unless it has crashed too often."""
        key, stored = flight.key, flight.stored
        assert stored is not None, "a suspect that isn't claimed"
        try:
            self._prepare(flight, stored)
            retry = flight.retry
            if retry.is_fatal(crashes):
                raise AlarmCrashed(key.object_key, key.name, crashes)
        except Exception as error:  # noqa: BLE001  # the attempt has failed
            flight.is_handed_over = True
            flight.fail(error)
        else:
            self.suspects.add(flight, retry.delay(crashes) if delayed and crashes else 0.0)

    def _hand_over(self, flight: InFlight, stored: StoredAlarm) -> None:
        if self._is_stopped:
            self._return(flight, stored)
        elif self._notifier is None:
            self._hand_to_destination(flight, stored)
        else:
            context = self._observe(self._notifier, flight, stored)
            # In a copy: the delivery may end at once, and a context can't be entered twice.
            context.copy().run(self._hand_to_destination, flight, stored)

    def _prepare(self, flight: InFlight, stored: StoredAlarm) -> None:
        """Give a delivery what its handler declares."""
        flight.retry = self._destination.retry_of(flight.key)
        recurrence = self._destination.recurrence_of(flight.key)
        flight.delivery.begin(stored, recurrence, self._clock.now())

    def _hand_to_destination(self, flight: InFlight, stored: StoredAlarm) -> None:
        try:
            flight.is_handed_over = True
            self._prepare(flight, stored)
            flight.delivery.alarm = alarm_of(stored, stored.failures + 1)
            self._destination.deliver(flight.delivery, flight)
        except BaseException as error:
            flight.fail(error)
            if not isinstance(error, Exception):
                raise

    def stop(self) -> None:
        """Begin no more deliveries."""
        self._is_stopped = True

    # --- firing before the time ------------------------------------------------------------------

    async def fire(self, key: AlarmKey) -> bool:
        """Deliver an alarm now, whatever its time, and return when its outcome is durable.

        A delivery that is in flight here counts. One in another runtime doesn't: its claim is
        taken. The bounds on deliveries in flight don't apply.

        Returns:
            Whether there was such an alarm.

        Raises:
            Exception: What its handler raised, or why it could not be handled or acknowledged. The
                failure is written, and the alarm is tried again as any other.
            StorageFault: The claim failed, though it may have been made all the same.
        """
        while (flight := self._in_flight.find(key)) is not None:
            # A delivery that has failed or was superseded isn't one of the alarm as it is now.
            is_this = flight.delivery.is_current and not flight.ended
            await self._settlement(flight)
            if is_this and flight.stored is not None:
                return _outcome(flight)
        flight = await self._claim_now(key)
        if flight is None:
            return False
        await self._settlement(flight)
        return _outcome(flight)

    @abstractmethod
    async def _claim_now(self, key: AlarmKey) -> InFlight | None:
        """Claim an alarm before its time and hand it over; None if there is none.

        Raises:
            StorageFault: The claim failed, though it may have been made all the same.
        """

    async def _settlement(self, flight: InFlight) -> None:
        """Wait until a delivery is settled."""
        waiter = self._loop.waiter()
        if flight.watchers is None:
            waiter.settle()
        else:
            flight.watchers.append(waiter)
        await waiter.wait()

    # --- outcomes --------------------------------------------------------------------------------

    def _ended(self, flight: InFlight) -> None:
        # Called while the group commit settles a batch, so nothing may be raised here.
        if self._notifier is not None:
            self._report_end(self._notifier, flight)
        delivery, error, stored = flight.delivery, flight.error, flight.stored
        self._in_flight.handled(flight)
        if error is None:
            self.delivered += 1
        if error is None or stored is None or delivery.acknowledged:
            self._claims.settle(flight)
        elif delivery.is_withdrawn:
            if not isinstance(error, AlarmSuperseded):
                logger.error(
                    "alarm %s failed, and was cancelled meanwhile, so it isn't tried again",
                    flight.key,
                    exc_info=error,
                )
            self._claims.settle(flight)  # it ends by the means that have withdrawn it
        elif isinstance(error, AlarmSuperseded) or delivery.superseded or flight.lost_owner:
            # The claim may still hold: the change may have come before it, or failed. So give it
            # back; if it is gone, this writes nothing.
            self._claims.postpone(flight, unchanged(flight, stored))
        else:
            self._claims.postpone(flight, self._postponement(flight, stored, error))

    def _postponement(
        self, flight: InFlight, stored: StoredAlarm, error: BaseException
    ) -> Postponement:
        """The record of a failure: a retry, or a dead letter after the last attempt."""
        key, claim, failures = flight.key, flight.delivery.claim, stored.failures
        if isinstance(error, AlarmCrashed):
            logger.error(
                "the process died in each of the last %d deliveries of alarm %s; it is kept as a "
                "dead letter",
                *(error.crashes, key),
            )
            self._tell_dead(flight, failures + error.crashes)
            dead = attrs.evolve(postponed(flight, stored, None), last_error=storable(error))
            return self._buried(flight, stored, dead)
        if isinstance(error, AlarmUnhandled):
            self._unhandled.warn(key)
            return postponed(flight, stored, self._after(UNHANDLED_SECONDS))
        if was_cut_off(error, self._is_stopped):
            if self._is_stopped:
                return unchanged(flight, stored)
            # After a delay, because it may be the end of another runtime that the handler calls.
            delay = flight.retry.delay(failures or 1)
            logger.warning("alarm %s was cut off: %s", key, error_summary(error))
            return Postponement(key, claim, self._after(delay), failures, stored.last_error)
        self.failed += 1
        last_error = stored.last_error
        if isinstance(error, PersistenceError) and error.key == key.object_key:
            # The storage's failure, in a load or commit of the object: not counted.
            flight.is_uncertain = True
            if not failures and stored.due_at > self._clock.now():
                return unchanged(flight, stored)  # it was fired before its time
        else:
            # A state of a newer release or the drop of the tenant isn't the handler's failure.
            failures += not isinstance(error, (StateTooNew, TenantDropped))
            last_error = storable(error)
        if failures > stored.failures and flight.retry.is_exhausted(failures):
            logger.error(
                "alarm %s failed in attempt %d, the last; it is kept as a dead letter",
                *(key, failures),
                exc_info=error,
            )
            self._tell_dead(flight, failures)
            dead = Postponement(key, claim, None, failures, last_error)
            return self._buried(flight, stored, dead)
        delay = flight.retry.delay(failures or 1)
        logger.error(
            "alarm %s failed in attempt %d; it is tried again in %.3g s",
            *(key, stored.failures + 1, delay),
            exc_info=error,
        )
        return Postponement(key, claim, self._after(delay), failures, last_error)

    def _buried(self, flight: InFlight, stored: StoredAlarm, dead: Postponement) -> Postponement:
        """The record of a death, which doesn't end an alarm that recurs."""
        if (following := flight.delivery.following(self._clock.now())) is None:
            return dead
        name = letter_name(flight.key, stored.due_at)
        return attrs.evolve(dead, dead_firing=DeadFiring(name, FIRING, following))

    def _after(self, delay: float) -> int:
        """The time ``delay`` seconds from now."""
        return min(self._clock.now() + round(min(delay, 1e12) * 1e6), LATEST)

    # --- telemetry -------------------------------------------------------------------------------

    def _tell_dead(self, flight: InFlight, attempts: int) -> None:
        key = flight.key
        if self._notifier is not None:
            self._notifier.tell(DeadLettered(key.object_key, key.name, attempts))

    def _observe(self, notifier: Notifier, flight: InFlight, stored: StoredAlarm) -> Context:
        """Report that a delivery begins; return the context in which to hand it over."""
        context = copy_context()
        # A row that something else wrote may hold any number; handing it over is refused then.
        due_at = instant(min(max(stored.due_at, EARLIEST), LATEST))
        event = AlarmDelivery(
            key=flight.key.object_key,
            name=flight.key.name,
            due_at=due_at,
            lateness=(self._clock.now() - stored.due_at) / 1e6,
            attempt=stored.failures + 1,
        )
        self._observed[flight] = event, context, context.run(notifier.start, event)
        context.run(request.set, event)
        return context

    def _report_end(self, notifier: Notifier, flight: InFlight) -> None:
        observed = self._observed.pop(flight, None)
        if observed is None:
            return  # by a release that was cut off
        event, context, began = observed
        duration = notifier.now() - began
        if flight.error is None:
            context.run(notifier.stop, event, duration)
        else:
            context.run(notifier.fail, event, duration, flight.error)


def _outcome(flight: InFlight) -> bool:
    """True, or raises the error of a settled delivery."""
    if flight.error is not None:
        raise flight.error
    if not flight.ended:
        raise RuntimeClosed("the runtime closed before the alarm was handled")
    return True
