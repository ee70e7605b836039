"""The runtime: opens the storage and the nursery, wires the parts, and closes them in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import anyio
import attrs

from . import _ambient
from ._activation import ActivationInfo
from ._catalogue import Catalogue
from ._clock import wall_time
from ._codec import DEFAULT_MAX_STATE_SIZE
from ._deadlines import Deadlines
from ._definition import DurableObject, ObjectDefinition
from ._directory import Directory
from ._durations import UNSET, Duration, Unset, optional_seconds, seconds
from ._errors import (
    ObjectNotRunning,
    RuntimeClosed,
    StorageUnavailable,
    WrongEventLoop,
)
from ._handle import Handle, handle_class
from ._rendezvous import Loop, running_loop, running_loop_token
from ._residency import DEFAULT_MAX_RESIDENT, Residency
from ._runner import InlineRunner, Runner, ThreadRunner
from ._services import Services
from .storage import Durability, MemoryStorage, Reader, Storage, StorageFault
from .storage.batched_load import BatchedLoad
from .storage.group_commit import GroupCommit
from .storage.location import storage_at

T = TypeVar("T", bound=DurableObject)
R = TypeVar("R")

DEFAULT_CALL_TIMEOUT = 5.0
_MOST_IDS = 1_000_000
DEFAULT_GRACE_PERIOD = 5.0


@attrs.frozen
class RuntimeStatistics:
    """A snapshot of what a runtime does and did."""

    objects: int
    """Objects in memory, hibernated ones included."""
    busy: int
    """Objects that load or run an ``async def`` turn right now."""
    transactions: int
    """Transactions since the runtime opened."""
    commits: int
    """Object commits in these; more than transactions when callers come together."""


class DurableRuntime:
    """Durable objects, served inside the current event loop.

    ::

        async with DurableRuntime("app.db") as runtime:
            cart = runtime.get(Cart, "user-123")
            await cart.add("apple")

    Leaving the block stops taking calls, lets queued turns finish within ``grace_period``,
    commits and closes.

    Args:
        storage: The path of an SQLite file or ``sqlite:///path``; ``":memory:"`` for objects that
            go with the runtime; or a `Storage`.
        objects: The classes to serve; None for every one that is imported.
        durability: ``"full"`` or ``"normal"``, see `SQLiteStorage`.
        call_timeout: How long callers wait for a reply unless class or handle say otherwise;
            None for ever.
        grace_period: How long turns may go on while the runtime closes.
        max_resident: How many idle objects stay in memory at most.
        max_state_size: How many bytes of JSON one object's state may take.
        runner: Where storage work runs; a thread unless the storage is in memory.

    Durations are a ``timedelta`` or a number of seconds.

    Raises:
        ValueError: An argument makes no sense.
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | Storage,
        *,
        objects: Iterable[type[DurableObject]] | None = None,
        durability: Durability = "full",
        call_timeout: Duration | None = DEFAULT_CALL_TIMEOUT,
        grace_period: Duration = DEFAULT_GRACE_PERIOD,
        max_resident: int = DEFAULT_MAX_RESIDENT,
        max_state_size: int = DEFAULT_MAX_STATE_SIZE,
        runner: type[Runner] | None = None,
    ) -> None:
        for name, number in (("max_resident", max_resident), ("max_state_size", max_state_size)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be an int of 1 or more, not {number!r}")
        self._storage = storage_at(storage, durability)
        self._catalogue = Catalogue(objects, self._make_directory)
        self._call_timeout = optional_seconds(call_timeout, "call_timeout")
        self._grace_period = seconds(grace_period, "grace_period")
        self._max_resident = max_resident
        self._max_state_size = max_state_size
        in_memory = isinstance(self._storage, MemoryStorage)
        self._runner_class = runner or (InlineRunner if in_memory else ThreadRunner)
        self._entered = False
        self._services: Services | None = None
        self._handle_classes: dict[Directory, type[Handle]] = {}

    def __repr__(self) -> str:
        return f"<DurableRuntime on {self._storage.location}>"

    # --- opening and closing ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeClosed("a DurableRuntime can be entered once")
        self._entered = True
        loop = running_loop()
        self._writer_runner = self._runner_class(loop, "trio_durable writer")
        self._reader_runner = self._runner_class(loop, "trio_durable reader")
        # What a thread has opened must be closed again, so these waits can't be cancelled.
        with anyio.CancelScope(shield=True):
            try:
                self._writer = await self._writer_runner.run(self._storage.open_writer)
                try:
                    self._reader = await self._reader_runner.run(self._storage.open_reader)
                except BaseException:
                    await self._writer_runner.run(self._writer.close)
                    raise
            except BaseException:
                self._stop_runners()
                raise
        try:
            await self._start(loop)
        except BaseException:
            if self._services is not None:
                self._services.closing = self._services.closed = True
            with anyio.CancelScope(shield=True):
                await self._close_storage()
            raise
        return self

    async def _start(self, loop: Loop) -> None:
        self._group_commit = GroupCommit(loop, self._writer_runner, self._writer, wall_time)
        self._batched_load = BatchedLoad(loop, self._reader_runner, self._reader)
        self._deadlines = Deadlines(loop)
        self._tasks = anyio.create_task_group()
        self._residency = Residency(loop, self._max_resident)
        self._services = Services(
            runtime=self,
            loop=loop,
            group_commit=self._group_commit,
            batched_load=self._batched_load,
            residency=self._residency,
            start_task=self._start_task,
        )
        self._catalogue.prepare()
        await self._tasks.__aenter__()
        self._housekeeping: list[anyio.CancelScope] = []
        for task in (self._batched_load.run, self._deadlines.run, self._residency.run):
            scope = anyio.CancelScope(shield=True)
            self._housekeeping.append(scope)
            self._tasks.start_soon(_run_in, scope, task, name=f"trio_durable {task.__qualname__}")
        _ambient.opened(loop.token, self)
        self._token = _ambient.ambient.set(self)

    def _start_task(self, task: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._tasks.start_soon(task, name=name)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        services = self._services
        assert services is not None
        services.closing = True
        cancelled = isinstance(exc, anyio.get_cancelled_exc_class())
        try:
            if not cancelled:
                await self._finish_turns(services)
        finally:
            services.closed = True
            _ambient.closed(services.loop.token, self)
            with contextlib.suppress(ValueError):  # left in another context than entered in
                _ambient.ambient.reset(self._token)
            self._tasks.cancel_scope.cancel()
            for scope in self._housekeeping:
                scope.cancel()
            for directory in self._catalogue:
                for activation in directory.activations():
                    activation.abandon()
            try:
                if cancelled:
                    swallow = await self._tasks.__aexit__(exc_type, exc, traceback)
                else:
                    # The body's own error leaves as it is, not in an exception group of ours.
                    swallow = await self._tasks.__aexit__(None, None, None)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._group_commit.drained()
                    await self._close_storage()
        return swallow if cancelled else None

    async def _finish_turns(self, services: Services) -> None:
        with anyio.move_on_after(self._grace_period):
            while services.busy:
                services.quiet = services.loop.waiter()
                await services.quiet.wait()

    async def _close_storage(self) -> None:
        """Close both sides, each in its own thread."""
        try:
            await self._reader_runner.run(self._reader.close)
        finally:
            try:
                await self._writer_runner.run(self._writer.close)
            finally:
                self._stop_runners()

    def _stop_runners(self) -> None:
        self._reader_runner.stop()
        self._writer_runner.stop()

    # --- objects and calls -----------------------------------------------------------------------

    @overload
    def get(
        self, object_type: type[T], object_id: str, /, *, timeout: Duration | Unset | None = UNSET
    ) -> T: ...
    @overload
    def get(
        self, object_type: str, object_id: str, /, *, timeout: Duration | Unset | None = UNSET
    ) -> Handle: ...
    def get(
        self,
        object_type: type[T] | str,
        object_id: str,
        /,
        *,
        timeout: Duration | Unset | None = UNSET,
    ) -> T | Handle:
        """A handle of one object, whose handlers can be awaited. Touches nothing.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id, any str of 1 to 512 bytes without NUL.
            timeout: How long each call waits for its reply; None for ever.

        Raises:
            UnknownObjectType: No class goes by that name.
            InvalidObjectId: It can't be an id.
            RuntimeClosed: The runtime isn't open.
        """
        self._open()
        directory = self._catalogue.directory(object_type)
        directory.check_id(object_id)
        limit = (
            directory.timeout
            if isinstance(timeout, Unset)
            else optional_seconds(timeout, "timeout")
        )
        kind = self._handle_classes.get(directory)
        if kind is None:
            kind = self._handle_classes[directory] = handle_class(directory.definition)
        # What type checkers are told a handle is: see _handle.
        return cast("T", kind(directory, object_id, limit))

    async def call(
        self,
        object_type: type[DurableObject] | str,
        object_id: str,
        handler_name: str,
        /,
        *args: object,
        **kwargs: object,
    ) -> object:
        """Call a handler by name.

        Raises:
            UnknownObjectType: No class goes by that name.
            UnknownHandler: The class has no such handler.
            InvalidObjectId: It can't be an id.
            CallTimeout: No reply within the class's or runtime's timeout.
            PersistenceError: What the turn changed could not be made durable.
            Exception: What the handler raised, after its turn was rolled back.
        """
        directory = self._catalogue.directory(object_type)
        handler = directory.handler(handler_name)
        return await directory.call(object_id, handler, args, kwargs, directory.timeout)

    def dispatch(
        self,
        cls: type,
        object_id: str,
        handler: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Coroutine[Any, Any, object]:
        """See `_ambient.Dispatcher`."""
        directory = self._catalogue.directory(cls)
        return directory.call(
            object_id, directory.handler(handler), args, kwargs, directory.timeout
        )

    async def ensure_started(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo:
        """Activate an object if it isn't running: load it and run its after_load.

        Raises:
            ActivationFailed: after_load raised.
            StateDecodeError: What is stored can't be read.
            PersistenceError: It could not be loaded, or what after_load did not be stored.
        """
        directory = self._catalogue.directory(object_type)
        await directory.operate(
            object_id, "ensure_started", lambda activation: None, needs_instance=True
        )
        found = directory.find(object_id)
        if found is not None:
            return found.info()
        # Already gone again, in the moment between; it did start.
        return ActivationInfo(directory.key(object_id), "hibernated", 0, 0)

    def whereis(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo | None:
        """What a running object is about, or None if it isn't in memory."""
        self._open()
        directory = self._catalogue.directory(object_type)
        directory.check_id(object_id)
        activation = directory.find(object_id)
        return None if activation is None else activation.info()

    async def stop(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Let an object leave memory, behind the calls queued so far. Fine if it isn't running."""
        directory = self._catalogue.directory(object_type)
        directory.check_id(object_id)
        if directory.find(object_id) is not None:
            await directory.operate(object_id, "stop", lambda activation: activation.stop())

    def count_objects(self) -> int:
        """How many objects are in memory, hibernated ones included."""
        return self._open().residency.count

    def statistics(self) -> RuntimeStatistics:
        """A snapshot of what the runtime does and did."""
        services = self._open()
        return RuntimeStatistics(
            objects=services.residency.count,
            busy=services.busy,
            transactions=self._group_commit.batches,
            commits=self._group_commit.rows,
        )

    # --- state from outside ----------------------------------------------------------------------

    @overload
    async def get_state(self, object_type: type[T], object_id: str, /) -> T: ...
    @overload
    async def get_state(self, object_type: str, object_id: str, /) -> DurableObject: ...
    async def get_state(self, object_type: type[T] | str, object_id: str, /) -> T | DurableObject:
        """A detached copy of a running object's state, in turn behind the calls queued so far.

        Raises:
            ObjectNotRunning: It isn't in memory.
        """
        directory = self._catalogue.directory(object_type)
        key = directory.key(object_id)
        if directory.find(object_id) is None:
            raise ObjectNotRunning(key, "get_state")
        return cast(
            "T",
            await directory.operate(
                object_id, "get_state", lambda activation: activation.read_state()
            ),
        )

    async def put_state(self, object_type: type[T] | str, object_id: str, instance: T, /) -> None:
        """Replace an object's state, stored or not, in turn behind the calls queued so far.

        Raises:
            TypeError: ``instance`` is of another class.
            StateEncodeError: The state can't be stored.
        """
        directory = self._catalogue.directory(object_type)
        cls = directory.definition.cls
        if type(instance) is not cls:
            raise TypeError(
                f"put_state of a {cls.__qualname__} takes an instance of it, "
                f"not {type(instance).__qualname__}"
            )
        key = directory.key(object_id)
        state = directory.codec.encode(key, instance)
        directory.codec.check_size(key, state)
        await directory.operate(
            object_id, "put_state", lambda activation: activation.write_state(state)
        )

    async def exists(self, object_type: type[DurableObject] | str, object_id: str, /) -> bool:
        """Whether anything is stored of an object, in turn behind the calls queued so far."""
        directory = self._catalogue.directory(object_type)
        key = directory.key(object_id)
        if directory.find(object_id) is not None:
            return bool(
                await directory.operate(
                    object_id, "exists", lambda activation: activation.is_stored()
                )
            )
        rows = await self._read(lambda reader: reader.load([key]))
        return rows[0] is not None

    async def delete(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Delete what is stored of an object, behind the calls queued so far. Fine if nothing is.

        The object starts from its defaults again.
        """
        await self._catalogue.directory(object_type).operate(
            object_id, "delete", lambda activation: activation.delete()
        )

    async def list_objects(
        self,
        object_type: type[DurableObject] | str,
        /,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> list[str]:
        """The ids of the stored objects of a type, in the order of their UTF-8 bytes.

        Args:
            object_type: The class, or its stored name.
            after: Only ids behind this one; the last of a page gives the next page.
            limit: At most so many; a million counts as no limit.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit must be an int of 1 or more, not {limit!r}")
        directory = self._catalogue.directory(object_type)
        if after:
            directory.check_id(after)
        name, limit = directory.definition.name, min(limit, _MOST_IDS)
        return await self._read(lambda reader: reader.list_ids(name, after, limit))

    # --- inside ----------------------------------------------------------------------------------

    def _open(self) -> Services:
        """The services of the open runtime.

        Raises:
            RuntimeClosed: It isn't open.
        """
        if self._services is None:
            raise RuntimeClosed("the runtime was not entered yet")
        if self._services.closed:
            raise RuntimeClosed("the runtime is closed")
        return self._services

    def _make_directory(self, definition: ObjectDefinition) -> Directory:
        return Directory(
            definition, self._open(), self._deadlines, self._call_timeout, self._max_state_size
        )

    async def _read(self, read: Callable[[Reader], R]) -> R:
        services = self._open()
        if not services.loop.is_current():
            raise WrongEventLoop("the runtime was used from a thread or event loop not its own")
        try:
            return await self._reader_runner.run(lambda: read(self._reader))
        except StorageFault as fault:
            raise StorageUnavailable(self._storage.location, str(fault)) from fault


async def _run_in(scope: anyio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    # Shielded: what is cancelled around the runtime may still make calls while it cleans up, and
    # these need to be loaded and to time out.
    with scope:
        await task()


def current_runtime() -> DurableRuntime:
    """The runtime that is current here: the innermost open one, or the only one in this loop.

    Raises:
        NoRuntime: None is open in this event loop, or several and the context names none.
    """
    return cast("DurableRuntime", _ambient.current(running_loop_token()))
