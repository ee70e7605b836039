"""A handler's task passes nothing from its turn to the next."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio
from support.clock import settle
from support.tasks import calls

from trio_durable import DurableObject, DurableRuntime, HandlerCancelled, handler
from trio_durable._activations.activation import Activation
from trio_durable._activations.pump import MAX_RESTING
from trio_durable._activations.slices import Slice
from trio_durable._activations.worker import Worker

pytestmark = pytest.mark.anyio

T = TypeVar("T")
kept: list[AsyncGenerator[int, None]] = []
tasks: list[asyncio.Task[object] | trio.lowlevel.Task] = []
scopes: list[anyio.CancelScope] = []
where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")
marks: list[weakref.ref[object]] = []


async def chunks(seconds: float) -> AsyncGenerator[int, None]:
    with anyio.move_on_after(seconds) as scope:
        scopes.append(scope)
        for number in range(9):
            yield number
            await anyio.lowlevel.checkpoint()


class Mark:
    pass


class Job(DurableObject):
    count: int = 0

    @handler
    async def leave_a_scope(self, seconds: float) -> None:
        kept.append(generator := chunks(seconds))
        async for _ in generator:
            return

    @handler
    async def work(self, seconds: float) -> int:
        tasks.append(
            trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else asyncio.current_task()  # type: ignore[arg-type]
        )
        await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler
    async def note_task(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)

    @handler
    async def set_and_get(self, value: str) -> str:
        before = where.get()
        where.set(value)
        return before

    @handler
    async def take(self, number: int) -> int:
        mark = Mark()
        marks.append(weakref.ref(mark))
        await anyio.lowlevel.checkpoint()
        del mark
        return number


def instances_of(kind: type[T]) -> list[T]:
    return [each for each in gc.get_objects() if type(each) is kind]


def workers_of(runtime: DurableRuntime) -> list[Worker]:
    gc.collect()
    assert runtime._opened is not None
    return [each for each in instances_of(Worker) if each._pool is runtime._opened.pump]


@pytest.mark.parametrize("when", ["during the next turn", "between turns"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_scope_left_open_ends_no_other_turn(when: str) -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        job = runtime.get(Job, "a")
        with suppress(HandlerCancelled):  # refusing such a turn would do, too
            await job.leave_a_scope(5)
        if when == "between turns":
            await anyio.sleep(10)
        for _ in range(3):
            await job.work(10)
        assert await Job.work("another", 10) == 1
        scopes.clear()
        with suppress(RuntimeError):  # its scope is another task's
            await kept.pop().aclose()


@pytest.mark.parametrize("whose", ["of the same object", "of another object"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_scope_left_open_ends_no_turn_that_is_served_next(whose: str) -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        other = "a" if whose == "of the same object" else "b"
        await Job.work("a", 0)
        await Job.work("b", 0)
        if other == "a":  # both wait for this one
            group.start(Job.work, "a", 1)
            await settle()
        with suppress(HandlerCancelled):
            leaving = group.start(runtime.get(Job, "a").leave_a_scope, 5)
            working = group.start(Job.work, other, 10)
            await leaving.wait()
            await working.wait()
        assert working.value in (2, 3)
        scopes.clear()
        with suppress(RuntimeError):
            await kept.pop().aclose()


async def test_a_task_that_is_cancelled_after_its_turn_is_replaced() -> None:
    if trio.lowlevel.in_trio_task():
        pytest.skip("tasks of Trio can't be cancelled by themselves")
    async with DurableRuntime(":memory:", call_timeout=None):
        assert await Job.work("a", 1) == 1
        task = tasks[-1]
        assert isinstance(task, asyncio.Task)
        task.cancel()  # too late: the turn is over
        await settle()
        assert await Job.work("a", 1) == 2
        assert await Job.work("b", 1) == 1
        assert tasks[-2] is not task


async def test_a_task_that_is_cancelled_in_its_turn_fails_that_turn() -> None:
    if trio.lowlevel.in_trio_task():
        pytest.skip("tasks of Trio can't be cancelled by themselves")
    async with DurableRuntime(":memory:", call_timeout=None), calls() as group:
        first = group.start(Job.work, "a", 10)
        second = group.start(Job.work, "a", 1)
        await anyio.sleep(1)
        task = tasks[-1]
        assert isinstance(task, asyncio.Task)
        task.cancel()
        await first.wait()
        assert isinstance(first.error, HandlerCancelled)
        await second.wait()
        assert second.value == 1


async def test_the_worker_that_was_busy_last_is_the_next() -> None:
    async with DurableRuntime(":memory:", call_timeout=None), calls() as group:
        tasks.clear()
        for object_id, seconds in (("a", 1), ("b", 2)):
            group.start(Job.work, object_id, seconds)
            await settle()
        await anyio.sleep(3)
        a, b = tasks
        assert a is not b
        for object_id in ("c", "d", "e"):
            group.start(Job.work, object_id, 1)
            await settle()
        # The third worker had the pump when both rested.
        assert tasks[2] not in (a, b)
        assert tasks[3:] == [b, a]


async def test_more_workers_than_are_kept_end() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        async with anyio.create_task_group() as callers:
            for number in range(MAX_RESTING + 10):
                callers.start_soon(runtime.get(Job, str(number)).work, 1)
        await settle()
        assert len(workers_of(runtime)) == MAX_RESTING + 1  # that one has the pump


async def test_a_worker_that_rests_keeps_nothing_of_its_object() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        await runtime.get(Job, "a").work(1)
        activation = runtime._registry.calls(Job).directory.find("a")
        number = id(activation)
        del activation
        await runtime.stop(Job, "a")
        await settle()
        gc.collect()
        assert number not in map(id, instances_of(Activation))


async def test_turns_that_wait_for_nothing_need_no_task_of_their_own() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        await Job.set_and_get("0", "x")
        for number in range(10):
            group.start(Job.set_and_get, str(number), "x")
        await settle()
        assert len(workers_of(runtime)) == 1


async def test_objects_are_served_beside_a_turn_that_never_ends() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        for number in range(3):
            endless = group.start(Job.work, f"endless {number}", 10**9)
            await settle()
            assert await Job.work(f"short {number}", 1) == 1
            assert not endless.done
            await runtime.stop(Job, f"endless {number}", interrupt=True)


async def test_a_worker_is_replaced_that_is_cancelled_when_it_has_the_pump() -> None:
    if trio.lowlevel.in_trio_task():
        pytest.skip("tasks of Trio can't be cancelled by themselves")
    async with DurableRuntime(":memory:", call_timeout=None):
        await Job.note_task("a")
        task = tasks[-1]
        assert isinstance(task, asyncio.Task)
        task.cancel()  # too late: the turn is over
        await settle()
        await Job.note_task("a")
        assert tasks[-1] is not task
        assert await Job.work("b", 1) == 1


async def test_an_object_whose_service_was_cut_off_is_served_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve, faults = Activation.serve, iter([True])

    def cut_off_once(self: Activation, share: Slice, worker: Worker) -> None:
        if next(faults, False):
            raise MemoryError
        serve(self, share, worker)

    async with DurableRuntime(":memory:", call_timeout=None):
        monkeypatch.setattr(Activation, "serve", cut_off_once)
        assert await Job.work("a", 1) == 1


async def test_a_turn_is_cut_off_if_no_worker_can_have_the_pump(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        await Job.set_and_get("a", "x")
        assert runtime._opened is not None
        start = runtime._opened.pump._start
        failures = iter([True, False])

        def fail_once() -> Worker:
            if next(failures, False):
                raise MemoryError
            return start()

        monkeypatch.setattr(runtime._opened.pump, "_start", fail_once)
        with pytest.raises(MemoryError):
            await Job.work("a", 1)
        assert await Job.work("a", 1) == 1
        assert await Job.work("b", 1) == 1


async def test_the_scope_of_a_caller_ends_no_turn_of_others() -> None:
    async with DurableRuntime(":memory:", call_timeout=None), calls() as group:
        with anyio.move_on_after(1):
            await Job.work("a", 5)  # its worker starts for this call
        later = group.start(Job.work, "a", 5)
        await later.wait()
        assert later.value == 2


async def test_context_variables_of_a_turn_are_not_the_next_ones() -> None:
    async with DurableRuntime(":memory:", call_timeout=None):
        where.set("the caller's")
        assert await Job.set_and_get("a", "the turn's") == "the caller's"
        assert await Job.set_and_get("a", "again") == "the caller's"


@pytest.mark.parametrize("timeout", [None, 1000])
async def test_a_call_that_has_ended_leaves_nothing_of_its_turn(timeout: float | None) -> None:
    variable: contextvars.ContextVar[Mark | None] = contextvars.ContextVar("variable", default=None)

    async def call(value: Mark) -> None:
        variable.set(value)
        await runtime.get(Job, "a", timeout=timeout).take(1)

    async with DurableRuntime(":memory:") as runtime:
        async with anyio.create_task_group() as tasks:
            value = Mark()
            seen = weakref.ref(value)
            tasks.start_soon(call, value)
            del value
        await settle()
        gc.collect()
        assert seen() is None  # which the caller's context refers to
        assert marks[-1]() is None
