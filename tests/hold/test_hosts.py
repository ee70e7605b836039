"""A runtime is entered, left, forgotten, forked or broken, and the event loop goes on."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.tasks import Calls, Outcome, calls

from trio_durable import (
    DurableObject,
    DurableRuntime,
    RuntimeClosed,
    SQLiteStorage,
    StorageInUse,
    StorageUnavailable,
    handler,
)
from trio_durable.storage import Writer
from trio_durable.testing._intercepted import InterceptedWriter

TESTS = Path(__file__).parents[1]
"""Not the root, or a package of `hold.mutants` would not be imported in its place."""
SECONDS = 20.0
"""How long a step in real time may take."""


class Counter(DurableObject):
    count: int = 0

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count

    @handler
    async def add_async(self) -> int:
        await anyio.lowlevel.checkpoint()
        self.count += 1
        return self.count

    @handler
    async def nap(self, seconds: float) -> None:
        await anyio.sleep(seconds)


# --- entered and left by different tasks ---------------------------------------------------------


@pytest.mark.anyio
async def test_a_runtime_is_entered_in_one_task_and_left_in_another() -> None:
    runtime = DurableRuntime(":memory:")

    async def enter() -> None:
        await runtime.__aenter__()

    async def leave() -> None:
        await runtime.__aexit__(None, None, None)

    async with calls() as group:
        await group.start(enter).wait()
        assert await Counter.add("a") == 1
        assert await Counter.add_async("a") == 2
        left = group.start(leave)
        await left.wait()
        assert left.error is None
    with pytest.raises(RuntimeClosed):
        await runtime.get(Counter, "a").add()


@pytest.mark.anyio
async def test_runtimes_are_left_in_the_order_in_which_they_were_entered() -> None:
    first, second = DurableRuntime(":memory:"), DurableRuntime(":memory:")
    await first.__aenter__()
    await second.__aenter__()
    assert await second.get(Counter, "a").add_async() == 1
    await first.__aexit__(None, None, None)
    assert await second.get(Counter, "a").add_async() == 2
    await second.__aexit__(None, None, None)


async def opened(path: Path) -> AsyncIterator[DurableRuntime]:
    async with DurableRuntime(path) as runtime:
        yield runtime


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("how", ["forgotten", "in a generator"])
def test_a_runtime_that_is_never_left_closes_with_the_loop(
    real_backend: tuple[str, dict[str, Any]], how: str, tmp_path: Path
) -> None:
    backend, options = real_backend
    path = tmp_path / "a.db"

    async def forget() -> None:
        if how == "forgotten":
            await DurableRuntime(path).__aenter__()
            await Counter.add_async("a")
        else:
            async for _ in opened(path):
                await Counter.add_async("a")
                break
            gc.collect()

    async def again() -> int:
        async with DurableRuntime(path):
            return await Counter.add("a")

    anyio.run(forget, backend=backend, backend_options=options)
    assert anyio.run(again, backend=backend, backend_options=options) == 2


# --- cancelled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 5, 8, 13, 30])
def test_a_native_cancellation_while_it_is_entered_leaves_nothing_open(
    rounds: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"

    async def enter() -> None:
        async with DurableRuntime(path):
            await asyncio.sleep(SECONDS)

    async def main() -> None:
        task = asyncio.create_task(enter())
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with DurableRuntime(path):
            assert await Counter.add("a") == 1

    asyncio.run(main())


@pytest.mark.parametrize("delay", [0, 0.001, 0.01])
def test_a_scope_that_ends_while_it_is_entered_leaves_nothing_open(
    real_backend: tuple[str, dict[str, Any]], delay: float, tmp_path: Path
) -> None:
    backend, options = real_backend
    path = tmp_path / "a.db"

    async def main() -> None:
        with anyio.move_on_after(delay):
            async with DurableRuntime(path):
                await anyio.sleep(SECONDS)
        async with DurableRuntime(path):
            assert await Counter.add("a") == 1

    anyio.run(main, backend=backend, backend_options=options)


@pytest.mark.anyio
async def test_the_bodys_own_error_survives_a_cancelled_scope() -> None:
    async def body() -> None:
        with anyio.CancelScope() as scope:
            async with DurableRuntime(":memory:"):
                scope.cancel()
                try:
                    await anyio.sleep(1)
                finally:
                    raise ValueError("important")

    with pytest.raises(ValueError, match="important"):
        await body()


@pytest.mark.anyio
async def test_a_shielded_cleanup_is_served_by_both_kinds_of_handlers() -> None:
    served = []
    with anyio.CancelScope() as scope:
        async with DurableRuntime(":memory:") as runtime:
            counter = runtime.get(Counter, "a")
            await counter.add_async()
            scope.cancel()
            try:
                await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    served += [
                        await counter.add(),
                        await counter.add_async(),
                        await runtime.get(Counter, "new").add_async(),
                    ]
    assert served == [2, 3, 1]


# --- bounded -------------------------------------------------------------------------------------


class Stuck(SQLiteStorage):
    """Its writer stands still in a commit until `go` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_stuck = False
        self.reached = threading.Event()
        self.go = threading.Event()

    def open_writer(self) -> Writer:
        def call(kind: str, work: Callable[[], Any]) -> Any:
            if kind == "commit" and self.is_stuck:
                self.reached.set()
                assert self.go.wait(SECONDS)
            return work()

        return InterceptedWriter(super().open_writer(), call)


@pytest.mark.parametrize("how", ["left", "cancelled"])
def test_leaving_is_bounded_and_the_storage_is_in_use_until_its_thread_ends(
    real_backend: tuple[str, dict[str, Any]], how: str, tmp_path: Path
) -> None:
    backend, options = real_backend
    path = tmp_path / "a.db"
    storage = Stuck(path)
    refused: list[str] = []

    async def body(scope: anyio.CancelScope) -> None:
        async with DurableRuntime(storage, grace_period=0.01, close_timeout=0.05):
            await Counter.add("a")
            storage.is_stuck = True
            with anyio.move_on_after(0.01):
                await Counter.add("a")
            while not storage.reached.is_set():
                await anyio.sleep(0.001)
            if how == "cancelled":
                scope.cancel()
                await anyio.sleep(SECONDS)

    async def main() -> None:
        with anyio.fail_after(SECONDS / 2):
            with anyio.CancelScope() as scope:
                if how == "left":
                    with pytest.raises(StorageUnavailable, match=r"close_timeout=0\.05 s"):
                        await body(scope)
                else:
                    await body(scope)
            assert not storage.go.is_set()
            try:
                async with DurableRuntime(path):
                    pass
            except Exception as error:  # noqa: BLE001
                refused.append(type(error).__name__)
            storage.go.set()
            while True:
                try:
                    async with DurableRuntime(path):
                        assert await Counter.add("a") == 3  # its thread has ended its work
                        return
                except StorageInUse:
                    await anyio.sleep(0.01)

    anyio.run(main, backend=backend, backend_options=options)
    assert refused == ["StorageInUse"]


def test_a_message_whose_commit_hangs_as_the_runtime_is_left_is_refused(
    real_backend: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    backend, options = real_backend
    storage = Stuck(tmp_path / "a.db")
    sent: list[Outcome[str]] = []

    async def leave(group: Calls) -> None:
        async with DurableRuntime(
            storage, grace_period=0.01, close_timeout=0.05, call_timeout=None
        ) as runtime:
            await Counter.add("a")
            storage.is_stuck = True
            sent.append(group.start(runtime.send, Counter.add, "a"))
            while not storage.reached.is_set():
                await anyio.sleep(0.001)
            sent.append(group.start(runtime.send, Counter.add, "b"))
            await anyio.sleep(0.001)
            assert not any(each.done for each in sent)

    async def main() -> None:
        async with calls() as group:
            with pytest.raises(StorageUnavailable, match=r"close_timeout=0\.05 s"):
                await leave(group)
            storage.go.set()
            for each in sent:
                with anyio.fail_after(SECONDS / 2):
                    await each.wait()
                assert isinstance(each.error, RuntimeClosed)

    anyio.run(main, backend=backend, backend_options=options)


# --- a runtime that fails ------------------------------------------------------------------------


class Panic(BaseException):
    """As a driver's that is written in another language."""


class Panicking(SQLiteStorage):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.panics = False

    def open_writer(self) -> Writer:
        def call(kind: str, work: Callable[[], Any]) -> Any:
            if kind == "commit" and self.panics:
                raise Panic("in the writer's thread")
            return work()

        return InterceptedWriter(super().open_writer(), call)


@pytest.mark.parametrize("body", ["ends", "raises"])
def test_when_the_writers_thread_breaks_the_runtime_fails_and_all_are_told(
    real_backend: tuple[str, dict[str, Any]],
    body: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend, options = real_backend
    path = tmp_path / "a.db"
    storage = Panicking(path)
    errors: list[BaseException] = []

    async def call(name: str) -> None:
        try:
            await getattr(Counter, name)("a")
        except RuntimeClosed as error:
            errors.append(error)

    async def main() -> None:
        async with DurableRuntime(storage, grace_period=0.01) as runtime:
            await Counter.add("a")
            storage.panics = True
            with anyio.fail_after(SECONDS):
                async with anyio.create_task_group() as tasks:
                    for name in ("add", "add", "add_async"):
                        tasks.start_soon(call, name)
                await runtime.closed()
            await call("add")  # the block goes on, and calls are refused
            await anyio.lowlevel.checkpoint()
            if body == "raises":
                raise ValueError("the body's own")

    expected = RuntimeClosed if body == "ends" else ValueError
    with pytest.raises(expected) as raised:
        anyio.run(main, backend=backend, backend_options=options)
    assert len(errors) == 4
    assert len(set(map(id, errors))) == 4
    for error in [*errors, *([raised.value] if body == "ends" else [])]:
        assert isinstance(error.__cause__, Panic)
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(critical) == 1

    async def again() -> None:
        async with DurableRuntime(path):
            await Counter.add("a")

    anyio.run(again, backend=backend, backend_options=options)


def test_all_are_told_although_a_signal_comes_while_the_runtime_fails(
    real_backend: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler raises where the failure is logged."""
    backend, options = real_backend
    storage = Panicking(tmp_path / "a.db")
    told: list[RuntimeClosed] = []

    def critical(*arguments: object, **keywords: object) -> None:
        raise ValueError("of a signal's handler")

    monkeypatch.setattr(logging.getLogger("trio_durable"), "critical", critical)

    async def call(name: str) -> None:
        with pytest.raises(RuntimeClosed) as raised:
            await getattr(Counter, name)("a")
        told.append(raised.value)

    async def main() -> None:
        async with DurableRuntime(storage, grace_period=0.01, call_timeout=None):
            await Counter.add("a")
            storage.panics = True
            with anyio.fail_after(SECONDS):
                async with anyio.create_task_group() as tasks:
                    for name in ("add", "add", "add_async"):
                        tasks.start_soon(call, name)

    with pytest.raises(RuntimeClosed):
        anyio.run(main, backend=backend, backend_options=options)
    assert [type(error.__cause__) for error in told] == [Panic] * 3


@pytest.mark.anyio
async def test_closed_returns_when_the_runtime_is_left() -> None:
    async with calls() as group:
        async with DurableRuntime(":memory:") as runtime:
            closed = group.start(runtime.closed)
            await anyio.sleep(1)
            assert not closed.done
        await closed.wait()
        await runtime.closed()
    with pytest.raises(RuntimeClosed):
        await DurableRuntime(":memory:").closed()


# --- forked --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("how", ["exception", "call"])
def test_a_forked_child_has_a_closed_runtime_and_leaves_it_at_once(
    backend: str, how: str, tmp_path: Path
) -> None:
    command = ["-m", "hold.forking", backend, how, str(tmp_path / "a.db")]
    run = subprocess.run(
        [sys.executable, *command], cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert run.stdout == "3\n", run.stdout + run.stderr
