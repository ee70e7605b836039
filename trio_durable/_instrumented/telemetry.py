"""Tells the instruments of a runtime, and lets none of them disturb it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar

from .._telemetry.events import AlarmDelivery, Call, Instrument, Point, Timed

logger = logging.getLogger("trio_durable.telemetry")

request: ContextVar[Call | AlarmDelivery | None] = ContextVar("trio_durable.request", default=None)
"""What the turn of this context is for. Set before each turn, so it need not be reset."""


class Telemetry:
    """Tells the instruments of one runtime.

    Args:
        now: The event loop's clock.
        instruments: Who is told.
    """

    def __init__(self, now: Callable[[], float], instruments: Iterable[Instrument]) -> None:
        self.now = now
        self._instruments = tuple(instruments)
        # Ends are told in the opposite order, so that what instruments do to the context nests.
        self._reversed = self._instruments[::-1]

    def start(self, event: Timed) -> float:
        """Tell that something begins; return the time, for its duration."""
        for instrument in self._instruments:
            try:
                instrument.on_start(event)
            except BaseException:
                self._detach(instrument)
        return self.now()

    def stop(self, event: Timed, duration: float) -> None:
        """Tell that it ended well."""
        for instrument in self._reversed:
            try:
                instrument.on_stop(event, duration)
            except BaseException:
                self._detach(instrument)

    def fail(self, event: Timed, duration: float, error: BaseException) -> None:
        """Tell that it failed."""
        for instrument in self._reversed:
            try:
                instrument.on_exception(event, duration, error)
            except BaseException:
                self._detach(instrument)

    def tell(self, event: Point) -> None:
        """Tell that something is the case."""
        for instrument in self._instruments:
            try:
                instrument.on_event(event)
            except BaseException:
                self._detach(instrument)

    def _detach(self, instrument: Instrument) -> None:
        # BaseException, as in trio: wherever this is called, nothing may be raised.
        self._instruments = tuple(other for other in self._instruments if other is not instrument)
        self._reversed = self._instruments[::-1]
        logger.exception("instrument %r raised; it is told nothing more", instrument)
