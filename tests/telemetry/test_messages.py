"""Events, spans and metrics of messages."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from support.recording import Recorder

from trio_durable import DurableObject, DurableRuntime, ObjectKey, Retry, handler
from trio_durable.telemetry import (
    Instrument,
    LoggingInstrument,
    MessageBuried,
    MessageDelivery,
    MessageSent,
    Turn,
)
from trio_durable.testing import drain_messages

from .test_opentelemetry import Notifier, attributes_of

pytestmark = pytest.mark.anyio


class Refused(Exception):
    pass


class Receiver(DurableObject, name="telemetry.Receiver"):
    count: int = 0

    @handler(retry=Retry(initial=10, factor=1, attempts=2), expected=Refused)
    def take(self, problem: str = "") -> None:
        if problem:
            raise Refused(problem) if problem == "refused" else ValueError(problem)
        self.count += 1


class Sender(DurableObject, name="telemetry.Sender"):
    @handler
    def send(self, problem: str = "", count: int = 1, fails: bool = False) -> None:
        for _ in range(count):
            self.ctx.send(Receiver.take, "r", problem)
        if fails:
            raise KeyError("on purpose")

    @handler
    def send_later(self) -> None:
        self.ctx.outgoing(after=60).send(Receiver.take, "r")


@asynccontextmanager
async def observed(*instruments: Instrument) -> AsyncIterator[tuple[DurableRuntime, Recorder]]:
    recorder = Recorder()
    async with DurableRuntime(
        ":memory:", objects=[Sender, Receiver], instruments=[recorder, *instruments]
    ) as runtime:
        yield runtime, recorder
    recorder.check()


async def test_a_message_is_told_when_it_is_sent_and_while_it_is_delivered() -> None:
    async with observed() as (runtime, recorder):
        await runtime.get(Sender, "s").send(count=2)
        await drain_messages(runtime)
        sent = recorder.all(MessageSent, "event")
        assert [(each.handler, each.delay) for each in sent] == [("take", 0.0)] * 2
        assert sent[0].key == ObjectKey("telemetry.Receiver", "r")
        assert sent[0].sender == ObjectKey("telemetry.Sender", "s")
        deliveries = recorder.all(MessageDelivery, "start")
        assert [each.id for each in deliveries] == [each.id for each in sent]
        assert {each.attempt for each in deliveries} == {1}
        assert all(recorder.end_of(each).error is None for each in deliveries)
        turns = [turn for turn in recorder.all(Turn, "start") if turn.handler == "take"]
        assert [turn.request for turn in turns] == list(deliveries)


async def test_the_messages_of_a_turn_that_fails_are_not_told() -> None:
    async with observed() as (runtime, recorder):
        with pytest.raises(KeyError):
            await runtime.get(Sender, "s").send(fails=True)
        await drain_messages(runtime)
        assert not recorder.all(MessageSent, "event")


async def test_lateness_counts_from_when_a_message_may_be_delivered() -> None:
    async with observed() as (runtime, recorder):
        await runtime.get(Sender, "s").send_later()
        assert recorder.one(MessageSent).delay == 60
        await anyio.sleep(61)
        await drain_messages(runtime)
        assert 0 <= recorder.one(MessageDelivery).lateness < 1


async def test_failed_deliveries_and_the_death_of_a_message_are_told() -> None:
    async with observed() as (runtime, recorder):
        await runtime.get(Sender, "s").send("bad")
        await drain_messages(runtime)
        await anyio.sleep(11)
        await drain_messages(runtime)
        first, second = recorder.all(MessageDelivery, "start")
        assert (first.attempt, second.attempt) == (1, 2)
        assert isinstance(recorder.end_of(first).error, ValueError)
        buried = recorder.one(MessageBuried)
        assert (buried.id, buried.handler, buried.attempts) == (first.id, "take", 2)


async def test_a_message_that_fails_is_logged_once_and_its_death_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "trio_durable.telemetry")
    async with observed(LoggingInstrument()) as (runtime, _):
        await runtime.get(Sender, "s").send("bad")
        await drain_messages(runtime)
        await runtime.get(Sender, "s2").send("refused")
        await drain_messages(runtime)
    lines = [record for record in caplog.records if record.name == "trio_durable.telemetry"]
    texts = [record.getMessage().partition(" after ")[0] for record in lines]
    assert texts == [
        "turn take of telemetry.Receiver('r') failed",
        "telemetry.Receiver('r'): message buried",
    ]
    assert len(lines[1].__dict__["durable_message"]) == 16


async def test_the_span_of_a_delivery_links_to_that_of_the_sending_turn() -> None:
    telemetry = Notifier()
    async with observed(telemetry.instrument) as (runtime, _):
        await runtime.get(Sender, "s").send()
        await drain_messages(runtime)
    send = telemetry.span("send telemetry.Receiver.take")
    delivery = telemetry.span("message telemetry.Receiver.take")
    assert telemetry.parent(send) == "turn telemetry.Sender.send"
    assert telemetry.parent(delivery) is None
    assert telemetry.links(delivery) == ["send telemetry.Receiver.take"]
    assert telemetry.parent(telemetry.span("turn telemetry.Receiver.take")) == (
        "message telemetry.Receiver.take"
    )
    name = "trio_durable.message.id"
    assert attributes_of(send)[name] == attributes_of(delivery)[name]
    assert attributes_of(delivery)["trio_durable.message.sender"] == "telemetry.Sender('s')"


async def test_messages_are_counted_by_handler_and_outcome() -> None:
    telemetry = Notifier()
    async with observed(telemetry.instrument) as (runtime, _):
        await runtime.get(Sender, "s").send(count=3)
        await runtime.get(Sender, "s2").send("refused")
        await drain_messages(runtime)
        metrics = telemetry.metrics()
    of = {"trio_durable.object.type": "telemetry.Receiver", "trio_durable.handler": "take"}
    [sent] = metrics["trio_durable.messages.sent"]
    assert dict(sent.attributes or {}) == of
    outcomes = {
        str((point.attributes or {})["trio_durable.message.outcome"]): getattr(point, "value", 0)
        for point in metrics["trio_durable.messages"]
    }
    assert outcomes == {"handled": 3, "failed": 1}
    [dead] = metrics["trio_durable.messages.dead"]
    assert (dict(dead.attributes or {}), getattr(dead, "value", 0)) == (of, 1)
    assert "trio_durable.messages.in_flight" in metrics
