"""The ``@alarm`` decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, overload

import attrs

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


def alarm(
    function: Callable[..., object] | None = None,
    /,
    *,
    retry: Retry = DEFAULT_RETRY,
    limit: Duration | Unset | None = UNSET,
) -> object:
    """Make a method the handler of the alarm of the same name.

    The method is ``def`` or ``async def`` and takes nothing but ``self``; ``self.ctx.alarm`` is the
    alarm. It runs as a turn, and the turn's commit removes the alarm. If the method raises, the
    turn is rolled back, and the alarm is retried.

    Args:
        function: The method.
        retry: The delays between attempts, and their number.
        limit: The longest time that a turn of an ``async def`` may take, see `handler`. An attempt
            that exceeds it has failed.
    """
    options = AlarmOptions(retry, limit)
    if function is None:
        return lambda function: _mark(function, options)
    return _mark(function, options)


@attrs.frozen
class AlarmOptions:
    """The options that an ``@alarm`` was given. Unchecked: they may have any types."""

    retry: object = DEFAULT_RETRY
    limit: object = UNSET


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
