"""`Alarms`: alarms of objects from outside of turns, for a runtime or a tenant."""

from __future__ import annotations

from datetime import datetime

from .._alarms.alarm import Alarm, alarm_of
from .._alarms.input import check_name, new_alarm
from .._durations import Duration
from .._keys import AlarmKey
from .durable_object import DurableObject
from .messages import Messages, checked_limit
from .registry import TypeRegistry


class Alarms(Messages):
    """Alarms from outside, as a part of `Objects`."""

    _registry: TypeRegistry

    async def schedule_alarm(
        self,
        object_type: type[DurableObject] | str,
        object_id: str,
        name: str,
        /,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        payload: object = None,
        keep: bool = False,
    ) -> None:
        """Set an alarm of an object from outside; it replaces an alarm of the same name.

        The object isn't loaded for it. The object's own turns use ``self.ctx.schedule_alarm()``.
        Without a time, a recurring alarm is turned on: it is set for the next time of its schedule,
        unless it is on. With a time, its next firing is moved there.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id.
            name: Any str of 1 to 512 bytes without NUL.
            after: The time from now until it is due.
            at: The instant at which it is due, instead of ``after``; a past one is due at once.
            payload: Plain JSON, or an instance of an attrs class, a dataclass or another type that
                state may have; see `Alarm.payload_as`. Of a recurring alarm, only a firing that is
                moved has one.
            keep: Set it only if there is no alarm or dead letter of the name.

        Raises:
            InvalidAlarm: An argument is invalid.
            CallTimeout: The change wasn't durable within the class's or runtime's timeout.
            PersistenceError: The change could not be made durable.
        """
        key = self._key(object_type, object_id)
        check_name(key, name)
        name = str.__str__(name)
        recurrence = self._registry.type_of(object_type).recurrences.get(name)
        new = new_alarm(
            *(key, name, recurrence, self._usable().clock.now()),
            after=after,
            at=at,
            payload=payload,
            keep=keep,
        )
        await self._administered().schedule_alarm(key, name, new)

    async def cancel_alarm(
        self, object_type: type[DurableObject] | str, object_id: str, name: str, /
    ) -> None:
        """Cancel an alarm or a dead letter. Without one, nothing happens.

        A recurring alarm is turned off until `schedule_alarm` turns it on.

        Raises:
            InvalidAlarm: ``name`` can't be the name of an alarm.
            CallTimeout: The change wasn't durable within the class's or runtime's timeout.
            PersistenceError: The change could not be made durable.
        """
        key = self._key(object_type, object_id)
        check_name(key, name)
        await self._administered().cancel_alarm(key, str.__str__(name))

    async def cancel_all_alarms(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> None:
        """Cancel all alarms of an object, dead letters included; recurring ones are turned off.

        Raises:
            CallTimeout: The change wasn't durable within the class's or runtime's timeout.
            PersistenceError: The change could not be made durable.
        """
        key = self._key(object_type, object_id)
        await self._administered().cancel_all_alarms(key)

    async def list_alarms(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> list[Alarm]:
        """The alarms of an object, by ``due_at``; without dead letters.

        Raises:
            InvalidAlarm: A stored alarm can't be decoded.
            StorageUnavailable: The storage can't be read.
        """
        key = self._key(object_type, object_id)
        opened = self._usable()
        await opened.leave_turn()
        with opened.storage_errors():
            stored = await opened.scheduler.list(key)
        return [alarm_of(each, each.failures + 1) for each in stored]

    async def list_dead_letters(
        self,
        object_type: type[DurableObject] | str,
        /,
        *,
        after: Alarm | None = None,
        limit: int = 100,
    ) -> list[Alarm]:
        """The dead letters of a type: alarms whose attempts are used up, by the objects' ids.

        Args:
            object_type: The class, or its stored name.
            after: Only dead letters after this one; pass the last of a page for the next page.
            limit: The size of a page, a million at most; a larger limit means a million.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: The storage can't be read.
        """
        type_name = self._registry.calls(object_type).object_type.name
        last = None if after is None else AlarmKey(type_name, after.key.object_id, after.name)
        limit, tenant = checked_limit(limit), self._tenant
        opened = self._usable()
        await opened.leave_turn()
        with opened.storage_errors():
            dead = await opened.scheduler.dead_letters(type_name, last, limit, tenant)
        return [alarm_of(each, each.failures) for each in dead]

    async def retry_alarm(
        self, object_type: type[DurableObject] | str, object_id: str, name: str, /
    ) -> bool:
        """Make a dead letter due at once, with all its attempts; return False if there is none.

        Raises:
            InvalidAlarm: ``name`` can't be the name of an alarm.
            StorageUnavailable: The change could not be made durable.
        """
        key = self._key(object_type, object_id)
        check_name(key, name)
        return await self._administered().retry_alarm(key.alarm(str.__str__(name)))
