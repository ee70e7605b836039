"""Instrument that writes events to a log."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from weakref import WeakSet

import attrs

from .._api.instrument import Closed, Instrument, Opened, Point
from .._durations import Duration, optional_seconds
from .._telemetry.events import (
    AlarmDelivery,
    Call,
    Commit,
    DeadLettered,
    Load,
    MessageBuried,
    MessageDelivery,
    Stale,
    Timed,
    Turn,
)
from .._text import error_summary
from ._failures import is_failure


class LoggingInstrument(Instrument):
    """Logs the end of each event that takes time, and each point.

    With the defaults and a logger at ``INFO`` or ``WARNING``, as in production, the log has these
    events only, all at ``WARNING``:

    - turns, loads and commits that take longer than ``slow``;
    - turns, loads, commits, calls and deliveries of alarms and messages that fail. A call or
      delivery that fails because of its turn isn't logged again;
    - stale objects and dead letters.

    Expected exceptions, superseded alarms and cancellations aren't failures, see `is_failure`, and
    are logged at ``level``. Each log record has the fields of its event as attributes, for
    formatters that write JSON: ``durable_event``, ``durable_type``, ``durable_id``,
    ``durable_tenant`` if there is one, ``durable_name`` (of a handler or an alarm),
    ``durable_duration`` in seconds, ``durable_error``, and other fields that the event has.

    Args:
        logger: The logger; ``trio_durable.telemetry`` by default.
        level: The level of events that neither fail nor are slow.
        slow: The duration from which turns, loads and commits are slow; a ``timedelta`` or seconds,
            or None if none are.

    Raises:
        ValueError: An argument has the wrong type, or ``slow`` isn't a valid duration.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        level: int = logging.DEBUG,
        slow: Duration | None = 1.0,
    ) -> None:
        if logger is None:
            logger = logging.getLogger("trio_durable.telemetry")
        if not isinstance(logger, logging.Logger):
            raise ValueError(f"logger must be a logging.Logger, not {logger!r:.80}")
        if isinstance(level, bool) or not isinstance(level, int):
            raise ValueError(f"level must be an int such as logging.INFO, not {level!r:.80}")
        self._logger = logger
        self._level = level
        self._slow = optional_seconds(slow, "slow")
        self._reported: WeakSet[Timed] = WeakSet()
        """Calls and deliveries whose failure is reported already, as that of their turn."""

    def on_stop(self, event: Timed, duration: float) -> None:
        """See `Instrument.on_stop`."""
        is_slow = self._is_slow(event, duration)
        level = max(logging.WARNING, self._level) if is_slow else self._level
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level,
                "%s took %s%s",
                *(_subject(event), _time(duration), ", which is slow" if is_slow else ""),
                extra={**_fields(event), "durable_duration": duration},
            )

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        """See `Instrument.on_exception`."""
        failed = is_failure(event, error)
        if isinstance(event, Turn) and event.request is not None and failed:
            self._reported.add(event.request)
        is_reportable = isinstance(
            event, (Call, AlarmDelivery, MessageDelivery, Turn, Load, Commit)
        )
        is_answer = isinstance(error, Exception) and not failed
        is_slow = is_answer and self._is_slow(event, duration)
        if (failed and is_reportable and event not in self._reported) or is_slow:
            level = max(logging.WARNING, self._level)
        else:
            level = self._level
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level,
                "%s %s after %s%s: %s",
                *(
                    _subject(event),
                    "failed" if failed else "raised" if is_answer else "was cut off",
                    _time(duration),
                    ", which is slow" if is_slow else "",
                    error_summary(error),
                ),
                extra={
                    **_fields(event),
                    "durable_duration": duration,
                    "durable_error": type(error).__qualname__,
                },
            )

    def _is_slow(self, event: Timed, duration: float) -> bool:
        return (
            self._slow is not None
            and duration > self._slow
            and isinstance(event, (Turn, Load, Commit))
        )

    def on_event(self, event: Point) -> None:
        """See `Instrument.on_event`."""
        is_bad = isinstance(event, (Stale, DeadLettered, MessageBuried))
        level = max(logging.WARNING, self._level) if is_bad else self._level
        if self._logger.isEnabledFor(level):
            subject = event.runtime if isinstance(event, (Opened, Closed)) else event.key
            self._logger.log(level, "%s: %s", subject, _kind(event), extra=_fields(event))


def _kind(event: Timed | Point) -> str:
    """The event's name in words: "alarm delivery"."""
    return re.sub(r"(?<=.)([A-Z])", r" \1", type(event).__name__).lower()


def _subject(event: Timed) -> str:
    if isinstance(event, Commit):
        count = len(event.changes)
        return f"commit of {count} object{'s' if count != 1 else ''}"
    name = f" {event.handler}" if isinstance(event, (Call, Turn, MessageDelivery)) else ""
    if isinstance(event, AlarmDelivery):
        name = f" {event.name}"
    return f"{_kind(event)}{name} of {event.key}"


def _fields(event: Timed | Point) -> dict[str, object]:
    """The attributes of the log record of an event."""
    fields: dict[str, object] = {"durable_event": _kind(event)}
    for attribute in attrs.fields(type(event)):
        name, value = attribute.name, getattr(event, attribute.name)
        if name == "key":
            fields["durable_type"], fields["durable_id"] = value.type_name, value.object_id
            if value.tenant:
                fields["durable_tenant"] = value.tenant
        elif name == "changes":
            fields["durable_objects"] = len(value)
        elif name == "sender":
            fields["durable_sender"] = None if value is None else str(value)
        elif name == "id":
            fields["durable_message"] = value
        elif name == "handler":
            fields["durable_name"] = value
        elif isinstance(value, datetime):
            fields[f"durable_{name}"] = value.isoformat()
        elif isinstance(value, (str, int, float)):
            fields[f"durable_{name}"] = value
    return fields


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
