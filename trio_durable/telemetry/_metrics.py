"""Metrics of the OpenTelemetry instrument.

Histograms include failures, which have the attribute ``error.type``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeAlias

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from .._api.instrument import Closed, Opened, Point
from .._api.runtime import DurableRuntime
from .._api.statistics import RuntimeStatistics
from .._errors import (
    AlarmSuperseded,
    OwnerLost,
    PersistenceError,
    RuntimeClosed,
    TenantDropped,
)
from .._keys import ObjectKey
from .._telemetry.events import (
    AlarmDelivery,
    Call,
    Commit,
    DeadLettered,
    Entered,
    Left,
    Load,
    MessageBuried,
    MessageDelivery,
    MessageSent,
    Save,
    Stale,
    Timed,
    Turn,
)
from ._failures import is_failure

Attributes: TypeAlias = dict[str, str | int | float | bool]

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_BYTES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 16777216)


class Metrics:
    """The metrics of all runtimes that share an instrument."""

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS
            )

        self._call = seconds("trio_durable.call.duration", "from a call to its outcome")
        self._turn = seconds("trio_durable.turn.duration", "how long turns take")
        self._load = seconds("trio_durable.load.duration", "how long objects wait to be loaded")
        self._commit = seconds("trio_durable.commit.duration", "how long transactions take")
        self._lateness = seconds(
            "trio_durable.alarm.lateness", "from when alarms are due to their first delivery"
        )
        self._objects_per_commit = meter.create_histogram(
            "trio_durable.commit.objects",
            "{object}",
            "objects changed in a transaction",
            explicit_bucket_boundaries_advisory=_COUNTS,
        )
        self._state_size = meter.create_histogram(
            "trio_durable.state.size",
            "By",
            "encoded states as they are saved",
            explicit_bucket_boundaries_advisory=_BYTES,
        )
        self._mailbox_depth = meter.create_histogram(
            "trio_durable.mailbox.depth",
            "{request}",
            "calls and alarms that wait before a call",
            explicit_bucket_boundaries_advisory=(0, *_COUNTS),
        )
        self._failures = meter.create_counter(
            "trio_durable.failures", "{failure}", "calls, turns, loads and commits that failed"
        )
        self._stale = meter.create_counter(
            "trio_durable.stale_objects",
            "{object}",
            "objects that another owner has written, or whose alarm it took",
        )
        self._alarms = meter.create_counter(
            "trio_durable.alarms", "{alarm}", "alarms delivered, by outcome"
        )
        self._dead_letters = meter.create_counter(
            "trio_durable.dead_letters", "{alarm}", "alarms that have used up their attempts"
        )
        self._message_lateness = seconds(
            "trio_durable.message.lateness",
            "from when messages may be delivered to their first delivery",
        )
        self._sent = meter.create_counter(
            "trio_durable.messages.sent", "{message}", "messages sent, by receiver and handler"
        )
        self._messages = meter.create_counter(
            "trio_durable.messages", "{message}", "messages delivered, by outcome"
        )
        self._buried = meter.create_counter(
            "trio_durable.messages.dead", "{message}", "messages that have become dead letters"
        )
        # Counted here and read by the exporter: adding to a counter of OpenTelemetry takes longer.
        self._objects: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        count = meter.create_observable_up_down_counter
        waiting = "calls and alarms whose turn has not begun"
        in_memory = [_observer(self._objects)]
        count("trio_durable.objects", in_memory, "{object}", "objects in memory")
        requests = [_observer(self._waiting)]
        count("trio_durable.mailbox.waiting", requests, "{request}", waiting)
        self._before_turn: set[Call | AlarmDelivery | MessageDelivery] = set()
        self._runtimes: tuple[DurableRuntime, ...] = ()
        observe = meter.create_observable_gauge
        due = [self._observe(_alarms_waiting)]
        observe(
            "trio_durable.alarms.waiting", due, "{alarm}", "alarms in memory, due soon or overdue"
        )
        in_flight = [self._observe(_alarms_in_flight)]
        handled = "alarms whose handlers run, or wait for their turn or their commit"
        observe("trio_durable.alarms.in_flight", in_flight, "{alarm}", handled)
        mail = [self._observe(lambda statistics: statistics.messages_waiting)]
        observe("trio_durable.messages.waiting", mail, "{message}", "messages in memory that wait")
        delivered = [self._observe(lambda statistics: statistics.messages_in_flight)]
        handled = "messages whose handlers run, or wait for their turn or their commit"
        observe("trio_durable.messages.in_flight", delivered, "{message}", handled)
        shards = [self._observe(lambda statistics: statistics.shards)]
        observe("trio_durable.shards", shards, "{shard}", "parts of all objects that live here")
        forwarded = [self._observe(lambda statistics: statistics.calls_forwarded)]
        meter.create_observable_counter(
            "trio_durable.calls.forwarded",
            forwarded,
            "{request}",
            "requests that were sent to other processes",
        )

    def started(self, event: Timed) -> None:
        """Record the start of an event."""
        match event:
            case Turn():
                if event.request is not None:
                    self._no_longer_before_turn(event.request)
            case Call():
                self._mailbox_depth.record(event.mailbox_depth, type_of(event.key))
                self._wait_for_turn(event)
            case Commit():
                self._objects_per_commit.record(len(event.changes))
            case AlarmDelivery():
                if event.attempt == 1:
                    self._lateness.record(max(0.0, event.lateness), type_of(event.key))
                self._wait_for_turn(event)

            case MessageDelivery():
                if event.attempt == 1:
                    attributes = _handler_attributes(event)
                    self._message_lateness.record(max(0.0, event.lateness), attributes)
                self._wait_for_turn(event)

    def _wait_for_turn(self, request: Call | AlarmDelivery | MessageDelivery) -> None:
        self._before_turn.add(request)
        self._waiting[request.key.type_name] += 1

    def _no_longer_before_turn(self, request: Call | AlarmDelivery | MessageDelivery) -> None:
        if request in self._before_turn:
            self._before_turn.remove(request)
            self._waiting[request.key.type_name] -= 1

    def ended(self, event: Timed, duration: float, error: BaseException | None) -> None:
        """Record the end of an event, with ``error`` if it failed."""
        match event:
            case Turn() | Call():
                histogram = self._turn if isinstance(event, Turn) else self._call
                attributes = {**type_of(event.key), "trio_durable.handler": event.handler}
                if isinstance(event, Call):
                    self._no_longer_before_turn(event)
            case Load():
                histogram, attributes = self._load, type_of(event.key)
            case Commit():
                histogram, attributes = self._commit, {}
            case Save():
                if error is None:
                    self._state_size.record(event.size, type_of(event.key))
                return
            case AlarmDelivery():
                self._no_longer_before_turn(event)
                outcome = {**type_of(event.key), "trio_durable.alarm.outcome": _outcome(error)}
                self._alarms.add(1, outcome)
                return
            case MessageDelivery():
                self._no_longer_before_turn(event)
                attributes = _handler_attributes(event)
                attributes["trio_durable.message.outcome"] = _message_outcome(error)
                self._messages.add(1, attributes)
                return
            case _:
                return
        if error is not None and (is_failure(event, error) or not isinstance(error, Exception)):
            attributes = {**attributes, "error.type": type(error).__qualname__}
            if isinstance(error, Exception):  # not a cancellation
                kind = {"trio_durable.event": type(event).__name__.lower()}
                self._failures.add(1, {**attributes, **kind})
        histogram.record(duration, attributes)

    def noted(self, event: Point) -> None:
        """Record a point."""
        match event:
            case Entered():
                self._objects[event.key.type_name] += 1
            case Left():
                self._objects[event.key.type_name] -= 1
            case Stale():
                self._stale.add(1, type_of(event.key))
            case DeadLettered():
                self._dead_letters.add(1, type_of(event.key))
            case MessageSent():
                self._sent.add(1, _handler_attributes(event))
            case MessageBuried():
                self._buried.add(1, _handler_attributes(event))
            case Opened():
                self._runtimes = (*self._runtimes, event.runtime)
            case Closed():
                self._runtimes = tuple(r for r in self._runtimes if r is not event.runtime)

    def _observe(
        self, figure: Callable[[RuntimeStatistics], int]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions, /) -> Iterable[Observation]:
            total = 0
            for runtime in self._runtimes:  # in the exporter's thread; a tuple doesn't change
                with suppress(RuntimeClosed):  # it may be closing
                    total += figure(runtime.statistics())
            return [Observation(total)]

        return observe


def _observer(counts: Counter[str]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions, /) -> Iterable[Observation]:
        # This runs in the exporter's thread, so copy the items first.
        return [Observation(count, _of_type(name)) for name, count in list(counts.items())]

    return observe


def _alarms_waiting(statistics: RuntimeStatistics) -> int:
    return statistics.alarms_waiting


def _alarms_in_flight(statistics: RuntimeStatistics) -> int:
    return statistics.alarms_in_flight


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "handled"
    if isinstance(error, AlarmSuperseded):
        return "superseded"
    return "given_back" if isinstance(error, RuntimeClosed) else "failed"


def _message_outcome(error: BaseException | None) -> str:
    if error is None:
        return "handled"
    is_failure = isinstance(error, Exception) and not isinstance(
        error, (OwnerLost, PersistenceError, RuntimeClosed, TenantDropped)
    )
    return "failed" if is_failure else "given_back"


def _handler_attributes(event: MessageDelivery | MessageSent | MessageBuried) -> Attributes:
    return {**type_of(event.key), "trio_durable.handler": event.handler}


def type_of(key: ObjectKey) -> Attributes:
    """The attributes of an object's type. Metrics have these only, and never ids."""
    return _of_type(key.type_name)


def _of_type(name: str) -> Attributes:
    return {"trio_durable.object.type": name}
