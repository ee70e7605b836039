"""What telemetry costs is measured with these instruments."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from trio_durable.telemetry import Instrument, LoggingInstrument

InstrumentName = Literal["no-op", "logging", "opentelemetry"]
INSTRUMENTS: tuple[InstrumentName, ...] = get_args(InstrumentName)


def instruments(name: InstrumentName | None) -> list[Instrument]:
    """The instrument of that name, as far as there is one."""
    if name is None:
        return []
    if name == "opentelemetry":
        return [_opentelemetry()]
    return [Instrument() if name == "no-op" else LoggingInstrument()]


def _opentelemetry() -> Instrument:
    """Spans and metrics that the SDK makes and nobody exports, for that is the exporter's cost."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from trio_durable.telemetry.opentelemetry import OpenTelemetryInstrument

    return OpenTelemetryInstrument(TracerProvider(), MeterProvider([InMemoryMetricReader()]))


def obstacle(name: InstrumentName | None) -> str | None:
    """Why it can't be measured here, or None if it can."""
    if name == "opentelemetry" and importlib.util.find_spec("opentelemetry.sdk") is None:
        return "opentelemetry-sdk isn't installed"
    return None
