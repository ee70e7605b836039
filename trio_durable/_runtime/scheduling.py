"""Scheduler of a runtime: the timing wheel, or a queue of Oban."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .._clock import Clock
from .._errors import StorageUnavailable
from .._eventloop.loop import Loop
from .._persistence.group_commit import GroupCommit
from .._telemetry.notifier import Notifier
from ..scheduler import Destination, Scheduler, WheelScheduler
from ..storage import StoredAlarm
from .settings import Settings
from .sides import Sides

if TYPE_CHECKING:
    from ..scheduler._oban.scheduler import JobScheduler


class Scheduling:
    """The scheduler of one runtime, and its needs before and after the storage opens.

    Args:
        settings: The runtime's arguments.
        loop: The event loop.
        destination: Where alarms are delivered.
    """

    def __init__(self, settings: Settings, loop: Loop, destination: Destination) -> None:
        self._settings = settings
        self._loop = loop
        self._destination = destination
        self._of_jobs: JobScheduler | None = None

    def prepare(self) -> None:
        """Check the process, and prepare the storage, before that opens.

        Raises:
            WrongEventLoop: The scheduler needs another event loop.
            StorageUnavailable: The scheduler can't run in this process.
        """
        oban = self._settings.oban
        if oban is not None:
            from ..scheduler._oban.making import prepare_storage  # here, since psycopg is an extra

            prepare_storage(oban.settings, oban.storage, self._loop, self._destination)

    def make(
        self,
        node: str,
        sides: Sides,
        clock: Clock,
        group_commit: GroupCommit,
        notifier: Notifier | None,
    ) -> Scheduler:
        """Make the scheduler, when the storage is open.

        Raises:
            StorageUnavailable: The storage has its alarms for another scheduler.
        """
        settings = self._settings
        parts = (
            self._loop,
            clock,
            group_commit,
            sides.reading.runner,
            sides.reader,
            self._destination,
        )
        if settings.oban is not None:
            from ..scheduler._oban.making import make_scheduler

            self._of_jobs = make_scheduler(
                settings.oban.settings,
                settings.oban.storage,
                f"trio_durable-{node}",
                *parts,
                polling_interval=settings.polling_interval,
                claim_ttl=settings.claim_ttl,
                notifier=notifier,
            )
            return self._of_jobs
        if (place := settings.storage.foreign_alarms) is not None:
            raise StorageUnavailable(
                settings.storage.location,
                f"its alarms are {place}, where the timing wheel doesn't find them; pass "
                "scheduler=ObanScheduler(…), or move them with `trio-durable alarms move --to "
                "wheel`",
            )
        return WheelScheduler(
            *parts,
            polling_interval=settings.polling_interval,
            claim_ttl=settings.claim_ttl,
            notifier=notifier,
        )

    async def deliver(self, stored: StoredAlarm, claim: int) -> None:
        """Deliver an alarm that another process of the cluster has claimed.

        Raises:
            StorageUnavailable: Alarms aren't jobs of Oban here.
            Exception: What its handler raised. The retry, or the end, is stored.
        """
        if self._of_jobs is None:
            raise StorageUnavailable(
                self._settings.storage.location,
                "its alarms are jobs of Oban for another process of the cluster; pass the same "
                "scheduler to all of them",
            )
        await self._of_jobs.deliver(stored, claim)

    def deliver_elsewhere(self, deliver: Callable[[StoredAlarm, int], Awaitable[None]]) -> None:
        """Let claimed alarms of objects in other processes be delivered there."""
        if self._of_jobs is not None:
            self._of_jobs.deliver_elsewhere(deliver)

    async def open(self) -> None:
        """Start what the scheduler needs, before it runs.

        Raises:
            StorageUnavailable: It can't be used.
        """
        if self._of_jobs is not None:
            await self._of_jobs.open()

    async def close(self) -> None:
        """End it, if the scheduler hasn't."""
        if self._of_jobs is not None:
            await self._of_jobs.close()
