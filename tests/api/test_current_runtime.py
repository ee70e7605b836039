"""The current runtime, for calls that name none."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from support.clock import settle

from trio_durable import (
    DurableObject,
    DurableRuntime,
    NoRuntime,
    UnknownObjectType,
    current_runtime,
    handler,
)

pytestmark = pytest.mark.anyio


class Place(DurableObject):
    visits: int = 0

    @handler
    def visit(self) -> int:
        self.visits += 1
        return self.visits

    @handler
    def is_here(self) -> bool:
        return current_runtime() is self.ctx.runtime

    @handler
    async def is_here_async(self) -> bool:
        await anyio.lowlevel.checkpoint()
        return current_runtime() is self.ctx.runtime

    @handler
    async def visit_other(self, other: str) -> int:
        return await Place.visit(other)

    @handler
    def runtime_of_ctx(self) -> bool:
        return (
            self.ctx.runtime is current_runtime() and self.ctx.object_id == self.ctx.key.object_id
        )


async def without_context(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``function`` in a task whose context knows of no runtime, as web frameworks do."""
    async with anyio.create_task_group() as tasks:
        _ = empty.run(tasks.start_soon, function)


empty = contextvars.Context()


async def test_the_client_on_the_class_calls_the_current_runtime() -> None:
    async with DurableRuntime(":memory:") as runtime:
        assert current_runtime() is runtime
        assert await Place.visit("a") == 1
        assert await runtime.get(Place, "a").visit() == 2
        assert repr(Place.visit) == "<client of Place.visit>"


async def test_no_runtime_is_told() -> None:
    with pytest.raises(NoRuntime, match="no DurableRuntime is open"):
        current_runtime()
    with pytest.raises(NoRuntime):
        await Place.visit("a")
    async with DurableRuntime(":memory:"):
        pass
    with pytest.raises(NoRuntime):
        current_runtime()


def test_no_event_loop_is_no_runtime() -> None:
    with pytest.raises(NoRuntime):
        current_runtime()


async def test_the_only_one_is_found_without_context() -> None:
    async with DurableRuntime(":memory:") as runtime:

        async def request() -> None:
            assert current_runtime() is runtime
            assert await Place.visit("a") == 1

        await without_context(request)


async def test_of_two_the_inner_one_is_current() -> None:
    async with DurableRuntime(":memory:") as outer:
        async with DurableRuntime(":memory:") as inner:
            assert current_runtime() is inner
            await Place.visit("a")
            assert await inner.exists(Place, "a")
            assert not await outer.exists(Place, "a")
        assert current_runtime() is outer


async def test_of_two_none_is_current_without_context() -> None:
    async with DurableRuntime(":memory:") as outer, DurableRuntime(":memory:"):

        async def request() -> None:
            with pytest.raises(NoRuntime, match="2 runtimes are open") as caught:
                await Place.visit("a")
            assert caught.value.open_here == 2
            # A handle says which one is meant.
            assert await outer.get(Place, "a").visit() == 1

        await without_context(request)


async def test_a_task_keeps_the_runtime_that_it_was_started_in() -> None:
    async with (
        anyio.create_task_group() as tasks,
        DurableRuntime(":memory:") as outer,
    ):
        go_on = anyio.Event()

        async def request() -> None:
            await go_on.wait()
            assert current_runtime() is outer

        tasks.start_soon(request)
        async with DurableRuntime(":memory:"):
            await settle()
            go_on.set()
            await settle()


async def test_runtimes_may_close_in_any_order() -> None:
    first, second = DurableRuntime(":memory:"), DurableRuntime(":memory:")

    async def serve(runtime: DurableRuntime, opened: anyio.Event, close: anyio.Event) -> None:
        async with runtime:
            opened.set()
            await close.wait()

    async with anyio.create_task_group() as tasks:
        events = [(anyio.Event(), anyio.Event()) for _ in range(2)]
        for runtime, (opened, close) in zip((first, second), events, strict=True):
            tasks.start_soon(serve, runtime, opened, close)
            await opened.wait()
        with pytest.raises(NoRuntime):
            current_runtime()
        events[0][1].set()
        await settle()
        assert current_runtime() is second
        events[1][1].set()


@pytest.mark.parametrize(
    "name",
    [
        "is_here_async",
        "is_here",
    ],
)
async def test_handlers_are_in_their_objects_runtime(name: str) -> None:
    async with DurableRuntime(":memory:") as outer, DurableRuntime(":memory:") as inner:
        for runtime in (outer, inner):
            for _ in range(2):
                assert await runtime.call(Place, "a", name)


async def test_handlers_call_others_by_the_client_on_the_class() -> None:
    async with DurableRuntime(":memory:") as outer, DurableRuntime(":memory:") as inner:
        assert await outer.get(Place, "a").visit_other("b") == 1
        assert await outer.exists(Place, "b")
        assert not await inner.exists(Place, "b")


async def test_the_caller_is_left_in_its_own_runtime() -> None:
    async with DurableRuntime(":memory:") as outer, DurableRuntime(":memory:") as inner:
        await outer.get(Place, "a").visit_other("b")
        assert current_runtime() is inner


async def test_a_class_that_the_runtime_does_not_serve_is_told() -> None:
    class Elsewhere(DurableObject):
        @handler
        def ping(self) -> None:
            pass

    async with DurableRuntime(":memory:", objects=[Place]):
        with pytest.raises(UnknownObjectType):
            await Elsewhere.ping("a")


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_a_runtime_of_another_loop_is_not_current() -> None:
    async with DurableRuntime(":memory:"):

        async def elsewhere() -> None:
            with pytest.raises(NoRuntime):
                current_runtime()
            async with DurableRuntime(":memory:") as runtime:
                assert current_runtime() is runtime
                assert await Place.visit("a") == 1

        for backend in ("trio", "asyncio"):
            await anyio.to_thread.run_sync(partial(anyio.run, elsewhere, backend=backend))
