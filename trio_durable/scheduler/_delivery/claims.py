"""Claims: exclusive rights to deliver alarms, each for a limited time.

An alarm is claimed before it is delivered, so that of several runtimes that find it due only one
delivers it. The claim is part of the alarm's row. The commit that acknowledges the alarm requires
it, and ends it. A claim also ends when it is postponed: after a failure until the next attempt, or
as a dead letter; and without one if the alarm is given back, which makes it available again from
its ``due_at``. A claim runs out ``claim_ttl`` after its runtime died. A running delivery has its
claim renewed three times in that time.

A claim is one transaction and takes about as long as an fsync, so alarms are claimed that much
ahead of their time: the lead.

A tenant or an alarm that the storage can't write keeps no others waiting: the batches of claims,
renewals and postponements are divided. The part that was refused is tried again.

An effect on state happens once whatever happens here, because every acknowledging commit checks
the claim. Faults in this module make alarms late.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey
from ..._persistence.division import in_parts
from ..._persistence.group_commit import GroupCommit
from ..._random_bits import random_bits
from ...storage import PartialFault, Postponement, StorageFault, StoredAlarm, Writer
from .in_flight import InFlight, InFlightDeliveries

logger = logging.getLogger("trio_durable.alarms")

MAX_LEAD_MICROSECONDS = 20_000
RETRY_SECONDS = 1.0
"""The pause after a write that the storage refused."""
_NEVER = float("inf")

T = TypeVar("T")
R = TypeVar("R")


class Claims:
    """The claims of one scheduler.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage.
        in_flight: The deliveries that have claims.
        claim_ttl: How long a claim holds unless it is renewed, in microseconds.
        settled: Called with each delivery that is settled, so that another one may begin.
        written: Called with each postponement that is durable, and with its delivery.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        in_flight: InFlightDeliveries,
        claim_ttl: int,
        settled: Callable[[InFlight], object],
        written: Callable[[InFlight, Postponement], object],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._in_flight = in_flight
        self._claim_ttl = claim_ttl
        self._settled = settled
        self._written = written
        self._postponed: list[tuple[InFlight, Postponement]] = []
        self._has_work = AutoResetEvent(loop)
        self._renew_at = _NEVER
        """When claims are renewed, by the loop's clock; never if there were none."""
        self._last_warning = ("", "")
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

    async def claim(
        self, flights: Sequence[InFlight], available_at: int
    ) -> dict[AlarmKey, PartialFault]:
        """Claim the alarms that are available at a time, and set ``stored`` of their deliveries.

        Deliveries that get no claim are settled: the alarm was cancelled, has another time, is
        claimed by another runtime, or can't be claimed.

        Args:
            flights: Deliveries that have begun, all with the same claim.
            available_at: The time, in microseconds since 1970 UTC.

        Returns:
            The alarms that the storage can't write, each with the reason.

        Raises:
            StorageFault: The claim failed, though it may have been made all the same. All of
                ``flights`` are settled.
        """
        claimed: dict[AlarmKey, StoredAlarm] = {}
        refused: dict[AlarmKey, PartialFault] = {}
        fault: StorageFault | None = None
        for keys, outcome in await self._write_claim(flights, available_at):
            if not isinstance(outcome, StorageFault):
                claimed |= {alarm.key: alarm for alarm in outcome}
            elif isinstance(outcome, PartialFault):
                refused |= dict.fromkeys(keys, outcome)
            else:
                fault = outcome
        for flight in flights:
            if fault is None:
                flight.stored = claimed.get(flight.key)
            if flight.stored is None:
                self.settle(flight)
        if fault is not None:
            raise fault
        return refused

    async def _write_claim(
        self, flights: Sequence[InFlight], available_at: int
    ) -> list[tuple[list[AlarmKey], list[StoredAlarm] | StorageFault]]:
        claim = flights[0].delivery.claim
        until = self._clock.now() + self._claim_ttl
        began = self._loop.now()
        parts: list[tuple[list[AlarmKey], list[StoredAlarm] | StorageFault]] = []
        # Shielded, because a claim that was made but isn't known here would not be given back.
        with anyio.CancelScope(shield=True):
            parts = await self._in_parts(
                [flight.key for flight in flights],
                lambda key: key.tenant,
                lambda writer, keys: writer.claim(keys, claim, available_at, until),
            )
        # A moving average, so that one claim that had to wait for the writer counts for little.
        took = round((self._loop.now() - began) * 1e6)
        self.lead = min((3 * self.lead + took) // 4, MAX_LEAD_MICROSECONDS)
        return parts

    async def mark(self, flight: InFlight) -> bool:
        """Note durably that the delivery of a suspect begins. False if its claim is lost.

        Raises:
            StorageFault: It could not be noted, as far as is known.
        """
        key, claim = flight.key, flight.delivery.claim
        return await self._group_commit.perform(lambda writer: writer.mark(key, claim))

    async def acquit(self, flight: InFlight) -> None:
        """End the suspicion of an alarm whose delivery has let its process live.

        Raises:
            StorageFault: It could not be made durable, as far as is known.
        """
        key, claim = flight.key, flight.delivery.claim
        await self._group_commit.perform(lambda writer: writer.acquit(key, claim))

    async def _in_parts(
        self,
        items: list[T],
        tenant_of: Callable[[T], str],
        write: Callable[[Writer, list[T]], R],
    ) -> list[tuple[list[T], R | StorageFault]]:
        """Write items in one transaction, or in several if the storage refuses a part of them.

        Returns:
            The parts, each with what ``write`` returned or raised for it.
        """

        def job(writer: Writer) -> list[tuple[list[T], R | StorageFault]]:
            def attempt(part: list[T]) -> R | StorageFault:
                try:
                    return write(writer, part)
                except Exception as error:  # noqa: BLE001  # storages may raise anything
                    return error if isinstance(error, StorageFault) else StorageFault.of(error)

            return list(in_parts(items, tenant_of, attempt))

        return await self._group_commit.perform(job)

    def warn(self, message: str, count: int, fault: StorageFault) -> None:
        """Log a fault, unless it is the same as the last one."""
        if self._last_warning != (message, str(fault)):
            self._last_warning = (message, str(fault))
            logger.warning(message, count, fault)

    def postpone(self, flight: InFlight, postponement: Postponement) -> None:
        """Write a delivery's failure, or give its alarm back; in the background. Then settle it."""
        self._postponed.append((flight, postponement))
        self._has_work.set()

    def settle(self, flight: InFlight) -> None:
        """End a delivery whose outcome is durable, or that got no claim."""
        self._in_flight.remove(flight)
        self._settled(flight)
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
        """Write the postponements so far; False if the storage refused any."""
        postponed = list(self._postponed)
        if not postponed:
            return True
        refused: list[tuple[InFlight, Postponement]] = []
        for part, outcome in await self._in_parts(
            postponed,
            lambda each: each[1].key.tenant,
            lambda writer, part: writer.postpone([record for _, record in part]),
        ):
            if isinstance(outcome, StorageFault):
                self.warn("could not postpone %d alarms: %s", len(part), outcome)
                refused += part
                continue
            for flight, record in part:
                self.settle(flight)
                self._written(flight, record)
        if refused:
            self._has_work.set()
        self._postponed[: len(postponed)] = refused  # last: all of that can be repeated
        return not refused

    async def _renew(self) -> None:
        claims = [(flight.key, flight.delivery.claim) for flight in self._in_flight]
        if not claims:
            return
        until = self._clock.now() + self._claim_ttl
        for part, outcome in await self._in_parts(
            claims,
            lambda claim: claim[0].tenant,
            lambda writer, part: writer.renew(part, until),
        ):
            if isinstance(outcome, StorageFault):
                self.warn("could not renew the claims of %d alarms: %s", len(part), outcome)

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
    return random_bits() + 1


def unchanged(flight: InFlight, stored: StoredAlarm) -> Postponement:
    """A postponement that gives the alarm back as it was, available again from ``due_at``."""
    return postponed(flight, stored, stored.due_at)


def postponed(flight: InFlight, stored: StoredAlarm, available_at: int | None) -> Postponement:
    """A postponement that changes nothing of the alarm but its time."""
    return Postponement(
        stored.key,
        flight.delivery.claim,
        available_at,
        stored.failures,
        stored.last_error,
        stored.crashes,
    )
