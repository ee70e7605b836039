"""The event loop: waiters, loops, runners."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from support.clock import settle
from support.tasks import calls

from trio_durable import InlineRunner, Runner, ThreadRunner, WrongEventLoop
from trio_durable._eventloop.loop import Waiter
from trio_durable._eventloop.running import running_loop, running_loop_token

pytestmark = pytest.mark.anyio


async def test_a_waiter_gets_what_it_is_settled_with() -> None:
    loop = running_loop()
    async with calls() as group:
        waiter = loop.waiter()
        outcome = group.start(waiter.wait)
        await settle()
        assert not outcome.done
        waiter.settle("value")
        await settle()
        assert outcome.value == "value"


async def test_a_waiter_raises_what_it_fails_with() -> None:
    loop = running_loop()
    async with calls() as group:
        waiter = loop.waiter()
        outcome = group.start(waiter.wait)
        await settle()
        error = KeyError("x")
        waiter.fail(error)
        await settle()
        assert outcome.error is error


async def test_a_waiter_may_be_settled_before_anybody_waits() -> None:
    loop = running_loop()
    settled, failed = loop.waiter(), loop.waiter()
    settled.settle(1)
    failed.fail(KeyError())
    assert await settled.wait() == 1
    with pytest.raises(KeyError):
        await failed.wait()


ENDINGS: list[Callable[[Waiter], None]] = [
    lambda waiter: waiter.settle(2),
    lambda waiter: waiter.fail(KeyError()),
]


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("later", ENDINGS)
async def test_a_waiter_ends_once(later: Callable[[Waiter], None], parked: bool) -> None:
    loop = running_loop()
    async with calls() as group:
        waiter = loop.waiter()
        if parked:
            outcome = group.start(waiter.wait)
            await settle()
        assert not waiter.ended
        waiter.settle(1)
        assert waiter.ended
        later(waiter)
        if not parked:
            outcome = group.start(waiter.wait)
        await settle()
        assert outcome.value == 1


@pytest.mark.parametrize("later", ENDINGS)
async def test_an_abandoned_waiter_has_ended(later: Callable[[Waiter], None]) -> None:
    loop = running_loop()
    async with calls() as group:
        waiter = loop.waiter()
        outcome = group.start(waiter.wait)
        await settle()
        outcome.cancel()
        await settle()
        assert outcome.done
        assert waiter.ended
        later(waiter)
        await settle()


async def test_settling_and_cancelling_at_once_harms_nobody() -> None:
    loop = running_loop()
    async with calls() as group:
        for first in ("settle", "cancel"):
            waiter = loop.waiter()
            outcome = group.start(waiter.wait)
            await settle()
            if first == "settle":
                waiter.settle(1)
                outcome.cancel()
            else:
                outcome.cancel()
                waiter.settle(1)
            await settle()
            assert outcome.done
            assert waiter.ended


async def test_a_result_that_comes_before_the_cancellation_is_returned() -> None:
    loop = running_loop()
    got: list[object] = []

    async def wait() -> None:
        got.append(await waiter.wait())
        await loop.checkpoint()
        got.append("beyond the next checkpoint")

    async with calls() as group:
        waiter = loop.waiter()
        outcome = group.start(wait)
        await settle()
        waiter.settle(1)
        outcome.cancel()
        await settle()
        assert outcome.done
        assert got == [1]


async def test_waiting_is_always_a_checkpoint() -> None:
    loop = running_loop()
    for wait in (loop.checkpoint, settled_waiter):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await wait()
        assert scope.cancelled_caught
        others: list[int] = []

        async def other(seen: list[int] = others) -> None:
            seen.append(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            for _ in range(3):  # trio runs what is ready in any order
                await wait()
            assert others == [1]


async def settled_waiter() -> None:
    waiter = running_loop().waiter()
    waiter.settle()
    await waiter.wait()


async def test_a_loop_knows_whether_it_is_current() -> None:
    loop = running_loop()
    assert loop.is_current()
    assert loop.token is running_loop_token()
    elsewhere: list[object] = []

    def in_thread() -> None:
        elsewhere.append(loop.is_current())
        elsewhere.append(running_loop_token())

        async def in_loop() -> bool:
            return loop.is_current()

        elsewhere.append(asyncio.run(in_loop()))
        elsewhere.append(trio.run(in_loop))
        try:
            running_loop()
        except WrongEventLoop as error:
            elsewhere.append(str(error))

    thread = threading.Thread(target=in_thread, name="elsewhere")
    thread.start()
    thread.join()
    assert elsewhere[:4] == [False, None, False, False]
    assert "'elsewhere'" in str(elsewhere[4])


async def test_callbacks_come_in_from_threads_in_order() -> None:
    loop = running_loop()
    seen: list[int] = []
    waiter = loop.waiter()

    def in_thread() -> None:
        for number in range(100):
            loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(waiter.settle)

    thread = threading.Thread(target=in_thread)
    thread.start()
    await waiter.wait()
    thread.join()
    assert seen == list(range(100))


class Struck(Exception):
    """What the handler of a signal raises."""


async def test_a_callback_is_run_although_a_signal_comes_when_it_is_about_to_be() -> None:
    """Python calls the handler where it resumes the generator, before the generator has begun."""
    loop, run, errors = running_loop(), list[int](), list[BaseException]()
    loop.failed = errors.append
    loop.call_soon_threadsafe(run.append, 1)
    loop._guard.throw(Struck())
    assert run == [1]
    assert [type(error) for error in errors] == [Struck]
    loop.call_soon_threadsafe(run.append, 2)
    await settle()
    assert run == [1, 2]


async def test_callbacks_go_on_although_a_signal_comes_in_the_report_of_another() -> None:
    loop, run, reports = running_loop(), list[int](), list[BaseException]()

    def failed(error: BaseException) -> None:
        reports.append(error)
        if len(reports) == 1:
            raise Struck

    loop.failed = failed
    loop._guard.throw(Struck())
    loop.call_soon_threadsafe(run.append, 1)
    await settle()
    assert run == [1]
    assert len(reports) == 2
    assert reports[0] is reports[1]


def test_callbacks_for_a_loop_that_has_ended_are_dropped(
    real_backend: tuple[str, dict[str, Any]],
) -> None:
    async def main() -> Any:
        return running_loop()

    name, options = real_backend
    loop = anyio.run(main, backend=name, backend_options=options)
    seen: list[int] = []
    loop.call_soon_threadsafe(seen.append, 1)
    assert seen == []


async def test_a_thread_runs_jobs_in_order() -> None:
    runner = ThreadRunner(running_loop(), "test runner")
    seen: list[object] = []
    runner.post(lambda: seen.append(1))
    await runner.run(lambda: seen.append(threading.current_thread().name))
    runner.post(lambda: seen.append(3))
    await runner.run(lambda: None)
    runner.stop()
    assert seen == [1, "test runner", 3]


@pytest.mark.parametrize("runner_class", [ThreadRunner, InlineRunner])
async def test_a_runner_brings_back_what_a_job_does(runner_class: type[Runner]) -> None:
    runner = runner_class(running_loop(), "test runner")
    thread = await runner.run(threading.current_thread)
    assert (thread is threading.current_thread()) == (runner_class is InlineRunner)

    def fail() -> None:
        raise KeyError("from the job")

    with pytest.raises(KeyError, match="from the job"):
        await runner.run(fail)
    runner.stop()


async def test_a_cancelled_job_runs_all_the_same() -> None:
    runner = ThreadRunner(running_loop(), "test runner")
    go, ran = threading.Event(), threading.Event()

    def job() -> None:
        go.wait()
        ran.set()

    async with calls() as group:
        outcome = group.start(runner.run, job)
        await settle()
        outcome.cancel()
        await settle()
        assert outcome.done
        assert not ran.is_set()
        go.set()
        await runner.run(lambda: None)
        assert ran.is_set()
    runner.stop()
