"""Horizon feed: reads the alarms that are due before the horizon from the table of alarms."""

from __future__ import annotations

import logging

from ..._clock import Clock
from ..._eventloop.runner import Runner
from ..._eventloop.wakeup import AutoResetEvent
from ...storage import DueAlarm, Reader
from .._contract import Destination
from .in_flight import InFlightDeliveries
from .upcoming import UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

ALARMS_PER_PAGE = 128
TENANTS_PER_READ = 64
"""How many tenants are read in one job of the reader, which keeps other reads waiting."""


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
        try:
            tenants = [""]
            while tenants:
                for tenant, page in zip(tenants, await self._first_pages(tenants), strict=True):
                    await self._fill(tenant, page)
                tenants = await self._tenants_after(tenants[-1])
        except BaseException:
            upcoming.horizon = min(upcoming.horizon, self._clock.now())
            raise
        finally:
            upcoming.end_fill()

    async def _fill(self, tenant: str, page: list[DueAlarm]) -> None:
        """Add the alarms of a tenant, from the first page on."""
        while True:
            due = [alarm for alarm in page if not self._is_of_unknown_type(alarm)]
            has_room = self._upcoming.fill(due, self._in_flight)
            if due:
                self._arrived.set()
            if not has_room or len(page) < ALARMS_PER_PAGE:
                return
            page = await self._page(tenant, page[-1])

    async def _first_pages(self, tenants: list[str]) -> list[list[DueAlarm]]:
        horizon, unknown = self._upcoming.horizon, sorted(self._unknown)
        return await self._runner.run(
            lambda: [
                self._reader.due_alarms(horizon, None, ALARMS_PER_PAGE, unknown, tenant)
                for tenant in tenants
            ]
        )

    async def _page(self, tenant: str, last: DueAlarm) -> list[DueAlarm]:
        # The horizon is nearer now, if there was no room for all alarms so far.
        horizon, unknown = self._upcoming.horizon, sorted(self._unknown)
        return await self._runner.run(
            lambda: self._reader.due_alarms(horizon, last, ALARMS_PER_PAGE, unknown, tenant)
        )

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
