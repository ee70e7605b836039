"""Several runtimes on one SQLite file: one has the objects, the others call it."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import orjson
import pytest
from support.clock import settle
from support.tasks import calls

from trio_durable import (
    Alarm,
    ArgumentError,
    CallTimeout,
    Cluster,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectNotRunning,
    OwnerLost,
    ReplyError,
    RuntimeClosed,
    StateConflict,
    StorageInUse,
    StorageUnavailable,
    handler,
)
from trio_durable._cluster import file_cluster, file_endpoint
from trio_durable._cluster.node_note import NodeNote, read_note, write_note
from trio_durable._cluster.nodes import host_name
from trio_durable._cluster.outcomes import ErrorReply
from trio_durable._cluster.router import MOVED
from trio_durable._runtime.administration import Administration
from trio_durable._runtime.file_sharing import FileSharing
from trio_durable.testing import fire_alarm

from .files import CLIENT, member, members

pytestmark = pytest.mark.anyio


class TooLow(Exception):
    pass


class Counter(DurableObject, name="ClusterCounter"):
    count: int = 0
    fired: list[str] = attrs.field(factory=list)

    @handler
    def add(self, number: int = 1) -> int:
        self.count += number
        return self.count

    @handler(readonly=True)
    def read(self) -> int:
        return self.count

    @handler
    async def add_slowly(self, seconds: float) -> int:
        await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler
    def refuse(self) -> None:
        self.count = 1000
        raise TooLow("no", 5)

    @handler
    def wrong(self) -> int:
        self.count = 1000
        return "text"  # type: ignore[return-value]

    def handle_alarm(self, alarm: Alarm) -> None:
        self.fired.append(alarm.name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


# --- calls -------------------------------------------------------------------------------------


async def test_an_object_is_the_same_for_all(path: Path) -> None:
    async with members(path, 3) as runtimes:
        for number, runtime in enumerate(runtimes * 2, 1):
            assert await runtime.get(Counter, "a").add() == number
        assert [runtime.count_objects() for runtime in runtimes] == [1, 0, 0]


async def test_a_runtime_alone_has_the_objects(path: Path) -> None:
    async with member(path) as runtime:
        assert await runtime.get(Counter, "a").add() == 1
    async with DurableRuntime(path, runner=InlineRunner) as runtime:
        assert await runtime.get(Counter, "a").read() == 1
    assert not list(path.parent.glob("app.db-[ns]o*"))


@pytest.mark.parametrize("place", [0, 1])
async def test_errors_arrive_as_they_were_raised(path: Path, place: int) -> None:
    async with members(path) as runtimes:
        counter = runtimes[place].get(Counter, "a")
        with pytest.raises(TooLow) as caught:
            await counter.refuse()
        assert caught.value.args == ("no", 5)
        with pytest.raises(ReplyError):
            await counter.wrong()
        with pytest.raises(ArgumentError):
            await counter.add("1")  # type: ignore[arg-type]
        assert await counter.add() == 1  # each was rolled back


@pytest.mark.parametrize("place", [0, 1])
async def test_a_call_has_its_timeout(path: Path, place: int) -> None:
    async with members(path) as runtimes:
        counter = runtimes[place].get(Counter, "a", timeout=1)
        with pytest.raises(CallTimeout) as running:
            await counter.add_slowly(3)
        assert running.value.may_have_run
        with pytest.raises(CallTimeout) as queued:
            await counter.add()
        assert not queued.value.may_have_run
        await anyio.sleep(3)
        assert await counter.read() == 1  # the turn that had begun ran to its end, the queued never


async def test_a_cancelled_call_is_withdrawn(path: Path) -> None:
    async with members(path) as [_, guest]:
        counter = guest.get(Counter, "a")
        async with calls() as group:
            slow = group.start(counter.add_slowly, 2)
            await settle()
            with anyio.move_on_after(1):
                await counter.add(10)
            await slow.wait()
        assert await counter.read() == 1


# --- administration ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1])
async def test_administration_is_the_same_for_all(path: Path, place: int) -> None:
    async with members(path) as runtimes:
        runtime = runtimes[place]
        counter = runtime.get(Counter, "a")
        with pytest.raises(ObjectNotRunning):
            await runtime.get_state(Counter, "a")
        assert not await runtime.exists(Counter, "a")
        await runtime.put_state(Counter, "a", Counter(count=7))
        assert await runtime.exists(Counter, "a")
        with pytest.raises(StateConflict) as caught:
            await runtime.put_state(Counter, "a", Counter(count=8), expected=(0, None))
        conflict = caught.value
        assert (conflict.revision, conflict.json) == (1, '{"count":7,"fired":[],"$as":{}}')
        expected = conflict.revision, conflict.digest
        await runtime.put_state(Counter, "a", Counter(count=7), expected=expected)
        info = await runtime.ensure_started(Counter, "a")
        assert (info.status, info.revision) == ("active", 2)
        assert (await runtime.get_state(Counter, "a")).count == 7
        assert await runtime.list_objects(Counter) == ["a"]
        await runtime.stop(Counter, "a")
        with pytest.raises(ObjectNotRunning):
            await runtime.get_state(Counter, "a")
        await runtime.schedule_alarm(Counter, "a", "one", after=100, payload={"x": 1})
        await runtime.schedule_alarm(Counter, "a", "two", after=100)
        await runtime.cancel_alarm(Counter, "a", "two")
        [alarm] = await runtime.list_alarms(Counter, "a")
        assert (alarm.name, alarm.payload) == ("one", {"x": 1})
        await fire_alarm(runtime, Counter, "a", "one")
        assert (await runtime.get_state(Counter, "a")).fired == ["one"]
        assert not await runtime.retry_alarm(Counter, "a", "one")
        await runtime.cancel_all_alarms(Counter, "a")
        acme = runtime.tenant("acme")
        assert await acme.get(Counter, "a").add() == 1
        assert await runtime.list_tenants() == ["acme"]
        assert await runtime.drop_tenant("acme")
        assert await runtime.list_tenants() == []
        await runtime.delete(Counter, "a")
        assert await counter.add() == 1


async def test_alarms_are_delivered_by_the_owner_alone(path: Path) -> None:
    async with members(path, 3) as runtimes:
        for number, runtime in enumerate(runtimes):
            await runtime.schedule_alarm(Counter, "a", f"of {number}", after=1 + number)
        await anyio.sleep(10)
        assert (await runtimes[2].get_state(Counter, "a")).fired == ["of 0", "of 1", "of 2"]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_nodes_are_listed_and_located(path: Path, place: int) -> None:
    async with members(path, 2) as runtimes, member(path, cluster=CLIENT) as client:
        runtime = [*runtimes, client][place]
        owner, *others = await runtime.list_nodes()
        assert (owner.pid, owner.host, owner.shards, owner.serves) == (
            *(os.getpid(), host_name()),
            *(1, True),
        )
        assert sorted((node.shards, node.serves) for node in others) == [(0, False), (0, True)]
        assert await runtime.locate(Counter, "a") == owner


async def test_a_runtime_without_cluster_is_one_node() -> None:
    async with DurableRuntime(":memory:") as runtime:
        [node] = await runtime.list_nodes()
        assert (node.pid, node.shards) == (os.getpid(), 1)
        assert await runtime.locate(Counter, "a") == node


# --- succession --------------------------------------------------------------------------------


async def test_another_one_takes_over(path: Path) -> None:
    first, second, third = member(path), member(path), member(path)
    await first.__aenter__()
    async with second, third:
        await second.get(Counter, "a").add()
        await second.schedule_alarm(Counter, "a", "later", after=10)
        await first.__aexit__(None, None, None)
        assert await third.get(Counter, "a").add() == 2
        assert await second.get(Counter, "a").add() == 3
        assert second.count_objects() + third.count_objects() == 1
        await anyio.sleep(30)
        assert (await third.get_state(Counter, "a")).fired == ["later"]


async def test_calls_under_way_are_answered_before_it_leaves(path: Path) -> None:
    first = member(path)
    await first.__aenter__()
    async with member(path) as second, calls() as group:
        counter = second.get(Counter, "a")
        running = group.start(counter.add_slowly, 3)
        await settle()
        queued = group.start(counter.add)
        await settle()
        leaving = group.start(first.__aexit__, None, None, None)
        await anyio.sleep(1)
        late = group.start(counter.add)
        await leaving.wait()
        for outcome in (running, queued, late):
            await outcome.wait()
        assert [outcome.value for outcome in (running, queued, late)] == [1, 2, 3]


async def test_a_turn_that_does_not_end_in_time_is_not_known(path: Path) -> None:
    first = member(path, grace_period=1)
    await first.__aenter__()
    async with member(path) as second, calls() as group:
        counter = second.get(Counter, "a", timeout=100)
        running = group.start(counter.add_slowly, 50)
        await settle()
        queued = group.start(counter.add)
        await settle()
        await first.__aexit__(None, None, None)
        await queued.wait()
        assert queued.value == 1  # it never ran there
        await running.wait()
        assert isinstance(running.error, OwnerLost)
        assert "add_slowly on ClusterCounter('a')" in str(running.error)


async def test_a_client_never_has_objects(path: Path) -> None:
    first = member(path)
    await first.__aenter__()
    async with member(path, cluster=CLIENT, call_timeout=3) as client:
        assert await client.get(Counter, "a").add() == 1
        await first.__aexit__(None, None, None)
        with pytest.raises(CallTimeout, match="no process of the cluster had the object"):
            await client.get(Counter, "a").add()
        async with member(path):
            assert await client.get(Counter, "a").add() == 2
    with pytest.raises(StorageUnavailable, match="no process serves it"):
        await member(path, cluster=CLIENT).__aenter__()


async def _not_now(_: file_cluster.FileCluster) -> bool:
    return False


async def test_a_take_over_that_fails_leaves_the_file_to_others(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = member(path)
    await first.__aenter__()
    async with member(path) as second:
        await second.schedule_alarm(Counter, "a", "later", after=5)

        def fail(*_: object, **__: object) -> None:
            raise OSError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(file_endpoint, "write_note", fail)
            await first.__aexit__(None, None, None)
            await anyio.sleep(60)
            with pytest.raises(CallTimeout, match="no process of the cluster had the object"):
                await second.get(Counter, "a", timeout=1).read()
        await anyio.sleep(1)
        assert (await second.get_state(Counter, "a")).fired == ["later"]


async def test_a_take_over_that_fails_has_no_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = member(path)
    await first.__aenter__()
    async with member(path, cluster=Cluster(listen=f"unix://{path}-of-second")) as second:
        path.with_name("app.db-of-second").write_text("no socket")
        await first.__aexit__(None, None, None)
        await anyio.sleep(1)
        async with member(path) as third:
            assert await second.get(Counter, "a").add() == 1
            assert (second.count_objects(), third.count_objects()) == (0, 1)


async def test_a_call_has_one_timeout_over_a_take_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = member(path), member(path)
    await first.__aenter__()
    async with second, calls() as group:
        with monkeypatch.context() as patched:
            patched.setattr(file_cluster.FileCluster, "_become_owner", _not_now)
            await first.__aexit__(None, None, None)
            began = anyio.current_time()
            slow = group.start(second.get(Counter, "a", timeout=10).add_slowly, 100)
            await anyio.sleep(6)
        await slow.wait()
        assert isinstance(slow.error, CallTimeout)
        assert anyio.current_time() - began == pytest.approx(10, abs=0.1)


async def test_a_note_and_a_socket_that_were_removed_are_restored(path: Path) -> None:
    async with members(path) as [_, second]:
        for names in ("-node",), ("-socket",), ("-node", "-socket"):
            for name in names:
                path.with_name(f"app.db{name}").unlink()
            await anyio.sleep(2)
            async with member(path) as third:
                await third.get(Counter, "a").add()
        path.with_name("app.db-node").write_text("[]")
        await anyio.sleep(2)
        async with member(path) as third:
            await third.get(Counter, "a").add()
        assert await second.get(Counter, "a").read() == 4


# --- a runtime that calls and closes -----------------------------------------------------------


async def test_calls_of_a_closing_runtime_have_its_grace_period(path: Path) -> None:
    async with member(path), calls() as group:
        guest = member(path, grace_period=5)
        await guest.__aenter__()
        counter = guest.get(Counter, "a")
        slow = group.start(counter.add_slowly, 3)
        await settle()
        await guest.__aexit__(None, None, None)
        await slow.wait()
        assert slow.value == 1


@pytest.mark.parametrize("handler_name", ["add_slowly", "add", "read"])
async def test_calls_that_a_closing_runtime_cuts_off_say_so(path: Path, handler_name: str) -> None:
    async with member(path) as owner, calls() as group:
        guest = member(path, grace_period=1, call_timeout=None)
        await guest.__aenter__()
        running = group.start(owner.get(Counter, "a").add_slowly, 20)
        await settle()
        args = (3,) if handler_name == "add_slowly" else ()
        cut_off = group.start(guest.call, Counter, "a", handler_name, *args)
        await settle()
        await guest.__aexit__(None, None, None)
        await cut_off.wait()
        assert isinstance(cut_off.error, RuntimeClosed)
        await running.wait()


async def test_a_runtime_may_close_while_it_looks_for_an_owner(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = member(path), DurableRuntime(path, cluster=True, grace_period=0)
    await first.__aenter__()
    await second.__aenter__()
    began = threading.Event()
    ended = threading.Event()

    def read_slowly(_: Path) -> None:
        began.set()
        ended.wait(10)

    monkeypatch.setattr(file_cluster, "read_note", read_slowly)
    monkeypatch.setattr(file_cluster.FileCluster, "_become_owner", _not_now)
    await first.__aexit__(None, None, None)
    while not began.is_set():
        await anyio.lowlevel.checkpoint()
    async with calls() as group:
        closing = group.start(second.__aexit__, None, None, None)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        ended.set()
    assert closing.value is None


async def test_a_runtime_that_closes_does_not_take_over(path: Path) -> None:
    first, second = member(path, grace_period=0), member(path, grace_period=5)
    await first.__aenter__()
    await second.__aenter__()
    async with calls() as group:
        counter = second.get(Counter, "a")
        running = group.start(counter.add_slowly, 100)
        await settle()
        queued = group.start(counter.add)
        await settle()
        leaving = group.start(second.__aexit__, None, None, None)
        await settle()
        await first.__aexit__(None, None, None)
        await anyio.sleep(1)
        async with member(path) as third:
            await leaving.wait()
            assert isinstance(running.error, OwnerLost)
            assert queued.value == 1
            assert third.count_objects() == 1


# --- order -------------------------------------------------------------------------------------


async def test_a_note_leads_to_a_socket_that_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = []

    def noted(note_path: Path, note: NodeNote) -> None:
        there.append(Path(note.address.removeprefix("unix://")).is_socket())
        write_note(note_path, note)

    monkeypatch.setattr(file_endpoint, "write_note", noted)
    async with member(path):
        assert there == [True]


async def test_the_state_of_a_conflict_arrives_whole(path: Path) -> None:
    names = ["a name that makes it long"] * 20_000
    async with members(path) as [first, second]:
        await first.put_state(Counter, "a", Counter(fired=names))
        with pytest.raises(StateConflict) as caught:
            await second.put_state(Counter, "a", Counter(), expected=(0, None))
        assert orjson.loads(caught.value.json or "")["fired"] == names
        [shown] = await first.list_states(Counter)
        assert caught.value.digest == shown.digest


async def test_a_process_without_the_file_serves_nothing(path: Path) -> None:
    async with members(path) as [first, second]:
        sharing = first._open().sharing
        assert isinstance(sharing, FileSharing)
        [link] = sharing._cluster._peers
        for body in (
            b'"h","ClusterCounter","a","add",[]',
            b'"a","delete",["ClusterCounter","a",""]',
        ):
            with pytest.raises(ErrorReply) as caught:
                await link.request(body, 1)
            assert caught.value.value == MOVED
        assert second.count_objects() == 0


@pytest.mark.parametrize("method", ["schedule_alarm", "put_state"])
async def test_administration_is_answered_before_the_owner_leaves(
    path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    made = getattr(Administration, method)

    async def slow(*args: object) -> None:
        await made(*args)
        await anyio.sleep(2)

    first = member(path, grace_period=1)
    await first.__aenter__()
    async with member(path) as second, calls() as group:
        with monkeypatch.context() as patched:
            patched.setattr(Administration, method, slow)
            if method == "put_state":
                request = group.start(second.put_state, Counter, "a", Counter(count=7))
            else:
                request = group.start(second.schedule_alarm, Counter, "a", "x", after=9)
            await settle()
            await first.__aexit__(None, None, None)
            await request.wait()
            assert request.value is None


# --- refusals ----------------------------------------------------------------------------------


async def test_a_runtime_without_cluster_is_refused(path: Path) -> None:
    async with member(path):
        with pytest.raises(StorageInUse):
            await DurableRuntime(path, runner=InlineRunner).__aenter__()
    async with DurableRuntime(path, runner=InlineRunner):
        with pytest.raises(StorageInUse, match="share that runtime"):
            await member(path).__aenter__()


async def test_a_note_of_another_machine_is_refused_by_name(path: Path) -> None:
    async with DurableRuntime(path, runner=InlineRunner):
        note = NodeNote("other", "elsewhere", 1, "unix:///nowhere", "00" * 32)
        write_note(path.with_name("app.db-node"), note)
        with pytest.raises(StorageInUse) as caught:
            await member(path).__aenter__()
        assert caught.value.problem == "its owner is on another machine, elsewhere"


async def test_an_unreadable_note_is_refused_by_name(path: Path) -> None:
    note = path.with_name("app.db-node")
    async with DurableRuntime(path, runner=InlineRunner):
        note.write_text("[]")
        with pytest.raises(StorageInUse) as caught:
            await member(path).__aenter__()
        assert caught.value.problem == f"{note} isn't the note of a runtime"
    async with member(path):  # the next owner writes another one
        found = read_note(note)
        assert found is not None
        assert (found.host, found.pid) == (host_name(), os.getpid())
        assert note.stat().st_mode & 0o777 == 0o600


async def test_a_note_that_was_not_finished_leaves_nothing(path: Path) -> None:
    left = path.with_name("app.db-node-new")
    left.write_text("{")  # by an owner that was killed
    async with members(path):
        assert not left.exists()
        assert path.with_name("app.db-node").stat().st_mode & 0o777 == 0o600


async def test_a_path_too_long_for_a_socket_asks_for_an_address(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with pytest.raises(StorageUnavailable, match="listen="):
        await member(folder / "app.db").__aenter__()
    async with members(folder / "app.db", cluster=Cluster(listen="tcp://127.0.0.1:0")) as both:
        assert await both[1].get(Counter, "a").add() == 1


def test_settings_are_checked(path: Path) -> None:
    for wrong in (1, "yes", object()):
        with pytest.raises(ValueError, match="cluster must be"):
            DurableRuntime(path, cluster=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cluster needs a storage"):
        DurableRuntime(":memory:", cluster=True)
    for name, value in (("advertise", "tcp://10.0.0.5:7400"), ("group", "blue")):
        with pytest.raises(ValueError, match=rf"Cluster\({name}=…\) is for members"):
            DurableRuntime(path, cluster=Cluster(**{name: value}))  # type: ignore[arg-type]
    for settings in (
        *({"ttl": 0}, {"max_calls": 0}, {"max_calls": 2_000_000}, {"max_frame": 1}),
        *({"max_frame": 100_000}, {"max_frame": 2**40}, {"serve": 1}, {"listen": 5}),
    ):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Cluster(**settings)  # type: ignore[arg-type]


async def test_durations_are_timedeltas_as_well(path: Path) -> None:
    async with members(path, cluster=Cluster(ttl=timedelta(seconds=2))) as [_, guest]:
        assert await guest.get(Counter, "a").add() == 1
    assert Cluster(ttl=timedelta(seconds=2)).ttl == 2


async def test_listening_beyond_this_machine_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="are on one machine"):
        await member(path, cluster=Cluster(listen="tcp://0.0.0.0:0")).__aenter__()


async def test_whatever_fails_after_the_lock_was_taken_releases_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    for step in ("listen", "write_note"):
        with monkeypatch.context() as patched:
            patched.setattr(file_endpoint, step, fail)
            with pytest.raises(StorageUnavailable, match="the disk is full"):
                await member(path).__aenter__()
        async with member(path) as runtime:
            await runtime.get(Counter, "a").add()
