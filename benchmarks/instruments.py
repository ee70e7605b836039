"""Instruments with which the cost of telemetry is measured."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from trio_durable.telemetry import Instrument, LoggingInstrument

InstrumentName = Literal["no-op", "logging", "opentelemetry"]
INSTRUMENTS: tuple[InstrumentName, ...] = get_args(InstrumentName)


def instruments(name: InstrumentName | None) -> list[Instrument]:
    """The instrument of that name; none for None."""
    if name is None:
        return []
    if name == "opentelemetry":
        return [_opentelemetry()]
    return [Instrument() if name == "no-op" else LoggingInstrument()]


def _opentelemetry() -> Instrument:
    """Spans and metrics of the SDK without an exporter, whose cost isn't counted."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from trio_durable.telemetry.opentelemetry import OpenTelemetryInstrument

    return OpenTelemetryInstrument(TracerProvider(), MeterProvider([InMemoryMetricReader()]))


def obstacle(name: InstrumentName | None) -> str | None:
    """The reason that it can't be measured here, or None."""
    if name == "opentelemetry" and importlib.util.find_spec("opentelemetry.sdk") is None:
        return "opentelemetry-sdk isn't installed"
    return None
