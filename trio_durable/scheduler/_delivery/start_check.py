"""Check of recurring alarms when a scheduler begins: none waits beyond its next time.

A clock that was set ahead, and back, has left alarms that are due in a far future. Each object's
are corrected when it is loaded, but nothing need load it until then.

A member of a cluster begins without objects, and has more of them from time to time. Each time they
are checked, since their former owner may have had such a clock.
"""

from __future__ import annotations

import logging
from functools import partial

import anyio

from ..._alarms.recurrence import Recurrence
from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.runner import Runner
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey
from ...storage import AlarmChanges, AlarmRow, Reader
from .._contract import Destination

logger = logging.getLogger("trio_durable.alarms")

ALARMS_PER_PAGE = 128
TENANTS_PER_READ = 64
"""How many tenants are read in one job of the reader, which keeps other reads waiting."""


class StartCheck:
    """Pulls in the recurring alarms that are due too late.

    Args:
        loop: The event loop.
        clock: The time.
        runner: The reader's.
        reader: The side of the storage that reads alarms.
        destination: Knows the schedules, and changes alarms.
        pause: Seconds until it is repeated after a fault.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        runner: Runner,
        reader: Reader,
        destination: Destination,
        pause: float,
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._reader = reader
        self._destination = destination
        self._pause = pause
        self._to_check = AutoResetEvent(loop)

    def request(self) -> None:
        """Check all of them once more."""
        self._to_check.set()

    async def run(self) -> None:
        """Check all of them, and again at each request, until cancelled."""
        while True:
            await self._check_all()
            await self._to_check.wait()

    async def _check_all(self) -> None:
        for type_name, name, recurrence in self._destination.recurrences():
            while True:
                try:
                    await self._check(type_name, name, recurrence)
                    break
                except Exception as error:  # noqa: BLE001  # logged, and retried
                    logger.warning(
                        "could not check the times of recurring alarms %r of type %r: %s",
                        *(name, type_name, error),
                    )
                    await anyio.sleep(self._pause)

    async def _check(self, type_name: str, name: str, recurrence: Recurrence) -> None:
        tenants = [""]
        while tenants:
            for tenant in tenants:
                await self._check_tenant(type_name, name, recurrence, tenant)
            tenants = await self._runner.run(
                partial(self._reader.list_tenants, tenants[-1], TENANTS_PER_READ)
            )

    async def _check_tenant(
        self, type_name: str, name: str, recurrence: Recurrence, tenant: str
    ) -> None:
        last: AlarmKey | None = None
        while True:
            latest = recurrence.latest(self._clock.now())
            read = partial(
                self._reader.recurring_alarms,
                *(type_name, name, latest, last, ALARMS_PER_PAGE, tenant),
            )
            page = await self._runner.run(read)
            for alarm in page:
                if not self._destination.is_here(alarm.key):
                    continue
                row = AlarmRow(alarm, alarm.due_at, "pending")
                new = recurrence.corrected(row, self._clock.now())
                if new is not None:
                    changes = AlarmChanges(changed={name: new})
                    await self._destination.change_alarms(alarm.key.object_key, changes)
            if len(page) < ALARMS_PER_PAGE:
                return
            last = page[-1].key
