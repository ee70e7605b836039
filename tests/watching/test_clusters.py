"""Watches in clusters: objects that live in another process, and change their places meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest
from cluster.files import CLIENT, member, members
from cluster.shared_memory import SHARDS, Node, Rows, node
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import Cluster, DurableRuntime, MemoryStorage, ObjectKey, PersistenceError
from trio_durable._cluster.peer import Peer
from trio_durable._cluster.publisher import _Subscriber
from trio_durable._cluster.routed_hub import RoutedHub
from trio_durable._runtime.file_sharing import FileSharing
from trio_durable._runtime.member_sharing import MemberSharing
from trio_durable._watching.hub import Hub
from trio_durable._watching.session import News, NewsKind, Session
from trio_durable.storage import StorageFault

from .rooms import Room, Seat, row_of

pytestmark = pytest.mark.anyio

GUEST = Cluster(serve=False)


@attrs.frozen
class Pair:
    """A process that has all objects, and one that has none."""

    owner: DurableRuntime
    guest: DurableRuntime


@pytest.fixture(params=["file", "members"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def pair(kind: str, tmp_path: Path, **settings: object) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        if kind == "file":
            path = tmp_path / "app.db"
            owner = await stack.enter_async_context(member(path, **settings))
            guest = await stack.enter_async_context(member(path, cluster=CLIENT, **settings))
            yield Pair(owner, guest)
        else:
            rows = Rows()
            first = await stack.enter_async_context(node(rows, **settings))
            second = await stack.enter_async_context(node(rows, cluster=GUEST, **settings))
            await settle()
            yield Pair(first.runtime, second.runtime)


def routed(runtime: DurableRuntime) -> RoutedHub:
    """The watched objects of a process, wherever they live."""
    hub = runtime._usable().hub
    assert isinstance(hub, RoutedHub)
    return hub


def own(runtime: DurableRuntime) -> Hub:
    """The watched objects that live in a process."""
    return routed(runtime)._hub


def subscribers(runtime: DurableRuntime) -> list[_Subscriber]:
    """The other processes that watch in one."""
    sharing = runtime._usable().sharing
    assert sharing is not None
    return list(sharing.publisher._subscribers.values())


def cut(runtime: DurableRuntime) -> None:
    """Cut all links of a process."""
    sharing = runtime._usable().sharing
    if isinstance(sharing, MemberSharing):
        sharing._cluster._links._peers.abort("cut")
    else:
        assert isinstance(sharing, FileSharing)
        sharing._cluster._peers.abort("cut")


class Gate:
    """Holds back the news of all processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[list[News]] = []
        self._opened = anyio.Event()
        send = _Subscriber._send

        async def wait_and_send(subscriber: _Subscriber, batch: list[News]) -> None:
            self.held.append(batch)
            await self._opened.wait()
            await send(subscriber, batch)

        monkeypatch.setattr(_Subscriber, "_send", wait_and_send)

    def open(self) -> None:
        self._opened.set()


# --- what a watch sees ---------------------------------------------------------------------------


async def test_each_change_in_another_process_is_seen(kind: str, tmp_path: Path) -> None:
    async with pair(kind, tmp_path) as both, Seat(both.guest) as seat:
        assert await seat.next() == (0, [])
        for number, runtime in enumerate((both.owner, both.guest) * 2):
            await runtime.get(Room, "lobby").say(str(number))
            assert await seat.next() == (number + 1, [str(n) for n in range(number + 1)])
        await both.guest.get(Room, "lobby").clear()
        assert await seat.next() == (0, [])


async def test_a_watch_in_the_owner_of_an_object_takes_one_read(kind: str, tmp_path: Path) -> None:
    async with pair(kind, tmp_path) as both:
        await both.owner.get(Room, "lobby").say("one")
        async with Seat(both.owner) as seat, Seat(both.owner) as other:
            assert await seat.next() == await other.next() == (1, ["one"])
            await both.guest.get(Room, "lobby").say("two")
            assert await seat.next() == await other.next() == (2, ["one", "two"])
            cell = own(both.owner)._cells[seat.snapshots[0].key]
            assert cell.wanted == cell.confirmed == 1


async def test_a_process_watches_an_object_once_however_many_watchers_it_has(
    kind: str, tmp_path: Path
) -> None:
    async with pair(kind, tmp_path) as both:
        async with Seat(both.guest) as seat, Seat(both.guest) as other:
            assert await seat.next() == await other.next() == (0, [])
            (subscriber,) = subscribers(both.owner)
            assert len(subscriber.session.keys) == 1
            assert own(both.owner).count == routed(both.guest).count == 1
        await settle()
        assert subscriber.session.keys == []
        assert own(both.owner).count == routed(both.guest).count == 0


async def test_a_watch_opened_after_a_reply_begins_with_that_change_elsewhere(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process knows an older state, whose successor is on its way.
    async with pair(kind, tmp_path) as both, calls() as started, Seat(both.guest) as seat:
        assert await seat.next() == (0, [])
        gate = Gate(monkeypatch)
        await both.guest.get(Room, "lobby").say("one")
        async with Seat(both.guest) as late:
            first = started.start(late.next)
            await settle()
            assert not first.done
            gate.open()
            await first.wait()
            assert first.value == await seat.next() == (1, ["one"])


async def test_a_slow_process_gets_the_latest_states_and_holds_up_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(kind, tmp_path) as both, Seat(both.guest) as seat:
        assert await seat.next() == (0, [])
        gate = Gate(monkeypatch)
        room = both.owner.get(Room, "lobby")
        for number in range(100):
            await room.say(str(number))
            await settle()
        (subscriber,) = subscribers(both.owner)
        assert [len(batch) for batch in gate.held] == [1]
        assert len(subscriber.session._dirty) == 1
        gate.open()
        await settle()
        assert [batch[0].revision for batch in gate.held] == [1, 100]
        assert (await seat.next())[0] == 100


async def test_watches_of_many_objects_are_begun_with_few_requests(
    kind: str, tmp_path: Path
) -> None:
    async with pair(kind, tmp_path) as both:
        watched = [(Room, f"room-{n}") for n in range(1000)]
        async with both.guest.watch_many(watched) as snapshots:
            with anyio.fail_after(60):
                first = {(await anext(snapshots)).key for _ in watched}
            assert len(first) == 1000
            await both.owner.get(Room, "room-77").say("one")
            with anyio.fail_after(60):
                assert (await anext(snapshots)).key.object_id == "room-77"


async def test_a_commit_that_fails_is_not_seen_elsewhere(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(kind, tmp_path) as both, Seat(both.guest) as seat, calls() as started:
        assert await seat.next() == (0, [])
        writer = both.owner._usable().sides.writer
        news = started.start(seat.next)

        def fail(*args: object) -> None:
            raise StorageFault("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(writer, "commit", fail)
            with pytest.raises(PersistenceError):
                await both.guest.get(Room, "lobby").say("lost")
            await settle()
            assert not news.done
        await both.guest.get(Room, "lobby").say("kept")
        await news.wait()
        assert news.value == (1, ["kept"])


async def test_a_read_that_began_before_a_look_does_not_answer_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It began in an earlier tenure, and another process has written since.
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        opened = runtime._usable()
        hub, key = opened.hub, ObjectKey("Room", "lobby")
        assert isinstance(hub, Hub)
        tenures = ["first"]
        earlier, later = (Session(hub, lambda key: tenures[-1], lambda: None) for _ in range(2))
        await runtime.get(Room, "lobby").say("ours")
        with monkeypatch.context() as patch:
            patch.setattr(opened.pump, "_deliver", lambda: None)
            earlier.watch(key, 1)
            await settle()  # the row is read, but not handed over
            assert isinstance(storage.inner, MemoryStorage)
            storage.inner._contents.rows[key] = 7, 0, row_of(["theirs"])
            tenures.append("second")
            later.watch(key, 1)
        opened.batched_load.deliver()
        assert later.take() is None
        await settle()
        news = later.take()
        assert news is not None
        assert (news.look, news.revision, news.row) == (1, 7, row_of(["theirs"]))
        moved = earlier.take()
        assert moved is not None
        assert moved.kind is NewsKind.MOVED


# --- errors --------------------------------------------------------------------------------------


async def test_a_state_that_cannot_be_read_in_the_owner_raises_once_and_the_watch_goes_on(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(kind, tmp_path) as both, Seat(both.guest) as seat:
        reader = both.owner._usable().sides.reader

        def fail(*args: object) -> None:
            raise StorageFault("unreadable sector")

        with monkeypatch.context() as patch:
            patch.setattr(type(reader), "load", fail)
            with pytest.raises(PersistenceError, match="unreadable sector"):
                await seat.next()
        assert await seat.next() == (0, [])


async def test_a_state_too_large_for_the_other_process_is_an_error(
    kind: str, tmp_path: Path
) -> None:
    async with pair(kind, tmp_path) as both, Seat(both.guest) as seat:
        await seat.next()
        (subscriber,) = subscribers(both.owner)
        assert isinstance(subscriber._sender, Peer)
        subscriber._sender._link.max_message = 1000
        await both.owner.get(Room, "lobby").say("x" * 2000)
        with pytest.raises(PersistenceError, match="exceeds the limit of 1,000"):
            await seat.next()
        await both.owner.get(Room, "lobby").clear()
        await both.owner.get(Room, "lobby").say("small")
        await settle()
        assert await seat.next() == (1, ["small"])


# --- other owners --------------------------------------------------------------------------------


async def test_a_link_that_is_cut_is_made_once_more(kind: str, tmp_path: Path) -> None:
    async with pair(kind, tmp_path) as both, Seat(both.guest) as seat:
        assert await seat.next() == (0, [])
        for number in range(3):
            cut(both.guest if number % 2 else both.owner)
            await both.owner.get(Room, "lobby").say(str(number))
            assert (await seat.next())[0] == number + 1
        await settle()
        assert len(subscribers(both.owner)) == 1
        assert own(both.owner).count == 1


async def test_another_process_takes_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        one = await first.enter_async_context(member(path))
        two = await stack.enter_async_context(member(path))
        guest = await stack.enter_async_context(member(path, cluster=CLIENT))
        async with Seat(guest) as seat, Seat(two) as successor:
            assert await seat.next() == await successor.next() == (0, [])
            await one.get(Room, "lobby").say("one")
            assert await seat.next() == await successor.next() == (1, ["one"])
            await first.aclose()
            await guest.get(Room, "lobby").say("two")
            assert await seat.next() == await successor.next() == (2, ["one", "two"])
            assert len(seat.seen) == len(successor.seen) == 3


async def lead(*, to: Node, room: str = "lobby") -> None:
    """Give a room's shard to a member, by the storage."""
    rows, holder = to.membership.rows, to.membership.current.holder
    shard = to.membership.shard_of(room)
    rows.owners[shard] = holder
    rows.terms[shard] += 1
    rows.look()
    await settle()


async def test_a_watch_goes_on_while_members_come_and_leave() -> None:
    rows = Rows()
    async with node(rows) as first, node(rows, cluster=GUEST) as guest:
        seats = [Seat(of.runtime, f"room-{n}") for of in (first, guest) for n in range(SHARDS)]
        async with AsyncExitStack() as stack:
            for seat in seats:
                await stack.enter_async_context(seat)
                assert await seat.next() == (0, [])
            for number in range(4):
                async with node(rows):
                    await anyio.sleep(5)
                    for n in range(SHARDS):
                        await guest.runtime.get(Room, f"room-{n}").say("during")
                await anyio.sleep(5)
                for n in range(SHARDS):
                    await guest.runtime.get(Room, f"room-{n}").say("after")
                for seat in seats:
                    while (await seat.next())[0] < 2 * number + 2:
                        pass
            for seat in seats:
                revisions = [revision for revision, _ in seat.seen]
                assert revisions == sorted(set(revisions))


async def test_a_member_watches_what_becomes_its_own_and_what_was() -> None:
    rows = Rows()
    async with node(rows) as first, Seat(first.runtime) as seat:
        assert await seat.next() == (0, [])
        async with node(rows) as second:
            await anyio.sleep(5)
            rows.owners[:] = [second.membership.current.holder] * SHARDS
            rows.terms[:] = [term + 1 for term in rows.terms]
            rows.look()
            await settle()
            await second.runtime.get(Room, "lobby").say("there")
            assert await seat.next() == (1, ["there"])
        await first.runtime.get(Room, "lobby").say("here")
        assert await seat.next() == (2, ["there", "here"])


async def test_a_dead_owner_has_a_successor() -> None:
    rows = Rows()
    async with node(rows) as first, node(rows) as second, node(rows, cluster=GUEST) as guest:
        await anyio.sleep(5)
        async with Seat(guest.runtime) as seat, Seat(second.runtime) as other:
            assert await seat.next() == await other.next() == (0, [])
            await guest.runtime.get(Room, "lobby").say("one")
            assert await seat.next() == await other.next() == (1, ["one"])
            for each in (first, second):
                each.membership.lose()
                await settle()
                await guest.runtime.get(Room, "lobby").say("more")
                assert (await seat.next())[0] == (await other.next())[0]
        revisions = [revision for revision, _ in seat.seen]
        assert revisions == [0, 1, 2, 3]


async def test_a_lower_revision_of_another_owner_is_adopted() -> None:
    # After a failover to a server that hadn't got the last commits.
    rows = Rows()
    async with node(rows) as first, node(rows, cluster=GUEST) as guest, Seat(guest.runtime) as seat:
        room = guest.runtime.get(Room, "lobby")
        await room.say("one")
        key = (await first.runtime.ensure_started(Room, "lobby")).key
        stored = rows.objects._contents.rows
        before = stored[key]
        await room.say("two")
        assert await seat.next() == (2, ["one", "two"])
        first.membership.is_held = True
        first.membership.lose()
        stored[key] = before
        first.membership.is_held = False
        rows.look()
        assert await seat.next() == (1, ["one"])
        await room.say("three")
        assert await seat.next() == (2, ["one", "three"])


async def test_a_storage_without_an_owner_is_waited_for() -> None:
    rows = Rows()
    async with node(rows) as first, node(rows, cluster=GUEST) as guest, calls() as started:
        first.membership.is_held = True
        rows.owners[:] = [None] * SHARDS
        guest.membership.look()
        await settle()
        async with Seat(guest.runtime) as seat:
            news = started.start(seat.next)
            await anyio.sleep(10)
            assert not news.done
            first.membership.is_held = False
            rows.look()
            await news.wait()
            assert news.value == (0, [])


async def test_an_owner_without_lease_confirms_nothing() -> None:
    # It doesn't know that others have taken over, nor does the process that watches.
    rows = Rows()
    async with node(rows) as first, node(rows) as second, node(rows, cluster=GUEST) as guest:
        await anyio.sleep(5)
        name = next(
            f"room-{n}"
            for n in range(100)
            if rows.owners[first.membership.shard_of(f"room-{n}")] == first.runtime.node_id
        )
        async with Seat(first.runtime, name) as own_seat, Seat(guest.runtime, name) as seat:
            assert await own_seat.next() == await seat.next() == (0, [])
            for each in (first, guest):
                each.membership.is_held = True
            first.membership.expire()
            rows.remove(first.membership.current.holder)
            second.membership.look()
            await settle()
            await second.runtime.get(Room, name).say("one")
            async with (
                calls() as started,
                Seat(first.runtime, name) as late,
                Seat(guest.runtime, name) as later,
            ):
                firsts = [started.start(each.next) for each in (late, later)]
                await anyio.sleep(5)
                assert not any(each.done for each in firsts)
                for each in (first, guest):
                    each.membership.is_held = False
                first.membership.lose()
                rows.look()
                for first_of in firsts:
                    await first_of.wait()
                    assert first_of.value == (1, ["one"])


async def test_news_of_a_former_owner_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows()
    async with node(rows) as first, node(rows, cluster=GUEST) as guest, Seat(guest.runtime) as seat:
        assert await seat.next() == (0, [])
        gate = Gate(monkeypatch)
        await first.runtime.get(Room, "lobby").say("one")
        await settle()
        hub = routed(guest.runtime)
        (cell,) = hub._cells.values()
        old = cell.feed
        assert old is not None
        monkeypatch.undo()
        gate.open()
        first.membership.lose()
        await settle()
        assert await seat.next() == (1, ["one"])
        assert cell.feed is not None
        assert cell.feed is not old
        hub._received(old, News(cell.key, hub._look + 1, gate.held[0][0].kind, 7, b"{}"))
        hub._received(cell.feed, News(cell.key, cell.since - 1, gate.held[0][0].kind, 7, b"{}"))
        assert (cell.revision, cell.feed is old) == (1, False)


async def test_a_shard_that_was_away_for_a_moment_is_read_once_more() -> None:
    # The member learns of it when it has the shard already.
    rows = Rows()
    async with (
        node(rows) as first,
        node(rows) as second,
        node(rows, cluster=GUEST) as guest,
    ):
        await anyio.sleep(5)
        await lead(to=first)
        async with Seat(first.runtime) as seat, Seat(guest.runtime) as other:
            assert await seat.next() == await other.next() == (0, [])
            for each in (first, guest):
                each.membership.is_held = True
            await lead(to=second)
            await second.runtime.get(Room, "lobby").say("there")
            await second.runtime.stop(Room, "lobby")
            for each in (first, guest):
                each.membership.is_held = False
            await lead(to=first)
            assert await seat.next() == await other.next() == (1, ["there"])
            await guest.runtime.get(Room, "lobby").say("here")
            assert await seat.next() == await other.next() == (2, ["there", "here"])


async def test_an_owner_says_that_an_object_has_moved_though_nothing_changes_it_there() -> None:
    # The other process sees the same owner before and after.
    rows = Rows()
    async with node(rows) as first, node(rows) as second, node(rows, cluster=GUEST) as guest:
        await anyio.sleep(5)
        await lead(to=first)
        async with Seat(guest.runtime) as seat:
            assert await seat.next() == (0, [])
            guest.membership.is_held = True
            await lead(to=second)
            await second.runtime.get(Room, "lobby").say("there")
            await second.runtime.stop(Room, "lobby")
            await lead(to=first)
            guest.membership.is_held = False
            rows.look()
            assert await seat.next() == (1, ["there"])


# --- other releases ------------------------------------------------------------------------------


async def test_a_watch_waits_for_an_owner_of_a_release_that_knows_watches(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(kind, tmp_path) as both, calls() as started:
        sharing = both.owner._usable().sharing
        assert sharing is not None
        served, sharing.service.watches = sharing.service.watches, {}
        async with Seat(both.guest) as seat:
            news = started.start(seat.next)
            await anyio.sleep(5)
            assert not news.done
            assert await both.guest.get(Room, "lobby").say("one") == 1  # over the same link
            assert sum("refuses watches" in each.message for each in caplog.records) == 1
            sharing.service.watches = served
            await news.wait()
            assert news.value == (1, ["one"])


# --- the end -------------------------------------------------------------------------------------


async def test_the_drop_of_a_tenant_ends_the_watches_of_all_processes(
    kind: str, tmp_path: Path
) -> None:
    async with pair(kind, tmp_path) as both, calls() as started:
        for runtime in (both.owner, both.guest):
            await both.owner.tenant("acme").get(Room, "lobby").say("one")
            seats = [Seat(each.tenant("acme")) for each in (both.owner, both.guest)]
            ends = [started.start(seat.sit) for seat in seats]
            await settle()
            await runtime.drop_tenant("acme")
            for seat, end in zip(seats, ends, strict=True):
                await end.wait()
                assert end.error is None
                assert seat.seen[-1] == (0, [])
        assert routed(both.guest).count == own(both.owner).count == 0


async def test_a_tenant_dropped_by_another_member_ends_the_watches_of_each() -> None:
    rows = Rows()
    async with node(rows) as first, node(rows) as second, calls() as started:
        await anyio.sleep(5)
        for by in (first, second):
            for n in range(SHARDS):
                await first.runtime.tenant("acme").get(Room, f"room-{n}").say("one")
            seats = [
                Seat(each.runtime.tenant("acme"), f"room-{n}")
                for each in (first, second)
                for n in range(SHARDS)
            ]
            ends = [started.start(seat.sit) for seat in seats]
            await settle()
            await by.runtime.drop_tenant("acme")
            for seat, end in zip(seats, ends, strict=True):
                await end.wait()
                assert seat.seen[-1] == (0, [])


async def test_an_owner_that_ends_its_watches_ends_none_of_others(
    kind: str, tmp_path: Path
) -> None:
    async with pair(kind, tmp_path) as both, calls() as started, Seat(both.guest) as seat:
        assert await seat.next() == (0, [])
        both.owner.end_watches()
        await both.owner.get(Room, "lobby").say("one")
        assert await seat.next() == (1, ["one"])
        ended = started.start(Seat(both.owner).sit)
        await ended.wait()
        both.guest.end_watches()
        with pytest.raises(StopAsyncIteration):
            await anext(seat.watch)


async def test_the_last_commits_of_a_process_that_closes_are_seen_there(tmp_path: Path) -> None:
    async with calls() as started:
        async with members(tmp_path / "app.db") as [owner, _]:
            seat = Seat(owner)
            end = started.start(seat.sit)
            await settle()
            for number in range(3):
                await owner.get(Room, "lobby").say(str(number))
        await end.wait()
        assert end.error is None
        assert seat.seen[-1][0] == 3


async def test_nothing_is_left_of_watches_that_have_ended(kind: str, tmp_path: Path) -> None:
    async with pair(kind, tmp_path) as both:
        for _ in range(3):
            async with Seat(both.guest) as seat:
                assert await seat.next() == (0, [])
            cut(both.owner)
            await settle()
        assert len(routed(both.guest)._remote) <= 1
        assert own(both.owner).count == 0
        assert sum(len(each.session.keys) for each in subscribers(both.owner)) == 0
