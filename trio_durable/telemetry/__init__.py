"""Telemetry: events of a runtime, and instruments that receive them; see ``docs/telemetry.md``.

An `Instrument` is given to a `DurableRuntime` as one of ``instruments=[…]`` and gets a record for
each event. `LoggingInstrument` writes events to a log. The instrument for OpenTelemetry is in
`trio_durable.telemetry.opentelemetry`, which needs an extra.
"""

from .._api.instrument import Closed, Instrument, Opened, Point
from .._telemetry.events import (
    Activated,
    AlarmDelivery,
    AlarmUpdate,
    Audited,
    Call,
    Commit,
    DeadLettered,
    Delete,
    Entered,
    Hibernated,
    Left,
    Load,
    MessageBuried,
    MessageDelivery,
    MessageSent,
    Save,
    Stale,
    Timed,
    Turn,
    Woken,
)
from ._failures import is_failure
from ._logging import LoggingInstrument

__all__ = [
    "Activated",
    "AlarmDelivery",
    "AlarmUpdate",
    "Audited",
    "Call",
    "Closed",
    "Commit",
    "DeadLettered",
    "Delete",
    "Entered",
    "Hibernated",
    "Instrument",
    "Left",
    "Load",
    "LoggingInstrument",
    "MessageBuried",
    "MessageDelivery",
    "MessageSent",
    "Opened",
    "Point",
    "Save",
    "Stale",
    "Timed",
    "Turn",
    "Woken",
    "is_failure",
]
