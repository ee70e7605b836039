"""Random histories of watched rooms in a cluster whose objects change their owners.

Members join, leave and lose their leases, links are cut, news is held back, and the storage loses
commits with all leases, as an asynchronous standby does. See `test_model`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from unittest import mock

import anyio
import anyio.lowlevel
import pytest
from cluster.shared_memory import Node, Rows, node
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.clock import VirtualTimeLoop, settle
from support.leases import FakeLease
from support.tasks import NEVER, Calls, Outcome, calls
from trio.testing import MockClock

from trio_durable import Cluster, ObjectKey
from trio_durable._cluster.publisher import _Subscriber
from trio_durable._watching.session import News
from trio_durable.storage import Commit, ForwardingWriter, StorageFault, Writer

from .rooms import Room
from .test_clusters import cut, own, routed, subscribers
from .test_model import ABSENT, EXAMPLES, State, Watcher

ROOMS = ("a", "b", "c", "d")
MOST = 3
"""Members that have objects, at most; one is always there, and one that only watches and calls."""


class NotingWriter(ForwardingWriter):
    """Notes each state that was durable, and may fail before or after it has committed."""

    def __init__(self, rows: Rows, inner: Writer) -> None:
        super().__init__(inner)
        self._rows = rows
        self.durable: dict[ObjectKey, list[State]] = defaultdict(lambda: [ABSENT])
        self.failing = self.doubtful = 0

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if self.failing:
            self.failing -= 1
            raise StorageFault("the disk is full")
        refused = super().commit(batch, now)
        self.note()
        if self.doubtful:
            self.doubtful -= 1
            raise StorageFault("the connection was cut off, after the commit")
        return refused

    def note(self) -> None:
        rows = self._rows.objects._contents.rows
        for key in {*rows, *self.durable}:
            row = rows.get(key)
            state = ABSENT if row is None else (row[0], row[2])
            if state != self.durable[key][-1]:
                self.durable[key].append(state)


class Membership:
    """A member, in a task of its own."""

    def __init__(self, rows: Rows, cluster: Cluster) -> None:
        self._rows = rows
        self._cluster = cluster
        self._stop = anyio.Event()
        self.node: Node | None = None
        self.is_ending = False

    async def live(self) -> None:
        async with node(self._rows, cluster=self._cluster, call_timeout=None) as self.node:
            await self._stop.wait()
        self.node = None

    def end(self) -> None:
        self.is_ending = True
        self._stop.set()


class World:
    """A cluster, its watchers, and what may happen to them."""

    def __init__(self, rows: Rows, writer: NotingWriter, started: Calls) -> None:
        self.rows, self.storage, self.started = rows, writer, started
        self.members: list[Membership] = []
        self.watchers: list[Watcher] = []
        self.calls: list[Outcome[object]] = []
        self.lines = 0
        self.cut_at = NEVER
        """Where the next watcher is cancelled while it enters its watch."""
        self.lost: list[FakeLease] = []
        self.is_held = False
        """News is held back."""
        self._released = anyio.Event()
        self.earlier: dict[ObjectKey, tuple[int, int, bytes]] = {}
        """What a standby has."""

    async def send(self, send: object, subscriber: _Subscriber, batch: list[News]) -> None:
        while self.is_held:
            await self._released.wait()
        assert callable(send)
        await send(subscriber, batch)

    def release(self) -> None:
        self.is_held = False
        self._released.set()
        self._released = anyio.Event()
        for each in self.up:
            each.membership.is_held = False
        self.rows.look()

    async def join(self, cluster: Cluster) -> None:
        member = Membership(self.rows, cluster)
        self.members.append(member)
        self.calls.append(self.started.start(member.live))
        await settle()

    @property
    def up(self) -> list[Node]:
        return [each.node for each in self.members if each.node and not each.is_ending]

    def at(self, number: int) -> Node:
        up = self.up
        return up[number % len(up)]

    async def do(self, what: str, room: str, number: int) -> None:
        of = self.at(number)
        match what:
            case "say":
                self.lines += 1
                handle = of.runtime.get(Room, room)
                self.calls.append(self.started.start(handle.say, str(self.lines)))
            case "clear":
                self.calls.append(self.started.start(of.runtime.get(Room, room).clear))
            case "watch":
                key, cut_at = ObjectKey("Room", room), self.cut_at
                watcher = Watcher(self.storage, of.runtime, key, cut_at)
                self.cut_at = NEVER
                self.watchers.append(watcher)
                self.started.start(watcher.run)
            case "join":
                if sum(not each.is_ending for each in self.members) <= MOST:
                    await self.join(Cluster())
            case "leave":
                serving = [each for each in self.members[1:] if not each.is_ending]
                if len(serving) > 1:
                    serving[number % len(serving)].end()
            case "lose":
                self.lose(of)
            case "expire":  # others take over before it learns of that
                of.membership.is_held = True
                of.membership.expire()
                self.rows.remove(of.membership.current.holder)
                self.rows.look()
            case "blind":
                of.membership.is_held = True
            case "cut":
                cut(of.runtime)
            case "hold":
                self.is_held = True
            case "release":
                self.recover()
            case "fail":
                self.storage.failing += 1
            case "doubt":
                self.storage.doubtful += 1
            case "replicate":
                self.earlier = dict(self.rows.objects._contents.rows)
            case "failover":
                self.fail_over()
            case "sleep":
                self.recover()
                await anyio.sleep(15)
            case "settle":
                await settle()
            case "step":
                await anyio.lowlevel.checkpoint()
            case "cut":
                self.cut_at = number % 3
                for watcher in self.watchers[1::2]:
                    watcher.cut_at = self.cut_at
            case "interrupt":
                for watcher in self.watchers[::2]:
                    watcher.interrupt(for_good=False)

    def recover(self) -> None:
        """Let members see what there is, and those that have lost their leases learn of it."""
        for each in self.up:
            if each.membership.current.is_over:
                self.lose(each)
        self.release()

    def lose(self, of: Node) -> None:
        """A lease is lost, which is reported once."""
        lease = of.membership.current
        if lease not in self.lost:
            self.lost.append(lease)
            of.membership.lose()

    def fail_over(self) -> None:
        for each in self.up:
            self.lose(each)
        self.rows.objects._contents.rows.clear()
        self.rows.objects._contents.rows.update(self.earlier)
        self.storage.note()

    def check_at_rest(self) -> None:
        """Each watcher has what is stored."""
        for watcher in self.watchers:
            if not watcher.is_over:
                last = watcher.seen[-1]
                text = None if last.json is None else last.json.encode()
                assert (last.revision, text) == self.storage.durable[watcher.key][-1]


OPERATIONS = st.tuples(
    st.sampled_from(
        (
            *("say", "say", "say", "say", "clear", "watch", "watch", "watch", "join", "leave"),
            *("lose", "expire", "blind", "cut", "hold", "release", "fail", "doubt"),
            *("replicate", "failover", "sleep", "settle", "settle", "step", "interrupt", "cut"),
        )
    ),
    st.sampled_from(ROOMS),
    st.integers(0, 5),
)


async def history(operations: list[tuple[str, str, int]]) -> None:
    rows = Rows()
    rows.writer = writer = NotingWriter(rows, rows.writer)
    send = _Subscriber._send
    async with calls() as started:
        world = World(rows, writer, started)

        async def held(subscriber: _Subscriber, batch: list[News]) -> None:
            await world.send(send, subscriber, batch)

        with mock.patch.object(_Subscriber, "_send", held):
            await world.join(Cluster())
            await world.join(Cluster(serve=False))
            world.members.reverse()  # the one without objects is the first, and stays
            for operation in operations:
                await world.do(*operation)
            writer.failing = writer.doubtful = 0
            world.recover()
            await anyio.sleep(60)
            await settle()
            world.check_at_rest()
            for watcher in world.watchers:
                watcher.check(writer.durable[watcher.key])
                watcher.interrupt(for_good=True)
            await settle()
            for each in world.up:
                assert routed(each.runtime).count == own(each.runtime).count == 0
                assert all(not found.session.keys for found in subscribers(each.runtime))
            for member in reversed(world.members):
                member.end()


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink one takes minutes
)
@given(operations=st.lists(OPERATIONS, min_size=30, max_size=60))
def test_watchers_in_a_cluster_see_a_growing_part_of_what_is_durable(
    backend: str, operations: list[tuple[str, str, int]]
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
