"""Instrument for OpenTelemetry: spans and metrics.

A call's span is current while its caller waits, and a turn's span while its handler runs. So the
turn's span is a child of the call's, the handler's own spans are children of the turn's, and a call
from one object to another is a child of the turn that makes it, also across the processes of a
cluster. A transaction serves many turns, so
its span has no parent, but links to their spans.

A message that is sent is a span without a duration, a child of the turn that sends it. Its delivery
begins a trace of its own and links to that span if the message was sent in the same process, not
longer ago than 10,000 others. Both spans have the message's id, by which they are found otherwise:
a message's row has no place for a trace.

Ids of objects, tenants and names of alarms are attributes of spans, not of metrics, where each
value would make a series of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from importlib.metadata import version
from weakref import WeakKeyDictionary

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import (
        Link,
        Span,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
    )
except ImportError as _error:
    raise ImportError(
        "trio_durable.telemetry.opentelemetry needs OpenTelemetry; "
        "install it with trio-durable[opentelemetry]"
    ) from _error

from .._api.instrument import Instrument, Point
from .._keys import ObjectKey
from .._telemetry.events import (
    AlarmDelivery,
    Call,
    Commit,
    Load,
    MessageDelivery,
    MessageSent,
    Timed,
    Turn,
)
from ._failures import is_failure
from ._metrics import Attributes, Metrics, type_of

_MAX_SENT = 10_000
"""Messages whose spans are known until they are delivered."""

__all__ = ["OpenTelemetryInstrument"]


class OpenTelemetryInstrument(Instrument):
    """Makes spans of calls, turns, loads, commits, alarms and messages, and metrics of these.

    One instrument may serve several runtimes.

    Args:
        tracer_provider: Makes the spans; the global one by default.
        meter_provider: Makes the metrics; the global one by default.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        release = version("trio-durable")
        self._tracer = trace.get_tracer("trio_durable", release, tracer_provider)
        self._metrics = Metrics(metrics.get_meter("trio_durable", release, meter_provider))
        self._spans: dict[Timed, tuple[Span, Token[Context] | None]] = {}
        """The spans of running events. For a current span, the token that restores the context."""
        self._turns: WeakKeyDictionary[Turn, SpanContext] = WeakKeyDictionary()
        """The span contexts to which commits link. A pending commit keeps its turns alive."""
        self._sent: OrderedDict[str, SpanContext] = OrderedDict()
        """The span contexts to which deliveries link, by the ids of messages; the latest ones."""

    def on_start(self, event: Timed) -> None:
        """See `Instrument.on_start`."""
        self._metrics.started(event)
        match event:
            case Turn():
                self._make_current(event, self._start_turn(event))
            case Call():
                self._make_current(event, self._start_call(event))
            case AlarmDelivery():
                self._make_current(event, self._start_alarm(event), Context())
            case MessageDelivery():
                self._make_current(event, self._start_message(event), Context())
            case Load():
                self._spans[event] = self._start_load(event), None
            case Commit():
                self._spans[event] = self._start_commit(event), None

    def _make_current(self, event: Timed, span: Span, base: Context | None = None) -> None:
        token = contexts.attach(trace.set_span_in_context(span, base))
        self._spans[event] = span, token

    def _start_call(self, call: Call) -> Span:
        return self._tracer.start_span(
            f"call {call.key.type_name}.{call.handler}",
            attributes={
                **_object_attributes(call.key),
                "trio_durable.handler": call.handler,
                "trio_durable.mailbox.depth": call.mailbox_depth,
            },
        )

    def _start_turn(self, turn: Turn) -> Span:
        attributes = {
            **_object_attributes(turn.key),
            "trio_durable.handler": turn.handler,
            "trio_durable.readonly": turn.readonly,
        }
        if turn.function is not None:
            function = f"{turn.function.__module__}.{turn.function.__qualname__}"
            attributes["code.function.name"] = function
        name = f"turn {turn.key.type_name}.{turn.handler}"
        span = self._tracer.start_span(name, attributes=attributes)
        self._turns[turn] = span.get_span_context()
        return span

    def _start_load(self, load: Load) -> Span:
        return self._tracer.start_span(
            f"load {load.key.type_name}",
            kind=SpanKind.CLIENT,
            attributes={**_object_attributes(load.key), "db.operation.name": "load"},
        )

    def _start_commit(self, commit: Commit) -> Span:
        links = [
            Link(self._turns[turn])
            for change in commit.changes
            for turn in change.turns
            if turn in self._turns
        ]
        objects = len(commit.changes)
        attributes: Attributes = {
            "db.operation.name": "commit",
            "trio_durable.commit.objects": objects,
            "trio_durable.commit.size": commit.size,
        }
        if objects > 1:  # by the semantic conventions, one is no batch
            attributes["db.operation.batch.size"] = objects
        return self._tracer.start_span(
            "commit", Context(), kind=SpanKind.CLIENT, attributes=attributes, links=links
        )

    def _start_alarm(self, alarm: AlarmDelivery) -> Span:
        # A trace of its own: the context of this task is that in which the runtime was opened.
        return self._tracer.start_span(
            f"alarm {alarm.key.type_name}",
            Context(),
            kind=SpanKind.CONSUMER,
            attributes={
                **_object_attributes(alarm.key),
                "trio_durable.alarm.name": alarm.name,
                "trio_durable.alarm.due_at": alarm.due_at.isoformat(),
                "trio_durable.alarm.lateness": alarm.lateness,
                "trio_durable.alarm.attempt": alarm.attempt,
            },
        )

    def _start_message(self, message: MessageDelivery) -> Span:
        sent = self._sent.pop(message.id, None)
        attributes = {
            **_object_attributes(message.key),
            "trio_durable.handler": message.handler,
            "trio_durable.message.id": message.id,
            "trio_durable.message.lateness": message.lateness,
            "trio_durable.message.attempt": message.attempt,
        }
        if message.sender is not None:
            attributes["trio_durable.message.sender"] = str(message.sender)
        return self._tracer.start_span(
            f"message {message.key.type_name}.{message.handler}",
            Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[] if sent is None else [Link(sent)],
        )

    def _note_sent(self, message: MessageSent) -> None:
        span = self._tracer.start_span(
            f"send {message.key.type_name}.{message.handler}",
            propagate.extract(message.trace, Context()),
            kind=SpanKind.PRODUCER,
            attributes={
                **_object_attributes(message.key),
                "trio_durable.handler": message.handler,
                "trio_durable.message.id": message.id,
            },
        )
        span.end()
        self._sent[message.id] = span.get_span_context()
        if len(self._sent) > _MAX_SENT:
            self._sent.popitem(last=False)

    def on_stop(self, event: Timed, duration: float) -> None:
        """See `Instrument.on_stop`."""
        self._metrics.ended(event, duration, None)
        self._end(event, None)

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        """See `Instrument.on_exception`."""
        self._metrics.ended(event, duration, error)
        self._end(event, error)

    def _end(self, event: Timed, error: BaseException | None) -> None:
        found = self._spans.pop(event, None)
        if found is None:
            return
        span, token = found
        if error is not None and span.is_recording():
            if isinstance(error, Exception) and not is_failure(event, error):
                span.set_attribute("trio_durable.raised", type(error).__qualname__)
            else:
                _record(span, error)
        span.end()
        if token is not None:
            contexts.detach(token)

    def on_event(self, event: Point) -> None:
        """See `Instrument.on_event`."""
        self._metrics.noted(event)
        if isinstance(event, MessageSent):
            self._note_sent(event)

    def inject(self, carrier: dict[str, str]) -> None:
        """See `Instrument.inject`. By the global propagator: W3C's headers, unless it is set."""
        propagate.inject(carrier)

    @contextmanager
    def extract(self, carrier: Mapping[str, str]) -> Iterator[None]:
        """See `Instrument.extract`."""
        token = contexts.attach(propagate.extract(carrier))
        try:
            yield
        finally:
            contexts.detach(token)


def _object_attributes(key: ObjectKey) -> Attributes:
    identity = {"trio_durable.object.id": key.object_id}
    if key.tenant:
        identity["trio_durable.tenant"] = key.tenant
    return {**type_of(key), **identity}


def _record(span: Span, error: BaseException) -> None:
    name = type(error).__qualname__
    attributes: Mapping[str, str] = {"exception.type": name}
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR, name))
    try:
        span.record_exception(error)
    except Exception:  # noqa: BLE001  # the exception's own `__str__` may raise anything
        span.add_event("exception", attributes)
