"""Deliverer of due alarms: from the claim to the retry after a failure, or the dead letter.

The acknowledgement isn't here. It is part of the commit of the handler's turn, which
`_activations.effects` stages before the handler runs; this module learns of it by `committed`.

The number of deliveries in flight is bounded, and the bound is lower while there are calls: a
backlog of alarms must not keep calls waiting. For the same reason they begin a few at a time, with
the event loop's other tasks in between. A delivery that has run for a while waits for something
other than the processor, so it no longer counts: slow handlers must not keep other alarms waiting.
An object gets only a few at once, because they fill its mailbox.

A delivery is in flight from before its claim is made until its outcome is durable. A commit that
changes the alarm in that time finds the delivery, and marks it superseded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context

import anyio
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
from ..._persistence.group_commit import GroupCommit
from ..._telemetry.events import AlarmDelivery, DeadLettered
from ..._telemetry.notifier import Notifier, request
from ..._text import error_summary
from ...storage import (
    DeadFiring,
    PartialFault,
    Postponement,
    StorageFault,
    StoredAlarm,
)
from .._contract import Destination
from .claims import (
    MAX_LEAD_MICROSECONDS,
    RETRY_SECONDS,
    Claims,
    new_claim,
    postponed,
    unchanged,
)
from .failures import UNHANDLED_SECONDS, UnhandledAlarms, storable, was_cut_off
from .in_flight import InFlight, InFlightDeliveries
from .suspects import Suspects
from .upcoming import UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

CALLS_EXPECTED_SECONDS = 0.1
"""How long after a change by a call more calls are expected."""
DELIVERIES_PER_SLICE = 8
"""How many deliveries begin without a checkpoint."""
_END_OF_TIME = 2**62
"""Later than any alarm is available, in microseconds since 1970 UTC."""


class Deliverer:
    """Delivers alarms, and decides about retries.

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
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._upcoming = upcoming
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
        self._other_commits = 0
        self._calls_until = 0.0
        self.delivered = 0
        """Alarms that were handled and acknowledged."""
        self.failed = 0
        """Attempts that failed."""

    @property
    def room(self) -> int:
        """How many more deliveries may begin."""
        now = self._loop.now()
        return self._in_flight.room(now, are_calls=self._are_calls(now))

    def _are_calls(self, now: float) -> bool:
        """True if a call has committed a change recently."""
        others = self._group_commit.rows - self.delivered
        if others > self._other_commits:
            self._calls_until = now + CALLS_EXPECTED_SECONDS
        self._other_commits = others
        return now < self._calls_until

    # --- beginning -------------------------------------------------------------------------------

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

    async def _deliver(self, flight: InFlight, stored: StoredAlarm) -> None:
        # A retry has a time of its own, which may be before the one the alarm was set for.
        is_time = stored.failures > 0 or await self._is_time(stored.due_at)
        if not is_time:
            self._return(flight, stored)
        elif stored.crashes is None:
            self._hand_over(flight, stored)
        else:
            self._deliver_suspect(flight, stored.crashes)

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

    async def _is_time(self, due_at: int) -> bool:
        """Wait for a time that is near. False if it is far, because the clock was set back."""
        while (ahead := due_at - self._clock.now()) > 0:
            if ahead > 2 * MAX_LEAD_MICROSECONDS:
                return False
            await anyio.sleep(ahead / 1e6)
        return True

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
