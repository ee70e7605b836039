"""Wall time: the machine's, and that of a loop in virtual time."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
import trio
from support.clock import VirtualTimeLoop
from trio.testing import MockClock

from trio_durable import Clock, DurableObject, DurableRuntime, handler
from trio_durable._clock import LoopClock, SystemClock
from trio_durable._eventloop.loop import Loop
from trio_durable._eventloop.running import running_loop


class Source:
    """Something that time comes from."""

    def __init__(self, now: float = 0.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


class Watch(DurableObject):
    @handler
    def set_alarm(self) -> None:
        self.ctx.schedule_alarm("later", after=1)


# --- the machine's -------------------------------------------------------------------------------


def test_the_system_clock_gives_microseconds_since_1970() -> None:
    clock = SystemClock()
    assert clock.may_jump
    before = time.time_ns() // 1000
    now = clock.now()
    after = time.time_ns() // 1000
    assert type(now) is int
    # Unless somebody sets the clock in this very moment.
    assert before <= now <= after


def test_the_system_clock_follows_the_machine_when_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SystemClock()
    for instant in (5 * 10**18, 10**18, 0, -(10**9)):
        monkeypatch.setattr(time, "time_ns", lambda instant=instant: instant)
        assert clock.now() == instant // 1000


# --- a loop's ------------------------------------------------------------------------------------


def test_a_loop_clock_goes_as_its_source_does() -> None:
    source = Source(100.0)
    clock = LoopClock(source, source.now)
    assert not clock.may_jump
    start = clock.now()
    assert type(start) is int
    source.time += 0.000_001
    assert clock.now() == start + 1
    source.time = 100.0 + 86_400
    assert clock.now() == start + 86_400_000_000


@pytest.mark.parametrize("loop_time", [0.0, 12_345.678, 0.25])
@pytest.mark.parametrize("instant", [1_790_000_000_123_456, 1_790_000_000_987_654, 0])
def test_a_loop_clock_begins_at_the_real_time_to_the_microsecond(
    monkeypatch: pytest.MonkeyPatch, instant: int, loop_time: float
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: instant * 1000 + 999)
    source = Source(loop_time)
    assert LoopClock(source, source.now).now() == instant


def test_two_clocks_of_one_source_agree_however_late_the_second_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source()
    first = LoopClock(source, source.now)
    source.time = 1000.0
    real = time.time_ns()
    # Real time passes as well, but otherwise.
    monkeypatch.setattr(time, "time_ns", lambda: real + 7 * 10**9)
    second = LoopClock(source, source.now)
    assert first.now() == second.now()
    source.time = 2000.25
    assert first.now() == second.now()


def test_clocks_of_different_sources_are_nothing_to_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = Source(), Source()
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    first = LoopClock(one, one.now)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 + 10**12)
    second = LoopClock(other, other.now)
    assert second.now() - first.now() == 10**9


def test_a_source_that_cannot_be_remembered_has_clocks_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Neither can be a key of a weak dictionary.
    for source in (object(), []):
        monkeypatch.setattr(time, "time_ns", lambda: 10**18)
        first = LoopClock(source, lambda: 1.0)
        monkeypatch.setattr(time, "time_ns", lambda: 10**18 + 5000)
        assert LoopClock(source, lambda: 1.0).now() == first.now() + 5


def test_a_source_is_forgotten_when_it_is_gone() -> None:
    source = Source()
    # Only the number that it began with is remembered, by the source.
    LoopClock(source, lambda: 0.0)
    gone = weakref.ref(source)
    del source
    gc.collect()
    assert gone() is None


# --- which of them a runtime takes ---------------------------------------------------------------


async def due_in(runtime: DurableRuntime) -> float:
    """The seconds since 1970 that an alarm set now for in a second is due at."""
    await runtime.get(Watch, "x").set_alarm()
    (alarm,) = await runtime.list_alarms(Watch, "x")
    return alarm.due_at.timestamp()


@pytest.mark.anyio
async def test_under_a_virtual_clock_alarms_follow_it() -> None:
    async with DurableRuntime(":memory:", objects=[Watch]) as runtime:
        first = await due_in(runtime)
        await anyio.sleep(0.5)
        assert await due_in(runtime) == pytest.approx(first + 0.5, abs=1e-3)
        await anyio.sleep(7200)
        assert await due_in(runtime) == pytest.approx(first + 0.5 + 7200, abs=1e-3)


@pytest.mark.anyio
async def test_a_runtime_that_is_opened_later_in_the_same_loop_has_the_same_time() -> None:
    async with DurableRuntime(":memory:", objects=[Watch]) as runtime:
        first = await due_in(runtime)
    await anyio.sleep(86_400)
    async with DurableRuntime(":memory:", objects=[Watch]) as runtime:
        assert await due_in(runtime) == pytest.approx(first + 86_400, abs=1e-3)


class Stopped(Clock):
    """Half past three, for ever."""

    @property
    def may_jump(self) -> bool:
        return False

    def now(self) -> int:
        return round(datetime(2030, 1, 1, 15, 30, tzinfo=UTC).timestamp() * 1e6)


@pytest.mark.anyio
async def test_a_clock_that_is_given_is_asked() -> None:
    async with DurableRuntime(":memory:", objects=[Watch], clock=Stopped()) as runtime:
        await runtime.schedule_alarm(Watch, "x", "later", after=1)
        (alarm,) = await runtime.list_alarms(Watch, "x")
        assert alarm.due_at == datetime(2030, 1, 1, 15, 30, 1, tzinfo=UTC)
        await anyio.sleep(3600)
        assert await runtime.list_alarms(Watch, "x") == [alarm]


# --- telling virtual loops from real ones --------------------------------------------------------


def loop_on(backend: tuple[str, dict[str, Any]]) -> Loop:
    async def look() -> Loop:
        return running_loop()

    name, options = backend
    return anyio.run(look, backend=name, backend_options=options)


def test_the_loops_that_programs_run_on_are_real(real_backend: tuple[str, dict[str, Any]]) -> None:
    assert not loop_on(real_backend).is_virtual


def test_the_loops_that_tests_run_on_are_virtual(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    assert loop_on(anyio_backend).is_virtual


@pytest.mark.parametrize("rate", [0, 1, 2])
def test_a_clock_that_is_advanced_by_hand_is_virtual(rate: float) -> None:
    assert loop_on(("trio", {"clock": MockClock(rate=rate)})).is_virtual


def test_a_loop_that_only_adds_to_that_of_asyncio_is_real() -> None:
    class Chatty(asyncio.SelectorEventLoop):
        def call_exception_handler(self, context: dict[str, Any]) -> None:
            raise AssertionError(context)

    assert not loop_on(("asyncio", {"loop_factory": Chatty})).is_virtual


def test_all_loops_of_one_clock_have_one_source(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    async def looks() -> tuple[Loop, Loop]:
        return running_loop(), running_loop()

    name, options = anyio_backend
    one, other = anyio.run(looks, backend=name, backend_options=options)
    assert one.time_source is other.time_source


def test_a_clock_that_serves_two_runs_keeps_its_time() -> None:
    clock = MockClock(autojump_threshold=0)

    async def due() -> float:
        async with DurableRuntime(":memory:", objects=[Watch]) as runtime:
            at = await due_in(runtime)
            await trio.sleep(100)
            return at

    first = trio.run(due, clock=clock)
    assert trio.run(due, clock=clock) >= first + 100


def test_a_virtual_loop_of_asyncio_starts_at_the_real_time() -> None:
    async def due() -> float:
        async with DurableRuntime(":memory:", objects=[Watch]) as runtime:
            return await due_in(runtime)

    at = anyio.run(due, backend="asyncio", backend_options={"loop_factory": VirtualTimeLoop})
    assert abs(at - time.time()) < 60
