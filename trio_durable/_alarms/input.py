"""Validation of the alarms that users set: names, due times and payloads."""

from __future__ import annotations

from datetime import datetime, timedelta

import orjson

from .._clock import EARLIEST, LATEST, microseconds_of
from .._durations import Duration, seconds
from .._errors import InvalidAlarm
from .._json.depth import check_depth
from .._json.errors import UnsupportedType, as_unfit
from .._json.lookup import form_of
from .._json.namespaces import UnresolvedName
from .._json.plain import write_json
from .._keys import ObjectKey, id_problem
from .._text import short_repr
from ..storage import MOVED, NewAlarm, Onto
from .recurrence import Recurrence

MAX_PAYLOAD_BYTES = 64 * 1024


def check_name(key: ObjectKey, name: str) -> None:
    """Check the name of an alarm.

    Raises:
        InvalidAlarm: ``name`` can't name an alarm.
    """
    problem = id_problem(name)
    if problem is not None:
        raise InvalidAlarm(
            key,
            short_repr(name),
            f"{problem}; a name is a str of 1 to 512 bytes in UTF-8, without NUL",
        )


def new_alarm(
    key: ObjectKey,
    name: str,
    recurrence: Recurrence | None,
    now: int,
    *,
    after: Duration | None,
    at: datetime | None,
    payload: object,
    keep: bool,
) -> NewAlarm:
    """The alarm that a user sets at the time ``now``.

    Args:
        key: The object.
        name: The alarm's name.
        recurrence: The schedule that is declared for it, if one is.
        now: The time.
        after: The time from now until it is due.
        at: The instant at which it is due, instead of ``after``.
        payload: Its payload.
        keep: Leave an alarm of that name as it is.

    Raises:
        InvalidAlarm: An argument is invalid.
    """
    if not isinstance(keep, bool):
        raise InvalidAlarm(key, short_repr(name), f"keep must be True or False, not {keep!r:.60}")
    if recurrence is not None and after is None and at is None:
        if payload is not None:
            raise InvalidAlarm(
                key,
                name,
                "it recurs, so it has no payload; keep the data in the object's state, or give the "
                "time of one firing",
            )
        return recurrence.begin(key, now, Onto.STOPPED | Onto.OUTDATED)
    due_at = due_time(key, name, after, at, now)
    mark = None
    if recurrence is not None:
        # From the past it would be skipped as too late, or bring back the times since then.
        mark, due_at = MOVED, max(due_at, now)
    onto = Onto.STOPPED if keep else Onto.ANYTHING
    return NewAlarm(due_at, encoded_payload(key, name, payload), mark, onto)


def due_time(
    key: ObjectKey, name: str, after: Duration | None, at: datetime | None, now: int
) -> int:
    """The due time of an alarm that is set at the time ``now``. In microseconds since 1970 UTC.

    Raises:
        InvalidAlarm: The arguments give no instant, or one that can't be stored.
    """
    check_name(key, name)
    if (after is None) == (at is None):
        given = "neither of after and at" if after is None else "both after and at"
        raise InvalidAlarm(
            key, name, f"{given} was given; give one: after, a delay, or at, an instant"
        )
    if after is not None:
        try:
            delay = seconds(after, "after")
        except ValueError as error:
            raise InvalidAlarm(key, name, str(error)) from None
        if isinstance(after, timedelta):
            due_at = now + after // timedelta(microseconds=1)  # exact, which a float may not be
        else:
            # 1e12 seconds and more are refused below; the limit keeps the product finite.
            due_at = now + round(min(delay, 1e12) * 1e6)
    elif not isinstance(at, datetime):
        raise InvalidAlarm(key, name, f"at must be a datetime, not {at!r:.60}")
    elif at.utcoffset() is None:
        raise InvalidAlarm(
            key,
            name,
            f"at is {at}, without a time zone; give an aware datetime, such as datetime.now(UTC)",
        )
    else:
        due_at = microseconds_of(at)
    if not EARLIEST <= due_at <= LATEST:
        raise InvalidAlarm(key, name, "it would be due outside of the years 1 to 9999")
    return due_at


def encoded_payload(key: ObjectKey, name: str, payload: object) -> bytes | None:
    """``payload`` as JSON.

    Raises:
        InvalidAlarm: JSON can't represent it exactly, or it is too large.
    """
    if payload is None:
        return None
    kind = type(payload)
    try:
        is_json = kind in (dict, list, str, int, float, bool)
        data = (write_json if is_json else form_of(kind).write)(payload, [])
        check_depth(data)
        encoded = orjson.dumps(data)
    except (UnsupportedType, UnresolvedName) as error:
        raise InvalidAlarm(key, name, f"the payload can't be stored: {error}") from error
    except Exception as error:
        unfit = as_unfit(error)
        place = f" at {unfit.path:.100}" if unfit.path else ""
        raise InvalidAlarm(
            key, name, f"the payload can't be stored{place}: {unfit.problem}"
        ) from error
    if len(encoded) > MAX_PAYLOAD_BYTES:
        raise InvalidAlarm(
            key,
            name,
            f"the payload takes {len(encoded):,} bytes of JSON, over the limit of "
            f"{MAX_PAYLOAD_BYTES:,}; keep it in the object's state",
        )
    return encoded
