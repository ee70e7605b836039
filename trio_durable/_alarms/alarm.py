"""Alarms as users see them: the record, the decorator, and what they may be set to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar, overload

import attrs
import orjson

from .._durations import Duration, seconds
from .._errors import InvalidAlarm
from .._json.classes import as_unfit
from .._json.hooks import hooks_for
from .._json.scalars import UnsupportedType, shown, write_json
from .._keys import AlarmKey, ObjectKey, id_problem
from ..storage import NO_TIME, StoredAlarm
from .retry import DEFAULT_RETRY, Retry

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

MAX_PAYLOAD_BYTES = 64 * 1024

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
EARLIEST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


@attrs.frozen
class Alarm:
    """An alarm that is set, is being handled, or is a dead letter."""

    key: ObjectKey
    """Whose it is."""
    name: str
    due_at: datetime
    """When it was set for, in UTC. Retries leave it as it is, and what is set for this plus an
    interval doesn't drift."""
    payload: object = None
    """What it was set with, as plain JSON: None, bool, int, float, str, list or dict."""
    attempt: int = 1
    """Which delivery this is, or will be; of a dead letter, which was the last."""
    last_error: str | None = None
    """What the attempt before raised."""

    def payload_as(self, kind: type[T]) -> T:
        """The payload as what it was set with: an attrs class, a dataclass, a datetime…

        Raises:
            InvalidAlarm: It isn't one.
        """
        try:
            value: T = hooks_for(kind)[1](self.payload)
        except Exception as error:
            unfit = as_unfit(error)
            place = f" at {unfit.path}" if unfit.path else ""
            raise InvalidAlarm(
                self.key,
                self.name,
                f"the payload is no {getattr(kind, '__qualname__', kind)}{place}: {unfit.problem}",
            ) from error
        return value


@attrs.define(eq=False)
class Delivery:
    """An alarm that was claimed, on its way to its handler."""

    key: AlarmKey
    claim: int
    alarm: Alarm = attrs.field(init=False)
    """What its handler gets to see; it is there when the claim is."""
    superseded: bool = False
    """It was set or cancelled since, or claimed by somebody else: it must not be handled."""
    replaced: bool = False
    """Its handler has set or cancelled the alarm and put that on its way by `Context.commit`."""
    acknowledged: bool = False
    """What acknowledges it is durable."""

    @property
    def is_current(self) -> bool:
        """Whether the alarm still is what was claimed."""
        return not (self.superseded or self.acknowledged)


def instant(microseconds: int) -> datetime:
    """The instant so many microseconds since 1970 UTC.

    Raises:
        OverflowError: It is outside of the years 1 to 9999.
    """
    return _EPOCH + timedelta(microseconds=microseconds)


def alarm_of(stored: StoredAlarm, attempt: int) -> Alarm:
    """The record of a stored alarm.

    Raises:
        InvalidAlarm: The row can't be read.
    """
    key = stored.key
    try:
        if stored.due_at == NO_TIME:
            raise ValueError("when it is due is no number")
        due_at = instant(stored.due_at)
        payload = None if stored.payload is None else orjson.loads(stored.payload)
    except (OverflowError, ValueError) as error:
        raise InvalidAlarm(
            key.object_key, key.name, f"its row can't be read ({error}); set it anew, or cancel it"
        ) from error
    return Alarm(key.object_key, key.name, due_at, payload, attempt, stored.last_error)


# --- setting one ---------------------------------------------------------------------------------


def check_name(key: ObjectKey, name: str) -> None:
    """Refuse what can't name an alarm.

    Raises:
        InvalidAlarm: It can't.
    """
    problem = id_problem(name)
    if problem is not None:
        raise InvalidAlarm(
            key, shown(name), f"{problem}; a name is a str of 1 to 512 bytes in UTF-8, without NUL"
        )


def due_time(
    key: ObjectKey, name: str, after: Duration | None, at: datetime | None, now: int
) -> int:
    """When an alarm is due that is set at the time ``now``. In microseconds since 1970 UTC.

    Raises:
        InvalidAlarm: The arguments don't name a time that can be stored.
    """
    check_name(key, name)
    if (after is None) == (at is None):
        given = "neither of after and at" if after is None else "both after and at"
        raise InvalidAlarm(
            key, name, f"{given} was given; give one: a delay, or the instant that it is due"
        )
    if after is not None:
        try:
            delay = seconds(after, "after")
        except ValueError as error:
            raise InvalidAlarm(key, name, str(error)) from None
        # More than that is refused below, as is what it would be rounded from.
        delay = min(delay, 1e12)
        exact = after // _MICROSECOND if isinstance(after, timedelta) else round(delay * 1e6)
        due_at = now + exact
    elif not isinstance(at, datetime):
        raise InvalidAlarm(key, name, f"at must be a datetime, not {at!r:.60}")
    elif at.utcoffset() is None:
        raise InvalidAlarm(
            key, name, f"at is {at}, without a time zone; write datetime.now(UTC) for now, say"
        )
    else:
        due_at = (at - _EPOCH) // _MICROSECOND
    if not EARLIEST <= due_at <= LATEST:
        raise InvalidAlarm(key, name, "it would be due outside of the years 1 to 9999")
    return due_at


def encoded_payload(key: ObjectKey, name: str, payload: object) -> bytes | None:
    """``payload`` as JSON.

    Raises:
        InvalidAlarm: JSON can't carry it exactly.
    """
    if payload is None:
        return None
    kind = type(payload)
    try:
        write: Callable[[Any], Any] = write_json
        if kind not in (dict, list, str, int, float, bool):
            write = hooks_for(kind)[0]
        encoded = orjson.dumps(write(payload))
    except UnsupportedType as error:
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


# --- handling one --------------------------------------------------------------------------------


class Misplaced:
    """What ``@alarm`` leaves of something that can't be an alarm's handler."""

    def __init__(self, thing: object) -> None:
        self.thing = thing


class _AlarmDecorator(Protocol):
    """``@alarm(...)`` with options, before it meets its function."""

    def __call__(self, function: Callable[[S], R], /) -> Callable[[S], R]: ...


@overload
def alarm(function: Callable[[S], R], /) -> Callable[[S], R]: ...
@overload
def alarm(*, retry: Retry = ...) -> _AlarmDecorator: ...
def alarm(
    function: Callable[..., object] | None = None, /, *, retry: Retry = DEFAULT_RETRY
) -> object:
    """Make a method the handler of the alarm that has its name.

    The method may be ``def`` or ``async def`` and takes nothing but ``self``; ``self.ctx.alarm``
    is the alarm. It runs as a turn, and the alarm goes in the same commit that makes durable what
    the turn did. If it raises, nothing of it happened, and it is tried again later.

    Args:
        function: The method.
        retry: When it is tried again.
    """
    if function is None:
        return lambda function: _mark(function, retry)
    return _mark(function, retry)


_MARK = "__durable_alarm__"


def _mark(function: Callable[..., object], retry: Retry) -> object:
    if not hasattr(function, "__code__"):
        return Misplaced(function)
    setattr(function, _MARK, retry)
    return function


def is_marked(function: object) -> bool:
    """Whether ``function`` was marked with ``@alarm``."""
    return hasattr(function, _MARK)


def retry_of(function: object) -> object:
    """What ``function`` was marked with: a `Retry`, if whoever wrote it did what is asked."""
    return getattr(function, _MARK, DEFAULT_RETRY)
