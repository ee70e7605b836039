"""Claims what is due, has it delivered, and follows it until it is acknowledged or postponed.

A claim says who handles an alarm, so that of several who see it due only one does. It takes about
as long as a sync of the disk, so alarms are claimed that much ahead of their time. It is given
back by the commit that acknowledges the alarm, or when the handler has failed; it runs out if its
owner died, and is renewed while a handler takes its time.

How many deliveries are under way together is bounded, the more so while there are calls, and they
begin a few at a time, with the event loop's other tasks in between: a backlog of alarms must not
keep calls waiting. Those that have been under way for a while wait for something else than the
processor, and no longer count: slow handlers must not keep other alarms waiting. Of one object
only a few are taken at once, for they would fill its mailbox.

Nothing here is needed for an effect on state to happen once: the commit that acknowledges requires
the claim, whoever believes to have it. What goes wrong here makes alarms late.

A flight is known from before its claim is made until what became of it is durable; so whatever a
commit does to the alarm meanwhile finds the flight, and marks it superseded.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence

import anyio

from ..._alarms.alarm import alarm_of
from ..._clock import LATEST, Clock
from ..._errors import AlarmSuperseded, PersistenceError, RuntimeClosed, StateTooNew, TenantDropped
from ..._eventloop.loop import Loop
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.group_commit import GroupCommit
from ..._text import error_summary
from ...storage import AlarmChanges, Postponement, StorageFault, StoredAlarm
from .._contract import Destination
from .in_flight import InFlight, InFlightDeliveries
from .upcoming import UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

CALLS_EXPECTED_SECONDS = 0.1
"""Seconds after a change by a call in which more are expected."""
DELIVERIES_PER_SLICE = 8
"""How many deliveries begin without a break."""
MAX_LEAD_MICROSECONDS = 20_000
_NEVER = float("inf")
_END_OF_TIME = 2**62
"""Later than any alarm is available."""
RETRY_SECONDS = 1.0
"""Seconds after which to write again what could not be written."""
MAX_ERROR_CHARS = 1000


class Deliverer:
    """What is under way, and what becomes of it.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage.
        upcoming: Where what is due comes from, and goes to when it is to be tried again.
        destination: Where it goes.
        claim_ttl: How long a claim holds, in microseconds.
        room_made: Rung when there is room for more.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        upcoming: UpcomingAlarms,
        destination: Destination,
        claim_ttl: int,
        room_made: AutoResetEvent,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._upcoming = upcoming
        self._destination = destination
        self._claim_ttl = claim_ttl
        self._room_made = room_made
        self.in_flight = InFlightDeliveries()
        self._postponed: list[tuple[InFlight, Postponement]] = []
        self._to_mend = AutoResetEvent(loop)
        self._renew_at = _NEVER
        """When to renew claims, if there were any when it was set."""
        self._is_stopped = False
        self._other_commits = 0
        self._calls_until = 0.0
        self.lead = 0
        """How long a claim takes, and so how much ahead of time to make it. In microseconds."""
        self.delivered = 0
        """Alarms that were handled and acknowledged."""
        self.failed = 0
        """Attempts that failed."""

    @property
    def room(self) -> int:
        """How many more may begin."""
        now = self._loop.now()
        return self.in_flight.room(now, are_calls=self._are_calls(now))

    def _are_calls(self, now: float) -> bool:
        """Whether calls have changed anything of late."""
        others = self._group_commit.rows - self.delivered
        if others > self._other_commits:
            self._calls_until = now + CALLS_EXPECTED_SECONDS
        self._other_commits = others
        return now < self._calls_until

    # --- beginning -------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Claim and deliver some of what is ready.

        Raises:
            StorageFault: It could not be claimed, as far as can be known.
        """
        flights = self._take()
        if not flights:
            return
        keys = [flight.key for flight in flights]
        try:
            due = max(self._clock.now(), self._upcoming.reached)
            claimed = await self._claim(keys, flights[0].delivery.claim, due)
        except StorageFault:
            for flight in flights:
                self._settle(flight)
            # What was changed meanwhile is known already.
            self._upcoming.put_back(
                flight.key for flight in flights if not flight.delivery.superseded
            )
            raise
        for flight in flights:
            flight.stored = claimed.get(flight.key)
            if flight.stored is None:  # it was set anew or cancelled, or is somebody else's
                self._settle(flight)
        begun = 0
        for flight in flights:
            if flight.stored is not None:
                if begun and begun % DELIVERIES_PER_SLICE == 0:
                    await self._loop.checkpoint()
                begun += 1
                await self._deliver(flight, flight.stored)

    def _take(self) -> list[InFlight]:
        """Take what may begin from the upcoming alarms."""
        claim = _new_claim()
        flights = []
        for _ in range(self.room):
            key = self._upcoming.take(self.in_flight.is_full)
            if key is None:
                break
            if key in self.in_flight:
                self._upcoming.unpark(key.owner)  # in its stead
            else:
                flights.append(self._begin_flight(key, claim))
        return flights

    def _begin_flight(self, key: AlarmKey, claim: int) -> InFlight:
        flight = InFlight(self._ended, key, claim)
        self.in_flight.add(flight, self._loop.now())
        if self._renew_at == _NEVER:
            self._to_mend.set()
        return flight

    async def _claim(
        self, keys: Sequence[AlarmKey], claim: int, due: int
    ) -> dict[AlarmKey, StoredAlarm]:
        until = self._clock.now() + self._claim_ttl
        began = self._loop.now()
        stored: list[StoredAlarm] = []
        # Or what is claimed wouldn't be known, and so not be given back.
        with anyio.CancelScope(shield=True):
            stored = await self._group_commit.perform(
                lambda writer: writer.claim(keys, claim, due, until)
            )
        # Rises slowly, so that one claim that had to wait doesn't count for much.
        took = round((self._loop.now() - began) * 1e6)
        self.lead = min((3 * self.lead + took) // 4, MAX_LEAD_MICROSECONDS)
        return {alarm.key: alarm for alarm in stored}

    async def _deliver(self, flight: InFlight, stored: StoredAlarm) -> None:
        # One that has failed has a time of its own, which may be before the one it was set for.
        is_time = stored.failures > 0 or await self._is_time(stored.due_at)
        if not is_time or self._is_stopped:
            self._postpone(flight, _as_it_was(flight, stored))
        else:
            self._hand_over(flight, stored)

    def _hand_over(self, flight: InFlight, stored: StoredAlarm) -> None:
        try:
            flight.delivery.alarm = alarm_of(stored, stored.failures + 1)
            flight.retry = self._destination.retry_of(flight.key)
            self._destination.deliver(flight.delivery, flight)
        except Exception as error:
            flight.fail(error)

    async def _is_time(self, due_at: int) -> bool:
        """Wait for a time that is near. False if it is far, because the clock was set back."""
        while (ahead := due_at - self._clock.now()) > 0:
            if ahead > 2 * MAX_LEAD_MICROSECONDS:
                return False
            await anyio.sleep(ahead / 1e6)
        return True

    def stop(self) -> None:
        """Begin no more."""
        self._is_stopped = True

    # --- one out of its time ---------------------------------------------------------------------

    async def fire(self, key: AlarmKey) -> bool:
        """Have an alarm delivered now, whatever its time, and return when that is settled.

        If it is under way already, that counts; but not under way in another runtime, from which
        the claim is taken. Bounds on what is under way don't hold for it.

        Returns:
            Whether there was such an alarm.

        Raises:
            Exception: What its handler raised, or why it could not be handled or acknowledged. It
                is tried again as any other, and that is written down.
            StorageFault: It could not be claimed, as far as can be known.
        """
        while (flight := self.in_flight.find(key)) is not None:
            # What has failed already, or was set anew since, doesn't count.
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
        """Claim an alarm before its time and let it be handled; None if there is none."""
        flight = self._begin_flight(key, _new_claim())
        try:
            claimed = await self._claim([key], flight.delivery.claim, _END_OF_TIME)
        except StorageFault:
            self._settle(flight)
            if not flight.delivery.superseded and key not in self._upcoming:
                self._upcoming.put_back([key])  # it may have been taken, and dropped for this one
            raise
        stored = flight.stored = claimed.get(key)
        if stored is None:
            self._settle(flight)
            return None
        # From here to its delivery there is no checkpoint, or a cancelled caller would lose it.
        if not flight.delivery.superseded:
            self._upcoming.disarm(key)  # what it knows is its old time
        if self._is_stopped:
            self._postpone(flight, _as_it_was(flight, stored))
        else:
            self._hand_over(flight, stored)
        return flight

    async def _settlement(self, flight: InFlight) -> None:
        waiter = self._loop.waiter()
        if flight.watchers is None:
            waiter.settle()
        else:
            flight.watchers.append(waiter)
        await waiter.wait()

    # --- what becomes of it ----------------------------------------------------------------------

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Take note that alarms under way may not be any more what they were when claimed."""
        for flight in self.in_flight.of_object(key.owner):
            delivery = flight.delivery
            name = delivery.key.name
            if changes.acknowledged.get(name) == delivery.claim:
                delivery.acknowledged = True
            elif changes.touches(name):
                delivery.superseded = True

    def dropped(self, tenant: str) -> None:
        """Take note that alarms under way have gone with their tenant."""
        for flight in self.in_flight:
            if flight.key.tenant == tenant:
                flight.delivery.superseded = True

    def _ended(self, flight: InFlight) -> None:
        # Where this is called from, in the middle of a commit's settling, nothing may be raised.
        delivery, error, stored = flight.delivery, flight.error, flight.stored
        self.in_flight.landed(flight)
        if error is None:
            self.delivered += 1
        if error is None or stored is None or delivery.acknowledged:
            self._settle(flight)
        elif isinstance(error, AlarmSuperseded) or delivery.superseded:
            # The change may have come before the claim, which then is of the alarm as it is now;
            # or it may have failed.
            self._postpone(flight, _as_it_was(flight, stored))
        else:
            self._postpone(flight, self._postponement(flight, stored, error))

    def _settle(self, flight: InFlight) -> None:
        self.in_flight.remove(flight)
        self._upcoming.unpark(flight.key.owner)
        self._room_made.set()
        watchers, flight.watchers = flight.watchers, None
        for watcher in watchers or ():
            watcher.settle()

    def _postpone(self, flight: InFlight, postponement: Postponement) -> None:
        self._postponed.append((flight, postponement))
        self._to_mend.set()

    def _postponement(
        self, flight: InFlight, stored: StoredAlarm, error: BaseException
    ) -> Postponement:
        key, claim, failures = flight.key, flight.delivery.claim, stored.failures
        if isinstance(error, RuntimeClosed) and self._is_stopped:
            return _as_it_was(flight, stored)
        self.failed += 1
        last_error = stored.last_error
        # For what its own commit met the handler can do nothing, nor for being of an older release,
        # nor for its tenant.
        if not (isinstance(error, PersistenceError) and error.key == key.object_key):
            failures += not isinstance(error, (StateTooNew, TenantDropped))
            last_error = _described(error)
        elif not failures and stored.due_at > self._clock.now():
            return _as_it_was(flight, stored)  # it was fired before its time
        if failures > stored.failures and flight.retry.is_exhausted(failures):
            logger.error(
                "alarm %s failed in attempt %d, the last; it is kept as a dead letter",
                *(key, failures),
                exc_info=error,
            )
            return Postponement(key, claim, None, failures, last_error)
        delay = flight.retry.delay(failures or 1)
        logger.error(
            "alarm %s failed in attempt %d; it is tried again in %.3g s",
            *(key, stored.failures + 1, delay),
            exc_info=error,
        )
        again_at = min(self._clock.now() + round(min(delay, 1e12) * 1e6), LATEST)
        return Postponement(key, claim, again_at, failures, last_error)

    # --- in the background -----------------------------------------------------------------------

    async def mend(self) -> None:
        """Write down what failed, and renew the claims of what takes long; for ever."""
        while True:
            await self._to_mend.wait(max(0.0, self._renew_at - self._loop.now()))
            if not await self._write_postponed():
                await anyio.sleep(RETRY_SECONDS)
            if self._loop.now() >= self._renew_at:
                await self._renew()
                self._renew_at = _NEVER
            if self.in_flight and self._renew_at == _NEVER:
                self._renew_at = self._loop.now() + self._claim_ttl / 3e6

    async def _write_postponed(self) -> bool:
        """Write down what is to be; whether that was possible."""
        postponed, self._postponed = self._postponed, []
        if not postponed:
            return True
        records = [record for _, record in postponed]
        try:
            await self._group_commit.perform(lambda writer: writer.postpone(records))
        except StorageFault as fault:
            logger.warning("could not postpone %d alarms: %s", len(records), fault)
            self._postponed = postponed + self._postponed
            self._to_mend.set()
            return False
        for flight, record in postponed:
            self._settle(flight)
            # If it was superseded, what it was set to since is known. But if that came before the
            # claim, it may have become ready and been taken for somebody else's meanwhile.
            if record.available_at is not None and flight.key not in self._upcoming:
                self._upcoming.arm(flight.key, record.available_at)
        return True

    async def _renew(self) -> None:
        claims = [(flight.key, flight.delivery.claim) for flight in self.in_flight]
        if not claims:
            return
        until = self._clock.now() + self._claim_ttl
        try:
            await self._group_commit.perform(lambda writer: writer.renew(claims, until))
        except StorageFault as fault:
            logger.warning("could not renew the claims of %d alarms: %s", len(claims), fault)

    async def give_back(self) -> None:
        """Let others have what will not be handled any more, as far as the storage takes it."""
        written = {id(flight) for flight, _ in self._postponed}
        for flight in list(self.in_flight):
            if flight.stored is not None and id(flight) not in written:
                self._postponed.append((flight, _as_it_was(flight, flight.stored)))
        await self._write_postponed()
        for flight in list(self.in_flight):  # whoever waits for one waits for nothing
            self._settle(flight)


MakeDeliverer = Callable[
    [Loop, Clock, GroupCommit, UpcomingAlarms, Destination, int, AutoResetEvent], Deliverer
]
"""Makes `Deliverer`, or what tells of them as well."""


def _new_claim() -> int:
    return secrets.randbits(62) + 1


def _outcome(flight: InFlight) -> bool:
    """True; or raises what became of it instead."""
    if flight.error is not None:
        raise flight.error
    if not flight.ended:
        raise RuntimeClosed("the runtime closed before the alarm was handled")
    return True


def _as_it_was(flight: InFlight, stored: StoredAlarm) -> Postponement:
    claim = flight.delivery.claim
    return Postponement(stored.key, claim, stored.due_at, stored.failures, stored.last_error)


def _described(error: BaseException) -> str:
    return (
        error_summary(error)[:MAX_ERROR_CHARS].replace("\0", "").encode(errors="replace").decode()
    )
