"""Horizon feed: reads the alarms that are due before the horizon from the table of alarms.

A tenant whose alarms can't be read keeps no others waiting. It is read again after a pause that
doubles, up to the polling interval. Its alarms are late, and the cache lacks them.
"""

from __future__ import annotations

import logging
from functools import partial

import attrs

from ..._clock import Clock
from ..._eventloop.runner import Runner
from ..._eventloop.wakeup import AutoResetEvent
from ...storage import DueAlarm, PartialFault, Reader
from .._contract import Destination
from .._delivery.in_flight import InFlightDeliveries
from .._delivery.start_check import ALARMS_PER_PAGE, TENANTS_PER_READ
from .upcoming import READ_AHEAD_MICROSECONDS, UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

MIN_PAUSE_MICROSECONDS = 1_000_000
"""The first pause before a tenant is read again."""


@attrs.define
class _Failure:
    """A tenant whose alarms can't be read."""

    pause: int
    """In microseconds."""
    retry_at: int


class Feed:
    """Fills the cache of upcoming alarms.

    Args:
        clock: The time.
        runner: The reader's.
        reader: The side of the storage that reads alarms.
        upcoming: The cache to fill.
        in_flight: The deliveries in flight, whose alarms are left out.
        destination: Knows which types are served.
        reach: How far away the horizon is, in microseconds.
        arrived: Set when alarms were found.
    """

    def __init__(
        self,
        clock: Clock,
        runner: Runner,
        reader: Reader,
        upcoming: UpcomingAlarms,
        in_flight: InFlightDeliveries,
        destination: Destination,
        reach: int,
        arrived: AutoResetEvent,
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._reader = reader
        self._upcoming = upcoming
        self._in_flight = in_flight
        self._destination = destination
        self._reach = reach
        self._arrived = arrived
        self._unknown: set[str] = set()
        self._warned: set[str] = set()
        self._failing: dict[str, _Failure] = {}

    async def read(self) -> None:
        """Read all alarms that are available before the horizon, or as many as there is room for.

        Each read starts at the beginning of time, so it also finds alarms that other runtimes have
        set, and alarms whose claims have run out.

        Raises:
            StorageFault: The table could not be read.
        """
        self._unknown = {name for name in self._unknown if self._is_unknown(name)}
        upcoming = self._upcoming
        upcoming.begin_fill(self._clock.now() + self._reach)
        failing, self._failing = self._failing, {}
        try:
            tenants = [""]
            while tenants:
                ready = [tenant for tenant in tenants if not self._must_wait(tenant, failing)]
                for tenant, page in zip(ready, await self._first_pages(ready), strict=True):
                    fault = await self._fill(tenant, page)
                    if fault is not None:
                        self._note(tenant, fault, failing.get(tenant))
                tenants = await self._tenants_after(tenants[-1])
        except BaseException:
            self._failing = failing | self._failing
            upcoming.horizon = min(upcoming.horizon, self._clock.now())
            raise
        finally:
            upcoming.end_fill()
        for failure in self._failing.values():
            upcoming.hint(failure.retry_at + READ_AHEAD_MICROSECONDS)
            self._arrived.set()  # which looks for the time of the next read

    def _must_wait(self, tenant: str, failing: dict[str, _Failure]) -> bool:
        """True if a tenant that couldn't be read is to be read later."""
        failure = failing.get(tenant)
        if failure is None or failure.retry_at <= self._clock.now():
            return False
        self._failing[tenant] = failure
        return True

    def _note(self, tenant: str, fault: PartialFault, earlier: _Failure | None) -> None:
        """A tenant's alarms can't be read. Only the first failure is logged."""
        pause = MIN_PAUSE_MICROSECONDS
        if earlier is None:
            whose = f" of tenant {tenant!r}" if tenant else ""
            logger.warning(
                "could not read alarms%s that are due, and tries again: %s", whose, fault
            )
        else:
            pause = max(pause, min(2 * earlier.pause, self._reach // 2))
        self._failing[tenant] = _Failure(pause, self._clock.now() + pause)

    async def _fill(self, tenant: str, page: list[DueAlarm] | PartialFault) -> PartialFault | None:
        """Add the alarms of a tenant, from the first page on. Returns the fault that ended it."""
        while not isinstance(page, PartialFault):
            due = [alarm for alarm in page if not self._is_of_unknown_type(alarm)]
            has_room = self._upcoming.fill(due, self._in_flight)
            if due:
                self._arrived.set()
            if not has_room or len(page) < ALARMS_PER_PAGE:
                return None
            last = page[-1]
            # The horizon is nearer now, if there was no room for all alarms so far.
            horizon, unknown = self._upcoming.horizon, sorted(self._unknown)
            page = await self._runner.run(partial(self._page, horizon, last, unknown, tenant))
        return page

    async def _first_pages(self, tenants: list[str]) -> list[list[DueAlarm] | PartialFault]:
        horizon, unknown = self._upcoming.horizon, sorted(self._unknown)
        return await self._runner.run(
            lambda: [self._page(horizon, None, unknown, tenant) for tenant in tenants]
        )

    def _page(
        self, horizon: int, last: DueAlarm | None, unknown: list[str], tenant: str
    ) -> list[DueAlarm] | PartialFault:
        """Read one page, in the reader's thread."""
        try:
            return self._reader.due_alarms(horizon, last, ALARMS_PER_PAGE, unknown, tenant)
        except PartialFault as fault:
            return fault

    async def _tenants_after(self, last: str) -> list[str]:
        return await self._runner.run(lambda: self._reader.list_tenants(last, TENANTS_PER_READ))

    def _is_of_unknown_type(self, alarm: DueAlarm) -> bool:
        name = alarm.key.type_name
        if name not in self._unknown and not self._is_unknown(name):
            return False
        self._unknown.add(name)
        return True

    def _is_unknown(self, name: str) -> bool:
        obstacle = self._destination.obstacle(name)
        if obstacle is None:
            self._warned.discard(name)
            return False
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("alarms of type %r are kept, but not delivered: %s", name, obstacle)
        return True
