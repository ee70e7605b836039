"""Members that divide the objects of a storage by shards, in one event loop and virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, ClassVar

import anyio
import attrs
import pytest
from support.clock import settle

from trio_durable import (
    Alarm,
    CallCycle,
    CallTimeout,
    Cluster,
    DurableError,
    DurableObject,
    MailboxFull,
    ObjectNotRunning,
    OwnerLost,
    StateConflict,
    StorageUnavailable,
    TenantDropped,
    handler,
)
from trio_durable._activations.placement import NotHere
from trio_durable._cluster import handover
from trio_durable._cluster.address import TCPAddress
from trio_durable._cluster.handshake import Connection, Credentials
from trio_durable._cluster.links import Links
from trio_durable._eventloop.running import running_loop
from trio_durable._runtime.member_sharing import MemberSharing
from trio_durable.storage import Member, View
from trio_durable.testing import fire_alarm

from .shared_memory import SHARDS, Node, Rows, node, nodes

pytestmark = pytest.mark.anyio

IDS = [f"o{n}" for n in range(48)]


class Tally(DurableObject, name="MembersTally"):
    """Notes where it is live, so that a second instance is seen."""

    live: ClassVar[dict[str, object]] = {}
    count: int = 0
    fired: list[str] = attrs.field(factory=list)

    async def after_load(self) -> None:
        self.live[self.ctx.object_id] = self.ctx.runtime

    @handler
    def add(self, number: int = 1) -> int:
        assert self.live[self.ctx.object_id] is self.ctx.runtime, (
            "another instance came after this one"
        )
        self.count += number
        return self.count

    @handler(readonly=True)
    def read(self) -> int:
        assert self.live[self.ctx.object_id] is self.ctx.runtime, (
            "another instance came after this one"
        )
        return self.count

    @handler
    async def add_slowly(self, seconds: float) -> int:
        await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler
    async def add_there(self, seconds: float, other: str) -> int:
        await anyio.sleep(seconds)
        return await self.ctx.runtime.get(Tally, other).add()

    @handler
    async def schedule_there(self, seconds: float, other: str) -> None:
        await anyio.sleep(seconds)
        await self.ctx.runtime.schedule_alarm(Tally, other, "late", after=timedelta(0))

    @handler
    async def stay(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)

    @handler
    async def ask(self, *others: str) -> list[str]:
        """Asks the first of others to ask the rest."""
        if not others:
            return [self.ctx.object_id]
        other = self.ctx.runtime.get(Tally, others[0])
        return [self.ctx.object_id, *await other.ask(*others[1:])]

    @handler
    def refuse(self) -> None:
        self.count = 1000
        raise ValueError("no", 5)

    def handle_alarm(self, alarm: Alarm) -> None:
        self.fired.append(alarm.name)


@pytest.fixture(autouse=True)
def none_live() -> Iterator[None]:
    Tally.live.clear()
    yield
    Tally.live.clear()


def owners(of: Node) -> dict[str, int]:
    """The number of shards of each member."""
    found = [owner for owner in of.membership.rows.owners if owner is not None]
    return {owner: found.count(owner) for owner in found}


async def balanced(*of: Node) -> None:
    """Wait until the shards are divided evenly."""
    for _ in range(1000):
        counts = [owners(of[0]).get(each.membership.current.holder, 0) for each in of]
        if sum(counts) == SHARDS and max(counts) - min(counts) <= 1:
            await settle()
            return
        await anyio.sleep(0.1)
    raise AssertionError("the shards aren't divided")


def id_of(of: Node, *, but: str = "") -> str:
    """The id of an object that a member owns."""
    membership = of.membership
    return next(
        each
        for each in IDS
        if each != but
        and membership.rows.owners[membership.shard_of(each)] == membership.current.holder
    )


def sharing_of(of: Node) -> MemberSharing:
    sharing = of.runtime._open().sharing
    assert isinstance(sharing, MemberSharing)
    return sharing


# --- calls ---------------------------------------------------------------------------------------


async def test_the_first_member_owns_all(anyio_backend_name: str) -> None:
    async with nodes(1) as [only]:
        for each in IDS:
            assert await only.runtime.get(Tally, each).add() == 1
        assert owners(only) == {only.membership.current.holder: SHARDS}


async def test_members_divide_the_objects_and_call_each_other() -> None:
    async with nodes(3) as all_of_them:
        await balanced(*all_of_them)
        for number, of in enumerate(all_of_them, 1):
            for each in IDS:
                assert await of.runtime.get(Tally, each).add() == number
        counts = [of.runtime.count_objects() for of in all_of_them]
        assert sum(counts) == len(IDS)
        assert all(counts)


async def test_an_object_is_located_at_its_owner() -> None:
    async with nodes(3) as members:
        await balanced(*members)
        for each in members:
            for owner in members:
                found = await each.runtime.locate(Tally, id_of(owner))
                assert found.node_id == owner.runtime.node_id


async def test_errors_of_other_members_are_those_that_were_raised() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        for each in IDS:
            with pytest.raises(ValueError, match="no") as caught:
                await one.runtime.get(Tally, each).refuse()
            assert caught.value.args == ("no", 5)
            assert await one.runtime.get(Tally, each).read() == 0


async def test_a_member_that_only_calls_owns_nothing() -> None:
    rows = Rows()
    async with node(rows) as one, node(rows, cluster=Cluster(serve=False)) as guest:
        await settle()
        assert owners(one) == {one.membership.current.holder: SHARDS}
        assert await guest.runtime.get(Tally, "a").add() == 1
        assert [each.shards for each in await guest.runtime.list_nodes()] == [SHARDS, 0]
        assert [each.serves for each in await guest.runtime.list_nodes()] == [True, False]


async def test_a_member_that_only_calls_is_refused_where_none_serves() -> None:
    with pytest.raises(StorageUnavailable, match="no process serves it"):
        async with node(Rows(), cluster=Cluster(serve=False)):
            pass


async def test_calls_wait_for_an_owner_within_their_timeouts() -> None:
    rows = Rows()
    async with (
        node(rows) as one,
        node(rows, cluster=Cluster(serve=False), call_timeout=2) as guest,
    ):
        one.membership.is_held = True
        rows.owners[:] = [None] * SHARDS
        guest.membership.look()
        await settle()
        began = anyio.current_time()
        problem = r"no process of the cluster had the object\); it did not run"
        with pytest.raises(CallTimeout, match=problem):
            await guest.runtime.get(Tally, "a").add()
        assert anyio.current_time() - began == pytest.approx(2, abs=0.1)


async def test_administration_is_made_where_the_object_is() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        await one.runtime.put_state(Tally, there, Tally(count=5), expected=(0, None))
        with pytest.raises(StateConflict, match="but revision 1 is stored"):
            await one.runtime.put_state(Tally, there, Tally(count=6), expected=(0, None))
        assert await other.runtime.get(Tally, there).read() == 5
        assert (await one.runtime.ensure_started(Tally, there)).status == "active"
        state = await one.runtime.get_state(Tally, there)
        assert state.count == 5
        await one.runtime.stop(Tally, there)
        with pytest.raises(ObjectNotRunning):
            await one.runtime.get_state(Tally, there)
        assert await one.runtime.exists(Tally, there)
        await one.runtime.delete(Tally, there)
        assert not await other.runtime.exists(Tally, there)


# --- cycles --------------------------------------------------------------------------------------


async def test_a_cycle_through_another_member_is_refused() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        here, there = id_of(one), id_of(other)
        second = id_of(one, but=here)
        ask = one.runtime.get(Tally, here).ask
        assert await ask(there, second) == [here, there, second]
        began = anyio.current_time()
        for circle in ([there, here], [there, second, there], [second, there, here], [here]):
            with pytest.raises(CallCycle):
                await ask(*circle)
        assert anyio.current_time() == began
        # All goes on.
        assert await ask(there, second) == [here, there, second]


async def test_a_cycle_that_closes_with_a_local_call_is_refused() -> None:
    """Calls that wait in a mailbox wait for its object, too."""

    class Slow(DurableObject, name="MembersSlow"):
        @handler
        async def ask(self, *others: str) -> None:
            if others:
                await anyio.sleep(1)
                await self.ctx.runtime.get(Slow, others[0]).ask(*others[1:])

    async with nodes() as [one, other]:
        await balanced(one, other)
        first, third = id_of(one), id_of(one, but=id_of(one))
        second = id_of(other)
        errors = []

        async def ask(*ids: str) -> None:
            try:
                await one.runtime.get(Slow, ids[0]).ask(*ids[1:])
            except CallCycle as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            # first → second → third, and third → first.
            tasks.start_soon(ask, first, second, third)
            await anyio.sleep(1.5)
            tasks.start_soon(ask, third, first)
        assert len(errors) == 1


# --- hand-overs ----------------------------------------------------------------------------------


async def call_all_the_time(of: Node, stop: anyio.Event, done: dict[str, int]) -> None:
    while not stop.is_set():
        for each in IDS:
            reply = await of.runtime.get(Tally, each).add()
            done[each] += 1
            assert reply == done[each]
            await anyio.sleep(0.001)


async def test_members_come_and_leave_without_an_error() -> None:
    rows, done = Rows(), dict.fromkeys(IDS, 0)
    stop = anyio.Event()
    async with node(rows) as first, anyio.create_task_group() as tasks:
        tasks.start_soon(call_all_the_time, first, stop, done)
        for _ in range(3):
            async with node(rows) as second:
                await balanced(first, second)
                async with node(rows) as third:
                    await balanced(first, second, third)
        await anyio.sleep(1)
        stop.set()
    assert min(done.values()) > 10


async def test_the_caller_of_a_member_that_leaves_gets_no_error() -> None:
    rows, done = Rows(), dict.fromkeys(IDS, 0)
    stop = anyio.Event()
    async with (
        node(rows) as stays,
        node(rows, cluster=Cluster(serve=False)) as guest,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            async with node(rows) as leaves:
                await balanced(stays, leaves)
                if not any(done.values()):
                    tasks.start_soon(call_all_the_time, guest, stop, done)
                await anyio.sleep(1)
        stop.set()
    assert min(done.values()) > 10


async def test_a_turn_that_does_not_end_keeps_its_shard_and_no_other() -> None:
    rows = Rows()
    async with node(rows, call_timeout=100) as first:
        busy = IDS[0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.runtime.get(Tally, busy).add_slowly, 30)
            await settle()
            async with node(rows, call_timeout=100) as second:
                await anyio.sleep(20)
                shard = first.membership.shard_of(busy)
                assert rows.owners[shard] == first.membership.current.holder
                assert owners(first)[second.membership.current.holder] >= SHARDS // 2 - 1
                began = anyio.current_time()
                assert await second.runtime.get(Tally, busy).add() == 2
                assert anyio.current_time() - began == pytest.approx(10, abs=1.5)


async def test_a_shard_that_has_stayed_once_costs_nothing_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        plans: list[str] = []

        def plan(_: View, me: str) -> dict[int, str]:
            plans.append(me)
            return {}

        monkeypatch.setattr(handover, "plan", plan)
        for each in (one, other):
            sharing_of(each)._cluster._hand_over._stayed[0] = running_loop().now()
        await anyio.sleep(100)
        assert len(plans) < 10


async def test_a_turn_that_runs_may_call_objects_of_shards_that_are_closed() -> None:
    """Else it would wait for a hand-over that waits for it."""
    rows = Rows()
    async with node(rows) as first:

        async def ask_slowly() -> None:
            assert await first.runtime.get(Chain, "x").ask(IDS) == len(IDS)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_slowly)
            await anyio.sleep(0.05)
            async with node(rows) as second:
                await balanced(first, second)


class Chain(DurableObject, name="MembersChain"):
    @handler
    async def ask(self, ids: list[str]) -> int:
        done = 0
        for each in ids:
            await anyio.sleep(0.01)
            done += await self.ctx.runtime.get(Tally, each).add()
        return done


async def test_no_object_comes_into_memory_where_it_is_not_owned() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        directory = one.runtime._registry.calls(Tally).directory
        with pytest.raises(NotHere):
            directory.use(there)
        assert directory.find(there) is None


async def test_a_call_goes_to_the_owner_though_the_view_is_an_old_one() -> None:
    async with nodes(3) as [one, other, third]:
        await balanced(one, other, third)
        moved = id_of(other)
        third.membership.is_held = True
        for giver, taker, each in ((other, one, moved), (one, other, id_of(one))):
            shard_map = sharing_of(giver)._cluster.shard_map
            shard = giver.membership.shard_of(each)
            shard_map.close([shard])
            shard_map.give([shard], taker.membership.current.holder)
        await settle()
        third.membership.is_held, looks = False, third.membership._looks
        assert await third.runtime.get(Tally, moved).add() == 1
        assert third.membership._looks > looks  # because of the first answer


# --- leases --------------------------------------------------------------------------------------


async def test_the_objects_of_a_member_without_lease_are_taken_over() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        assert await one.runtime.get(Tally, there).add() == 1
        other.membership.lose()
        await settle()
        assert await one.runtime.get(Tally, there).add() == 2
        await balanced(one, other)  # it has joined again
        assert await other.runtime.get(Tally, there).add() == 3


async def test_a_call_under_way_at_a_member_without_lease_is_unknown() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        errors: list[DurableError] = []

        async def call(of: Node) -> None:
            with pytest.raises(OwnerLost) as caught:
                await of.runtime.get(Tally, there).add_slowly(1)
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, one)
            tasks.start_soon(call, other)
            await anyio.sleep(0.5)
            other.membership.lose()
        assert len(errors) == 2
        assert await one.runtime.get(Tally, there).read() == 0


async def test_nothing_leaves_after_the_end_of_the_lease() -> None:
    """The member doesn't know of the end when the turn has its result."""
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        await other.runtime.get(Tally, there).add()
        other.membership.expire()
        with pytest.raises(OwnerLost):
            await one.runtime.get(Tally, there).read()


@pytest.mark.parametrize("name", ["add_there", "schedule_there"])
async def test_a_turn_without_its_lease_calls_no_other_member(name: str) -> None:
    """Its member doesn't know of the end when the turn makes the call."""
    async with nodes() as [one, other]:
        await balanced(one, other)
        there, elsewhere = id_of(other), id_of(one)

        async def call() -> None:
            with pytest.raises(OwnerLost):
                await other.runtime.call(Tally, there, name, 1.0, elsewhere)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(0.5)
            other.membership.expire()
        await anyio.sleep(1)
        assert await one.runtime.get(Tally, elsewhere).read() == 0
        assert await fired(one, elsewhere) == []


async def test_views_without_a_lease_are_ignored() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        shard_map = sharing_of(other)._cluster.shard_map
        view = shard_map.view
        assert view is not None
        other.membership.expire()
        sharing_of(other)._cluster.lost()
        sharing_of(other)._cluster._seen(view)
        assert shard_map.owned == []


async def test_views_that_come_before_a_lease_has_begun_are_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread of a member may read the next view before the event loop knows of the lease."""
    async with nodes() as [one, other]:
        await balanced(one, other)
        there, membership = id_of(one), other.membership

        def rejoin() -> None:
            membership._join()
            membership.show()

        monkeypatch.setattr(membership, "rejoin", rejoin)
        membership.lose()
        await settle()
        assert await other.runtime.get(Tally, there).add() == 1


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The members that were dialled."""
    found: list[str] = []
    connect = Links.connect

    async def counted(links: Links, member: Member, credentials: Credentials) -> Connection:
        found.append(member.node_id)
        return await connect(links, member, credentials)

    monkeypatch.setattr(Links, "connect", counted)
    return found


async def test_calls_of_a_member_without_lease_wait_for_the_next_owner(dialled: list[str]) -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        assert await one.runtime.get(Tally, there).add() == 1
        sharing_of(other)._cluster.lost()
        await settle()  # the links have ended
        dialled.clear()

        async def remove() -> None:
            await anyio.sleep(3)
            other.membership.lose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(remove)
            assert await one.runtime.get(Tally, there).add() == 2
        assert 3 < len(dialled) < 40


async def test_a_member_that_ends_its_links_is_not_dialled_all_the_time(
    dialled: list[str],
) -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        assert await one.runtime.get(Tally, there).add() == 1
        links = sharing_of(other)._cluster._links
        links.abort("on purpose")
        dialled.clear()
        with anyio.move_on_after(5):
            await one.runtime.get(Tally, there).read()
        assert 3 < len(dialled) < 40


async def test_a_view_adds_nothing_to_a_lease_that_is_over() -> None:
    """It was on its way when the lease ended, of which the member doesn't know yet."""
    async with nodes() as [one, other]:
        await balanced(one, other)
        cluster = sharing_of(other)._cluster
        view, owned = cluster.shard_map.view, cluster.shard_map.owned
        assert view is not None
        other.membership.expire()
        cluster._seen(attrs.evolve(view, owners=[other.membership.current.holder] * SHARDS))
        assert cluster.shard_map.owned == owned


# --- alarms --------------------------------------------------------------------------------------


async def fired(of: Node, each: str) -> list[str]:
    return (await of.runtime.get_state(Tally, each)).fired


async def test_alarms_are_delivered_by_the_owner_and_its_successors() -> None:
    rows = Rows()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(node(rows))
        for each in IDS:
            await first.runtime.schedule_alarm(Tally, each, "soon", after=timedelta(seconds=100))
        async with node(rows) as second:
            await balanced(first, second)
            for each in IDS:
                await second.runtime.schedule_alarm(
                    Tally, each, "sooner", after=timedelta(seconds=10)
                )
            await anyio.sleep(20)
            for each in IDS:
                assert await fired(first, each) == ["sooner"]
        await anyio.sleep(100)
        for each in IDS:
            assert await fired(first, each) == ["sooner", "soon"]


async def test_claims_of_shards_that_were_acquired_are_ended_first() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        lost = {
            shard
            for shard, owner in enumerate(one.membership.rows.owners)
            if owner == other.membership.current.holder
        }
        rows = one.membership.rows
        rows.released.clear()
        other.membership.is_held = True
        other.membership.expire()
        rows.remove(other.membership.current.holder)
        one.membership.member = attrs.evolve(one.membership.member, serves=True)
        one.membership.look()
        await settle()
        assert set().union(*rows.released) == lost
        assert one.membership.fed == set(range(SHARDS))


async def test_claims_of_members_that_are_in_no_view_are_ended_as_well() -> None:
    """A shard went to a third member, which died, before this one looked."""
    async with nodes() as [one, other]:
        await balanced(one, other)
        rows = one.membership.rows
        rows.released.clear()
        shard = rows.owners.index(one.membership.current.holder)
        rows.owners[shard] = other.membership.current.holder
        rows.terms[shard] += 3
        other.membership.look()
        await settle()
        assert rows.released == [{shard}]


async def test_an_alarm_is_fired_where_the_object_is() -> None:
    async with nodes() as [one, other]:
        await balanced(one, other)
        there = id_of(other)
        await one.runtime.schedule_alarm(Tally, there, "now", after=timedelta(days=1))
        await fire_alarm(one.runtime, Tally, there, "now")
        assert await fired(one, there) == ["now"]


# --- tenants -------------------------------------------------------------------------------------


async def test_a_tenant_is_dropped_once_all_members_have_sent_its_objects_away() -> None:
    async with nodes(3) as all_of_them:
        await balanced(*all_of_them)
        one, *_ = all_of_them
        acme = one.runtime.tenant("acme")
        for each in IDS:
            assert await acme.get(Tally, each).add() == 1
            assert await one.runtime.get(Tally, each).add(0) == 0
        async with anyio.create_task_group() as tasks:
            slow = id_of(all_of_them[1])
            tasks.start_soon(acme.get(Tally, slow).add_slowly, 3)
            await anyio.sleep(0.1)
            began = anyio.current_time()
            tasks.start_soon(refused, all_of_them[2], slow)
            assert await one.runtime.drop_tenant("acme")
            assert anyio.current_time() - began == pytest.approx(2.9, abs=0.1)
        for each in IDS:
            assert await acme.get(Tally, each).read() == 0
        assert await one.runtime.drop_tenant("acme") is False


async def refused(of: Node, each: str) -> None:
    await anyio.sleep(1)
    with pytest.raises(TenantDropped):
        await of.runtime.tenant("acme").get(Tally, each).read()


async def test_a_tenant_is_not_dropped_while_a_turn_of_another_member_goes_on() -> None:
    async with nodes(call_timeout=200) as [one, other]:
        await balanced(one, other)
        acme, there = one.runtime.tenant("acme"), id_of(other)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(acme.get(Tally, there).add_slowly, 100)
            await anyio.sleep(0.1)
            with pytest.raises(StorageUnavailable, match="nothing was removed"):
                await one.runtime.drop_tenant("acme")
            assert await acme.get(Tally, id_of(one)).add() == 1
        assert await acme.get(Tally, there).read() == 1


async def test_a_turn_drops_a_tenant_that_waits_for_it() -> None:
    class Dropper(DurableObject, name="MembersDropper"):
        @handler
        async def relay(self, other: str) -> None:
            await self.ctx.runtime.get(Dropper, other).drop()

        @handler
        async def drop(self) -> None:
            await self.ctx.runtime.root.drop_tenant("acme")

    async with nodes() as [one, other]:
        await balanced(one, other)
        acme = one.runtime.tenant("acme")
        with pytest.raises(CallCycle):
            await acme.get(Dropper, id_of(one)).relay(id_of(other))
        await acme.get(Tally, id_of(other)).add()
        assert await one.runtime.drop_tenant("acme")


# --- timeouts ------------------------------------------------------------------------------------


class Narrow(Tally, name="MembersNarrow", mailbox_size=1):
    pass


async def test_a_timeout_says_what_the_object_does_and_leaves_nothing_in_its_mailbox() -> None:
    async with nodes(call_timeout=None) as [one, other], anyio.create_task_group() as tasks:
        await balanced(one, other)
        there = id_of(other)
        tasks.start_soon(one.runtime.get(Tally, there).add_slowly, 10)
        await anyio.sleep(1)
        began = anyio.current_time()
        problem = r"running for 3 s, 1 call is waiting\); it did not run"
        with pytest.raises(CallTimeout, match=problem) as caught:
            await one.runtime.get(Tally, there, timeout=2).add()
        assert not caught.value.may_have_run
        assert anyio.current_time() - began == pytest.approx(2, abs=0.01)
        assert caught.value.timeout == 2
        info = other.runtime.whereis(Tally, there)
        assert info is not None
        assert info.mailbox_depth == 0
        tasks.cancel_scope.cancel()


async def test_a_full_mailbox_of_another_member_is_reported_as_such() -> None:
    async with nodes(call_timeout=None) as [one, other], anyio.create_task_group() as tasks:
        await balanced(one, other)
        there = id_of(other)
        for _ in range(2):
            tasks.start_soon(one.runtime.get(Narrow, there).add_slowly, 10)
            await anyio.sleep(1)
        with pytest.raises(MailboxFull, match="with 1 calls queued") as caught:
            await one.runtime.get(Narrow, there, timeout=3).add()
        assert caught.value.timeout == 3
        assert not caught.value.may_have_run
        tasks.cancel_scope.cancel()


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"listen": "tcp://0.0.0.0:0", "insecure": True}, "no address that others can call"),
        ({"advertise": "tcp://10.0.0.5:7400"}, "advertise needs listen"),
        ({"listen": "tcp://192.0.2.1:0"}, "in the clear"),
        (
            {"listen": "tcp://0.0.0.0:0", "advertise": "tcp://192.0.2.1:7400"},
            "in the clear",
        ),
    ],
)
async def test_addresses_are_checked_before_anything_is_opened(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        async with node(Rows(), cluster=Cluster(**settings)):
            pass


async def test_links_over_tcp() -> None:
    async with nodes(cluster=Cluster(listen="tcp://127.0.0.1:0")) as [one, other]:
        await balanced(one, other)
        for each in IDS:
            assert await one.runtime.get(Tally, each).add() == 1


def move(of: Node, host: str) -> None:
    """Let a member be on another machine."""
    members, node_id = of.membership.rows.members, of.runtime.node_id
    members[node_id] = attrs.evolve(members[node_id], host=host)


async def test_members_of_several_machines_need_addresses_that_the_others_reach() -> None:
    rows = Rows()
    async with node(rows) as one:
        move(one, "there")
        with pytest.raises(StorageUnavailable, match="can't reach this one"):
            async with node(rows):
                pass


async def test_a_client_needs_none_for_nothing_calls_it() -> None:
    rows = Rows()
    async with node(rows) as one, node(rows, cluster=Cluster(serve=False)) as client:
        move(client, "there")
        async with node(rows) as other:
            await balanced(one, other)
            assert await client.runtime.get(Tally, id_of(other)).add() == 1


async def test_an_address_that_others_do_not_reach_is_refused() -> None:
    rows = Rows()
    cluster = Cluster(listen="tcp://127.0.0.1:0", advertise="tcp://127.0.0.1:1")
    with pytest.raises(StorageUnavailable, match="can't be reached at advertise"):
        async with node(rows, cluster=cluster):
            pass


@pytest.mark.parametrize("theirs", ["tcp://192.0.2.1:7400", "unix:///run/app.sock"])
async def test_members_of_several_machines_must_reach_each_other(theirs: str) -> None:
    rows, far = Rows(), attrs.evolve(FAR, address=theirs)
    rows.members[far.node_id] = far
    with pytest.raises(StorageUnavailable, match="process 7 on elsewhere is a member as well"):
        async with node(rows):
            pass


async def test_none_has_to_reach_a_client_of_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, far = Rows(), attrs.evolve(FAR, address="tcp://192.0.2.1:7400")
    rows.members[far.node_id] = far
    async with node(rows, cluster=Cluster(serve=False)):
        pass
    rows = Rows()
    rows.members[far.node_id] = attrs.evolve(FAR, address="unix:///run/app.sock", serves=False)
    monkeypatch.setattr(TCPAddress, "is_loopback", False)
    cluster = Cluster(listen="tcp://127.0.0.1:0", insecure=True)
    async with node(rows, cluster=cluster):
        pass
    rows.members[far.node_id] = attrs.evolve(FAR, address="unix:///run/app.sock")
    for each in (cluster, attrs.evolve(cluster, serve=False)):
        with pytest.raises(StorageUnavailable, match="which only its own machine reaches"):
            async with node(rows, cluster=each):
                pass


FAR = Member("far", "elsewhere", 7, "1", None, True, False, {}, 0, 0.0)
