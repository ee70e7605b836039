"""The ``@alarm`` decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, overload

from .._alarms.retry import DEFAULT_RETRY, Retry

S = TypeVar("S")


R = TypeVar("R")


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
