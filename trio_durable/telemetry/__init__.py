"""What a runtime tells about its work; ``docs/telemetry.md`` shows how to listen.

`Instrument` is what listens, given to a `DurableRuntime` as ``instruments=[…]``; the records are
what it hears. `LoggingInstrument` writes them to a log. The one for OpenTelemetry is in
`trio_durable.telemetry.opentelemetry`, as it needs more to be installed.
"""

from .._api.instrument import Closed, Instrument, Opened, Point
from .._telemetry.events import (
    Activated,
    AlarmDelivery,
    AlarmUpdate,
    Call,
    Commit,
    DeadLettered,
    Delete,
    Entered,
    Hibernated,
    Left,
    Load,
    Save,
    Stale,
    Timed,
    Turn,
    Woken,
)
from ._logging import LoggingInstrument

__all__ = [
    "Activated",
    "AlarmDelivery",
    "AlarmUpdate",
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
    "Opened",
    "Point",
    "Save",
    "Stale",
    "Timed",
    "Turn",
    "Woken",
]
