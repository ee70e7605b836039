"""A handler's task passes nothing from its turn to the next."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
import trio
from support.clock import settle
from support.tasks import calls

from trio_durable import DurableObject, DurableRuntime, HandlerCancelled, handler

pytestmark = pytest.mark.anyio

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


@pytest.mark.parametrize("when", ["during the next turn", "between turns"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_scope_left_open_ends_no_other_turn(when: str) -> None:
    in_trio = trio.lowlevel.in_trio_task()
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        job = runtime.get(Job, "a")
        with suppress(HandlerCancelled):  # refusing such a turn would do, too
            await job.leave_a_scope(5)
        if when == "between turns":
            await anyio.sleep(10)
        # On asyncio no attribute of the task says that a scope is open.
        failures = 0
        for _ in range(3):
            try:
                await job.work(10)
            except HandlerCancelled:
                failures += 1
        assert failures <= (0 if in_trio else 1)
        assert await Job.work("another", 10) == 1
        scopes.clear()
        with suppress(RuntimeError):  # its scope is another task's
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
