"""Records of a class's declarations: options, fields, handlers and alarms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from .._alarms.retry import Retry
from .._durations import UNSET, Unset

if TYPE_CHECKING:
    pass

DEFAULT_HIBERNATE_AFTER = 300.0


DEFAULT_MAILBOX_SIZE = 1024


@attrs.frozen
class Options:
    """The class keywords. Durations in seconds; None for never, or for the runtime's default."""

    hibernate_after: float | None = DEFAULT_HIBERNATE_AFTER
    shutdown_after: float | None = None
    call_timeout: float | Unset | None = UNSET
    mailbox_size: int = DEFAULT_MAILBOX_SIZE


@attrs.frozen
class FieldDefinition:
    """One persisted field."""

    name: str
    type: object
    """The annotation, resolved where that is possible."""
    default: object
    """The default, or the `attrs.Factory` that makes it."""


@attrs.frozen
class HandlerDefinition:
    """One handler."""

    name: str
    function: Callable[..., Any]
    readonly: bool
    is_async: bool
    signature: inspect.Signature
    """Without ``self``."""


@attrs.frozen
class AlarmDefinition(HandlerDefinition):
    """What handles an alarm, or those alarms that nothing else does."""

    retry: Retry
