"""Open runtime: everything that exists while a `DurableRuntime` is open.

It is built in order on an `AsyncExitStack` and closed by it in the opposite order, so each step has
its undoing next to it, and a failure half-way closes what was open by then.

Order of closing:

1. No new calls from outside and no new deliveries; running turns may finish within the grace
   period. If the body was cancelled, they may not.
2. The runtime is closed; its tasks are cancelled, and all that waits in mailboxes fails.
3. Commits that were submitted become durable, and claims of alarms are given back.
4. The storage's sides close, each in its own thread, and the threads end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

import anyio
import attrs

from .._activations.calls import LocalCalls
from .._activations.directory import Directory
from .._activations.eviction import ResidentSet
from .._activations.object_type import ObjectType
from .._activations.observation import Observation
from .._activations.services import Services
from .._clock import Clock
from .._errors import RuntimeClosed, StorageUnavailable, WrongEventLoop
from .._eventloop import current
from .._eventloop.current import Dispatcher
from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from .._eventloop.running import running_loop
from .._eventloop.timeouts import Deadlines
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .._telemetry.notifier import Notifier, Observer
from ..scheduler import Destination, Scheduler, WheelScheduler
from ..storage import Hints, Reader, Storage, StorageFault, Writer

C = TypeVar("C", bound=LocalCalls)
P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class Settings:
    """The arguments of a `DurableRuntime`, checked; durations in seconds."""

    storage: Storage
    runner: type[Runner]
    clock: Clock | None
    instruments: tuple[Observer, ...]
    max_resident: int
    polling_interval: float
    claim_ttl: float
    grace_period: float


async def open_runtime(
    settings: Settings,
    runtime: Dispatcher,
    tenant: Callable[[str], Dispatcher],
    destination: Destination,
    prepare: Callable[[OpenRuntime], None],
) -> OpenRuntime:
    """Open the storage, start the tasks, and make ``runtime`` the current one.

    Args:
        settings: The runtime's arguments.
        runtime: The public runtime, opaque here.
        tenant: The public view of the runtime for a tenant's objects, by the tenant's name.
        destination: Where the scheduler delivers alarms.
        prepare: Called once all parts exist, and before any task runs.

    Raises:
        StorageInUse: Another runtime has the storage.
        StorageUnavailable: The storage can't be opened.
    """
    async with AsyncExitStack() as stack:
        loop = running_loop()
        writer_side, reader_side = await _open_storage(stack, loop, settings)
        opened = OpenRuntime(
            settings, loop, stack, writer_side, reader_side, runtime, tenant, destination
        )
        await opened._start(prepare)
        opened._stack = stack.pop_all()
        return opened


@attrs.frozen
class _WriterSide:
    runner: Runner
    writer: Writer


@attrs.frozen
class _ReaderSide:
    runner: Runner
    reader: Reader


async def _open_storage(
    stack: AsyncExitStack, loop: Loop, settings: Settings
) -> tuple[_WriterSide, _ReaderSide]:
    """Open both sides of the storage, each in its own thread."""
    runners = [settings.runner(loop, f"trio_durable {side}") for side in ("writer", "reader")]
    for runner in runners:
        stack.callback(runner.stop)
    writer_runner, reader_runner = runners
    # What a thread has opened must be closed again, so these waits can't be cancelled.
    writer = await _shielded(writer_runner.run, settings.storage.open_writer)
    stack.push_async_callback(_shielded, writer_runner.run, writer.close)
    reader = await _shielded(reader_runner.run, settings.storage.open_reader)
    stack.push_async_callback(_shielded, reader_runner.run, reader.close)
    return _WriterSide(writer_runner, writer), _ReaderSide(reader_runner, reader)


class OpenRuntime:
    """The parts of one open runtime. Made by `open_runtime`."""

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        stack: AsyncExitStack,
        writer_side: _WriterSide,
        reader_side: _ReaderSide,
        runtime: Dispatcher,
        tenant: Callable[[str], Dispatcher],
        destination: Destination,
    ) -> None:
        clock = loop.wall_clock() if settings.clock is None else settings.clock
        self.loop = loop
        self.clock = clock
        self.storage = settings.storage
        instruments = settings.instruments
        self.notifier = Notifier(loop.stopwatch(), instruments) if instruments else None
        self.deadlines = Deadlines(loop)
        self.directories: list[Directory] = []
        self.group_commit = GroupCommit(
            loop, writer_side.runner, writer_side.writer, clock.now, notifier=self.notifier
        )
        self.batched_load = BatchedLoad(loop, reader_side.runner, reader_side.reader)
        self.resident_set = ResidentSet(loop, settings.max_resident)
        self.services = Services(
            loop=loop,
            group_commit=self.group_commit,
            batched_load=self.batched_load,
            resident_set=self.resident_set,
            start_task=self._start_task,
            clock=clock,
            runtime_of=lambda name: tenant(name) if name else runtime,
            notifier=self.notifier,
            observation=Observation(self.notifier) if self.notifier is not None else None,
        )
        self.scheduler: Scheduler = WheelScheduler(
            loop,
            clock,
            self.group_commit,
            reader_side.runner,
            reader_side.reader,
            destination,
            self._tell_others,
            polling_interval=settings.polling_interval,
            claim_ttl=settings.claim_ttl,
            notifier=self.notifier,
        )
        self.group_commit.add_listener(self.scheduler)
        self._runtime = runtime
        self._settings = settings
        self._stack = stack
        self.writer = writer_side.writer
        self._reader_side = reader_side
        self._tasks = anyio.create_task_group()
        self._housekeeping: list[anyio.CancelScope] = []
        self._hints: Hints | None = None

    # --- opening and closing ---------------------------------------------------------------------

    async def _start(self, prepare: Callable[[OpenRuntime], None]) -> None:
        stack, scheduler = self._stack, self.scheduler
        stack.push_async_callback(_shielded, self._close_hints)
        stack.push_async_callback(_shielded, self._drain)
        await self._tasks.__aenter__()
        stack.push_async_exit(self._end_tasks)
        stack.callback(self._mark_closed)
        prepare(self)  # before any task runs
        for task in (
            self.batched_load.run,
            self.deadlines.run,
            self.resident_set.run,
            scheduler.run,
        ):
            scope = anyio.CancelScope(shield=True)
            self._housekeeping.append(scope)
            self._tasks.start_soon(_run_in, scope, task, name=f"trio_durable {task.__qualname__}")
        self._hints = self.storage.open_hints(
            lambda available_at: self.loop.call_soon_threadsafe(scheduler.hinted, available_at)
        )
        current.register(self.loop.token, self._runtime)
        stack.callback(current.unregister, self.loop.token, self._runtime)
        token = current.runtime_var.set(self._runtime)

        def reset() -> None:
            with contextlib.suppress(ValueError):  # left in another context than entered in
                current.runtime_var.reset(token)

        stack.callback(reset)
        stack.push_async_exit(self._finish_turns)

    async def close(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Close in order, as an ``__aexit__``."""
        return await self._stack.__aexit__(exc_type, exc, traceback)

    async def _finish_turns(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        services = self.services
        services.closing = True
        self.scheduler.stop()
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            return
        with anyio.move_on_after(self._settings.grace_period):
            while services.busy:
                services.quiet = services.loop.waiter()
                await services.quiet.wait()

    def _mark_closed(self) -> None:
        self.services.closing = self.services.closed = True

    async def _end_tasks(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        for scope in self._housekeeping:
            scope.cancel()
        for directory in self.directories:
            directory.abandon()
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            return await self._tasks.__aexit__(exc_type, exc, traceback)
        # The body's own error leaves as it is, not in an exception group of ours.
        await self._tasks.__aexit__(None, None, None)
        return None

    async def _drain(self) -> None:
        await self.group_commit.drained()
        await self.scheduler.give_back()

    async def _close_hints(self) -> None:
        if self._hints is not None:
            await self._reader_side.runner.run(self._hints.close)

    # --- the ways in -----------------------------------------------------------------------------

    def check_usable(self) -> None:
        """Refuse use after closing, and from another thread or event loop.

        Raises:
            RuntimeClosed: The runtime is closed.
            WrongEventLoop: The caller runs elsewhere.
        """
        self.check_open()
        if not self.loop.is_current():
            raise WrongEventLoop("the runtime was used from a thread or event loop not its own")

    def check_open(self) -> None:
        """Refuse use after closing.

        Raises:
            RuntimeClosed: The runtime is closed.
        """
        if self.services.closed:
            raise RuntimeClosed("the runtime is closed")

    @overload
    def serve(self, object_type: ObjectType) -> LocalCalls: ...
    @overload
    def serve(self, object_type: ObjectType, path: type[C]) -> C: ...
    def serve(self, object_type: ObjectType, path: type[LocalCalls] = LocalCalls) -> LocalCalls:
        """Serve the objects of one more type; their calls take ``path``."""
        directory = Directory(object_type, self.services)
        self.directories.append(directory)
        return path(directory, self.services, self.deadlines)

    async def read(self, read: Callable[[Reader], R]) -> R:
        """Run ``read`` in the reader's thread.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        self.check_usable()
        with self.storage_errors():
            return await self._reader_side.runner.run(lambda: read(self._reader_side.reader))

    @contextlib.contextmanager
    def storage_errors(self) -> Iterator[None]:
        """Raise a storage's faults as errors for users."""
        try:
            yield
        except StorageFault as fault:
            raise StorageUnavailable(self.storage.location, str(fault)) from fault

    # --- inside ----------------------------------------------------------------------------------

    def _tell_others(self, available_at: int) -> None:
        if self._hints is not None:
            self._hints.send(available_at)

    def _start_task(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._tasks.start_soon(task, name=name)


async def _shielded(run: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    with anyio.CancelScope(shield=True):
        return await run(*args, **kwargs)
    raise AssertionError  # a shielded scope that is never cancelled swallows nothing


async def _run_in(scope: anyio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    # Shielded: a task that is cancelled around the runtime may still make calls while it cleans up,
    # and these need to be loaded and to time out.
    with scope:
        await task()
