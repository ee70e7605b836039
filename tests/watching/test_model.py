"""Random histories of watched rooms: each watcher sees a growing part of what was durable.

Each history runs in one event loop in virtual time, so that it is the same whenever it is
repeated. The storage notes each state that a room has had.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.clock import VirtualTimeLoop, settle
from support.scripted import ScriptedStorage
from support.tasks import NEVER, Calls, Outcome, calls, cancelled_at
from trio.testing import MockClock

from trio_durable import (
    DurableRuntime,
    ObjectKey,
    Objects,
    PersistenceError,
    RuntimeClosed,
    Snapshot,
    TenantDropped,
)
from trio_durable.storage import StorageFault

from .rooms import Room

EXAMPLES = int(os.environ.get("TRIO_DURABLE_EXAMPLES", "30"))
"""Per event loop; `make deep` has more of them."""
ROOMS = ("a", "b")
TENANTS = ("", "acme")
T = TypeVar("T")
State: TypeAlias = tuple[int, bytes | None]
ABSENT: State = (0, None)


class NotingStorage(ScriptedStorage):
    """Notes each state that was durable, and may fail after it has committed."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[ObjectKey, list[State]] = defaultdict(lambda: [ABSENT])
        self.doubtful = 0
        """How many of the next commits are applied, and fail."""

    def call(self, kind: str, work: Callable[[], T]) -> T:
        is_doubtful = kind == "commit" and self.doubtful > 0 and not self._commit_faults
        self.doubtful -= is_doubtful
        result = super().call(kind, work)
        if kind in ("commit", "drop_tenant"):
            rows = {row.key: (row.revision, row.state) for row in self._everything()}
            for key in {*rows, *self.durable}:
                state = rows.get(key, ABSENT)
                if state != self.durable[key][-1]:
                    self.durable[key].append(state)
        if is_doubtful:
            raise StorageFault("the connection was cut off, after the commit")
        return result

    def _everything(self) -> list[Row]:
        reader = self.inner.open_reader()
        try:
            return [
                Row(row.key, row.revision, row.state)
                for tenant in ("", *reader.list_tenants(None, 100))
                for row in reader.browse_objects(None, None, 1000, tenant)
            ]
        finally:
            reader.close()


@attrs.frozen
class Row:
    key: ObjectKey
    revision: int
    state: bytes


class Noting(Protocol):
    """A storage that notes each state that was durable."""

    durable: dict[ObjectKey, list[State]]


class Watcher:
    """A task that watches a room, and can be cancelled at each await of the watch."""

    def __init__(self, storage: Noting, objects: Objects, key: ObjectKey, cut_at: int) -> None:
        self.key = key
        self.begins_at = len(storage.durable[key]) - 1
        self.watch = objects.watch(Room, key.object_id)
        self.seen: list[Snapshot[Room]] = []
        self.pause = anyio.CancelScope()
        self.cut_at = cut_at
        """Where its next call of the watch is cancelled, see `cancelled_at`."""
        self.is_over = False
        """It was ended, by the test or with its tenant."""

    async def run(self) -> None:
        try:
            if not await self._call(self.watch.__aenter__):
                self.is_over = True
                return
        except (TenantDropped, RuntimeClosed):
            self.is_over = True
            return
        while not self.is_over:
            with anyio.CancelScope() as self.pause:
                await self._iterate()
        await self._call(partial(self.watch.__aexit__, None, None, None))

    async def _iterate(self) -> None:
        while not self.is_over:
            try:
                self.seen += await self._call(self.watch.__anext__)
            except PersistenceError:  # of a read
                continue
            except (StopAsyncIteration, RuntimeClosed):
                self.is_over = True

    async def _call(self, call: Callable[[], Awaitable[T]]) -> list[T]:
        """The result of a call; nothing if that was cancelled."""
        cut_at, self.cut_at = self.cut_at, NEVER
        outcome = await cancelled_at(cut_at, call)
        return [] if outcome.scope.cancelled_caught else [outcome.value]

    def interrupt(self, *, for_good: bool) -> None:
        """Cancel its wait; it waits once more unless ``for_good``."""
        self.is_over = self.is_over or for_good
        self.pause.cancel()

    def check(self, durable: list[State]) -> None:
        """What it has seen is a growing part of what was durable since it began."""
        at = self.begins_at
        before: State | None = None
        for snapshot in self.seen:
            state = (snapshot.revision, None if snapshot.json is None else snapshot.json.encode())
            assert state != before, "the same twice"
            assert state in durable[at:], f"{state} after {before}, of {durable}"
            at = durable.index(state, at)
            before = state


class World:
    """A runtime, its watchers, and what may happen to them."""

    def __init__(self, storage: NotingStorage, runtime: DurableRuntime, started: Calls) -> None:
        self.storage, self.runtime, self.started = storage, runtime, started
        self.watchers: list[Watcher] = []
        self.calls: list[Outcome[object]] = []
        self.lines = 0
        self.cut_at = NEVER
        """Where the next watcher is cancelled while it enters its watch."""

    def objects(self, tenant: str) -> Objects:
        return self.runtime.tenant(tenant) if tenant else self.runtime

    def say(self, room: str, tenant: str) -> None:
        self.lines += 1
        handle = self.objects(tenant).get(Room, room, timeout=None)
        self.calls.append(self.started.start(handle.say, str(self.lines)))

    def clear(self, room: str, tenant: str) -> None:
        handle = self.objects(tenant).get(Room, room, timeout=None)
        self.calls.append(self.started.start(handle.clear))

    def read(self, room: str, tenant: str) -> None:
        handle = self.objects(tenant).get(Room, room, timeout=None)
        self.calls.append(self.started.start(handle.read))

    def watch(self, room: str, tenant: str) -> None:
        key = ObjectKey("Room", room, tenant)
        watcher = Watcher(self.storage, self.objects(tenant), key, self.cut_at)
        self.cut_at = NEVER
        self.watchers.append(watcher)
        self.started.start(watcher.run)

    async def do(self, what: str, room: str, tenant: str) -> None:
        match what:
            case "say" | "clear" | "read" | "watch":
                getattr(self, what)(room, tenant)
            case "fail":
                self.storage.fail_commits(StorageFault("the disk is full"))
            case "doubt":
                self.storage.doubtful += 1
            case "blind":
                self.storage.fail_loads(StorageFault("unreadable"))
            case "hold writer" | "hold reader":
                self.storage._sides[what.split()[1]].is_held = True
            case "release":
                self.release()
            case "settle":
                await settle()
                if not any(side.is_held for side in self.storage._sides.values()):
                    self.check_at_rest()
            case "step":
                await anyio.lowlevel.checkpoint()
            case "sleep":
                self.release()
                await anyio.sleep(15)
            case "interrupt" | "leave":
                for watcher in self.watchers[::2]:
                    watcher.interrupt(for_good=what == "leave")
            case "cut 0" | "cut 1" | "cut 2":
                self.cut_at = int(what[-1])
                for watcher in self.watchers[1::2]:
                    watcher.cut_at = self.cut_at
            case "drop":
                self.calls.append(self.started.start(self.runtime.drop_tenant, "acme"))

    def check_at_rest(self) -> None:
        """Each watcher has what is stored."""
        for watcher in self.watchers:
            if not watcher.is_over:
                last = watcher.seen[-1]
                text = None if last.json is None else last.json.encode()
                assert (last.revision, text) == self.storage.durable[watcher.key][-1]

    def release(self) -> None:
        for side in ("writer", "reader"):
            self.storage._sides[side].is_held = False
            self.storage.release(side)


OPERATIONS = st.tuples(
    st.sampled_from(
        (
            *("say", "say", "say", "clear", "read", "watch", "watch", "fail", "doubt", "blind"),
            *("hold writer", "hold reader", "release", "settle", "settle", "step", "sleep"),
            *("interrupt", "leave", "drop", "cut 0", "cut 1", "cut 2"),
        )
    ),
    st.sampled_from((*ROOMS, "a", "a")),
    st.sampled_from((*TENANTS, "", "")),
)


async def history(operations: list[tuple[str, str, str]]) -> None:
    storage = NotingStorage()
    async with (
        calls() as started,
        DurableRuntime(storage, runner=storage.runner, call_timeout=None) as runtime,
    ):
        world = World(storage, runtime, started)
        for operation in operations:
            await world.do(*operation)
        world.release()
        await settle()
        storage.forget_faults()
        storage.doubtful = 0
        await anyio.sleep(60)
        await settle()
        world.check_at_rest()
        for watcher in world.watchers:
            watcher.check(storage.durable[watcher.key])
            watcher.interrupt(for_good=True)
        await settle()
        assert runtime._usable().hub.count == 0
        assert all(call.done for call in world.calls)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink one takes minutes
)
@given(operations=st.lists(OPERATIONS, min_size=30, max_size=60))
def test_watchers_see_a_growing_part_of_what_is_durable(
    backend: str, operations: list[tuple[str, str, str]]
) -> None:
    if backend == "trio":
        anyio.run(
            history,
            operations,
            backend="trio",
            backend_options={"clock": MockClock(autojump_threshold=0)},
        )
    else:
        anyio.run(history, operations, backend_options={"loop_factory": VirtualTimeLoop})
