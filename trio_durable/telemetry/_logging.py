"""An instrument that writes a log."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from weakref import WeakSet

import attrs

from .._api.instrument import Closed, Instrument, Opened, Point
from .._durations import Duration, optional_seconds
from .._telemetry.events import AlarmDelivery, Call, Commit, DeadLettered, Load, Stale, Timed, Turn
from .._text import error_summary


class LoggingInstrument(Instrument):
    """Writes a line when something ends, and when something is the case.

    With the defaults and a logger at ``INFO`` or ``WARNING``, as in production, these are the lines
    that remain, all at ``WARNING``:

    - turns, loads and commits that take longer than ``slow``;
    - turns, loads, commits, calls and deliveries of alarms that fail; what fails because its turn
      has failed is told once, as the turn;
    - stale objects and dead letters.

    What is merely cancelled doesn't count as a failure. Each line carries its figures as attributes
    of the log record, for formatters that write JSON: ``durable_event``, ``durable_type``,
    ``durable_id``, ``durable_tenant`` if there is one, ``durable_name`` (of a handler or an alarm),
    ``durable_duration`` in seconds, ``durable_error``, and others as far as the event has them.

    Args:
        logger: Where to; ``trio_durable.telemetry`` by default.
        level: The level of what goes as it should.
        slow: How long turns, loads and commits may take; None for any time. A ``timedelta`` or
            seconds.

    Raises:
        ValueError: An argument makes no sense.
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
        self._told: WeakSet[Timed] = WeakSet()
        """Calls and alarms whose turns have failed."""

    def on_stop(self, event: Timed, duration: float) -> None:
        """See `Instrument.on_stop`."""
        is_slow = (
            self._slow is not None
            and duration > self._slow
            and isinstance(event, (Turn, Load, Commit))
        )
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
        is_failure = isinstance(error, Exception)
        if isinstance(event, Turn) and event.request is not None and is_failure:
            self._told.add(event.request)
        is_news = isinstance(event, (Call, AlarmDelivery, Turn, Load, Commit))
        if is_failure and is_news and event not in self._told:
            level = max(logging.WARNING, self._level)
        else:
            level = self._level
        if self._logger.isEnabledFor(level):
            self._logger.log(
                level,
                "%s %s after %s: %s",
                *(
                    _subject(event),
                    "failed" if is_failure else "was cut off",
                    _time(duration),
                    error_summary(error),
                ),
                extra={
                    **_fields(event),
                    "durable_duration": duration,
                    "durable_error": type(error).__qualname__,
                },
            )

    def on_event(self, event: Point) -> None:
        """See `Instrument.on_event`."""
        is_bad = isinstance(event, (Stale, DeadLettered))
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
    name = f" {event.handler}" if isinstance(event, (Call, Turn)) else ""
    if isinstance(event, AlarmDelivery):
        name = f" {event.name}"
    return f"{_kind(event)}{name} of {event.key}"


def _fields(event: Timed | Point) -> dict[str, object]:
    """What of the event goes into the log record."""
    fields: dict[str, object] = {"durable_event": _kind(event)}
    for attribute in attrs.fields(type(event)):
        name, value = attribute.name, getattr(event, attribute.name)
        if name == "key":
            fields["durable_type"], fields["durable_id"] = value.type_name, value.object_id
            if value.tenant:
                fields["durable_tenant"] = value.tenant
        elif name == "changes":
            fields["durable_objects"] = len(value)
        elif name == "handler":
            fields["durable_name"] = value
        elif isinstance(value, datetime):
            fields[f"durable_{name}"] = value.isoformat()
        elif isinstance(value, (str, int, float)):
            fields[f"durable_{name}"] = value
    return fields


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
