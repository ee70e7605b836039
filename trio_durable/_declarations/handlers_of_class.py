"""Definitions of a class's handlers, of calls and of alarms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from .._durations import Unset
from .alarm import options_of
from .class_body import check_alarm, check_handler, is_alarm
from .handler import Handler
from .keywords import checked_limit, expected_errors, merged_keywords
from .records import AlarmDefinition, HandlerDefinition

if TYPE_CHECKING:
    from .._alarms.retry import Retry


def handlers_of(cls: type, durable_object: type) -> Mapping[str, HandlerDefinition]:
    """The handlers of a durable object class, by name, its bases' included.

    Args:
        cls: The class.
        durable_object: The base class of all of them.

    Raises:
        DefinitionError: A handler of a mixin is invalid.
    """
    found: dict[str, HandlerDefinition] = {}
    keywords = merged_keywords(cls)
    expected = keywords.get("expected", ())
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Handler):
                if not issubclass(base, durable_object):  # an ordinary mixin, not checked yet
                    check_handler(base, name, value)
                found[name] = HandlerDefinition(
                    name,
                    value.function,
                    value.readonly,
                    inspect.iscoroutinefunction(value.function),
                    _without_self(inspect.signature(value.function)),
                    (*expected_errors(value.expected), *expected),
                    _limit(value.function, value.limit, keywords),
                    cast("Retry", value.retry),
                )
    return MappingProxyType(found)


def alarms_of(cls: type) -> Mapping[str, AlarmDefinition]:
    """The handlers of alarms of a class, by the alarm's name, its bases' included.

    Raises:
        DefinitionError: One is invalid.
    """
    found: dict[str, AlarmDefinition] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if is_alarm(value):
                check_alarm(base, name, value)
                found[name] = alarm_definition(cls, name, value)
    return MappingProxyType(found)


def alarm_definition(cls: type, name: str, function: Callable[..., Any]) -> AlarmDefinition:
    """The definition of a handler of alarms of ``cls``."""
    options = options_of(function)
    return AlarmDefinition(
        name,
        function,
        readonly=False,
        is_async=inspect.iscoroutinefunction(function),
        signature=_without_self(inspect.signature(function)),
        expected=(),
        limit=_limit(function, options.limit, merged_keywords(cls)),
        retry=cast("Retry", options.retry),
        recurrence=options.recurrence(),
    )


def _limit(
    function: Callable[..., Any], given: object, keywords: Mapping[str, Any]
) -> float | None:
    """The limit of a handler's turns in seconds: its own, else its class's."""
    if isinstance(given, Unset):
        given = keywords.get("turn_limit") if inspect.iscoroutinefunction(function) else None
    return checked_limit(given, "limit")


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    first, *others = signature.parameters.values()
    if first.kind is first.VAR_POSITIONAL:  # def work(*args): self is one of them
        return signature
    return signature.replace(parameters=others)
