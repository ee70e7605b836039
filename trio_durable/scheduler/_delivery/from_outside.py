"""Alarms from outside of turns: changes by way of the destination, and lists from the storage."""

from __future__ import annotations

from ..._eventloop.runner import Runner
from ..._keys import AlarmKey, ObjectKey
from ...storage import AlarmChanges, NewAlarm, Reader, StoredAlarm
from .._contract import Destination


class FromOutside:
    """A part of a `Scheduler`, which is the same for all of them.

    Args:
        runner: The reader's.
        reader: The side of the storage that reads alarms.
        destination: Changes alarms.
    """

    def __init__(self, runner: Runner, reader: Reader, destination: Destination) -> None:
        self._runner = runner
        self._reader = reader
        self._destination = destination

    async def schedule(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """See `Scheduler.schedule`."""
        await self._destination.change_alarms(key, AlarmChanges(changed={name: new}))

    async def cancel(self, key: ObjectKey, name: str) -> None:
        """See `Scheduler.cancel`."""
        await self._destination.change_alarms(key, AlarmChanges(changed={name: None}))

    async def cancel_all(self, key: ObjectKey) -> None:
        """See `Scheduler.cancel_all`."""
        await self._destination.change_alarms(key, AlarmChanges(clear=True))

    async def dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int, tenant: str
    ) -> list[StoredAlarm]:
        """See `Scheduler.dead_letters`."""
        return await self._runner.run(
            lambda: self._reader.list_dead_letters(type_name, after, limit, tenant)
        )

    async def list(self, key: ObjectKey) -> list[StoredAlarm]:
        """See `Scheduler.list`."""
        return await self._runner.run(lambda: self._reader.list_alarms(key))
