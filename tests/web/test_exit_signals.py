"""Exit signals: they end the watches, then do what they did, and are left as they were found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.tasks import calls
from watching.rooms import Room, Seat

from trio_durable import DurableRuntime, InlineRunner, MemoryStorage, WrongEventLoop
from trio_durable.web import end_watches_on_signals

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(real_backend: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return real_backend


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    found: signal.Signals = request.param
    before = signal.getsignal(found)
    yield found
    signal.signal(found, before)


def runtime() -> DurableRuntime:
    return DurableRuntime(MemoryStorage(), runner=InlineRunner)


async def test_a_signal_ends_the_watches_and_calls_the_handler(number: signal.Signals) -> None:
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    signal.signal(number, stop)
    async with runtime() as opened, calls() as started:
        with end_watches_on_signals(opened):
            seat = Seat(opened)
            sat = started.start(seat.sit)
            await opened.get(Room, "lobby").say("hello")
            os.kill(os.getpid(), number)
            with anyio.fail_after(60):
                await sat.wait()
            assert sat.error is None
            assert received == [number]
        assert signal.getsignal(number) is stop
        os.kill(os.getpid(), number)
        assert received == [number, number]


async def test_the_default_of_a_termination_is_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        async with runtime() as opened:
            with end_watches_on_signals(opened):
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_an_ignored_interrupt_ends_the_watches() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        async with runtime() as opened, calls() as started:
            with end_watches_on_signals(opened):
                sat = started.start(Seat(opened).sit)
                os.kill(os.getpid(), signal.SIGINT)
                with anyio.fail_after(60):
                    await sat.wait()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


async def test_a_handler_of_later_is_kept(number: signal.Signals) -> None:
    def later(number: int, _frame: FrameType | None) -> None: ...

    async with runtime() as opened:
        with end_watches_on_signals(opened):
            signal.signal(number, later)
        assert signal.getsignal(number) is later


async def test_a_signal_after_the_runtime_was_left_does_no_harm(number: signal.Signals) -> None:
    signal.signal(number, lambda *_: None)
    async with runtime() as opened:
        guard = end_watches_on_signals(opened)
        guard.__enter__()
    os.kill(os.getpid(), number)
    await anyio.lowlevel.checkpoint()
    guard.__exit__(None, None, None)


def test_it_belongs_to_an_event_loop() -> None:
    with pytest.raises(WrongEventLoop), end_watches_on_signals(DurableRuntime(":memory:")):
        pass
