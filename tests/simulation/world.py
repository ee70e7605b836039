"""The world of one seed: processes with a runtime each, one database, callers, and what goes wrong.

Prior art: the deterministic simulation of FoundationDB and TigerBeetle; Jepsen for what is recorded
and how it is judged. Everything that is drawn comes from the seed, the event loop's schedule
included, and time is virtual, so a seed tells the same story each time. Trio and asyncio have
different schedules, and so a story of their own each.

`trio_durable.testing.simulate` simulates as well, for those who test their objects: one process at
a time that comes to rest after each step, so that a model can follow. Here nothing ever rests: its
crashes come in the middle of everything, which is why what happened is recorded and judged later.

A process is a runtime and the callers that speak to it. When it crashes nothing that it does
reaches the database or the history any more; its tasks are cancelled, as Python has no other way to
be rid of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar

import anyio
import attrs
from trio.lowlevel import in_trio_task

from trio_durable import (
    Alarm,
    CallTimeout,
    Clock,
    Cluster,
    DurableError,
    DurableRuntime,
    MailboxFull,
    ObjectKey,
    OwnerLost,
    PersistenceError,
    RuntimeClosed,
    StaleObject,
)
from trio_durable._api.objects import Objects
from trio_durable.storage import Commit, Storage, StorageFault

from .cluster_history import ClusterHistory
from .effects import Attempt, Ordered
from .history import History, Key
from .links import PROCESS, SimulatedStream, Wires
from .members import TTL, MemberRows, MemberStorage
from .network import (
    Network,
    SimulatedAsyncioLoop,
    SimulatedLoop,
    SimulatedRunner,
    SimulatedTrioLoop,
)
from .objects import OBJECTS, Ledger, Order, Refused
from .storage import Database, Mounted

T = TypeVar("T")

_START = 1_900_000_000_000_000
_PROCESSES = {"pair": 2, "cluster": 3}
"""At once; one of the other kinds."""


@attrs.frozen
class Setting:
    """What a seed has drawn of its world."""

    kind: str
    """``file``: one process at a time, which gets back what its predecessor has claimed.
    ``server``: one at a time, whose claims run out and whose commits may come late.
    ``pair``: two of these at once.
    ``cluster``: three at once, which are members of a cluster and call each other."""
    callers: int
    operations: int
    """Of each caller."""
    crash: float
    """How likely the process dies at a commit."""
    failure: float
    """How likely it is that what the storage is asked fails."""
    lost: float
    """How likely the connection breaks at a commit."""
    max_resident: int
    unrest: float
    """Seconds between two disturbances, about."""
    max_calls: int = 1024
    """Of another process that one has under way, in a cluster."""


class World:
    """One simulation, under way."""

    def __init__(self, seed: int, setting: Setting, storage: Storage) -> None:
        self.setting = setting
        self.rng = Random(f"{seed} world")
        self.is_cluster = setting.kind == "cluster"
        new_history = ClusterHistory if self.is_cluster else History
        self.history = new_history(anyio.current_time)
        self.database = Database(storage)
        self.members = MemberRows()
        self.network = Network(Random(f"{seed} network"))
        self.wires = Wires(self.network)
        self.clock = WallClock(self)
        self.is_faulty = True
        self.slots = [Slot(self) for _ in range(_PROCESSES.get(setting.kind, 1))]
        self.opening: Process | None = None
        self.ordered: dict[str, Ordered] = {}
        self.plans: dict[str, str] = {}
        self.forwarded: dict[str, str] = {}
        """By name: the other ledger that a ledger appends it to as well."""
        self.processes: dict[object, Process] = {}
        """By their runtimes."""
        self.surprises: list[Exception] = []
        """What callers met that is neither an error of the library's nor of their objects'."""
        self.crashes = self.faults = self.leases_lost = self.cuts = self.requests = 0

    # --- what handlers ask -----------------------------------------------------------------------

    async def pause(self) -> None:
        """Wait for a while, perhaps."""
        await anyio.sleep(self.rng.choice([0, 0, 0.001, 0.02, 0.2]))

    async def append_at(self, runtime: Objects, key: Key, name: str) -> None:
        """Append to another ledger, in the middle of a turn."""
        number = self.history.invoke(self.processes[runtime], key, "append", name)
        await self.tell(number, key, runtime.get(Ledger, key.object_id).append(number, name))

    def fires(self, runtime: Objects, alarm: Alarm) -> None:
        """The handler of an alarm begins."""
        process = self.processes[runtime]
        if process.is_dead:
            return
        token = alarm.payload_as(Order).token
        ordered = self.ordered[token]
        if not ordered.attempts:
            key, plan = ordered.key, self.plans[token]
            self.history.invoke(None, key, "fire", alarm.name, token, plan, has_begun=True)
        by = ordered.by
        wall = self.clock.latest_since(by.start if by else 0)
        ordered.attempts.append(Attempt(self.history.tick(), wall))

    def orders(self, call: int, token: str, after: float) -> None:
        """The turn begins that sets an alarm."""
        self.history.begins(call)
        self.ordered[token].due_at = self.clock.now() + round(after * 1e6)

    def reschedule(self, object_id: str, name: str, token: str, plan: str, after: float) -> float:
        """The handler of an alarm sets the next one."""
        due_at = self.clock.now() + round(after * 1e6)
        ordered = self.ordered.get(token)
        if ordered is None:
            key = Key("Clerk", object_id)
            self.ordered[token] = Ordered(key, name, token, due_at, None)
            self.plans[token] = plan
        else:  # another attempt, perhaps after a jump of the clock
            ordered.due_at = min(ordered.due_at, due_at)
        return after

    # --- what becomes of calls -------------------------------------------------------------------

    async def tell(self, number: int, key: Key, call: Awaitable[T]) -> T:
        """Note what a caller is told."""
        history = self.history
        try:
            result = await call
        except Refused as error:
            history.succeed(number, frozen(error.seen), SEEN[key.type_name])
            raise
        except anyio.get_cancelled_exc_class():
            history.give_up(number)
            raise
        except DurableError as error:
            # Of another object it is what a handler met, whose turn was rolled back.
            is_own = getattr(error, "key", None) == ObjectKey(*key)
            if is_own and isinstance(error, CallTimeout) and not isinstance(error, MailboxFull):
                history.give_up(number)
            elif (is_own and _may_be_saved(error)) or (
                # It closed in the middle of a turn, which had begun to commit or is elsewhere.
                isinstance(error, RuntimeClosed)
                and (self.is_cluster or history.is_on_its_way(number))
            ):
                history.doubt(number)
            else:
                history.refuse(number)
            raise
        except Exception as error:
            history.doubt(number)
            self.surprises.append(error)
            raise
        history.succeed(number, frozen(result))
        return result

    # --- storage ---------------------------------------------------------------------------------

    def apply_later(self, batch: Sequence[Commit], now: int) -> None:
        """A commit on a broken connection arrives all the same."""
        self.faults += 1
        keys = [Key(each.key.type_name, each.key.object_id) for each in batch]
        self.history.is_slow(keys)

        def apply() -> None:
            self.database.commit(batch, now)
            self.history.is_applied(keys)

        self.network.post(anyio.current_time() + self.rng.uniform(0, 1), apply)

    def fails(self, likely: float) -> bool:
        """Whether something goes wrong."""
        return self.is_faulty and self.rng.random() < likely


SEEN = {"Register": "read", "Counter": "read", "Ledger": "read", "Clerk": "see"}
"""What a handler does that raises: it tells what it saw."""


def _may_be_saved(error: DurableError) -> bool:
    return isinstance(error, OwnerLost) or (
        isinstance(error, PersistenceError)
        and not isinstance(error, StaleObject)
        and error.action == "save"
    )


def frozen(value: object) -> object:
    """As models have it."""
    return tuple(value) if isinstance(value, list) else value


class WallClock(Clock):
    """Goes as the loop does, but for its jumps."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._offset = 0
        self._peaks: list[tuple[int, int]] = []

    @property
    def may_jump(self) -> bool:
        return True

    def now(self) -> int:
        return _START + round(anyio.current_time() * 1e6) + self._offset

    def jump(self, seconds: float) -> None:
        """Be set."""
        self._peaks.append((self._world.history.tick(), self.now()))
        self._offset += round(seconds * 1e6)

    def latest_since(self, event: float) -> int:
        """The latest that it has shown since then."""
        return max([self.now(), *(wall for jumped, wall in self._peaks if jumped >= event)])


class Slot:
    """Where one process runs at a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.process: Process | None = None
        self._changed = anyio.Event()
        self.is_over = False

    async def up(self) -> Process:
        """The process that runs, once one does."""
        while self.process is None or not self.process.is_ready:
            await self._changed.wait()
        return self.process

    def change(self) -> None:
        """Let those look again who wait for a process."""
        self._changed.set()
        self._changed = anyio.Event()

    async def run(self) -> None:
        """One process after the other."""
        rng = self._world.rng
        while not self.is_over:
            self.process = Process(self._world, self)
            await self.process.live()
            if not self.is_over:
                await anyio.sleep(rng.choice([0, 0, 0.1, 3]))

    def end(self) -> None:
        """No more after this one, which comes to its end."""
        self.is_over = True
        if self.process is not None:
            self.process.close()


class Process:
    """One process, from its start to its end."""

    def __init__(self, world: World, slot: Slot) -> None:
        self.world = world
        self._slot = slot
        self.is_ready = False
        self.is_dead = False
        self.is_silent = False
        """Dead with its machine, so that its links don't end."""
        self.storage_held_until = self.links_held_until = 0.0
        """Until then nothing passes between it and the storage, or others."""
        self.streams: dict[SimulatedStream, None] = {}
        """Its ends of links."""
        self.callers: set[anyio.CancelScope] = set()
        self._scope = anyio.CancelScope()
        self._to_close = anyio.Event()
        self._member: MemberStorage | None = None
        setting = world.setting
        storage: Mounted = Mounted(self)
        cluster: bool | Cluster = False
        if world.is_cluster:
            storage = self._member = MemberStorage(self)
            address = f"unix:///simulated/{len(world.processes)}"
            cluster = Cluster(listen=address, ttl=TTL, max_calls=setting.max_calls)
        self.runtime = DurableRuntime(
            storage,
            objects=OBJECTS,
            cluster=cluster,
            runner=SimulatedRunner,
            clock=world.clock,
            polling_interval=2,
            claim_ttl=3,
            grace_period=1,
            close_timeout=60,  # while nothing passes to the storage, less would not do
            max_resident=setting.max_resident,
        )

    async def live(self) -> None:
        """From opening the storage until it is closed, or until it crashes."""
        world = self.world
        if world.setting.kind == "file":
            world.database.give_back_claims()
        PROCESS.set(self)
        with self._scope:
            world.opening = self
            world.processes[self.runtime] = self
            async with self.runtime:
                self.is_ready = True
                self._slot.change()
                try:
                    await self._to_close.wait()
                finally:
                    world.requests += self.runtime.statistics().calls_forwarded
                self.is_ready = False
        world.history.end_process(self)
        self.is_ready = False

    def new_loop(self) -> SimulatedLoop:
        """The loop as its runtime is to see it."""
        backend = SimulatedTrioLoop if in_trio_task() else SimulatedAsyncioLoop
        return backend(self.world.network, self)

    def close(self) -> None:
        """Come to an end in order."""
        self.is_ready = False
        self._to_close.set()

    def crash(self, *, with_machine: bool = False) -> None:
        """Be gone.

        Args:
            with_machine: Nothing notices it but by silence.
        """
        if self.is_dead or not self.is_ready:
            return
        self.is_dead, self.is_ready, self.is_silent = True, False, with_machine
        self.world.crashes += 1
        self.world.history.end_process(self)
        for stream in list(self.streams):
            stream.die()
        if self._member is not None and not with_machine:
            self._member.prove_death()
        self._scope.cancel()
        for scope in self.callers:
            scope.cancel()

    def hold(self, storage: float, links: float) -> None:
        """Let nothing pass between it and the storage, or others, for so many seconds."""
        now = anyio.current_time()
        self.storage_held_until = max(self.storage_held_until, now + storage)
        self.links_held_until = max(self.links_held_until, now + links)

    def cut_links(self) -> None:
        """Let its links break."""
        for stream in list(self.streams):
            self.world.cuts += 1
            stream.cut()

    # --- its storage -----------------------------------------------------------------------------

    def loses_connection(self) -> bool:
        """Whether a commit is on its way when the connection breaks."""
        return not self.is_dead and self.world.fails(self.world.setting.lost)

    def call_storage(self, kind: str, work: Callable[[], T]) -> T:
        """Do what is asked: wholly, or not at all, or both and then fail."""
        world = self.world
        if self.is_dead:
            raise StorageFault("the process is dead")
        fault = ""
        if kind == "commit" and world.fails(world.setting.crash):
            fault = "crash"
        elif world.fails(world.setting.failure):
            fault = "failure"
        when = world.rng.choice(["before", "after"]) if fault else ""
        world.faults += bool(fault)
        if when == "before":
            self._fail(fault)
        result = work()
        if when == "after":
            self._fail(fault)
        return result

    def _fail(self, fault: str) -> None:
        if fault == "crash":
            self.crash()
        raise StorageFault(f"as drawn: {fault}")
