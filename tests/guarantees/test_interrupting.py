"""`stop` with ``interrupt=True``: it cancels the turn that runs, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest
from support.clock import settle
from support.recording import Recorder
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    ActivationFailed,
    Alarm,
    CallCycle,
    CallTimeout,
    DurableObject,
    DurableRuntime,
    ObjectKey,
    Overloaded,
    TurnInterrupted,
    TurnTimeout,
    TurnWontEnd,
    handler,
)

pytestmark = pytest.mark.anyio

Way = Callable[["Stuck"], Awaitable[object]]

script: Way


def does(way: Way) -> None:
    """Let the handlers of `Stuck` do this."""
    global script
    script = way


class Stuck(DurableObject):
    done: int = 0

    @handler
    async def run(self) -> object:
        self.done += 1
        return await script(self)

    @handler
    async def work(self, seconds: float = 0) -> int:
        await anyio.sleep(seconds)
        self.done += 10
        return self.done

    @handler(readonly=True)
    def read(self) -> int:
        return self.done

    async def handle_alarm(self, alarm: Alarm) -> None:
        self.done += 1
        await script(self)


class SlowToWake(DurableObject):
    hangs: ClassVar[bool] = True
    catches: ClassVar[bool] = False
    woken: int = 0

    async def after_load(self) -> None:
        self.woken += 1
        try:
            if SlowToWake.hangs:
                await anyio.sleep(100)
        except anyio.get_cancelled_exc_class():
            if not SlowToWake.catches:
                raise

    @handler
    def read(self) -> int:
        return self.woken


async def hang(self: Stuck) -> None:
    await anyio.sleep(1000)


async def catch(self: Stuck) -> str:
    try:
        await anyio.sleep(1000)
    except anyio.get_cancelled_exc_class():
        self.done += 1
    return "a value"


async def raise_another(self: Stuck) -> None:
    try:
        await anyio.sleep(1000)
    finally:
        raise KeyError("of its own")


async def shield_for_4_seconds(self: Stuck) -> str:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(4)
    return "a value"


async def commit_and_hang(self: Stuck) -> None:
    await self.ctx.commit()
    self.done += 100
    await anyio.sleep(1000)


@pytest.mark.parametrize(
    ("way", "took", "left"),
    [
        (hang, 0, 0),
        (catch, 0, 0),
        (raise_another, 0, 0),
        (shield_for_4_seconds, 4, 0),
        (commit_and_hang, 0, 1),
    ],
)
@pytest.mark.parametrize("timeout", [5, None])
async def test_it_cancels_the_turn_that_runs_and_stops_after_the_calls_queued_so_far(
    way: Way, took: float, left: int, timeout: float | None
) -> None:
    does(way)
    storage = ScriptedStorage()
    async with scripted_runtime(storage, call_timeout=timeout) as runtime, calls() as group:
        stuck = runtime.get(Stuck, "a")
        running = group.start(stuck.run)
        await settle()
        queued = group.start(stuck.work, 0)
        await settle()
        began = anyio.current_time()
        stop = group.start(runtime.stop, Stuck, "a", interrupt=True)
        await settle()
        late = group.start(stuck.work, 0)
        await stop.wait()
        await settle()
        assert anyio.current_time() - began == pytest.approx(took, abs=0.1)
        assert stop.error is None
        error = running.error
        assert isinstance(error, TurnInterrupted)
        assert (error.key, error.handler) == (ObjectKey("Stuck", "a"), "run")
        assert queued.value == left + 10
        await late.wait()
        assert late.value == left + 20
        assert storage.rows() == {"a": b'{"done":%d,"$as":{}}' % (left + 20)}


async def test_the_object_leaves_memory_and_is_loaded_by_the_next_call() -> None:
    does(hang)
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        group.start(runtime.get(Stuck, "a").run)
        await settle()
        await runtime.stop(Stuck, "a", interrupt=True)
        assert runtime.whereis(Stuck, "a") is None
        assert await runtime.get(Stuck, "a").work() == 10


@pytest.mark.parametrize("state", ["unknown", "idle", "queued"])
async def test_without_a_running_turn_it_is_a_plain_stop(state: str) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        if state != "unknown":
            await runtime.get(Stuck, "a").work()
        if state == "queued":
            with storage.held("writer"):
                waiting = group.start(runtime.get(Stuck, "a").work)
                await settle()
                stop = group.start(runtime.stop, Stuck, "a", interrupt=True)
                await settle()
                assert not stop.done
            await stop.wait()
            assert waiting.value == 20
        else:
            await runtime.stop(Stuck, "a", interrupt=True)
        assert runtime.whereis(Stuck, "a") is None


@pytest.mark.parametrize("has_worker", [False, True])
async def test_a_turn_that_is_about_to_begin_is_interrupted_too(has_worker: bool) -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        if has_worker:
            await runtime.get(Stuck, "a").work()
        else:
            await runtime.get(Stuck, "a").read()
        does(hang)
        running = group.start(runtime.get(Stuck, "a").run)
        activation = runtime._registry.calls(Stuck).directory.find("a")
        assert activation is not None
        while activation.running_turn is None:
            await anyio.lowlevel.checkpoint()
        await runtime.stop(Stuck, "a", interrupt=True)
        await settle()
        assert isinstance(running.error, TurnInterrupted)
        assert await runtime.get(Stuck, "a").read() == (10 if has_worker else 0)


@pytest.mark.parametrize("catches", [False, True])
async def test_it_interrupts_after_load(catches: bool) -> None:
    SlowToWake.hangs, SlowToWake.catches = True, catches
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        waiting = group.start(runtime.get(SlowToWake, "a").read)
        await settle()
        await runtime.stop(SlowToWake, "a", interrupt=True)
        await settle()
        assert isinstance(waiting.error, ActivationFailed)
        assert isinstance(waiting.error.__cause__, TurnInterrupted)
        assert storage.rows() == {}
        SlowToWake.hangs = False
        assert await runtime.get(SlowToWake, "a").read() == 1


async def test_a_full_mailbox_is_no_obstacle() -> None:
    does(hang)

    class Narrow(Stuck, mailbox_size=1):
        pass

    async with DurableRuntime(":memory:") as runtime, calls() as group:
        narrow = runtime.get(Narrow, "a", timeout=None)
        for _ in range(3):
            group.start(narrow.work, 1)  # the wait of the next one is estimated from these
        await settle()
        group.start(narrow.run)
        await settle()
        waiting = [group.start(narrow.work, 1) for _ in range(4)]
        await anyio.sleep(7)
        with pytest.raises(Overloaded):
            await runtime.get(Narrow, "a").read()
        await runtime.stop(Narrow, "a", interrupt=True)
        await settle()
        assert sorted(each.value for each in waiting) == [40, 50, 60, 70]


async def test_of_its_own_turn_it_is_a_circle() -> None:
    async with DurableRuntime(":memory:") as runtime:
        does(lambda self: runtime.stop(Stuck, "a", interrupt=True))
        with pytest.raises(CallCycle):
            await runtime.get(Stuck, "a").run()
        assert await runtime.get(Stuck, "a").read() == 0


async def test_of_a_turn_that_the_object_waits_for_it_is_a_circle() -> None:
    class Other(DurableObject):
        @handler
        async def stop_caller(self) -> str:
            with pytest.raises(CallCycle):
                await self.ctx.runtime.stop(Stuck, "a", interrupt=True)
            return "not stopped"

    async with DurableRuntime(":memory:") as runtime:
        does(lambda self: runtime.get(Other, "b").stop_caller())
        assert await runtime.get(Stuck, "a").run() == "not stopped"


async def test_another_object_may_interrupt() -> None:
    does(hang)

    class Warden(DurableObject):
        @handler
        async def end(self) -> None:
            await self.ctx.runtime.stop(Stuck, "a", interrupt=True)

    async with DurableRuntime(":memory:") as runtime, calls() as group:
        running = group.start(runtime.get(Stuck, "a").run)
        await settle()
        await runtime.get(Warden, "b").end()
        await settle()
        assert isinstance(running.error, TurnInterrupted)


@pytest.mark.parametrize(("timeout", "bound"), [(7, 7), (None, 60)])
async def test_a_turn_that_does_not_end_in_time_is_told(
    timeout: float | None, bound: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def shield(self: Stuck) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100)

    does(shield)
    async with DurableRuntime(":memory:", call_timeout=timeout) as runtime, calls() as group:
        running = group.start(runtime.get(Stuck, "a", timeout=None).run)
        await settle()
        for _ in range(2):
            began = anyio.current_time()
            with pytest.raises(TurnWontEnd) as caught:
                await runtime.stop(Stuck, "a", interrupt=True)
            assert anyio.current_time() - began == pytest.approx(
                bound if timeout else min(bound, 100 - began), abs=0.1
            )
            assert (caught.value.handler, caught.value.timeout) == ("run", bound)
            if timeout is None:
                break
        (slowest,) = runtime.statistics().slowest
        assert slowest.waiting == 0
        assert slowest.cancelled == pytest.approx(14 if timeout else 60, abs=0.1)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        await running.wait()
        assert isinstance(running.error, TurnInterrupted)
        assert await runtime.get(Stuck, "a").read() == 0


async def test_calls_in_front_that_take_too_long_are_a_call_timeout() -> None:
    does(hang)
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        patient = runtime.get(Stuck, "a")
        group.start(patient.run)
        await settle()
        slow = group.start(patient.work, 30)
        await settle()

        class Impatient(Stuck, name="Impatient", call_timeout=5):
            pass

        other = runtime.get(Impatient, "a", timeout=None)
        group.start(other.run)
        await settle()
        group.start(other.work, 30)
        await settle()
        with pytest.raises(CallTimeout):
            await runtime.stop(Impatient, "a", interrupt=True)
        await runtime.stop(Stuck, "a", interrupt=True)
        await settle()
        assert slow.value == 10


async def test_a_turn_that_its_limit_has_cancelled_has_the_error_of_that() -> None:
    class Limited(DurableObject):
        @handler(limit=1)
        async def run(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)

    async with DurableRuntime(":memory:") as runtime, calls() as group:
        running = group.start(runtime.get(Limited, "a").run)
        await anyio.sleep(2)
        await runtime.stop(Limited, "a", interrupt=True)
        await settle()
        assert isinstance(running.error, TurnTimeout)
        assert runtime.whereis(Limited, "a") is None


async def test_an_interrupted_alarm_is_delivered_again_and_not_counted() -> None:
    does(hang)
    async with DurableRuntime(":memory:") as runtime:
        await runtime.schedule_alarm(Stuck, "a", "x", after=0)
        await anyio.sleep(1)
        await runtime.stop(Stuck, "a", interrupt=True)
        await settle()
        (waiting,) = await runtime.list_alarms(Stuck, "a")
        assert (waiting.attempt, waiting.last_error) == (1, None)
        does(lambda self: anyio.lowlevel.checkpoint())
        await anyio.sleep(10)
        assert await runtime.list_alarms(Stuck, "a") == []
        assert await runtime.get(Stuck, "a").read() == 1


async def test_instruments_see_the_stop_as_a_call() -> None:
    does(hang)
    recorder = Recorder()
    async with (
        DurableRuntime(":memory:", instruments=[recorder]) as runtime,
        calls() as group,
    ):
        group.start(runtime.get(Stuck, "a").run)
        await settle()
        await runtime.stop(Stuck, "a", interrupt=True)
    assert not recorder.violations
    assert not recorder.under_way
    names = [getattr(each.event, "handler", "") for each in recorder.told]
    assert names.count("stop") == 4  # a call and a turn
