"""The ``@alarm`` decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, overload

import attrs

from .._alarms.recurrence import Missed, Recurrence, checked_recurrence
from .._alarms.retry import DEFAULT_RETRY, Retry
from .._durations import UNSET, Duration, Unset

S = TypeVar("S")
R = TypeVar("R")


class Misplaced:
    """A member marked with ``@alarm`` that can't handle an alarm; `check_alarm` rejects it."""

    def __init__(self, thing: object) -> None:
        self.thing = thing


class _AlarmDecorator(Protocol):
    """The decorator that ``@alarm(...)`` with options returns."""

    def __call__(self, function: Callable[[S], R], /) -> Callable[[S], R]: ...


@overload
def alarm(function: Callable[[S], R], /) -> Callable[[S], R]: ...


@overload
def alarm(*, retry: Retry = ..., limit: Duration | Unset | None = UNSET) -> _AlarmDecorator: ...


@overload
def alarm(
    *,
    cron: str,
    zone: str = ...,
    missed: Missed = ...,
    grace: Duration = ...,
    spread: Duration = ...,
    autostart: bool = ...,
    retry: Retry = ...,
    limit: Duration | Unset | None = UNSET,
) -> _AlarmDecorator: ...


@overload
def alarm(
    *,
    every: Duration,
    missed: Missed = ...,
    grace: Duration = ...,
    spread: Duration = ...,
    autostart: bool = ...,
    retry: Retry = ...,
    limit: Duration | Unset | None = UNSET,
) -> _AlarmDecorator: ...


def alarm(
    function: Callable[..., object] | None = None,
    /,
    *,
    cron: str | None = None,
    zone: str | None = None,
    every: Duration | None = None,
    missed: Missed | None = None,
    grace: Duration | None = None,
    spread: Duration | None = None,
    autostart: bool | None = None,
    retry: Retry = DEFAULT_RETRY,
    limit: Duration | Unset | None = UNSET,
) -> object:
    """Make a method the handler of the alarm of the same name.

    The method is ``def`` or ``async def`` and takes nothing but ``self``; ``self.ctx.alarm`` is the
    alarm. It runs as a turn, and the turn's commit removes the alarm. If the method raises, the
    turn is rolled back, and the alarm is retried.

    With ``cron`` or ``every`` the alarm recurs: the commit that removes it sets it for its next
    time. So does the record of its death when its attempts are used up.
    ``self.ctx.schedule_alarm(name)`` turns it on, and ``self.ctx.cancel_alarm(name)`` off. The
    object has one such alarm at a time.

    Args:
        function: The method.
        cron: The schedule as five fields: minute, hour, day of the month, month and day of the
            week, such as "0 9 * * mon-fri".
        zone: The time zone of ``cron``, such as "Europe/Berlin"; UTC by default.
        every: The interval between due times, a second or more, instead of ``cron``.
        missed: What becomes of firings whose time passes while none can be delivered. With "once",
            the default, they are one firing, at once; with "skip" there is none; with "all" each
            is delivered, up to the last 1,000.
        grace: How late a firing may be before "skip" skips it; a minute by default.
        spread: Firings of an object are late by a part of this that is always the same, so that
            those of many objects aren't at the same time.
        autostart: Turn it on when the object is first stored or started, and when a stored object
            is loaded that lacks it. It stays off once it was cancelled.
        retry: The delays between attempts, and their number.
        limit: The longest time that a turn of an ``async def`` may take, see `handler`. An attempt
            that exceeds it has failed.
    """
    options = AlarmOptions(retry, limit, cron, every, zone, missed, grace, spread, autostart)
    if function is None:
        return lambda function: _mark(function, options)
    return _mark(function, options)


@attrs.frozen
class AlarmOptions:
    """The options that an ``@alarm`` was given. Unchecked: they may have any types."""

    retry: object = DEFAULT_RETRY
    limit: object = UNSET
    cron: object = None
    every: object = None
    zone: object = None
    missed: object = None
    grace: object = None
    spread: object = None
    autostart: object = None

    def recurrence(self) -> Recurrence | None:
        """The recurrence that they declare, if any.

        Raises:
            ValueError: One of them is invalid.
        """
        return checked_recurrence(
            cron=self.cron,
            every=self.every,
            zone=self.zone,
            missed=self.missed,
            grace=self.grace,
            spread=self.spread,
            autostart=self.autostart,
        )


_MARK = "__durable_alarm__"
_DEFAULTS = AlarmOptions()


def _mark(function: Callable[..., object], options: AlarmOptions) -> object:
    if not hasattr(function, "__code__"):
        return Misplaced(function)
    setattr(function, _MARK, options)
    return function


def is_marked(function: object) -> bool:
    """True if ``function`` was marked with ``@alarm``."""
    return hasattr(function, _MARK)


def options_of(function: object) -> AlarmOptions:
    """The options that ``function`` was marked with; the defaults if it wasn't."""
    options: AlarmOptions = getattr(function, _MARK, _DEFAULTS)
    return options
