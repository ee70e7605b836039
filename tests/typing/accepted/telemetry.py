"""Instruments, and what they are told."""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from trio_durable import DurableRuntime, Instrument, ObjectKey
from trio_durable.telemetry import (
    AlarmDelivery,
    Call,
    Commit,
    Left,
    LoggingInstrument,
    MessageDelivery,
    Opened,
    Point,
    Save,
    Timed,
    Turn,
)


class Mine(Instrument):
    def on_start(self, event: Timed) -> None:
        if isinstance(event, Turn):
            assert_type(event.key, ObjectKey)
            assert_type(event.handler, str)
            assert_type(event.request, Call | AlarmDelivery | MessageDelivery | None)
        elif isinstance(event, AlarmDelivery):
            assert_type(event.due_at, datetime)
            assert_type(event.lateness, float)
        elif isinstance(event, Commit):
            for change in event.changes:
                assert_type(change.turns, tuple[Turn, ...])
                if isinstance(change, Save):
                    assert_type(change.revision, int)

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        assert_type(duration, float)
        assert_type(error, BaseException)

    def on_event(self, event: Point) -> None:
        if isinstance(event, Opened):
            assert_type(event.runtime, DurableRuntime)
        elif isinstance(event, Left):
            assert event.reason != "evicted"


runtime = DurableRuntime(":memory:", instruments=[Mine(), LoggingInstrument(slow=0.5)])
