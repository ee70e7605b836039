"""The runtime: opens the storage and the nursery, wires the parts, and closes them in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, cast
from weakref import WeakValueDictionary

import anyio

from .._activations.directory import Directory
from .._activations.eviction import DEFAULT_MAX_RESIDENT, Residency
from .._activations.services import Services
from .._activations.wait_graph import check_circle, current_turn
from .._clock import Clock, LoopClock, SystemClock
from .._durations import Duration, optional_seconds, seconds
from .._errors import PersistenceError, RuntimeClosed, TenantDropped
from .._eventloop import current as _ambient
from .._eventloop.loop import Loop
from .._eventloop.runner import InlineRunner, Runner, ThreadRunner
from .._eventloop.running import running_loop, running_loop_token
from .._eventloop.timeouts import Deadlines
from .._json.state import DEFAULT_MAX_STATE_SIZE
from .._parts import PLAIN, instrumented
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .._telemetry.notifier import Notifier
from ..scheduler import WheelScheduler
from ..storage import Durability, Hints, MemoryStorage, Storage
from ..storage._urls import storage_at
from .durable_object import DurableObject, ObjectDefinition
from .handle import Handle
from .instrument import Closed, Instrument, Opened
from .objects import Objects, checked_limit
from .registry import Catalogue
from .statistics import RuntimeStatistics
from .tenant import Tenant, check_tenant

DEFAULT_CALL_TIMEOUT = 5.0
DEFAULT_GRACE_PERIOD = 5.0
DEFAULT_POLLING_INTERVAL = 30.0
DEFAULT_CLAIM_TTL = 60.0
_YEAR = 366 * 86400.0


class DurableRuntime(Objects):
    """Durable objects, served inside the current event loop.

    ::

        async with DurableRuntime("app.db") as runtime:
            cart = runtime.get(Cart, "user-123")
            await cart.add("apple")

    Leaving the block stops taking calls, lets queued turns finish within ``grace_period``,
    commits and closes.

    Args:
        storage: The path of an SQLite file or ``sqlite:///path``; the URL of a PostgreSQL database,
            ``postgresql://user@host/database``; ``":memory:"`` for objects that go with the
            runtime; or a `Storage`.
        objects: The classes to serve; None for every one that is imported.
        durability: ``"full"`` or ``"normal"``, see `SQLiteStorage` and `PostgresStorage`.
        call_timeout: How long callers wait for a reply unless class or handle say otherwise;
            None for ever.
        polling_interval: How often to look in the storage for alarms that are due soon. Those
            that this runtime sets itself it knows at once.
        claim_ttl: For how long an alarm is not given to anybody else after the runtime that handles
            it has died; while it lives, its claims are renewed.
        grace_period: How long turns may go on while the runtime closes.
        max_resident: How many idle objects stay in memory at most.
        max_state_size: How many bytes of JSON one object's state may take.
        runner: Where storage work runs; a thread unless the storage is in memory.
        clock: Where the time of alarms comes from; the system's, or if the event loop has a
            virtual clock, that.
        instruments: Who is told what the runtime does, see `trio_durable.telemetry`.

    Durations are a ``timedelta`` or a number of seconds.

    Raises:
        ValueError: An argument makes no sense.
        StorageInUse: Another runtime has the storage; from entering.
        StorageUnavailable: The storage can't be opened; from entering. `SchemaTooNew`, if a newer
            release has migrated it.
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | Storage,
        *,
        objects: Iterable[type[DurableObject]] | None = None,
        durability: Durability = "full",
        call_timeout: Duration | None = DEFAULT_CALL_TIMEOUT,
        polling_interval: Duration = DEFAULT_POLLING_INTERVAL,
        claim_ttl: Duration = DEFAULT_CLAIM_TTL,
        grace_period: Duration = DEFAULT_GRACE_PERIOD,
        max_resident: int = DEFAULT_MAX_RESIDENT,
        max_state_size: int = DEFAULT_MAX_STATE_SIZE,
        runner: type[Runner] | None = None,
        clock: Clock | None = None,
        instruments: Iterable[Instrument] = (),
    ) -> None:
        for name, number in (("max_resident", max_resident), ("max_state_size", max_state_size)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be an int of 1 or more, not {number!r}")
        self._storage = storage_at(storage, durability)
        self._catalogue = Catalogue(objects, self._make_directory)
        self._call_timeout = optional_seconds(call_timeout, "call_timeout")
        self._grace_period = seconds(grace_period, "grace_period")
        self._polling_interval = _interval(polling_interval, "polling_interval")
        self._claim_ttl = _interval(claim_ttl, "claim_ttl")
        self._clock = clock
        self._instruments = _checked(instruments)
        self._max_resident = max_resident
        self._max_state_size = max_state_size
        in_memory = isinstance(self._storage, MemoryStorage)
        self._runner_class = runner or (InlineRunner if in_memory else ThreadRunner)
        self._entered = False
        self._services: Services | None = None
        self._hints: Hints | None = None
        self._handle_classes: dict[Directory, type[Handle]] = {}
        self._tenant = ""
        self._tenants: WeakValueDictionary[str, Tenant] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<DurableRuntime on {self._storage.location}>"

    @property
    def root(self) -> DurableRuntime:
        """See `Objects.root`."""
        return self

    # --- tenants ---------------------------------------------------------------------------------

    def tenant(self, name: str, /) -> Tenant:
        """The objects of a tenant: the same interface, over tables of its own. Touches nothing.

        The tables are made when something is first stored there.

        Args:
            name: 1 to 48 small letters, digits, ``-`` and ``_``, the first a letter or digit.

        Raises:
            InvalidTenant: It can't be a name.
            RuntimeClosed: The runtime isn't open.
        """
        self._open()
        tenant = self._tenants.get(name) if isinstance(name, str) else None
        if tenant is None:
            check_tenant(name)
            tenant = self._tenants[name] = Tenant(self, str.__str__(name))
        return tenant

    async def list_tenants(self, *, after: str | None = None, limit: int = 100) -> list[str]:
        """The names of the tenants of whom anything was ever stored, in order.

        Args:
            after: Only names behind this one; the last of a page gives the next page.
            limit: At most so many; a million counts as no limit.

        Raises:
            InvalidTenant: ``after`` can't be a name.
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: They could not be looked up.
        """
        if after:
            check_tenant(after)
        limit = checked_limit(limit)
        return await self._read(lambda reader: reader.list_tenants(after, limit))

    async def drop_tenant(self, name: str, /) -> bool:
        """Remove a tenant, with all that is stored of it; whether there was one.

        Turns of its objects that are under way or queued come first. New calls of them fail until
        it is done; later ones find nothing, and make the tenant anew when they store something.

        Raises:
            InvalidTenant: There can't be such a name.
            TenantDropped: Somebody else is dropping it.
            CallCycle: This is called in a turn of one of its objects, or in one that such a turn
                waits for.
            StorageUnavailable: It could not be removed; nothing was.
        """
        self._check_loop()
        check_tenant(name)
        name = str.__str__(name)  # an enum's own text would say something else
        services = self._open()
        if name in services.dropping:
            raise TenantDropped(name)
        theirs = [
            activation
            for directory in self._catalogue
            for activation in directory.activations()
            if activation.key.tenant == name
        ]
        turn = current_turn.get()
        if turn is not None:
            if turn.activation is not None:
                for activation in theirs:
                    check_circle(turn.activation, activation, "drop_tenant")
            turn.waits_for += theirs
        leaving = [activation.send_away() for activation in theirs]
        services.dropping.add(name)
        try:
            for waiter in leaving:
                with contextlib.suppress(PersistenceError):  # then it has left memory all the more
                    await waiter.wait()
            if services.closed:  # and so may be the storage
                raise RuntimeClosed(f"the runtime closed before tenant {name} could be dropped")
            dropped = False
            # Shielded, so that it is over before anybody uses the tenant again.
            with self._storage_errors(), anyio.CancelScope(shield=True):
                dropped = await self._group_commit.perform(lambda writer: writer.drop_tenant(name))
                self._scheduler.dropped(name)
        finally:
            services.dropping.remove(name)
            if turn is not None:
                for activation in theirs:
                    turn.waits_for.remove(activation)
        return dropped

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
        clock = self._clock
        if clock is None:
            clock = LoopClock(loop.time_source, loop.now) if loop.is_virtual else SystemClock()
        telemetry = self._telemetry = Notifier(loop.now, self._instruments)
        self._parts = instrumented(telemetry) if self._instruments else PLAIN
        self._group_commit = GroupCommit(
            loop, self._writer_runner, self._writer, clock.now, notifier=self._parts.notifier
        )
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
            clock=clock,
        )
        self._scheduler = WheelScheduler(
            loop,
            clock,
            self._group_commit,
            self._reader_runner,
            self._reader,
            self._catalogue,
            self._tell_others,
            polling_interval=self._polling_interval,
            claim_ttl=self._claim_ttl,
            notifier=self._parts.notifier,
        )
        self._group_commit.add_listener(self._scheduler)
        self._catalogue.prepare()
        await self._tasks.__aenter__()
        self._housekeeping: list[anyio.CancelScope] = []
        for task in (
            self._batched_load.run,
            self._deadlines.run,
            self._residency.run,
            self._scheduler.run,
        ):
            scope = anyio.CancelScope(shield=True)
            self._housekeeping.append(scope)
            self._tasks.start_soon(_run_in, scope, task, name=f"trio_durable {task.__qualname__}")
        self._hints = self._storage.open_hints(
            lambda available_at: loop.call_soon_threadsafe(self._scheduler.hinted, available_at)
        )
        _ambient.opened(loop.token, self)
        self._token = _ambient.ambient.set(self)
        telemetry.tell(Opened(self))

    def _tell_others(self, available_at: int) -> None:
        if self._hints is not None:
            self._hints.send(available_at)

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
        self._scheduler.stop()
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
                    try:
                        await self._group_commit.drained()
                        await self._scheduler.give_back()
                    finally:
                        try:
                            await self._close_storage()
                        finally:
                            self._telemetry.tell(Closed(self))
        return swallow if cancelled else None

    async def _finish_turns(self, services: Services) -> None:
        with anyio.move_on_after(self._grace_period):
            while services.busy:
                services.quiet = services.loop.waiter()
                await services.quiet.wait()

    async def _close_storage(self) -> None:
        """Close both sides, each in its own thread."""
        try:
            if self._hints is not None:
                await self._reader_runner.run(self._hints.close)
            await self._reader_runner.run(self._reader.close)
        finally:
            try:
                await self._writer_runner.run(self._writer.close)
            finally:
                self._stop_runners()

    def _stop_runners(self) -> None:
        self._reader_runner.stop()
        self._writer_runner.stop()

    def statistics(self) -> RuntimeStatistics:
        """A snapshot of what the runtime does and did."""
        services = self._open()
        alarms = self._scheduler.statistics()
        return RuntimeStatistics(
            objects=services.residency.count,
            busy=services.busy,
            transactions=self._group_commit.batches,
            commits=self._group_commit.rows,
            alarms_waiting=alarms.waiting,
            alarms_in_flight=alarms.in_flight,
            alarms_delivered=alarms.delivered,
            alarms_failed=alarms.failed,
        )

    # --- inside ----------------------------------------------------------------------------------

    def _make_directory(self, definition: ObjectDefinition) -> Directory:
        services = self._open()
        return self._parts.directory(
            definition, services, self._deadlines, self._call_timeout, self._max_state_size
        )


def _checked(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    if not isinstance(instruments, Iterable):
        raise ValueError(
            f"instruments must be a list of instances of Instrument, not {instruments!r:.80}"
        )
    checked = tuple(instruments)
    for instrument in checked:
        if not isinstance(instrument, Instrument):
            raise ValueError(f"instruments must be instances of Instrument, not {instrument!r}")
        if checked.count(instrument) > 1:
            raise ValueError(f"{instrument!r} is given twice in instruments")
    return checked


def _interval(value: Duration, name: str) -> float:
    length = seconds(value, name)
    if not 0.001 <= length <= _YEAR:
        raise ValueError(f"{name} must be between a millisecond and a year, not {value!r}")
    return length


async def _run_in(scope: anyio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    # Shielded: what is cancelled around the runtime may still make calls while it cleans up, and
    # these need to be loaded and to time out.
    with scope:
        await task()


def current_runtime() -> Objects:
    """The runtime that is current here: the innermost open one, or the only one in this loop.

    In a turn of an object that belongs to a tenant, it is that `Tenant`.

    Raises:
        NoRuntime: None is open in this event loop, or several and the context names none.
    """
    return cast("Objects", _ambient.current(running_loop_token()))
