"""What alarms an object has, and letting them fire before their time."""

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
    """The alarms of an object as they are stored, by ``due_at``; without dead letters."""
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
        runtime: Whose object it is.
        object_type: The class, or its stored name.
        object_id: The object's id.
        name: The alarm's name.
        within: It must be due at most so long from now, by the runtime's clock. What is overdue
            is.

    Raises:
        AssertionError: It has none, or it is due later.
    """
    key, alarms = await _look(runtime, object_type, object_id, name)
    limit = None if within is None else seconds(within, "within")
    now = _now(runtime)
    expected = f"expected alarm {name!r} of {key} to be scheduled"
    if limit is not None:
        expected += f" and due within {limit:g} s"
    alarm = _named(alarms, name)
    if alarm is None:
        raise AssertionError(f"{expected}; {_all(alarms, now)}")
    if limit is not None and (alarm.due_at - now).total_seconds() > limit:
        raise AssertionError(f"{expected}; it is {_when(alarm, now)}")
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
    """Assert that an object has no alarm of that name, or with ``within``, none due so soon.

    Raises:
        AssertionError: It has one.
    """
    key, alarms = await _look(runtime, object_type, object_id, name)
    limit = None if within is None else seconds(within, "within")
    now = _now(runtime)
    alarm = _named(alarms, name)
    if alarm is None:
        return
    if limit is None:
        raise AssertionError(
            f"expected no alarm {name!r} of {key}, but there is one, {_when(alarm, now)}"
        )
    if (alarm.due_at - now).total_seconds() <= limit:
        raise AssertionError(
            f"expected no alarm {name!r} of {key} due within {limit:g} s, but there is one, "
            f"{_when(alarm, now)}"
        )


async def fire_alarm(
    runtime: Objects, object_type: type[DurableObject] | str, object_id: str, name: str, /
) -> None:
    """Let an alarm be delivered now, whatever its time; return when its commit is durable.

    It goes the way that it goes when it is due, in a turn of its object behind the calls that came
    before it. If it is being delivered already, that counts, and it isn't delivered twice. Not
    for the object's own turns, which would wait for themselves.

    Raises:
        AssertionError: There is no such alarm.
        Exception: What its handler raised. As always, the turn was rolled back, and the alarm is
            tried again as its `Retry` says, or is a dead letter now; that is written down already.
            If it was its commit that failed, the alarm is as it was.
        StorageUnavailable: It could not be claimed.
    """
    key, alarms = await _look(runtime, object_type, object_id, name)
    if not await _fire(runtime, key, name):
        raise AssertionError(
            f"expected alarm {name!r} of {key} to be scheduled, so that it can fire; "
            f"{_all([alarm for alarm in alarms if alarm.name != name], _now(runtime))}"
        )


async def drain_alarms(
    runtime: Objects,
    object_type: type[DurableObject] | str,
    object_id: str,
    /,
    *,
    max_iterations: int = 100,
) -> int:
    """Fire an object's alarms, the earliest first, with those that they set, until none is left.

    Args:
        runtime: Whose object it is.
        object_type: The class, or its stored name.
        object_id: The object's id.
        max_iterations: How many may fire.

    Returns:
        How many have fired.

    Raises:
        AssertionError: There were more: an alarm that sets itself again never comes to an end.
        Exception: What a handler raised, see `fire_alarm`. The other alarms are left.
    """
    most = positive_int(max_iterations, "max_iterations")
    fired = 0
    while alarms := await runtime.list_alarms(object_type, object_id):
        first = alarms[0]
        if fired == most:
            raise AssertionError(
                f"expected the alarms of {first.key} to come to an end within {most}, but after "
                f"so many {_all(alarms, _now(runtime))}; let one that sets itself again "
                "fire by fire_alarm"
            )
        # What another delivery was quicker with has been listed and fired all the same.
        await _fire(runtime, first.key, first.name)
        fired += 1
    return fired


async def _look(
    runtime: Objects, object_type: type[DurableObject] | str, object_id: str, name: str
) -> tuple[ObjectKey, list[Alarm]]:
    key = runtime._key(object_type, object_id)
    check_name(key, name)
    return key, await runtime.list_alarms(object_type, object_id)


async def _fire(runtime: Objects, key: ObjectKey, name: str) -> bool:
    alarm_key = key.alarm(str.__str__(name))
    opened = runtime._open()
    with opened.storage_errors():
        return await opened.scheduler.fire(alarm_key)


def _named(alarms: Sequence[Alarm], name: str) -> Alarm | None:
    return next((alarm for alarm in alarms if alarm.name == name), None)


def _now(runtime: Objects) -> datetime:
    return instant(runtime._open().clock.now())


def _all(alarms: Sequence[Alarm], now: datetime) -> str:
    if not alarms:
        return "no alarm is scheduled"
    listed = ", ".join(f"{alarm.name!r} ({_when(alarm, now)})" for alarm in alarms[:10])
    more = f" and {len(alarms) - 10} more" if len(alarms) > 10 else ""
    return f"scheduled are {listed}{more}"


def _when(alarm: Alarm, now: datetime) -> str:
    ahead = (alarm.due_at - now).total_seconds()
    when = f"due in {ahead:.6g} s" if ahead >= 0 else f"overdue by {-ahead:.6g} s"
    return f"{when}, at {alarm.due_at.isoformat()}"
