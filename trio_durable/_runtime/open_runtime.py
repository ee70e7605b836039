"""Open runtime: everything that exists while a `DurableRuntime` is open.

The host task builds it in order, and pushes the undoing of each step next to it. It closes it in
the opposite order, and a failure half-way closes what was open by then.

Order of closing:

1. No new calls from outside and no new deliveries; running turns may finish within the grace
   period. If the body was cancelled, they may not.
2. The runtime is closed; its tasks are cancelled, and all that waits in mailboxes fails.
3. Commits that were submitted become durable, and claims of alarms are given back.
4. The storage's sides close, each in its own thread, and the threads end.

Steps 2 to 4 take ``close_timeout`` at most. Then the runtime is left with an error, and the threads
go on by themselves: the storage's lock is held until the writer's thread has closed it.

A runtime that serves its objects under a lease, and loses it, gives all of them up and joins again.

A fault of the library's own, or of a thread, has one transition, `OpenRuntime.fail`. It closes the
runtime for all at once, and has the host close the parts.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextvars import Context, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload
from uuid import uuid4

import anyio

from .._activations.calls import LocalCalls
from .._activations.directory import Directory
from .._activations.eviction import ResidentSet
from .._activations.object_type import ObjectType
from .._activations.observation import Observation
from .._activations.output_gate import OutputGate
from .._activations.pump import Pump
from .._activations.services import Services, StoredAlarms
from .._activations.slices import SliceClock
from .._clock import Clock
from .._errors import StorageUnavailable, WrongEventLoop
from .._eventloop import current
from .._eventloop.current import Dispatcher
from .._eventloop.loop import Loop
from .._eventloop.running import running_loop
from .._eventloop.tasks import OwnTasks, Supervision
from .._eventloop.timeouts import Deadlines
from .._keys import ObjectKey
from .._messages.statistics import OutboxStatistics
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .._telemetry.notifier import Notifier
from .._watching.hub import Hub
from ..scheduler import Destination, Scheduler
from ..storage import Lease, Reader, Storage, StorageFault
from .control import Control
from .ending import Ending
from .forks import open_runtimes
from .host import Host
from .leasing import Leasing
from .scheduling import Scheduling
from .settings import ClusterOfMembers, ClusterOnFile, Settings
from .sides import Sides, open_sides

if TYPE_CHECKING:
    from .._cluster.handles import Handles
    from .._cluster.service import Targets
    from .._outbox.outbox import Outbox
    from .messaging import Messaging
    from .sharing import Sharing

logger = logging.getLogger("trio_durable")

C = TypeVar("C", bound=LocalCalls)
R = TypeVar("R")


async def open_runtime(
    settings: Settings,
    runtime: Dispatcher,
    tenant: Callable[[str], Dispatcher],
    destination: Destination,
    prepare: Callable[[OpenRuntime], None],
) -> OpenRuntime:
    """Open the storage and start the tasks.

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
    loop = running_loop()
    found: list[OpenRuntime] = []

    async def live(host: Host) -> None:
        scheduling = Scheduling(settings, loop, destination)
        scheduling.prepare()
        sides = Sides(loop, host, settings.storage, settings.runner)
        await open_sides(sides, host, settings.cluster)
        opened = OpenRuntime(settings, loop, host, context, sides, runtime, tenant, scheduling)
        await opened._start(prepare)
        found.append(opened)
        host.opened()
        await host.stopped()

    context = copy_context()
    # While the loop waits for a thread, a virtual clock jumps to the end of any timeout.
    is_timed = not (loop.is_virtual and settings.runner.takes_real_time)
    host = Host(loop, live, settings.close_timeout if is_timed else math.inf)
    await host.start(context.copy())
    return found[0]


class OpenRuntime(Ending):
    """The parts of one open runtime. Made by `open_runtime`."""

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        host: Host,
        context: Context,
        sides: Sides,
        runtime: Dispatcher,
        tenant: Callable[[str], Dispatcher],
        scheduling: Scheduling,
    ) -> None:
        self.loop = loop
        clock = loop.wall_clock() if settings.clock is None else settings.clock
        self.clock: Clock = clock
        self.storage: Storage = settings.storage
        instruments = settings.instruments
        self.notifier: Notifier | None = (
            Notifier(loop.stopwatch(), instruments) if instruments else None
        )
        self.deadlines: Deadlines = Deadlines(loop)
        self.directories: list[Directory] = []
        self.node_id: str = str(uuid4())
        """The runtime's id among all runtimes of its storage; another one with each lease."""
        self.tasks: OwnTasks = OwnTasks(loop, context, self._task_failed)
        self._supervision = Supervision(loop, self.fail)
        loop.failed = self.recover
        self.group_commit: GroupCommit = GroupCommit(
            loop,
            sides.writing.runner,
            sides.writer,
            clock.now,
            notifier=self.notifier,
            failed=self.recover,
        )
        self.batched_load: BatchedLoad = BatchedLoad(
            loop, sides.reading.runner, sides.reader, lambda: self.pump.wake(), clock.now
        )
        slice_clock = SliceClock(loop)
        self.pump: Pump = Pump(
            loop, slice_clock, self.tasks, self.batched_load.deliver, self.recover
        )
        self.resident_set: ResidentSet = ResidentSet(loop, settings.max_resident)
        self.output_gate: OutputGate = OutputGate(loop, self.deadlines)
        self.services: Services = Services(
            loop=loop,
            deadlines=self.deadlines,
            group_commit=self.group_commit,
            batched_load=self.batched_load,
            resident_set=self.resident_set,
            output_gate=self.output_gate,
            tasks=self.tasks,
            pump=self.pump,
            slice_clock=slice_clock,
            clock=clock,
            read_alarms=self._read_alarms,
            runtime_of=lambda name: tenant(name) if name else runtime,
            failed=self.recover,
            end=self.fail,
            is_ending=self._is_ending,
            notifier=self.notifier,
            observation=Observation(self.notifier) if self.notifier is not None else None,
        )
        self.hub = Hub(
            loop, self.group_commit, self.batched_load, self._is_in_writer, self._supervise
        )
        self._leasing: Leasing | None = None
        membership = sides.writer.membership
        if membership is not None:
            self.node_id = membership.lease.holder
            self._leasing = Leasing(
                self.services,
                settings.storage,
                membership,
                sides.writing.runner,
                self.directories,
                began=self._lease_began,
                lost=self._lease_lost,
            )
        self.scheduling = scheduling
        self.scheduler: Scheduler = scheduling.make(
            self.node_id, sides, clock, self.group_commit, self.notifier
        )
        self.group_commit.add_listener(self.scheduler)
        self.host = host
        self._context = context
        self._runtime = runtime
        self._settings = settings
        self.sides = sides
        for runner in sides.runners:
            runner.failed = self.fail
        self.sharing: Sharing | None = None
        """The cluster, if the runtime is in one."""
        self.control: Control | None = None
        """The socket for commands of a runtime on a file that is in no cluster."""
        self._closed = anyio.Event()
        self._is_late = False
        self.messaging: Messaging | None = None
        """Messages and once-keys, if the storage keeps any."""

    # --- opening and closing, in the host task ---------------------------------------------------

    async def _start(self, prepare: Callable[[OpenRuntime], None]) -> None:
        host = self.host
        for undo in (
            self.scheduling.close,
            self._raise_if_late,
            self._leave_others,
            self._drain,
            self._end_tasks,
            self._mark_closed,
        ):
            host.push(undo)
        await self.scheduling.open()
        prepare(self)  # before any task runs
        self.pump.open()
        for task in (self.deadlines.run, self.resident_set.run):
            self._supervise(task)
        if self.sharing is None or not self.sharing.is_central:
            self._own()
        if self._leasing is not None:
            self._leasing.start()
        host.push(lambda: open_runtimes.discard(self))
        open_runtimes.add(self)
        host.push(self._unregister)
        current.register(self.loop.token, self._runtime)
        host.push(self._finish_turns)
        if self.sharing is not None:
            await self.sharing.enter()
        if self.control is not None:
            self.control.open()

    def _own(self) -> None:
        """Begin to deliver alarms and messages: the objects are in this process."""
        self._supervise(self.scheduler.run)
        if self.messaging is not None:
            self._supervise(self.messaging.outbox.run)
            self._supervise(self.messaging.once_runs.run)
            self._supervise(self.messaging.cleaning.run)

    def _fed(self) -> None:
        """The storage returns alarms and messages of other objects than before."""
        self.scheduler.acquired()
        if self.outbox is not None:
            self.outbox.rescan()

    def _supervise(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.tasks.supervise(task, f"trio_durable {task.__qualname__}", self.recover)

    def _unregister(self) -> None:
        if self.services.failure is None:  # else calls get its cause, until it is left
            current.unregister(self.loop.token, self._runtime)

    async def _finish_turns(self) -> None:
        period, began = self._settings.grace_period, self.loop.now()
        if self.sharing is not None:
            self.sharing.retire()
            if not self.services.closed:
                await self.host.grace(period, self.sharing.give_all)
        self.services.closing = True
        self.scheduler.stop()
        if self.outbox is not None:
            self.outbox.stop()
        if not self.services.closed:
            left = max(period - (self.loop.now() - began), 0.0)
            await self.host.grace(left, self._quiet)

    async def _quiet(self) -> None:
        services = self.services
        while services.busy:
            services.quiet = services.loop.waiter()
            await services.quiet.wait()
        if self.sharing is not None:
            await self.sharing.router.quiet()

    async def _end_tasks(self) -> None:
        self.tasks.cancel()
        with self.host.closing():
            await self.tasks.wait()
        self._abandon_calls()

    async def _drain(self) -> None:
        if self.services.failure is not None:
            # Its writer may have stopped in the middle. `fail` does this, but may be cut off.
            self._abandon_commits()
            return
        self._is_late = True
        with self.host.closing():
            await self.group_commit.drained()
            await self.scheduler.give_back()
            self._is_late = False
        self._abandon_commits()

    async def _leave_others(self) -> None:
        if self.sharing is not None:
            await self.sharing.leave()
        if self.control is not None:
            await self.control.leave()

    def _raise_if_late(self) -> None:
        if self._is_late and not self.host.has_forked:
            raise StorageUnavailable(
                self.storage.location,
                f"the runtime is closed, but the storage hasn't ended its last work after "
                f"close_timeout={self._settings.close_timeout:g} s; commits that it had may be "
                "durable or not, and the storage stays in use until its thread has ended",
            )

    def _lease_began(self, lease: Lease) -> None:
        """The runtime is another node from now on."""
        self.node_id = lease.holder
        if self.sharing is not None:
            self.sharing.began(lease)
        self._fed()  # for commits whose outcome isn't known, and for claims
        self.hub.doubt_all()  # for commits whose outcome isn't known, and those of other nodes

    def _lease_lost(self) -> None:
        """Nothing of this process may leave any more, until there is another lease."""
        if self.sharing is not None:
            self.sharing.lost()

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
            raise self.services.closed_error("the runtime is closed")

    async def leave_turn(self) -> None:
        """Wait for the commits that the caller's turn depends on. A checkpoint in any case.

        Raises:
            PersistenceError: They have failed, and the turn with them.
        """
        await self.loop.checkpoint()
        await self.output_gate.leave_turn(lambda: ObjectKey("", ""), "", None)

    @overload
    def serve(self, object_type: ObjectType) -> LocalCalls: ...
    @overload
    def serve(self, object_type: ObjectType, path: Callable[[Directory, Services], C]) -> C: ...
    def serve(
        self,
        object_type: ObjectType,
        path: Callable[[Directory, Services], LocalCalls] = LocalCalls,
    ) -> LocalCalls:
        """Serve the objects of one more type; their calls take ``path``."""
        directory = Directory(object_type, self.services)
        self.directories.append(directory)
        return path(directory, self.services)

    def deliver_messages(
        self,
        calls: Callable[[str], LocalCalls],
        handles: Handles,
        type_of: Callable[[type | str], ObjectType],
        is_here: Callable[[ObjectKey], bool],
        hint: Callable[[ObjectKey], Awaitable[None]],
    ) -> None:
        """Deliver messages, if the storage keeps any. Before any task runs.

        Args:
            calls: Returns the calls of a type's objects, by its stored name.
            handles: The handles of the runtime.
            type_of: The object type of a class, or of a stored name.
            is_here: False if an object lives in another process.
            hint: Lets the process with an object know that messages wait for it.
        """
        if not self.storage.keeps_messages:
            return
        from .messaging import Messaging  # here, since it takes long

        self.messaging = Messaging(
            self.services,
            self.sides,
            calls,
            handles,
            type_of,
            is_here,
            hint,
            self._settings.polling_interval,
            self.storage.location,
        )
        self.services.mail = self.group_commit.listeners.messages = self.messaging.outbox

    @property
    def outbox(self) -> Outbox | None:
        """The delivery of messages, if the storage keeps any."""
        return None if self.messaging is None else self.messaging.outbox

    def message_statistics(self) -> OutboxStatistics:
        """The counters of the messages."""
        return OutboxStatistics() if self.outbox is None else self.outbox.statistics()

    def share(self, given: ClusterOnFile | ClusterOfMembers, targets: Targets) -> Sharing:
        """Share the storage with other processes: see `Sharing`. Before any type is served."""
        # Imported here, since they take long to import.
        from .file_sharing import FileSharing
        from .member_sharing import MemberSharing

        tasks = OwnTasks(self.loop, self._context, self._task_failed)
        services, host, sides = self.services, self.host, self.sides
        parts = services, host, sides, tasks, targets
        if isinstance(given, ClusterOfMembers):
            self.sharing = MemberSharing(given, *parts, fed=self._fed, failed=self.fail)
        else:
            self.sharing = FileSharing(
                given, self.node_id, *parts, owns=self._own, failed=self.fail
            )
        assert isinstance(self.hub, Hub)
        self.hub = self.sharing.watching(self.hub, self._supervise)
        return self.sharing

    def accept_commands(self, path: Path, targets: Callable[[], Targets]) -> None:
        """Listen for commands once the runtime is open: see `Control`."""
        services, tasks = self.services, OwnTasks(self.loop, self._context, self._task_failed)
        self.control = Control(path, self.node_id, services, self.host, tasks, targets, self.fail)

    async def read(self, read: Callable[[Reader], R], *, apart: bool = False) -> R:
        """Run ``read`` in the reader's thread; ``apart`` in one of its own, see `Sides.scan`.

        Raises:
            StorageUnavailable: The storage can't be read.
            PersistenceError: See `leave_turn`.
        """
        self.check_usable()
        await self.leave_turn()
        with self.storage_errors():
            return await (self.sides.scan if apart else self.sides.read)(read)

    def _is_in_writer(self, key: ObjectKey) -> bool:
        of_type = (each for each in self.directories if each.object_type.name == key.type_name)
        found = (each.find(key.address) for each in of_type)
        gates = (activation.state.gate for activation in found if activation is not None)
        return any(gate is not None and gate.is_in_writer for gate in gates)

    async def _read_alarms(self, key: ObjectKey, names: Sequence[str]) -> StoredAlarms:
        alarms, now = [key.alarm(name) for name in names], self.clock.now()
        stored, rows = await self.read(
            lambda reader: (reader.list_alarms(key), reader.load_alarms(alarms, now))
        )
        return stored, dict(zip(names, rows, strict=True))

    @contextlib.contextmanager
    def storage_errors(self) -> Iterator[None]:
        """Raise a storage's faults as errors for users."""
        try:
            yield
        except StorageFault as fault:
            raise StorageUnavailable(self.storage.location, str(fault)) from fault
