"""Spans and metrics, as the SDK of OpenTelemetry exports them."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from cluster.shared_memory import SHARDS, Rows, node
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.clock import settle
from support.recording import Recorder
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    CallTimeout,
    Cluster,
    DurableObject,
    DurableRuntime,
    PersistenceError,
    definition_of,
    handler,
)
from trio_durable.storage import StorageFault
from trio_durable.telemetry.opentelemetry import OpenTelemetryInstrument

from .objects import Counter, SlowlyWelcoming, Welcoming, Wrong
from .test_storm import storm

Point = NumberDataPoint | HistogramDataPoint


class Notifier:
    """An instrument and what came out of it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.instrument = OpenTelemetryInstrument(tracers, MeterProvider([self.reader]))
        self.tracer = tracers.get_tracer("test")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def span(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    def parent(self, span: ReadableSpan) -> str | None:
        """The name of its parent."""
        if span.parent is None:
            return None
        [parent] = [s for s in self.spans if context_of(s).span_id == span.parent.span_id]
        assert context_of(parent).trace_id == context_of(span).trace_id
        return parent.name

    def links(self, span: ReadableSpan) -> list[str]:
        """The names of what it links to."""
        names = {context_of(other).span_id: other.name for other in self.spans}
        return [names[link.context.span_id] for link in span.links]

    def metrics(self) -> dict[str, list[Point]]:
        """The data points of all metrics by name."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: [
                point
                for point in metric.data.data_points
                if isinstance(point, (NumberDataPoint, HistogramDataPoint))
            ]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def value(self, name: str, **attributes: str) -> float:
        """A counter or gauge summed over the points that have these attributes."""
        wanted = {f"trio_durable.{key}": value for key, value in attributes.items()}
        return sum(
            point.value if isinstance(point, NumberDataPoint) else point.count
            for point in self.metrics().get(f"trio_durable.{name}", [])
            if wanted.items() <= dict(point.attributes or {}).items()
        )


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def attributes_of(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.fixture
def telemetry() -> Notifier:
    return Notifier()


@asynccontextmanager
async def traced(
    telemetry: Notifier, storage: ScriptedStorage | None = None, **options: Any
) -> AsyncIterator[DurableRuntime]:
    """A runtime; when it has closed, nothing may be left open and nothing current."""
    storage = storage or ScriptedStorage()
    instruments = [telemetry.instrument]
    async with DurableRuntime(
        storage, runner=storage.runner, instruments=instruments, **options
    ) as runtime:
        yield runtime
    assert telemetry.instrument._spans == {}
    assert trace.get_current_span() is trace.INVALID_SPAN


# --- spans ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_load_and_turn_are_children_of_the_call_and_the_commit_links_to_the_turn(
    telemetry: Notifier,
) -> None:
    async with traced(telemetry):
        with telemetry.tracer.start_as_current_span("request"):
            await Counter.add("a")
    assert telemetry.parent(telemetry.span("call Counter.add")) == "request"
    assert telemetry.parent(telemetry.span("load Counter")) == "call Counter.add"
    assert telemetry.parent(telemetry.span("turn Counter.add")) == "call Counter.add"
    commit = telemetry.span("commit")
    assert telemetry.parent(commit) is None
    assert telemetry.links(commit) == ["turn Counter.add"]
    # The reply is held until the commit is durable.
    call = telemetry.span("call Counter.add")
    assert call.end_time is not None
    assert commit.end_time is not None
    assert call.end_time >= commit.end_time


@pytest.mark.anyio
async def test_spans_say_whose_object_it_is_and_metrics_do_not(telemetry: Notifier) -> None:
    async with traced(telemetry) as runtime:
        await runtime.tenant("acme").get(Counter, "a").add()
        await runtime.tenant("acme").schedule_alarm(Counter, "a", "ring", after=60)
    tenants = {
        span.name: attributes_of(span).get("trio_durable.tenant") for span in telemetry.spans
    }
    assert tenants.pop("commit") is None
    assert set(tenants.values()) == {"acme"}
    metrics = str(telemetry.metrics())
    assert "Counter" in metrics
    assert "acme" not in metrics


@pytest.mark.anyio
async def test_spans_say_what_they_are_about(telemetry: Notifier) -> None:
    async with traced(telemetry):
        await Counter.add("a")
    of_object = {"trio_durable.object.type": "Counter", "trio_durable.object.id": "a"}
    assert attributes_of(telemetry.span("call Counter.add")) == {
        **of_object,
        "trio_durable.handler": "add",
        "trio_durable.mailbox.depth": 0,
    }
    assert attributes_of(telemetry.span("turn Counter.add")) == {
        **of_object,
        "trio_durable.handler": "add",
        "trio_durable.readonly": False,
        "code.function.name": f"{Counter.__module__}.Counter.add",
    }
    load, commit = telemetry.span("load Counter"), telemetry.span("commit")
    assert attributes_of(load) == {**of_object, "db.operation.name": "load"}
    assert attributes_of(commit) == {
        "db.operation.name": "commit",
        "trio_durable.commit.objects": 1,
        "trio_durable.commit.size": len(b'{"count":1,"$as":{}}'),
    }
    assert load.kind is commit.kind is SpanKind.CLIENT


class Traced(DurableObject):
    """Its handlers tell what they see, and make spans of their own."""

    count: int = 0

    def see(self, name: str) -> list[str]:
        with trace.get_tracer_provider().get_tracer("x").start_as_current_span("ignored"):
            pass
        with TRACER[0]().start_as_current_span(f"own of {name}"):
            self.count += 1
        return [str(baggage.get_baggage("user")), *CURRENT()]

    @handler
    def look(self) -> list[str]:
        return self.see("look")

    @handler
    async def look_slowly(self) -> list[str]:
        await anyio.sleep(0.5)
        seen = self.see("look_slowly")
        await anyio.sleep(0.5)
        return seen

    @handler
    async def ask(self, other: str) -> list[str]:
        await anyio.sleep(0.1)
        await self.ctx.commit()
        return await Traced.look(other)


TRACER: list[Callable[[], trace.Tracer]] = []


def CURRENT() -> list[str]:  # noqa: N802
    span = trace.get_current_span()
    return [span.name] if isinstance(span, ReadableSpan) else []


@pytest.mark.anyio
async def test_handlers_see_their_callers_baggage_and_their_turns_span(
    telemetry: Notifier,
) -> None:
    TRACER[:] = [lambda: telemetry.tracer]

    async def call(user: str, call: Callable[[], Any]) -> list[str]:
        token = contexts.attach(baggage.set_baggage("user", user))
        try:
            with telemetry.tracer.start_as_current_span(f"request of {user}"):
                seen: list[str] = await call()
                assert CURRENT() == [f"request of {user}"]
                return seen
        finally:
            contexts.detach(token)

    async with traced(telemetry), calls() as others:
        at_once = others.start(call, "ada", lambda: Traced.look("a"))
        await settle()
        slow = others.start(call, "bob", lambda: Traced.look_slowly("a"))
        await settle()
        queued = others.start(call, "cid", lambda: Traced.look("a"))
        nested = others.start(call, "dan", lambda: Traced.ask("b", "c"))
        await anyio.sleep(5)
        assert at_once.value == ["ada", "turn Traced.look"]
        assert slow.value == ["bob", "turn Traced.look_slowly"]
        assert queued.value == ["cid", "turn Traced.look"]
        assert nested.value == ["dan", "turn Traced.look"]
    own = [span for span in telemetry.spans if span.name.startswith("own of ")]
    assert len(own) == 4
    assert {telemetry.parent(span) for span in own} == {
        "turn Traced.look",
        "turn Traced.look_slowly",
    }
    inner = [
        span
        for span in telemetry.spans
        if span.name == "call Traced.look" and attributes_of(span)["trio_durable.object.id"] == "c"
    ]
    assert [telemetry.parent(span) for span in inner] == ["turn Traced.ask"]
    assert telemetry.parent(telemetry.span("turn Traced.ask")) == "call Traced.ask"


@pytest.mark.anyio
async def test_a_commit_links_to_all_the_turns_that_it_makes_durable(
    telemetry: Notifier,
) -> None:
    storage = ScriptedStorage()
    async with traced(telemetry, storage), calls() as others:
        await Counter.value("a")
        await Counter.value("b")
        telemetry.exporter.clear()
        with storage.held("writer"):
            for object_id in "aab":
                others.start(Counter.add, object_id)
            await settle()
        await settle()
        commit = telemetry.span("commit")
        assert telemetry.links(commit) == ["turn Counter.add"] * 3
        assert len({link.context.span_id for link in commit.links}) == 3
        assert attributes_of(commit)["db.operation.batch.size"] == 2


@pytest.mark.anyio
@pytest.mark.parametrize("cls", [Welcoming, SlowlyWelcoming])
async def test_after_load_is_a_child_of_the_first_call(
    cls: type[Welcoming | SlowlyWelcoming], telemetry: Notifier
) -> None:
    async with traced(telemetry):
        await cls.is_greeted("a")
    name = cls.__name__
    assert telemetry.parent(telemetry.span(f"turn {name}.after_load")) == f"call {name}.is_greeted"


@pytest.mark.anyio
async def test_an_alarm_begins_a_trace_of_its_own(telemetry: Notifier) -> None:
    with telemetry.tracer.start_as_current_span("start-up"):
        async with traced_within(telemetry):
            await Counter.plan("a", "ring", 1)
            await anyio.sleep(3)
    alarm = telemetry.span("alarm Counter")
    assert telemetry.parent(alarm) is None
    assert telemetry.parent(telemetry.span("turn Counter.ring")) == "alarm Counter"
    assert alarm.kind is SpanKind.CONSUMER
    attributes = attributes_of(alarm)
    assert attributes["trio_durable.alarm.name"] == "ring"
    assert attributes["trio_durable.alarm.attempt"] == 1
    due_at = datetime.fromisoformat(str(attributes["trio_durable.alarm.due_at"]))
    assert due_at.tzinfo == UTC


@asynccontextmanager
async def traced_within(telemetry: Notifier) -> AsyncIterator[DurableRuntime]:
    async with DurableRuntime(":memory:", instruments=[telemetry.instrument]) as runtime:
        yield runtime
    assert telemetry.instrument._spans == {}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["fail", "fail_slowly"])
async def test_spans_of_what_failed_say_why(name: str, telemetry: Notifier) -> None:
    async with traced(telemetry) as runtime:
        with pytest.raises(Wrong):
            await runtime.call(Counter, "a", name)
    for span in (telemetry.span(f"call Counter.{name}"), telemetry.span(f"turn Counter.{name}")):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes_of(span)["error.type"] == "Wrong"
        [event] = span.events
        assert event.name == "exception"
        assert "Wrong" in str((event.attributes or {})["exception.type"])


@pytest.mark.anyio
async def test_an_expected_exception_is_no_error_of_spans_and_metrics(telemetry: Notifier) -> None:
    class Auction(DurableObject):
        @handler(expected=KeyError)
        def bid(self) -> None:
            raise KeyError("too low")

    async with traced(telemetry):
        with pytest.raises(KeyError):
            await Auction.bid("a")
        assert telemetry.value("failures") == 0
        assert telemetry.value("turn.duration") == 1
    for name in ("turn", "call"):
        span = telemetry.span(f"{name} {definition_of(Auction).name}.bid")
        assert span.status.status_code is StatusCode.UNSET
        assert attributes_of(span)["trio_durable.raised"] == "KeyError"
        assert "error.type" not in attributes_of(span)
        assert not span.events


@pytest.mark.anyio
async def test_spans_of_a_failed_commit_and_of_its_calls_end(telemetry: Notifier) -> None:
    storage = ScriptedStorage()
    async with traced(telemetry, storage):
        await Counter.value("a")
        storage.fail_commits(StorageFault("the disk is full"))
        with pytest.raises(PersistenceError):
            await Counter.add("a")
    assert telemetry.span("commit").status.status_code is StatusCode.ERROR
    assert attributes_of(telemetry.span("commit"))["error.type"] == "StorageFault"
    assert attributes_of(telemetry.span("call Counter.add"))["error.type"] == "PersistenceError"
    assert telemetry.span("turn Counter.add").status.status_code is StatusCode.UNSET


@pytest.mark.anyio
async def test_spans_of_callers_who_gave_up_end_then(telemetry: Notifier) -> None:
    async with traced(telemetry) as runtime, calls() as others:
        with pytest.raises(CallTimeout):
            await runtime.get(Counter, "a", timeout=1).add_slowly(2)
        cancelled = others.start(Counter.add_slowly, "b", 2)
        await settle()
        cancelled.cancel()
        await settle()
        [timed_out, given_up] = [s for s in telemetry.spans if s.name == "call Counter.add_slowly"]
        assert attributes_of(timed_out)["error.type"] == "CallTimeout"
        assert attributes_of(given_up)["error.type"] in ("Cancelled", "CancelledError")
        assert not [span for span in telemetry.spans if span.name.startswith("turn ")]
        await anyio.sleep(4)
        turns = [span for span in telemetry.spans if span.name.startswith("turn ")]
        assert [telemetry.parent(turn) for turn in turns] == ["call Counter.add_slowly"] * 2


class Untold(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Mute(DurableObject):
    @handler
    def speak(self) -> None:
        raise Untold


@pytest.mark.anyio
async def test_an_error_without_a_text_is_told_by_its_name(
    telemetry: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async with traced(telemetry):
        with pytest.raises(Untold):
            await Mute.speak("a")
        await Counter.add("a")
    assert attributes_of(telemetry.span("call Mute.speak"))["error.type"] == "Untold"
    assert telemetry.span("call Counter.add")  # it isn't detached
    assert caplog.records == []


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_after_a_storm_every_span_has_ended(
    seed: int, telemetry: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    await storm(seed, recorder, telemetry.instrument)
    recorder.check()
    assert telemetry.instrument._spans == {}
    assert trace.get_current_span() is trace.INVALID_SPAN
    started = [told for told in recorder.told if told.what == "start"]
    kinds = ("Call", "Turn", "Load", "Commit", "AlarmDelivery")
    assert len(telemetry.spans) == sum(type(t.event).__name__ in kinds for t in started)
    # Had a span been detached in another context than its own, the API would have said so.
    assert not [record for record in caplog.records if "detach" in record.message]
    assert telemetry.value("objects") == 0
    assert telemetry.value("mailbox.waiting") == 0


@pytest.mark.anyio
async def test_turns_are_forgotten_when_they_are_durable(telemetry: Notifier) -> None:
    storage = ScriptedStorage()
    async with traced(telemetry, storage), calls() as others:
        await Counter.value("a")
        with storage.held("writer"):
            others.start(Counter.add, "a")
            await settle()
            gc.collect()
            assert [turn.handler for turn in telemetry.instrument._turns] == ["add"]
        await settle()
        await Counter.add_slowly("a")
        with pytest.raises(Wrong):
            await Counter.fail_slowly("b")
    gc.collect()
    assert len(telemetry.instrument._turns) == 0


# --- metrics -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_durations_are_measured_by_type_and_handler(telemetry: Notifier) -> None:
    async with traced(telemetry):
        await Counter.add_slowly("a", 2)
        await Counter.add("b")
    metrics = telemetry.metrics()
    for name in ("call", "turn"):
        points = metrics[f"trio_durable.{name}.duration"]
        by_handler = {dict(p.attributes or {})["trio_durable.handler"]: p for p in points}
        slow = by_handler["add_slowly"]
        assert isinstance(slow, HistogramDataPoint)
        assert slow.sum == pytest.approx(2, abs=0.001)
        assert slow.count == 1
        assert max(slow.explicit_bounds) == 30  # in seconds
    assert telemetry.value("load.duration") == 2
    assert telemetry.value("commit.duration") == 2
    assert telemetry.value("commit.objects") == 2
    assert telemetry.value("state.size", **{"object.type": "Counter"}) == 2


@pytest.mark.anyio
async def test_no_metric_names_an_object_or_an_alarm(telemetry: Notifier) -> None:
    await storm(1, telemetry.instrument)
    seen = {
        (key, value)
        for points in telemetry.metrics().values()
        for point in points
        for key, value in dict(point.attributes or {}).items()
    }
    assert {key for key, _ in seen} <= {
        "trio_durable.object.type",
        "trio_durable.handler",
        "trio_durable.event",
        "trio_durable.alarm.outcome",
        "error.type",
    }
    assert {value for key, value in seen if key == "trio_durable.object.type"} == {"Ship"}


@pytest.mark.anyio
async def test_failures_are_counted_by_kind_and_error(telemetry: Notifier) -> None:
    storage = ScriptedStorage()
    async with traced(telemetry, storage) as runtime:
        with pytest.raises(Wrong):
            await Counter.fail("a")
        storage.overwrite("Counter", "a", b"{}")
        with pytest.raises(PersistenceError):
            await Counter.add("a")
        with pytest.raises(CallTimeout):
            await runtime.get(Counter, "a", timeout=1).add_slowly(2)
        with anyio.move_on_after(1):
            await Counter.add_slowly("b", 2)
    # Nobody has failed who was cancelled.
    assert telemetry.value("failures", event="turn") == 1
    assert telemetry.value("failures", event="call") == 3
    errors = {
        dict(point.attributes or {})["error.type"]
        for point in telemetry.metrics()["trio_durable.failures"]
    }
    assert errors == {"Wrong", "StaleObject", "CallTimeout"}
    assert telemetry.value("stale_objects", **{"object.type": "Counter"}) == 1


@pytest.mark.anyio
async def test_alarms_are_counted_by_outcome(telemetry: Notifier) -> None:
    async with traced(telemetry) as runtime, calls() as others:
        await Counter.plan("a", "ring", 1)
        await Counter.plan("a", "ring_in_vain", 1)
        await runtime.schedule_alarm(Counter, "b", "ring", after=3600)
        assert telemetry.value("alarms.waiting") == 2
        await anyio.sleep(10)
        await Counter.plan("a", "ring", 1)
        others.start(Counter.add_slowly, "a", 3)
        await anyio.sleep(2)
        assert telemetry.value("alarms.in_flight") == 1
        await runtime.cancel_alarm(Counter, "a", "ring")
        await anyio.sleep(5)
        assert telemetry.value("alarms", **{"alarm.outcome": "handled"}) == 1
        assert telemetry.value("alarms", **{"alarm.outcome": "failed"}) == 2
        assert telemetry.value("alarms", **{"alarm.outcome": "superseded"}) == 1
        assert telemetry.value("dead_letters", **{"object.type": "Counter"}) == 1
        # Of first attempts only: later ones are late because the first has failed.
        assert telemetry.value("alarm.lateness") == 3


@pytest.mark.anyio
async def test_gauges_say_what_is_there_now(telemetry: Notifier) -> None:
    async with traced(telemetry) as runtime, calls() as others:
        for object_id in "aab":
            others.start(Counter.add_slowly, object_id, 1)
            await settle()
        assert telemetry.value("objects", **{"object.type": "Counter"}) == 2
        assert telemetry.value("mailbox.waiting", **{"object.type": "Counter"}) == 1
        await anyio.sleep(3)
        assert telemetry.value("mailbox.waiting") == 0
        await runtime.stop(Counter, "a")
        assert telemetry.value("objects") == 1
    assert telemetry.value("objects") == 0
    assert telemetry.value("alarms.waiting") == 0


def test_without_the_package_the_import_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import trio_durable.telemetry\n"
        "import trio_durable.telemetry.opentelemetry"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "trio-durable[opentelemetry]" in last


def test_the_library_itself_does_without_the_package() -> None:
    code = (
        "import sys, trio_durable, trio_durable.telemetry\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def values(points: list[Point]) -> list[int | float]:
    return [point.value for point in points if isinstance(point, NumberDataPoint)]


@pytest.mark.anyio
async def test_spans_of_a_call_are_joined_across_processes() -> None:
    rows, here, there = Rows(), Notifier(), Notifier()
    async with (
        node(rows, objects=[Counter], instruments=[there.instrument]),
        node(
            rows,
            objects=[Counter],
            cluster=Cluster(serve=False),
            instruments=[here.instrument],
        ) as guest,
    ):
        with here.tracer.start_as_current_span("request"):
            await guest.runtime.get(Counter, "a").add()
        points = here.metrics()
        assert values(points["trio_durable.calls.forwarded"]) == [1]
        assert values(points["trio_durable.shards"]) == [0]
        assert values(there.metrics()["trio_durable.shards"]) == [SHARDS]
    call, turn = here.span("call Counter.add"), there.span("turn Counter.add")
    assert here.parent(call) == "request"
    assert turn.parent is not None
    assert turn.parent.span_id == context_of(call).span_id
    assert context_of(turn).trace_id == context_of(call).trace_id
