"""Limits of turns: a turn that takes too long is cancelled, and nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import anyio
import pytest
from support.clock import settle
from support.recording import Recorder
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls
from support.workers import Worker

from trio_durable import (
    Alarm,
    CallTimeout,
    DurableObject,
    DurableRuntime,
    HandlerCancelled,
    ObjectKey,
    Retry,
    RuntimeClosed,
    TurnTimeout,
    alarm,
    handler,
)
from trio_durable._activations.activation import Activation
from trio_durable.testing import perform_handler

pytestmark = pytest.mark.anyio

Way = Callable[["Limited"], Awaitable[object]]

script: Way


def does(way: Way) -> None:
    """Let the handlers of `Limited` do this."""
    global script
    script = way


class Limited(DurableObject, call_timeout=None):
    done: int = 0

    @handler(limit=2)
    async def run(self) -> object:
        self.done += 1
        return await script(self)

    @handler
    async def run_without(self) -> object:
        self.done += 1
        return await script(self)

    @handler
    def change(self) -> int:
        self.done += 10
        return self.done

    @handler(readonly=True)
    def read(self) -> int:
        return self.done

    @alarm(limit=2, retry=Retry(attempts=2, initial=10))
    async def ring(self) -> None:
        self.done += 1
        await script(self)


class OfClass(DurableObject, turn_limit=timedelta(seconds=3), call_timeout=None):
    done: int = 0

    @handler
    async def work(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @handler(limit=1)
    async def work_briefly(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @handler(limit=None)
    async def work_long(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @handler
    def work_now(self) -> int:
        return 1

    @handler
    async def work_within(self, seconds: float) -> None:
        await self.work_briefly(seconds)

    async def handle_alarm(self, alarm: Alarm) -> None:
        await anyio.sleep(100)


class Heir(OfClass, turn_limit=5):
    pass


# --- what a turn may do --------------------------------------------------------------------------


async def sleep_long(self: Limited) -> None:
    await anyio.sleep(100)


async def catch(self: Limited) -> str:
    try:
        await anyio.sleep(100)
    except anyio.get_cancelled_exc_class():
        self.done += 1
    return "a value"


async def raise_another(self: Limited) -> None:
    try:
        await anyio.sleep(100)
    except anyio.get_cancelled_exc_class():
        raise KeyError("of its own") from None


async def raise_in_a_group(self: Limited) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 100)
        await catch(self)
        raise KeyError("of its own")


async def shield_for_5_seconds(self: Limited) -> str:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(5)
    return "a value"


async def commit_as_clean_up(self: Limited) -> None:
    try:
        await anyio.sleep(100)
    finally:
        with anyio.CancelScope(shield=True):
            await self.ctx.commit()


WAYS = [sleep_long, catch, raise_another, raise_in_a_group, shield_for_5_seconds]
WAYS += [commit_as_clean_up]


@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_that_exceeds_its_limit_leaves_nothing(
    way: Way,
) -> None:
    does(way)
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        limited = runtime.get(Limited, "a")
        began = anyio.current_time()
        call = group.start(limited.run)
        await anyio.sleep(1)
        queued = group.start(limited.change)
        await call.wait()
        took = 5 if way is shield_for_5_seconds else 2
        assert anyio.current_time() - began == pytest.approx(took, abs=0.1)
        error = call.error
        assert isinstance(error, TurnTimeout)
        assert isinstance(error, TimeoutError)
        assert (error.key, error.handler, error.limit) == (ObjectKey("Limited", "a"), "run", 2)
        await queued.wait()
        assert queued.value == 10
        assert storage.rows() == {"a": b'{"done":10,"$as":{}}'}
        # The next turns have a worker that isn't cancelled.
        does(lambda self: anyio.sleep(1))
        await limited.run()
        assert await limited.read() == 11


async def test_the_error_of_the_handler_is_the_cause() -> None:
    does(raise_another)
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(TurnTimeout) as caught:
            await runtime.get(Limited, "a").run()
        assert isinstance(caught.value.__cause__, KeyError)


async def test_a_turn_within_its_limit_is_like_any_other() -> None:
    async def answer(self: Limited) -> str:
        await anyio.sleep(1.9)
        return "a value"

    does(answer)
    async with DurableRuntime(":memory:") as runtime:
        limited = runtime.get(Limited, "a")
        assert await limited.run() == "a value"
        # The time between turns doesn't count.
        await anyio.sleep(1.9)
        assert await limited.run() == "a value"
        assert await limited.read() == 2


async def test_time_in_the_mailbox_does_not_count() -> None:
    does(lambda self: anyio.sleep(1.5))
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        outcomes = [group.start(runtime.get(Limited, "a").run) for _ in range(4)]
        await outcomes[-1].wait()
        assert [outcome.error for outcome in outcomes] == [None] * 4


async def test_calls_that_a_turn_makes_count_and_run_to_their_ends() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        does(lambda self: runtime.get(Worker, "b").work(3))
        with pytest.raises(TurnTimeout, match=r"calls and requests .* may have taken effect"):
            await runtime.get(Limited, "a").run()
        assert await runtime.get(Worker, "b").read() == 1
        assert await runtime.get(Limited, "a").read() == 0


async def test_the_next_turn_in_the_mailbox_is_not_cancelled() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        first = group.start(runtime.get(OfClass, "a").work_briefly, 50)
        await anyio.sleep(0.5)
        second = group.start(runtime.get(OfClass, "a").work, 1)
        await second.wait()
        assert isinstance(first.error, TurnTimeout)
        assert second.error is None


async def test_what_a_turn_has_committed_stays() -> None:
    async def commit_and_hang(self: Limited) -> None:
        await self.ctx.commit()
        self.done += 100
        await anyio.sleep(100)

    does(commit_and_hang)
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        with pytest.raises(TurnTimeout):
            await runtime.get(Limited, "a").run()
        assert await runtime.get(Limited, "a").read() == 1
        assert storage.rows() == {"a": b'{"done":1,"$as":{}}'}


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_that_comes_from_elsewhere_is_none_of_the_limit() -> None:
    async def cancel_own_task(self: Limited) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    does(cancel_own_task)
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(HandlerCancelled):
            await runtime.get(Limited, "a").run()
        does(lambda self: anyio.sleep(1))
        await runtime.get(Limited, "a").run()


async def test_the_end_of_the_runtime_is_none_of_the_limit() -> None:
    does(sleep_long)
    async with calls() as group:
        async with DurableRuntime(":memory:", grace_period=1) as runtime:
            call = group.start(runtime.get(Limited, "a").run)
            await anyio.sleep(0.5)
        await call.wait()
        assert isinstance(call.error, RuntimeClosed)


async def test_a_callers_timeout_does_not_end_the_turn_but_its_limit_does() -> None:
    does(sleep_long)
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(CallTimeout):
            await runtime.get(Limited, "a", timeout=1).run()
        began = anyio.current_time()
        assert await runtime.get(Limited, "a").change() == 10
        assert anyio.current_time() - began == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("cls", "name", "limit"),
    [
        (OfClass, "work", 3),
        (OfClass, "work_briefly", 1),
        (OfClass, "work_long", None),
        (OfClass, "work_within", 3),
        (Heir, "work", 5),
        (Heir, "work_briefly", 1),
    ],
)
async def test_the_limit_of_a_handler_is_its_own_or_its_classs(
    cls: type[OfClass], name: str, limit: float | None
) -> None:
    async with DurableRuntime(":memory:") as runtime:
        began = anyio.current_time()
        if limit is None:
            await runtime.call(cls, "a", name, 50)
            return
        await runtime.call(cls, "a", name, limit - 0.1)
        with pytest.raises(TurnTimeout) as caught:
            await runtime.call(cls, "a", name, 50)
        assert caught.value.limit == limit
        assert anyio.current_time() - began == pytest.approx(2 * limit - 0.1, abs=0.1)
        assert await runtime.get(cls, "a").work_now() == 1


async def test_a_limit_of_the_class_is_none_of_after_load() -> None:
    class Slow(OfClass):
        async def after_load(self) -> None:
            await anyio.sleep(10)

    async with DurableRuntime(":memory:") as runtime:
        await runtime.get(Slow, "a").work(1)


# --- alarms --------------------------------------------------------------------------------------


async def test_an_alarm_that_exceeds_its_limit_has_failed() -> None:
    does(sleep_long)
    async with DurableRuntime(":memory:") as runtime:
        await runtime.schedule_alarm(Limited, "a", "ring", after=0)
        await anyio.sleep(5)
        (waiting,) = await runtime.list_alarms(Limited, "a")
        assert waiting.attempt == 2
        assert waiting.last_error is not None
        assert waiting.last_error.startswith("TurnTimeout: ring on Limited('a') exceeded its limit")
        await anyio.sleep(20)
        (dead,) = await runtime.list_dead_letters(Limited)
        assert dead.attempt == 2
        assert await runtime.get(Limited, "a").read() == 0


async def test_a_limit_of_the_class_is_one_of_handle_alarm() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await runtime.schedule_alarm(OfClass, "a", "any", after=0)
        await anyio.sleep(4)
        (waiting,) = await runtime.list_alarms(OfClass, "a")
        assert "limit of 3 s" in str(waiting.last_error)


async def test_an_attempt_that_exceeds_its_limit_while_the_runtime_closes_counts() -> None:
    does(sleep_long)
    storage = ScriptedStorage()
    async with DurableRuntime(storage, runner=storage.runner, grace_period=30) as runtime:
        await runtime.schedule_alarm(Limited, "a", "ring", after=0)
        await anyio.sleep(1)
    async with scripted_runtime(storage) as runtime:
        (waiting,) = await runtime.list_alarms(Limited, "a")
        assert waiting.attempt == 2


# --- handlers that resist ------------------------------------------------------------------------


async def test_a_handler_that_resists_its_cancellation_is_reported_and_stays_the_only_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = 0

    async def shield(self: Limited) -> None:
        nonlocal running
        running += 1
        assert running == 1
        with anyio.CancelScope(shield=True):
            await anyio.sleep(20)
        running -= 1

    does(shield)
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        limited = runtime.get(Limited, "a")
        first, second = group.start(limited.run), group.start(limited.run)
        await anyio.sleep(1)
        (slowest,) = runtime.statistics().slowest
        assert slowest.cancelled is None
        await anyio.sleep(10.5)
        (slowest,) = runtime.statistics().slowest
        assert slowest.cancelled == pytest.approx(9.5, abs=0.1)
        assert str(slowest) == "Limited('a'): run for 11.5 s (cancelled 9.5 s ago), 1 waiting"
        assert not caplog.records
        with pytest.raises(CallTimeout, match=r"running for 12.1 s \(cancelled 10.1 s ago\)"):
            await runtime.get(Limited, "a", timeout=0.6).read()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.name == "trio_durable"
        assert "run on Limited('a') still runs 10 s after it was cancelled" in record.message
        await first.wait()
        await second.wait()
        assert isinstance(first.error, TurnTimeout)
        assert isinstance(second.error, TurnTimeout)


async def test_a_handler_that_ends_in_time_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    does(shield_for_5_seconds)
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(TurnTimeout):
            await runtime.get(Limited, "a").run()
        does(lambda self: anyio.sleep(20))
        await runtime.get(Limited, "a").run_without()
        assert not caplog.records


# --- the rest ------------------------------------------------------------------------------------


async def test_instruments_see_a_failed_turn() -> None:
    does(sleep_long)
    recorder = Recorder()
    async with DurableRuntime(":memory:", instruments=[recorder]) as runtime:
        with pytest.raises(TurnTimeout):
            await runtime.get(Limited, "a").run()
    told = [str(each) for each in recorder.told]
    assert "exception Turn" in told
    assert "exception Call" in told
    assert not recorder.violations


@pytest.mark.parametrize("limit", [10_000, 1])
async def test_a_limit_keeps_nothing_of_a_turn_that_has_ended(limit: float) -> None:
    class Token(str):
        """An argument of which can be told whether it is alive."""

    class Holder(DurableObject, call_timeout=None):
        @handler(limit=limit)
        async def hold(self, token: Token, seconds: float) -> None:
            await anyio.sleep(seconds)

    alive: weakref.WeakSet[Token] = weakref.WeakSet()

    async def hold(holder: Holder) -> None:
        token = Token("x")
        alive.add(token)
        with suppress(TurnTimeout):
            await holder.hold(token, 2)

    async with DurableRuntime(":memory:") as runtime, calls() as group:
        holder = runtime.get(Holder, "a")
        gc.collect()
        gc.disable()
        try:
            call = group.start(hold, holder)
            await anyio.sleep(0.5)
            assert len(alive) == 1
            await call.wait()
            await runtime.get(Holder, "a").hold(Token("another"), 0)
            assert len(alive) == 0
            del call
            await runtime.stop(Holder, "a")
            await settle()  # the worker's task comes to its end
            # `isinstance` would call `__getattribute__` of objects that other tests left.
            left = [each for each in gc.get_objects() if issubclass(type(each), Activation)]
            assert not [each for each in left if each.state.object_type.cls is Holder]
        finally:
            gc.enable()


async def test_performing_a_handler_has_its_limit() -> None:
    for way in (sleep_long, catch):
        does(way)
        with pytest.raises(TurnTimeout) as caught:
            await perform_handler(Limited(), "run")
        assert caught.value.limit == 2
    does(lambda self: anyio.sleep(1))
    assert (await perform_handler(Limited(), "run")).state.done == 1
