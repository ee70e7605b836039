"""History: the latest turns of a runtime, kept in its process for the inspector."""

from __future__ import annotations

import heapq
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import count

import attrs

from .._api.instrument import Instrument
from .._keys import ObjectKey
from .._telemetry.events import AlarmDelivery, Commit, Delete, MessageDelivery, Save, Timed, Turn
from .._text import error_summary

_TURNS, _FAILED, _SLOWEST, _CHANGED = 4096, 256, 64, 1024
_WINDOW = 60
"""Seconds of the rates."""
_MAX_ERROR = 1000


@attrs.frozen
class FinishedTurn:
    """A turn that has ended."""

    at: float
    """When it ended, in seconds since 1970 UTC."""
    key: ObjectKey
    handler: str
    seconds: float
    source: str
    """``"call"``, ``"alarm"``, ``"message"``, or ``"load"`` for ``after_load``."""
    error: str | None = None
    """The error, if it failed."""
    is_expected: bool = False
    """True if the error is one that the handler declares as an answer."""


@attrs.define
class _Second:
    at: int
    turns: int = 0
    failed: int = 0


class TurnHistory(Instrument):
    """The latest turns of a runtime: live, slowest and failed ones, and the rates of a minute.

    `inspector` adds one to a runtime that isn't open yet. To a runtime that is opened before,
    give it as one of ``instruments``, and the inspector finds it there. It keeps 4,096 turns, 256
    failed and 64 slow ones, and the last changes of 1,024 objects, each with the object's key, the
    handler and the text of the error, and no state.

    Args:
        now: The clock, in seconds since 1970 UTC.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._turns: deque[FinishedTurn] = deque(maxlen=_TURNS)
        self._failed: deque[FinishedTurn] = deque(maxlen=_FAILED)
        self._slowest: list[tuple[float, int, FinishedTurn]] = []
        self._number = count()
        self._changed: OrderedDict[ObjectKey, tuple[float, int]] = OrderedDict()
        self._seconds: deque[_Second] = deque(maxlen=_WINDOW + 1)

    # --- events ----------------------------------------------------------------------------------

    def on_stop(self, event: Timed, duration: float) -> None:
        """See `Instrument.on_stop`."""
        if isinstance(event, Turn):
            self._add(event, duration, None)
        elif isinstance(event, Commit):
            for change in event.changes:
                if isinstance(change, (Save, Delete)):
                    revision = change.revision if isinstance(change, Save) else 0
                    self._changed[change.key] = self._now(), revision
                    self._changed.move_to_end(change.key)
            while len(self._changed) > _CHANGED:
                self._changed.popitem(last=False)

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        """See `Instrument.on_exception`."""
        if isinstance(event, Turn):
            self._add(event, duration, error)

    def _add(self, event: Turn, duration: float, error: BaseException | None) -> None:
        at = self._now()
        turn = FinishedTurn(
            at,
            event.key,
            event.handler,
            duration,
            _source(event),
            None if error is None else error_summary(error)[:_MAX_ERROR],
            isinstance(error, event.expected),
        )
        self._turns.append(turn)
        if not self._seconds or self._seconds[-1].at != int(at):
            self._seconds.append(_Second(int(at)))
        self._seconds[-1].turns += 1
        if error is not None and not turn.is_expected:
            self._failed.append(turn)
            self._seconds[-1].failed += 1
        slow = (duration, next(self._number), turn)
        if len(self._slowest) < _SLOWEST:
            heapq.heappush(self._slowest, slow)
        elif slow > self._slowest[0]:
            heapq.heapreplace(self._slowest, slow)

    # --- what was kept ---------------------------------------------------------------------------

    def turns(self) -> Iterator[FinishedTurn]:
        """The latest turns, the last one first."""
        return iter(tuple(reversed(self._turns)))

    def failed(self) -> Iterator[FinishedTurn]:
        """The latest failed turns, the last one first. Expected errors aren't failures."""
        return iter(tuple(reversed(self._failed)))

    def slowest(self) -> Iterator[FinishedTurn]:
        """The slowest turns since the runtime opened, the slowest first."""
        return (turn for _, _, turn in sorted(self._slowest, reverse=True))

    def changed(self) -> Iterator[tuple[ObjectKey, float, int]]:
        """The objects that were changed last, with time and revision; 0 for a deletion."""
        return iter([(key, *found) for key, found in reversed(self._changed.items())])

    def busiest(self, sees: Callable[[ObjectKey], bool], limit: int) -> list[tuple[ObjectKey, int]]:
        """The objects with most of the latest turns, and how many these are."""
        return Counter(turn.key for turn in self._turns if sees(turn.key)).most_common(limit)

    def per_second(self) -> list[tuple[int, int]]:
        """Turns, and failed ones among them, of each of the last 60 whole seconds."""
        now = int(self._now())
        found = {each.at: each for each in self._seconds}
        empty = _Second(0)
        seconds = [found.get(at, empty) for at in range(now - _WINDOW, now)]
        return [(each.turns, each.failed) for each in seconds]


def quantiles(durations: list[float]) -> tuple[float, float] | None:
    """The median and the 99th percentile of durations; None without any."""
    if not durations:
        return None
    ordered = sorted(durations)
    last = len(ordered) - 1
    return ordered[last // 2], ordered[min(last, round(last * 0.99))]


def _source(event: Turn) -> str:
    if event.request is None:
        return "load"
    if isinstance(event.request, AlarmDelivery):
        return "alarm"
    return "message" if isinstance(event.request, MessageDelivery) else "call"
