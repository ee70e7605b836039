"""The ``@alarm`` decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, overload

from .._alarms.retry import DEFAULT_RETRY, Retry

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
def alarm(*, retry: Retry = ...) -> _AlarmDecorator: ...


def alarm(
    function: Callable[..., object] | None = None, /, *, retry: Retry = DEFAULT_RETRY
) -> object:
    """Make a method the handler of the alarm of the same name.

    The method is ``def`` or ``async def`` and takes nothing but ``self``; ``self.ctx.alarm`` is the
    alarm. It runs as a turn, and the turn's commit removes the alarm. If the method raises, the
    turn is rolled back, and the alarm is retried.

    Args:
        function: The method.
        retry: The delays between attempts, and their number.
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
    """True if ``function`` was marked with ``@alarm``."""
    return hasattr(function, _MARK)


def retry_of(function: object) -> object:
    """The ``retry`` that ``function`` was marked with. Unchecked: it may be no `Retry`."""
    return getattr(function, _MARK, DEFAULT_RETRY)
