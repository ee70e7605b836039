"""Records of a class's declarations: options, fields, handlers and alarms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import attrs

from .._alarms.recurrence import Recurrence
from .._alarms.retry import Retry
from .._durations import UNSET, Unset

DEFAULT_HIBERNATE_AFTER = 300.0
DEFAULT_MAILBOX_SIZE = 1024
DEFAULT_REMEMBER = 86400.0


@attrs.frozen
class Options:
    """The class keywords. Durations are in seconds; None is never, UNSET the runtime's default."""

    hibernate_after: float | None = DEFAULT_HIBERNATE_AFTER
    shutdown_after: float | None = None
    call_timeout: float | Unset | None = UNSET
    mailbox_size: int = DEFAULT_MAILBOX_SIZE
    remember: float = DEFAULT_REMEMBER


@attrs.frozen
class FieldDefinition:
    """A persisted field."""

    name: str
    type: object
    """The annotation, resolved if possible."""
    default: object
    """The default value, or the `attrs.Factory` that makes it."""


@attrs.frozen
class HandlerDefinition:
    """A handler."""

    name: str
    function: Callable[..., Any]
    readonly: bool
    is_async: bool
    signature: inspect.Signature
    """Its parameters, without ``self``."""
    expected: tuple[type[Exception], ...]
    """Exceptions that are answers to its callers, not failures."""
    limit: float | None
    """The most seconds that a turn may take; None without a limit."""
    retry: Retry
    """When a message to it, or its alarm, is tried again after a failure."""


@attrs.frozen
class AlarmDefinition(HandlerDefinition):
    """The handler of an alarm, or ``handle_alarm``, which handles all other alarms."""

    recurrence: Recurrence | None = None
    """The schedule of a recurring alarm; None for any other."""
