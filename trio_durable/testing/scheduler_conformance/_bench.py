"""Runtimes around schedulers under test, all on one storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import attrs
from anyio.abc import TaskGroup

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.runner import Runner
from ..._eventloop.running import running_loop
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.group_commit import GroupCommit
from ...scheduler import Destination, Scheduler
from ...storage import (
    AlarmChanges,
    Commit,
    ForwardingWriter,
    NewAlarm,
    Postponement,
    Reader,
    Storage,
    StorageFault,
    Writer,
)
from ._clock import SettableClock
from ._destination import Handled, ScriptedDestination
from ._runner import SlowRunner

TYPE = "Cart"


@attrs.frozen
class SchedulerParts:
    """The parts of a runtime from which a scheduler is made."""

    loop: Loop
    """The event loop."""
    clock: Clock
    """The time."""
    storage: Storage
    """The storage, which is open."""
    runner: Runner
    """Runs reads."""
    reader: Reader
    """Reads from the storage."""
    group_commit: GroupCommit
    """Writes to the storage. The suite makes the scheduler one of its listeners."""
    destination: Destination
    """Handles alarms."""


class FaultyWriter(ForwardingWriter):
    """A writer whose next commit or postponement can fail."""

    def __init__(self, inner: Writer) -> None:
        super().__init__(inner)
        self.next_commit: Literal["works", "fails", "is lost"] = "works"
        """The outcome of the next commit. A lost commit is applied, but raises."""
        self.failing_postponements: int = 0
        """How many of the next postponements fail."""
        self.after_write: Callable[[], object] | None = None
        """Called after each commit and postponement."""

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """See `Writer.commit`."""
        outcome, self.next_commit = self.next_commit, "works"
        if outcome == "fails":
            raise StorageFault("the test let a commit fail")
        stale = self.inner.commit(batch, now)
        self._written()
        if outcome == "is lost":
            raise StorageFault("the test lost the outcome of a commit")
        return stale

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        """See `Writer.postpone`."""
        if self.failing_postponements:
            self.failing_postponements -= 1
            raise StorageFault("the test let a postponement fail")
        self.inner.postpone(postponements)
        self._written()

    def _written(self) -> None:
        if self.after_write is not None:
            self.after_write()


class Node:
    """One runtime: a scheduler, and the parts that it uses.

    Args:
        bench: The bench with the storage.
        types: The types that the runtime serves.
    """

    def __init__(self, bench: Bench, types: set[str]) -> None:
        self._bench = bench
        self._loop = bench.loop
        writer_runner, reader_runner = (
            SlowRunner(bench.loop, bench.start, lambda: bench.latency) for _ in range(2)
        )
        self.group_commit: GroupCommit = GroupCommit(
            bench.loop, writer_runner, bench.writer, bench.clock.now
        )
        self.destination: ScriptedDestination = ScriptedDestination(
            bench.loop, bench.clock, self.group_commit, self._start, types
        )
        self.scheduler: Scheduler = bench.make_scheduler(
            SchedulerParts(
                loop=bench.loop,
                clock=bench.clock,
                storage=bench.storage,
                runner=reader_runner,
                reader=bench.reader,
                group_commit=self.group_commit,
                destination=self.destination,
            )
        )
        self.group_commit.add_listener(self.scheduler)
        self._tasks: TaskGroup | None = None
        self._ended = anyio.Event()

    # --- lifetime --------------------------------------------------------------------------------

    async def live(self) -> None:
        """Run the scheduler and its turns until the node is closed or killed."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self.scheduler.run)
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            self._ended.set()

    def _start(self, turn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._tasks is not None, "the scheduler delivers although it doesn't run"
        self._tasks.start_soon(turn)

    async def kill(self) -> None:
        """Cancel all tasks, and release no claims, as in a crash."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._ended.wait()

    async def close(self) -> None:
        """End as a runtime that closes: cancel turns, and release claims."""
        self.scheduler.stop()
        self.destination.abandon()
        await self.kill()
        await self.group_commit.drained()
        await self.scheduler.give_back()

    # --- alarms ----------------------------------------------------------------------------------

    async def set(
        self,
        name: str,
        after: float,
        object_id: str = "a",
        *,
        type_name: str = TYPE,
        tenant: str = "",
        payload: bytes | None = None,
    ) -> None:
        """Set an alarm through the scheduler."""
        key = ObjectKey(type_name, object_id, tenant)
        await self.scheduler.schedule(key, name, NewAlarm(self._bench.time(after), payload))

    async def fire(self, key: AlarmKey) -> bool:
        """Fire an alarm. No test lets its handler wait for longer than seconds.

        Raises:
            TimeoutError: The scheduler doesn't return.
        """
        with anyio.fail_after(10):
            return await self.scheduler.fire(key)

    async def commit(self, changes: AlarmChanges, object_id: str = "a", tenant: str = "") -> None:
        """Change alarms by a turn's commit."""
        await self.destination.commit(ObjectKey(TYPE, object_id, tenant), changes)

    async def listed(self, object_id: str = "a") -> list[str]:
        """The names of an object's alarms, by due time."""
        stored = await self.scheduler.list(ObjectKey(TYPE, object_id))
        return [alarm.key.name for alarm in stored]

    async def dead(self) -> list[str]:
        """The names of all dead letters."""
        dead = await self.scheduler.dead_letters(TYPE, None, 1000, "")
        return [alarm.key.name for alarm in dead]

    async def drop_tenant(self, tenant: str) -> None:
        """Remove a tenant, as a runtime does."""
        await self.group_commit.perform(lambda writer: writer.drop_tenant(tenant))
        self.scheduler.dropped(tenant)

    @property
    def handled(self) -> list[Handled]:
        """The calls of handlers in this runtime, in order."""
        return self.destination.handled

    @property
    def names(self) -> list[str]:
        """The names of the alarms that this runtime handled, in order."""
        return [handled.key.name for handled in self.handled]

    @property
    def attempts(self) -> list[int]:
        """The attempts that this runtime handled, in order."""
        return [handled.alarm.attempt for handled in self.handled]


class Bench:
    """A storage, and the nodes that use it."""

    def __init__(
        self, storage: Storage, make_scheduler: Callable[[SchedulerParts], Scheduler]
    ) -> None:
        self.storage = storage
        self.make_scheduler = make_scheduler
        self.loop: Loop = running_loop()
        self.clock: SettableClock = SettableClock(self.loop)
        self.writer: FaultyWriter = FaultyWriter(storage.open_writer())
        self.reader: Reader = storage.open_reader()
        self.nodes: list[Node] = []
        self.latency: float = 0.02
        """The seconds that each job of a writer or reader takes."""
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Run nodes inside the block."""
        try:
            async with anyio.create_task_group() as self._tasks:
                yield
                self._tasks.cancel_scope.cancel()
        finally:
            self.reader.close()
            self.writer.close()

    def start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task that ends with the bench."""
        assert self._tasks is not None
        self._tasks.start_soon(task)

    async def node(self, *types: str) -> Node:
        """Start a node that serves ``types``, by default `TYPE`; return after its first poll."""
        return await self.begin(Node(self, set(types or (TYPE,))))

    async def begin(self, node: Node) -> Node:
        """Start a node; return after its first poll."""
        self.nodes.append(node)
        self.start(node.live)
        await anyio.sleep(0.5)
        return node

    def time(self, after: float) -> int:
        """The time ``after`` seconds from now, in microseconds since 1970 UTC."""
        return self.clock.now() + round(after * 1e6)

    def changes(self, **after: float | None) -> AlarmChanges:
        """Changes that set alarms for times in seconds from now; None cancels one."""
        return AlarmChanges(
            changed={
                name: None if seconds is None else NewAlarm(self.time(seconds), None)
                for name, seconds in after.items()
            }
        )


def alarm_key(name: str, object_id: str = "a", tenant: str = "") -> AlarmKey:
    """The key of an alarm of a `TYPE`."""
    return AlarmKey(TYPE, object_id, name, tenant)
