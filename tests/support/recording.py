"""An instrument that keeps what it is told."""

from __future__ import annotations

import threading
from typing import Literal, TypeVar

import attrs

from trio_durable import ObjectKey
from trio_durable.telemetry import Entered, Instrument, Left, Point, Timed

E = TypeVar("E", bound=Timed | Point)


@attrs.frozen
class Told:
    """One thing that an instrument was told."""

    what: Literal["start", "stop", "exception", "event"]
    event: Timed | Point
    duration: float = 0.0
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"{self.what} {type(self.event).__name__}"


class Recorder(Instrument):
    """Keeps everything in order, and notes what an instrument must never see."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.under_way: dict[Timed, None] = {}
        self.in_memory: set[ObjectKey] = set()
        self.violations: list[str] = []
        """Raising would only detach the instrument."""
        self.threads: set[int] = set()

    def on_start(self, event: Timed) -> None:
        self.threads.add(threading.get_ident())
        if any(told.event is event for told in self.told[-1000:]):
            self.violations.append(f"{event} was told before it started")
        self.under_way[event] = None
        self.told.append(Told("start", event))

    def on_stop(self, event: Timed, duration: float) -> None:
        self._ended(event, duration)
        self.told.append(Told("stop", event, duration))

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        self._ended(event, duration)
        self.told.append(Told("exception", event, duration, error))

    def on_event(self, event: Point) -> None:
        self.threads.add(threading.get_ident())
        if isinstance(event, Entered):
            if event.key in self.in_memory:
                self.violations.append(f"{event} when it was in memory")
            self.in_memory.add(event.key)
        elif isinstance(event, Left):
            if event.key not in self.in_memory:
                self.violations.append(f"{event} when it was not in memory")
            self.in_memory.discard(event.key)
        self.told.append(Told("event", event))

    def _ended(self, event: Timed, duration: float) -> None:
        self.threads.add(threading.get_ident())
        if event not in self.under_way:
            self.violations.append(f"{event} ended, but was not under way")
        self.under_way.pop(event, None)
        if duration < 0:
            self.violations.append(f"{event} took {duration} s")

    def check(self) -> None:
        """All that began has ended, once, and nothing is in memory any more."""
        assert self.violations == [], self.violations
        assert list(self.under_way) == []
        assert self.in_memory == set()

    # --- for assertions --------------------------------------------------------------------------

    @property
    def story(self) -> list[str]:
        """What was told, in words."""
        return [str(told) for told in self.told]

    def clear(self) -> None:
        """Forget what was told so far."""
        self.told.clear()

    def all(self, kind: type[E], what: str | None = None) -> list[E]:
        """The events of one kind, in the order in which they were told."""
        return [
            told.event
            for told in self.told
            if isinstance(told.event, kind) and (told.what == what or what is None)
        ]

    def one(self, kind: type[E], what: str | None = None) -> E:
        """The only event of its kind."""
        found = list(dict.fromkeys(self.all(kind, what)))
        assert len(found) == 1, f"{len(found)} of {kind.__name__} in {self.story}"
        return found[0]

    def end_of(self, event: Timed) -> Told:
        """How it ended."""
        [end] = [t for t in self.told if t.event is event and t.what in ("stop", "exception")]
        return end
