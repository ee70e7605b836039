"""Claims what is due, has it delivered, and follows it until it is acknowledged or postponed.

A claim says who handles an alarm, so that of several who see it due only one does. It takes about
as long as a sync of the disk, so alarms are claimed that much ahead of their time. It is given
back by the commit that acknowledges the alarm, or when the handler has failed; it runs out if its
owner died, and is renewed while a handler takes its time.

How many deliveries are under way together is bounded, the more so while there are calls, and they
begin a few at a time, with the event loop's other tasks in between: a backlog of alarms must not
keep calls waiting. Those that
have been under way for a while wait for something else than the processor, and no longer count:
slow handlers must not keep other alarms waiting.

Nothing here is needed for an effect on state to happen once: the commit that acknowledges requires
the claim, whoever believes to have it. What goes wrong here makes alarms late.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from typing import Protocol

import anyio

from .._alarm import Delivery, alarm_of
from .._clock import Clock
from .._errors import (
    AlarmSuperseded,
    DurableError,
    PersistenceError,
    RuntimeClosed,
)
from .._keys import AlarmKey, ObjectKey
from .._rendezvous import Loop, Told, Waiter
from .._retry import DEFAULT_RETRY, Retry
from ..storage import AlarmChanges, Postponement, StorageFault, StoredAlarm
from ..storage.group_commit import GroupCommit
from .agenda import Agenda
from .bell import Bell

logger = logging.getLogger("trio_durable.alarms")

MAX_RECENT = 256
"""How many deliveries that began just now may be under way."""
MAX_RECENT_BESIDE_CALLS = 32
"""The same while objects are called and changed as well."""
_CALLS_COUNT_FOR = 0.1
"""Seconds after a change by a call in which more are expected."""
SLOW = 0.25
"""Seconds after which one began a while ago."""
MAX_IN_FLIGHT = 16_384
"""How many may be under way in all."""
_SLICE = 8
"""How many deliveries begin without a break."""
_MAX_LEAD = 20_000
_MAX_ERROR = 1000


class Destination(Protocol):
    """Where alarms go: the objects of a runtime."""

    def obstacle(self, type_name: str) -> str | None:
        """Why no alarm of this type can be delivered, if none can."""
        ...

    def retry_of(self, key: AlarmKey) -> Retry:
        """When an alarm whose handler failed is tried again."""
        ...

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """Let an alarm be handled in a turn of its object; ``waiter`` learns of the outcome.

        Raises:
            DurableError: There is no way to.
        """
        ...

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Change an object's alarms from outside of its turns; return when that is durable."""
        ...


class _Flight(Told):
    """A delivery under way."""

    __slots__ = ("began", "delivery", "is_recent", "retry", "stored")

    began: float
    is_recent: bool
    delivery: Delivery
    stored: StoredAlarm
    retry: Retry


class Deliveries:
    """What was claimed and isn't settled.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage.
        agenda: Where what is due comes from, and goes to when it is to be tried again.
        destination: Where it goes.
        claim_ttl: How long a claim holds, in microseconds.
        room_made: Rung when one has ended.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        agenda: Agenda,
        destination: Destination,
        claim_ttl: int,
        room_made: Bell,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._agenda = agenda
        self._destination = destination
        self._claim_ttl = claim_ttl
        self._room_made = room_made
        self._in_flight: dict[AlarmKey, _Flight] = {}
        self._recent: deque[_Flight] = deque()
        self._recent_count = 0
        self._other_commits = 0
        self._calls_until = 0.0
        self._postponed: list[Postponement] = []
        self._to_mend = Bell(loop)
        self._is_stopped = False
        self.lead = 0
        """How long a claim takes, and so how much ahead of time to make it. In microseconds."""
        self.delivered = 0
        """Alarms that were handled and acknowledged."""
        self.failed = 0
        """Attempts that failed."""

    def __contains__(self, key: object) -> bool:
        flight = self._in_flight.get(key)  # type: ignore[call-overload]  # a Container takes any
        return flight is not None and not flight.delivery.superseded

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def room(self) -> int:
        """How many more may begin."""
        recent = self._recent
        now = self._loop.now()
        while recent and (recent[0].ended or recent[0].began <= now - SLOW):
            self._not_recent(recent.popleft())
        most = MAX_RECENT_BESIDE_CALLS if self._are_calls(now) else MAX_RECENT
        return max(0, min(most - self._recent_count, MAX_IN_FLIGHT - len(self._in_flight)))

    def _are_calls(self, now: float) -> bool:
        """Whether calls have changed anything of late."""
        others = self._group_commit.rows - self.delivered
        if others > self._other_commits:
            self._calls_until = now + _CALLS_COUNT_FOR
        self._other_commits = others
        return now < self._calls_until

    def _not_recent(self, flight: _Flight) -> None:
        if flight.is_recent:
            flight.is_recent = False
            self._recent_count -= 1

    # --- beginning -------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Claim and deliver some of what is ready.

        Raises:
            StorageFault: It could not be claimed, as far as can be known.
        """
        keys = [key for key in self._agenda.take(self.room) if key not in self]
        if not keys:
            return
        claim = secrets.randbits(62) + 1
        now = self._clock.now()
        due, until = max(now, self._agenda.reached), now + self._claim_ttl
        began = self._loop.now()
        try:
            stored = await self._group_commit.perform(
                lambda writer: writer.claim(keys, claim, due, until)
            )
        except StorageFault:
            self._agenda.put_back(keys)
            raise
        self._claim_took(self._loop.now() - began)
        claimed = {alarm.key: alarm for alarm in stored}
        # What could not be claimed was set anew or cancelled, or is somebody else's.
        for number, alarm in enumerate(claimed[key] for key in keys if key in claimed):
            if number and number % _SLICE == 0:
                await self._loop.checkpoint()
            if alarm.due_at > now and not await self._is_time(alarm.due_at):
                self._postpone(_as_it_was(alarm, claim))
                continue
            self._deliver(alarm, claim)

    def _claim_took(self, seconds: float) -> None:
        # Rises slowly, so that one claim that had to wait doesn't count for much.
        self.lead = min((3 * self.lead + round(seconds * 1e6)) // 4, _MAX_LEAD)

    async def _is_time(self, due_at: int) -> bool:
        """Wait for a time that is near. False if it is far, because the clock was set back."""
        while (ahead := due_at - self._clock.now()) > 0:
            if ahead > 2 * _MAX_LEAD:
                return False
            await anyio.sleep(ahead / 1e6)
        return True

    def _deliver(self, stored: StoredAlarm, claim: int) -> None:
        key = stored.key
        before = self._in_flight.get(key)
        if before is not None:
            before.delivery.superseded = True
        flight = self._in_flight[key] = _Flight(self._ended)
        flight.began = self._loop.now()
        flight.is_recent = True
        self._recent.append(flight)
        self._recent_count += 1
        flight.stored = stored
        flight.retry = DEFAULT_RETRY
        try:
            flight.delivery = Delivery(key, claim, alarm_of(stored, stored.failures + 1))
        except ValueError as error:  # a row that somebody has spoilt
            flight.delivery = Delivery(key, claim, alarm_of(_without_payload(stored), 1))
            flight.fail(error)
            return
        if self._is_stopped:
            flight.fail(RuntimeClosed("the runtime is closing"))
            return
        try:
            flight.retry = self._destination.retry_of(key)
            self._destination.deliver(flight.delivery, flight)
        except DurableError as error:
            flight.fail(error)

    def stop(self) -> None:
        """Begin no more."""
        self._is_stopped = True

    # --- what becomes of it ----------------------------------------------------------------------

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Take note that alarms under way may not be any more what they were when claimed."""
        names = set(changes.changed)
        if changes.clear:
            names.update(other.name for other in self._in_flight if other.object_key == key)
        for name in names:
            flight = self._in_flight.get(AlarmKey(key.type_name, key.object_id, name))
            if flight and changes.acknowledged.get(name) != flight.delivery.claim:
                flight.delivery.superseded = True

    def _ended(self, flight: _Flight) -> None:
        delivery, error = flight.delivery, flight.error
        self._not_recent(flight)
        if self._in_flight.get(delivery.key) is flight:
            del self._in_flight[delivery.key]
        if error is None:
            self.delivered += 1
        elif not isinstance(error, AlarmSuperseded):
            postponement = self._postponement(flight, error)
            if not (delivery.superseded or delivery.acknowledged):
                self._postpone(postponement)
        self._room_made.ring()

    def _postpone(self, postponement: Postponement) -> None:
        self._postponed.append(postponement)
        self._to_mend.ring()

    def _postponement(self, flight: _Flight, error: BaseException) -> Postponement:
        stored, claim = flight.stored, flight.delivery.claim
        failures, last_error = stored.failures, stored.last_error
        if isinstance(error, RuntimeClosed):
            return _as_it_was(stored, claim)
        self.failed += 1
        if not isinstance(error, PersistenceError):  # for which the handler can do nothing
            failures += 1
            last_error = _described(error)
            if flight.retry.is_exhausted(failures):
                logger.error(
                    "alarm %s failed in attempt %d, the last; it is kept as a dead letter",
                    *(stored.key, failures),
                    exc_info=error,
                )
                return Postponement(stored.key, claim, None, failures, last_error)
        delay = flight.retry.delay(failures or 1)
        logger.error(
            "alarm %s failed in attempt %d; it is tried again in %.3g s",
            *(stored.key, stored.failures + 1, delay),
            exc_info=error,
        )
        again_at = self._clock.now() + round(delay * 1e6)
        return Postponement(stored.key, claim, again_at, failures, last_error)

    # --- in the background -----------------------------------------------------------------------

    async def mend(self) -> None:
        """Write down what failed, and renew the claims of what takes long; for ever."""
        renew_at = self._next_renewal()
        while True:
            await self._to_mend.wait(max(0.0, renew_at - self._loop.now()))
            await self._write_postponed()
            if self._loop.now() >= renew_at:
                await self._renew()
                renew_at = self._next_renewal()

    def _next_renewal(self) -> float:
        return self._loop.now() + self._claim_ttl / 3e6

    async def _write_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        if not postponed:
            return
        try:
            await self._group_commit.perform(lambda writer: writer.postpone(postponed))
        except StorageFault as fault:
            # Their claims run out, and then they are found in the table.
            logger.warning("could not postpone %d alarms that failed: %s", len(postponed), fault)
            return
        for each in postponed:
            # If it is known of, it was set anew meanwhile.
            if each.available_at is not None and each.key not in self._agenda:
                self._agenda.arm(each.key, each.available_at)
        self._room_made.ring()

    async def _renew(self) -> None:
        claims = [(key, flight.delivery.claim) for key, flight in self._in_flight.items()]
        if not claims:
            return
        until = self._clock.now() + self._claim_ttl
        try:
            await self._group_commit.perform(lambda writer: writer.renew(claims, until))
        except StorageFault as fault:
            logger.warning("could not renew the claims of %d alarms: %s", len(claims), fault)

    async def give_back(self) -> None:
        """Let others have what will not be handled any more, as far as the storage takes it."""
        closed = RuntimeClosed("the runtime is closed")
        left = [self._postponement(flight, closed) for flight in self._in_flight.values()]
        self._in_flight.clear()
        self._postponed += left
        await self._write_postponed()


def _as_it_was(stored: StoredAlarm, claim: int) -> Postponement:
    return Postponement(stored.key, claim, stored.due_at, stored.failures, stored.last_error)


def _without_payload(stored: StoredAlarm) -> StoredAlarm:
    return StoredAlarm(stored.key, stored.due_at, None, stored.failures, stored.last_error)


def _described(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"[:_MAX_ERROR]
    return text.replace("\0", "").encode(errors="replace").decode()
