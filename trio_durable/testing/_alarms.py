"""Assertions on the alarms of an object, and functions that fire them before their time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from .._alarms.alarm import Alarm
from .._alarms.input import check_name
from .._api.durable_object import DurableObject
from .._api.objects import Objects
from .._clock import instant
from .._durations import Duration, positive_int, seconds
from .._keys import ObjectKey


async def all_scheduled_alarms(
    runtime: Objects, object_type: type[DurableObject] | str, object_id: str, /
) -> list[Alarm]:
    """The stored alarms of an object, by ``due_at``, without dead letters."""
    return await runtime.list_alarms(object_type, object_id)


async def assert_alarm_scheduled(
    runtime: Objects,
    object_type: type[DurableObject] | str,
    object_id: str,
    name: str,
    /,
    *,
    within: Duration | None = None,
) -> Alarm:
    """Assert that an object has an alarm of that name, and return it.

    Args:
        runtime: The runtime of the object.
        object_type: The class, or its stored name.
        object_id: The object's id.
        name: The alarm's name.
        within: The longest time from now until the alarm is due, by the runtime's clock; a
            ``timedelta`` or seconds. An overdue alarm passes.

    Raises:
        AssertionError: The object has no such alarm, or the alarm is due later.
    """
    key, alarms = await _listed(runtime, object_type, object_id, name)
    limit = None if within is None else seconds(within, "within")
    now = _now(runtime)
    expected = f"expected alarm {name!r} of {key} to be scheduled"
    if limit is not None:
        expected += f" and due within {limit:g} s"
    alarm = _named(alarms, name)
    if alarm is None:
        raise AssertionError(f"{expected}; {_scheduled_text(alarms, now)}")
    if limit is not None and (alarm.due_at - now).total_seconds() > limit:
        raise AssertionError(f"{expected}; it is {_due_text(alarm, now)}")
    return alarm


async def refute_alarm_scheduled(
    runtime: Objects,
    object_type: type[DurableObject] | str,
    object_id: str,
    name: str,
    /,
    *,
    within: Duration | None = None,
) -> None:
    """Assert that an object has no alarm of that name, or with ``within``, none due in that time.

    Raises:
        AssertionError: The object has such an alarm.
    """
    key, alarms = await _listed(runtime, object_type, object_id, name)
    limit = None if within is None else seconds(within, "within")
    now = _now(runtime)
    alarm = _named(alarms, name)
    if alarm is None:
        return
    if limit is None:
        raise AssertionError(
            f"expected no alarm {name!r} of {key}, but there is one, {_due_text(alarm, now)}"
        )
    if (alarm.due_at - now).total_seconds() <= limit:
        raise AssertionError(
            f"expected no alarm {name!r} of {key} due within {limit:g} s, but there is one, "
            f"{_due_text(alarm, now)}"
        )


async def fire_alarm(
    runtime: Objects, object_type: type[DurableObject] | str, object_id: str, name: str, /
) -> None:
    """Deliver an alarm now, before its due time, and return when its commit is durable.

    The delivery is the same as that of a due alarm: a turn of the object, after the calls that are
    already in its mailbox. If the alarm is being delivered already, wait for that delivery. Don't
    call this in a turn of the object itself, which would wait for its own end.

    Raises:
        AssertionError: There is no such alarm.
        Exception: The error that its handler raised. As with a due alarm, the turn was rolled back,
            and the alarm is scheduled for a retry as its `Retry` says, or is a dead letter. That is
            durable. If the commit failed instead, the alarm is unchanged.
        StorageUnavailable: The alarm could not be claimed.
    """
    key, alarms = await _listed(runtime, object_type, object_id, name)
    if not await _fire(runtime, key, name):
        raise AssertionError(
            f"expected alarm {name!r} of {key} to be scheduled before firing it; "
            f"{_scheduled_text([alarm for alarm in alarms if alarm.name != name], _now(runtime))}"
        )


async def drain_alarms(
    runtime: Objects,
    object_type: type[DurableObject] | str,
    object_id: str,
    /,
    *,
    max_iterations: int = 100,
) -> int:
    """Fire an object's alarms until none is left, earliest first, including any that handlers set.

    Recurring alarms are left, since they always have a next firing. `fire_alarm` fires one.

    Args:
        runtime: The runtime of the object.
        object_type: The class, or its stored name.
        object_id: The object's id.
        max_iterations: The largest number of alarms to fire.

    Returns:
        The number of alarms fired.

    Raises:
        AssertionError: Alarms are left after ``max_iterations``. An alarm that sets itself again
            always leaves one.
        Exception: The error of a handler, see `fire_alarm`. The other alarms are left.
    """
    most = positive_int(max_iterations, "max_iterations")
    fired = 0
    while alarms := [
        alarm
        for alarm in await runtime.list_alarms(object_type, object_id)
        if not alarm.is_recurring
    ]:
        first = alarms[0]
        if fired == most:
            raise AssertionError(
                f"expected no alarm of {first.key} to be left after firing {most}; "
                f"{_scheduled_text(alarms, _now(runtime))}; use fire_alarm for an alarm that sets "
                "itself again"
            )
        # If another delivery came first, the alarm has fired all the same: count it.
        await _fire(runtime, first.key, first.name)
        fired += 1
    return fired


async def _listed(
    runtime: Objects, object_type: type[DurableObject] | str, object_id: str, name: str
) -> tuple[ObjectKey, list[Alarm]]:
    key = runtime._key(object_type, object_id)
    check_name(key, name)
    return key, await runtime.list_alarms(object_type, object_id)


async def _fire(runtime: Objects, key: ObjectKey, name: str) -> bool:
    alarm_key = key.alarm(str.__str__(name))
    return await runtime._administered().fire_alarm(alarm_key)


def _named(alarms: Sequence[Alarm], name: str) -> Alarm | None:
    return next((alarm for alarm in alarms if alarm.name == name), None)


def _now(runtime: Objects) -> datetime:
    return instant(runtime._open().clock.now())


def _scheduled_text(alarms: Sequence[Alarm], now: datetime) -> str:
    if not alarms:
        return "no alarm is scheduled"
    listed = ", ".join(f"{alarm.name!r} ({_due_text(alarm, now)})" for alarm in alarms[:10])
    more = f" and {len(alarms) - 10} more" if len(alarms) > 10 else ""
    return f"scheduled alarms: {listed}{more}"


def _due_text(alarm: Alarm, now: datetime) -> str:
    ahead = (alarm.due_at - now).total_seconds()
    when = f"due in {ahead:.6g} s" if ahead >= 0 else f"overdue by {-ahead:.6g} s"
    return f"{when}, at {alarm.due_at.isoformat()}"
