"""Notifier: hands telemetry records to the instruments of a runtime, and shields it from them.

If an instrument raises, the notifier logs the exception and detaches the instrument. As in Trio, an
observer must not disturb the work that it observes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from .events import AlarmDelivery, Call, MessageDelivery, Timed

T = TypeVar("T")

logger = logging.getLogger("trio_durable.telemetry")

request: ContextVar[Call | AlarmDelivery | MessageDelivery | None] = ContextVar(
    "trio_durable.request", default=None
)
"""The request that a turn in this context serves. Set before each turn, so never reset."""


class Observer(Protocol):
    """The part of an `Instrument` that the notifier calls."""

    def on_start(self, event: Timed) -> None:
        """Work begins."""
        ...

    def on_stop(self, event: Timed, duration: float) -> None:
        """Work succeeded, after ``duration`` seconds."""
        ...

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        """Work failed, after ``duration`` seconds."""
        ...

    def on_event(self, event: Any) -> None:
        """A `Point` happened."""
        ...

    def inject(self, carrier: dict[str, str]) -> None:
        """A call is sent to another process, or a message is sent."""
        ...

    def extract(self, carrier: Mapping[str, str]) -> AbstractContextManager[object]:
        """A call of another process is accepted in the block."""
        ...


class Notifier:
    """Hands records to the instruments of one runtime.

    Args:
        now: The clock for durations, in seconds.
        instruments: The instruments, in the order in which starts and points reach them.
    """

    def __init__(self, now: Callable[[], float], instruments: Iterable[Observer]) -> None:
        self.now = now
        self._instruments = tuple(instruments)
        # Ends reach them in the opposite order, so that changes of the context nest.
        self._reversed = self._instruments[::-1]

    def start(self, event: Timed) -> float:
        """Report that work begins. Returns the time from which its duration counts."""
        for instrument in self._instruments:
            try:
                instrument.on_start(event)
            except BaseException:  # noqa: BLE001  # see _detach
                self._detach(instrument)
        return self.now()

    def stop(self, event: Timed, duration: float) -> None:
        """Report that work succeeded."""
        for instrument in self._reversed:
            try:
                instrument.on_stop(event, duration)
            except BaseException:  # noqa: BLE001  # see _detach
                self._detach(instrument)

    def fail(self, event: Timed, duration: float, error: BaseException) -> None:
        """Report that work failed."""
        for instrument in self._reversed:
            try:
                instrument.on_exception(event, duration, error)
            except BaseException:  # noqa: BLE001  # see _detach
                self._detach(instrument)

    def around(self, event: Timed, run: Callable[..., T], *args: object) -> T:
        """Run synchronous work, and report its start and its end."""
        began = self.start(event)
        try:
            result = run(*args)
        except BaseException as error:
            self.fail(event, self.now() - began, error)
            raise
        self.stop(event, self.now() - began)
        return result

    def tell(self, event: object) -> None:
        """Report a point."""
        for instrument in self._instruments:
            try:
                instrument.on_event(event)
            except BaseException:  # noqa: BLE001  # see _detach
                self._detach(instrument)

    def inject(self) -> dict[str, str]:
        """The trace of the current context, to be sent with a call."""
        carrier: dict[str, str] = {}
        for instrument in self._instruments:
            try:
                instrument.inject(carrier)
            except BaseException:  # noqa: BLE001  # see _detach
                self._detach(instrument)
        return carrier

    @contextmanager
    def extract(self, carrier: Mapping[str, str]) -> Iterator[None]:
        """Run the block in the trace that came with a call."""
        with ExitStack() as stack:
            for instrument in self._instruments:
                try:
                    stack.enter_context(instrument.extract(carrier))
                except BaseException:  # noqa: BLE001  # see _detach
                    self._detach(instrument)
            yield

    def _detach(self, instrument: Observer) -> None:
        # BaseException, as in trio: wherever this is called, nothing may be raised. All callers are
        # handling an exception, which is logged.
        self._instruments = tuple(other for other in self._instruments if other is not instrument)
        self._reversed = self._instruments[::-1]
        logger.exception("instrument %r raised and was detached", instrument)  # noqa: LOG004
