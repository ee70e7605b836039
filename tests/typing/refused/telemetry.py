"""What instruments are not."""

from __future__ import annotations

from trio_durable import DurableRuntime, Instrument
from trio_durable.telemetry import LoggingInstrument, Point, Timed, Turn


class Wrong(Instrument):
    def on_stop(self, event: Timed) -> None:  # refused
        pass


class Narrow(Instrument):
    def on_start(self, event: Turn) -> None:  # refused
        pass


class Changing(Instrument):
    def on_start(self, event: Timed) -> None:
        if isinstance(event, Turn):
            event.handler = "other"  # refused

    def on_event(self, event: Point) -> None:
        assert event.duration  # refused


DurableRuntime(":memory:", instruments=[Instrument])  # refused
DurableRuntime(":memory:", instruments=LoggingInstrument())  # refused
LoggingInstrument(slow="1 s")  # refused
