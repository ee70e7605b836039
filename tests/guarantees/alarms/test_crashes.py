"""Alarms in whose deliveries a runtime dies: whole runtimes, and what goes wrong meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.scripted import ScriptedStorage

from trio_durable import ObjectKey
from trio_durable._keys import AlarmKey
from trio_durable.scheduler._delivery.suspects import PROBATION_SECONDS
from trio_durable.storage import StorageFault, StoredAlarm
from trio_durable.telemetry import DeadLettered, Instrument

from .bench import (
    AsyncBench,
    Bench,
    SharedStorage,
    errors,
    fired,
    names,
    opened,
    script,
    sharing,
    sleeps,
)

pytestmark = pytest.mark.anyio

TTL = 20.0
LONG = 600.0


def stored(shared: SharedStorage, object_id: str = "a") -> StoredAlarm:
    (found,) = shared.memory.open_reader().list_alarms(ObjectKey("AsyncBench", object_id))
    return found


async def dies(shared: SharedStorage, times: int) -> None:
    """Let several runtimes die as soon as they have delivered an alarm."""
    for _ in range(times):
        side, before = shared.side(), len(fired)
        async with sharing(side, claim_ttl=TTL, polling_interval=5, grace_period=0):
            with anyio.fail_after(1000):
                while len(fired) == before:
                    await anyio.sleep(1)
            side.dead = True
        await anyio.sleep(TTL)


async def suspected(shared: SharedStorage, crashes: int, name: str = "x") -> None:
    """Set an alarm, and let runtimes die of it until the next claim counts ``crashes``."""
    script(name, sleeps(LONG))
    async with sharing(shared.side()) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", name, after=1)
    await dies(shared, 1 + crashes)
    fired.clear()


class Recorder(Instrument):
    def __init__(self) -> None:
        self.dead: list[DeadLettered] = []

    def on_event(self, event: object) -> None:
        if isinstance(event, DeadLettered):
            self.dead.append(event)


async def test_an_alarm_of_which_ten_runtimes_died_is_a_dead_letter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared, recorder = SharedStorage(), Recorder()
    await suspected(shared, 10)
    caplog.clear()
    async with sharing(shared.side(), instruments=[recorder]) as runtime:
        with anyio.fail_after(100):
            while not (dead := await runtime.list_dead_letters(AsyncBench)):
                await anyio.sleep(1)
        assert fired == []
        (letter,) = dead
        assert letter.last_error is not None
        assert letter.last_error.startswith(
            "AlarmCrashed: x on AsyncBench('a') is an alarm, and the process died in each of its "
            "last 10 deliveries"
        )
        assert [(event.name, event.attempts) for event in recorder.dead] == [("x", 10)]
        (record,) = (each for each in caplog.records if each.name == "trio_durable.alarms")
        assert record.levelno == logging.ERROR
        assert record.getMessage() == (
            "the process died in each of the last 10 deliveries of alarm x of AsyncBench('a'); it "
            "is kept as a dead letter"
        )
        script("x", lambda self: anyio.lowlevel.checkpoint())
        assert await runtime.retry_alarm(AsyncBench, "a", "x")
        await anyio.sleep(1)
        assert names() == ["x"]
        assert await runtime.list_dead_letters(AsyncBench) == []


async def test_leaving_the_runtime_is_no_crash() -> None:
    shared = SharedStorage()
    await suspected(shared, 3)
    for _ in range(12):
        fired.clear()
        async with sharing(shared.side(), grace_period=0):
            with anyio.fail_after(100):
                while not fired:
                    await anyio.sleep(0.5)
        assert (stored(shared).crashes, stored(shared).failures) == (3, 0)


async def test_alarms_that_are_no_suspects_are_not_marked() -> None:
    storage = ScriptedStorage()
    done: list[str] = []
    call = storage.call

    def noting(kind: str, work: Callable[[], Any]) -> Any:
        done.append(kind)
        return call(kind, work)

    storage.call = noting  # type: ignore[method-assign]
    async with opened(storage) as runtime:
        for n in range(20):
            await runtime.schedule_alarm(Bench, f"{n}", "x", after=1)
        done.clear()
        await anyio.sleep(2)
        assert len(fired) == 20
    assert {"claim", "commit"} <= set(done)
    assert not {"mark", "acquit", "postpone"} & set(done)


async def in_runtime(
    shared: SharedStorage,
    work: Callable[[], Awaitable[None]],
    **faults: int,
) -> None:
    """Run ``work`` in a runtime whose writer fails at first, by method that many times."""
    side = shared.side()
    left = dict(faults)
    open_writer = side.open_writer

    def opening() -> Any:
        writer: Any = open_writer()

        def failing(kind: str) -> Any:
            method = getattr(writer, kind)

            def call(*args: Any) -> Any:
                if left[kind] > 0:
                    left[kind] -= 1
                    raise StorageFault("disk full")
                return method(*args)

            return call

        for kind in faults:
            setattr(writer, kind, failing(kind))
        return writer

    side.open_writer = opening  # type: ignore[method-assign]
    async with sharing(side, claim_ttl=TTL, grace_period=0):
        await work()


async def test_a_suspect_that_can_not_be_marked_is_delivered_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = SharedStorage()
    await suspected(shared, 0)
    script("x", sleeps(0))
    caplog.clear()

    async def work() -> None:
        await anyio.sleep(0.9)
        assert fired == []
        await anyio.sleep(10)
        assert names() == ["x"]

    await in_runtime(shared, work, mark=3)
    assert errors(caplog) == ["could not mark 1 alarms that are due: disk full"]
    assert shared.memory.open_reader().list_alarms(ObjectKey("AsyncBench", "a")) == []


async def test_a_suspect_that_can_not_be_acquitted_runs_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = SharedStorage()
    await suspected(shared, 2)
    caplog.clear()

    async def work() -> None:
        await anyio.sleep(2 * PROBATION_SECONDS + 10)
        assert names() == ["x"]
        assert stored(shared).crashes == 2

    await in_runtime(shared, work, acquit=1)
    assert errors(caplog) == ["could not acquit 1 alarms: disk full"]
    # Leaving the runtime was no crash.
    assert stored(shared).crashes == 2


async def test_a_long_delivery_is_acquitted() -> None:
    shared = SharedStorage()
    await suspected(shared, 2)

    async def work() -> None:
        with anyio.fail_after(100):
            while not fired:
                await anyio.sleep(0.5)
        assert stored(shared).crashes == 2
        await anyio.sleep(PROBATION_SECONDS + 1)
        assert stored(shared).crashes is None

    await in_runtime(shared, work)
    # Given back, and no suspect any more.
    assert stored(shared).crashes is None


async def test_a_runtime_that_loses_a_marked_claim_counts_as_one_that_died() -> None:
    """Other processes can't tell a process that hangs from a dead one."""
    shared = SharedStorage()
    await suspected(shared, 1)
    stalled = shared.side()
    async with sharing(stalled, claim_ttl=TTL, grace_period=0):
        with anyio.fail_after(100):
            while not fired:
                await anyio.sleep(0.5)
        # Its writer hangs from now on, before the alarm can be acquitted.
        stalled.dead = True
        async with sharing(shared.side(), claim_ttl=TTL, polling_interval=1, grace_period=0):
            with anyio.fail_after(100):
                while len(fired) < 2:
                    await anyio.sleep(0.5)
            assert stored(shared).crashes == 2
            stalled.dead = False
            await anyio.sleep(PROBATION_SECONDS + 1)
            # What the stalled runtime does about its lost claim changes nothing.
            assert stored(shared).crashes is None
            await anyio.sleep(LONG)
            assert names() == ["x", "x"]
    assert shared.memory.open_reader().list_alarms(ObjectKey("AsyncBench", "a")) == []


async def test_an_alarm_that_is_cancelled_while_it_waits_is_not_delivered() -> None:
    shared = SharedStorage()
    await suspected(shared, 5)
    async with sharing(shared.side(), polling_interval=1) as runtime:
        with anyio.fail_after(100):
            while runtime.statistics().alarms_in_flight == 0:
                await anyio.sleep(0.5)
        assert await runtime.list_alarms(AsyncBench, "a")
        await runtime.cancel_alarm(AsyncBench, "a", "x")
        await anyio.sleep(1000)
        assert fired == []
        assert runtime.statistics().alarms_in_flight == 0


@pytest.mark.parametrize("kind", ["mark", "acquit"])
async def test_marks_of_lost_claims_change_nothing(kind: str) -> None:
    shared = SharedStorage()
    await suspected(shared, 1)
    key = AlarmKey("AsyncBench", "a", "x")
    assert getattr(shared.writer, kind)(key, 12345) is False
    assert stored(shared).crashes == 0  # the last claim hasn't been replaced yet
