"""Members of a cluster on PostgreSQL: joining, views, acquisition, hand-overs and deaths."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from support.postgres import Server, wait_until
from support.proxy import Proxy

from trio_durable import StorageInUse
from trio_durable.storage import LeaseOver, Member, SharedStorage, View
from trio_durable.storage._membership import newest
from trio_durable.storage.postgres import PostgresStorage

from .members import CALM_TTL, Follower, followers, new_member
from .rows import Admin, commit, count, save
from .test_nodes import child

SHARDS = 1024


def add_member(admin: Admin, ttl: float, group: str = "default", *shards: int) -> str:
    """A member of another machine, which nothing renews and which owns some shards."""
    node_id = str(uuid4())
    admin.execute(
        "INSERT INTO durable_nodes (node_id, name, host, pid, release, server, status, serves, "
        "ttl, \"group\") VALUES (%s, 'it', 'elsewhere', 4711, '1', 'a server', 'up', true, %s, %s)",
        (node_id, ttl, group),
    )
    admin.execute("INSERT INTO durable_beats VALUES (%s, 7)", (node_id,))
    admin.execute(
        "UPDATE durable_shards SET owner = %s, term = term + 1 "
        'WHERE "group" = %s AND shard = ANY (%s)',
        (node_id, group, list(shards)),
    )
    return node_id


# --- joining -------------------------------------------------------------------------------------


def test_a_member_is_as_it_has_joined(postgres: str) -> None:
    new = new_member(types={"Cart": 2, "Größe": 1}, release=7)
    with followers(postgres, new) as (one,):
        assert isinstance(one.storage, SharedStorage)
        view = one.see_owners(one.id)
        me = one.me()
        assert me == Member(
            node_id=one.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            library=version("trio-durable"),
            address="tcp://127.0.0.1:7400",
            serves=True,
            is_leaving=False,
            types={"Cart": 2, "Größe": 1},
            release=7,
            age=0,
        )
        assert 0 <= me.age < 60
        assert list(view.members) == [one.id]
        assert list(view.terms) == [1] * SHARDS
        assert one.membership.shards == SHARDS


def test_all_members_have_one_secret(postgres: str) -> None:
    with followers(postgres, new_member(), new_member("other")) as (one, two):
        assert one.membership.secret == two.membership.secret
        assert len(one.membership.secret) == 32


def test_a_member_does_nothing_before_it_is_followed(postgres: str, admin: Admin) -> None:
    owned = "SELECT count(owner) FROM durable_shards"
    with followers(postgres, new_member(), new_member(), start=False) as (one, two):
        one.membership.look()
        two.start()
        view = two.see_owners(two.id)
        assert not view.members[one.id].serves  # so others don't count on it
        assert count(admin, owned) == SHARDS
        two.settle({0: 1}, one.id)
        assert len(two.owned()) == SHARDS
        one.start()
        two.see(lambda view: view.members[one.id].serves)


def test_members_and_a_node_alone_exclude_each_other(postgres: str) -> None:
    storage = PostgresStorage(postgres)
    with (
        closing(storage.open_writer()),
        pytest.raises(StorageInUse),
    ):
        PostgresStorage(postgres).open_member(new_member())
    with followers(postgres, new_member()), pytest.raises(StorageInUse):
        storage.open_writer()
    storage.open_writer().close()


def test_a_member_waits_for_the_end_of_a_node_alone_that_has_died(
    postgres: str, admin: Admin
) -> None:
    PostgresStorage(postgres).open_writer().close()
    node_id = add_member(admin, 0.4)
    admin.execute('UPDATE durable_nodes SET "group" = NULL')
    began = time.monotonic()
    with followers(postgres, new_member()) as (one,):
        assert time.monotonic() - began >= 0.4
        assert node_id not in one.views[-1].members


def test_a_member_does_not_wait_for_other_members(postgres: str, admin: Admin) -> None:
    PostgresStorage(postgres).open_writer().close()
    node_id = add_member(admin, CALM_TTL)
    with followers(postgres, new_member(serves=False)) as (one,):
        assert node_id in one.views[-1].members


# --- views ---------------------------------------------------------------------------------------


def test_views_are_numbered_and_each_has_a_change_or_was_asked_for(postgres: str) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        for shard in range(5):
            one.settle({shard: 1}, two.id)
        for _ in range(5):
            one.membership.look()
        one.settle({5: 1}, two.id)
        assert [view.number for view in one.views] == list(range(1, len(one.views) + 1))
        contents = [(each.members, each.owners, each.terms, each.looked) for each in one.views]
        assert all(before != after for before, after in pairwise(contents))
        assert [sorted(view.settled) for view in one.views if view.settled] == [
            [0], [1], [2], [3], [4], [5]
        ]  # fmt: skip


def test_the_rows_are_adopted_as_they_are(postgres: str, admin: Admin) -> None:
    """Also if a term goes back, as after a restore."""
    with followers(postgres, new_member(), new_member()) as (one, two):
        one.settle({3: 1}, two.id)
        admin.execute("UPDATE durable_shards SET owner = %s, term = 0 WHERE shard = 3", (one.id,))
        for each in (one, two):
            view = each.see(lambda view: view.terms[3] == 0)
            assert view.owners[3] == one.id


def test_groups_have_nothing_to_do_with_each_other(postgres: str) -> None:
    with followers(postgres, new_member(), new_member("other")) as (one, two):
        for each in (one, two):
            assert list(each.views[-1].members) == [each.id]
            assert each.owned() == list(range(SHARDS))


def test_a_member_that_only_calls_owns_nothing_and_gets_views(postgres: str) -> None:
    with followers(postgres, new_member(serves=False)) as (caller,):
        assert caller.views[-1].owners == [None] * SHARDS
        with followers(postgres, new_member()) as (one,):
            caller.see_owners(one.id)
            view = one.settle({0: 1}, caller.id)
            assert view.owners[0] == one.id
        caller.see_owners(None)


def test_a_loop_that_has_ended_is_no_error(postgres: str) -> None:
    def post(call: Callable[[], object]) -> None:
        raise RuntimeError("the loop has ended")

    with followers(postgres, new_member(), start=False) as (one,):
        one.membership.watch(one.views.append)
        one.membership.follow(post, lambda lease, text: one.lost.append(text))
        with followers(postgres, new_member(serves=False)) as (caller,):
            caller.see_owners(one.id)
        assert (one.lost, one.membership.lease.is_valid()) == ([], True)


# --- acquisition ---------------------------------------------------------------------------------


def test_of_ten_members_each_shard_has_one_owner(postgres: str) -> None:
    """Also after one of them has left."""
    with followers(postgres, *[new_member()] * 10, start=False) as ten:
        for each in ten:
            each.membership.watch(each.views.append)
        for each in ten:
            each.membership.follow(lambda call: call(), lambda lease, text: None)
        all_agree(ten)
        first = max(ten, key=lambda each: len(each.owned()))
        first.close()
        rest = [each for each in ten if each is not first]
        view = all_agree(rest)
        assert view.members.keys() == {each.id for each in rest}


def all_agree(members: list[Follower]) -> View:
    """Wait until all members see the same owners of all shards."""

    def agree() -> bool:
        for each in members:
            each.membership.look()
        views = [each.views[-1] for each in members if each.views]
        return (
            len(views) == len(members)
            and all((v.owners, v.members) == (views[0].owners, views[0].members) for v in views)
            and {each.id for each in members} >= set(views[0].owners)
        )

    wait_until(agree)
    return members[0].views[-1]


def test_a_member_acquires_no_more_than_its_share(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member(), new_member(), new_member()) as (one, two, three):
        admin.execute("UPDATE durable_shards SET owner = NULL")
        one.see(lambda view: view.owners.count(one.id) == 342)
        two.see(lambda view: view.owners.count(two.id) == 342)
        three.see(lambda view: view.owners.count(three.id) == 340)
        assert None not in three.views[-1].owners


def test_shards_that_stay_free_are_acquired_above_the_share(postgres: str, admin: Admin) -> None:
    """Their taker may hang, and would keep its share from all others."""
    with followers(postgres, new_member(ttl=60), new_member(ttl=60)) as (one, two):
        one.see(lambda view: len(view.members) == 2)
        two.membership.retire = lambda: None  # type: ignore[method-assign]  # it stays a taker
        two.membership._is_retired = True
        two.membership._announced = True
        admin.execute("UPDATE durable_shards SET owner = NULL")
        one.see(lambda view: view.owners.count(one.id) == 512)
        one.membership._free_since -= 61
        one.see(lambda view: view.owners.count(one.id) == 1024)


def test_a_shard_that_has_changed_since_it_was_read_is_not_acquired(
    postgres: str, admin: Admin
) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        one.fall_silent()
        two.fall_silent()
        connection, table = one.membership._connection, one.membership._shards
        assert connection is not None
        admin.execute("UPDATE durable_shards SET owner = NULL WHERE shard < 4")
        read = table.read(connection, None)
        admin.execute(
            "UPDATE durable_shards SET owner = %s, term = term + 1 WHERE shard = 0", (two.id,)
        )
        admin.execute("UPDATE durable_shards SET term = term + 2 WHERE shard = 1")  # and back
        terms = {shard: read.terms[shard] for shard in range(4)}
        assert table.acquire(connection, UUID(one.id), terms) == 2
        found = table.read(connection, None).owners
        assert list(found[:4]) == [two.id, None, one.id, one.id]


def test_members_that_look_at_the_same_time_begin_at_different_shards(
    postgres: str, admin: Admin
) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        owned = []
        for each in sorted((one, two), key=lambda each: each.id):
            admin.execute("UPDATE durable_shards SET owner = NULL")
            each.see(lambda view, each=each: view.owners.count(each.id) == 512)  # type: ignore[misc]
            owned.append(each.owned())
        assert owned == [list(range(512)), list(range(512, 1024))]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (new_member(types={"Cart": 1, "Shop": 9}), new_member(types={"Cart": 2})),
        (new_member(release=6), new_member(release=7)),
        (new_member(), new_member(release=1)),
    ],
    ids=["schema", "release", "no release"],
)
def test_an_older_release_acquires_nothing_while_a_newer_one_is_up(
    postgres: str, admin: Admin, old: object, new: object
) -> None:
    with followers(postgres, old, new) as (one, two):  # type: ignore[arg-type]
        admin.execute("UPDATE durable_shards SET owner = NULL WHERE shard < 1000")
        one.see_owners(None, one.id)
        assert one.owned() == list(range(1000, SHARDS))
        two.see_owners(one.id, two.id)
        assert len(two.owned()) == 1000  # its share isn't divided with the older one
        two.membership.retire()
        two.see(lambda view: view.members[two.id].is_leaving)
        admin.execute("UPDATE durable_shards SET owner = NULL WHERE shard < 10")
        one.see(lambda view: view.owners[0] == one.id)


def test_the_newest_members() -> None:
    def member(name: str, release: int = 0, **types: int) -> Member:
        return Member(name, "", 0, "", None, True, False, types, release, 0)

    def names(*members: Member) -> str:
        return "".join(newest(members))

    assert names(member("b"), member("a")) == "ab"
    assert names(member("a", 1), member("b", 2)) == "b"
    assert names(member("a", x=1, y=1), member("b", x=2), member("c", y=1)) == "bc"
    assert names(member("a", x=1, y=2), member("b", x=2, y=1)) == "ab"
    assert names(member("a", x=1, y=2), member("b", x=2, y=1), member("c", x=2, y=2)) == "c"
    assert names() == ""


# --- hand-overs ----------------------------------------------------------------------------------


def test_a_hand_over_is_settled_by_a_view(postgres: str) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        view = one.settle({3: 1, 4: 1, 5: 7}, two.id)
        assert view.settled == {3, 4, 5}
        assert view.owners[2:6] == [one.id, two.id, two.id, one.id]
        assert view.terms[2:6] == [1, 2, 2, 1]
        two.see(lambda view: view.owners[2:6] == [one.id, two.id, two.id, one.id])
        assert two.owned() == [3, 4]


def test_a_hand_over_to_a_member_that_is_gone_is_settled_as_well(postgres: str) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        two.close()
        view = one.settle({3: 1}, two.id)
        assert (view.owners[3], view.terms[3]) == (one.id, 1)


def test_a_hand_over_that_waits_too_long_for_a_commit_is_given_up(
    postgres: str, admin: Admin
) -> None:
    with followers(postgres, new_member(ttl=4), new_member()) as (one, two):
        with admin.transaction():
            admin.execute("SELECT FROM durable_nodes WHERE node_id = %s FOR KEY SHARE", (one.id,))
            view = one.settle({3: 1}, two.id)
            assert (view.owners[3], view.terms[3]) == (one.id, 1)
        assert one.membership.lease.is_valid()
        one.views.clear()
        assert one.settle({3: 1}, two.id).owners[3] == two.id


@pytest.mark.parametrize("what", ["request", "reply"])
def test_a_hand_over_whose_connection_is_lost_is_settled_once_its_outcome_is_known(
    proxy: Proxy, server: Server, what: str
) -> None:
    with (
        followers(proxy.url(), new_member()) as (one,),
        followers(server.conninfo(), new_member()) as (two,),
    ):
        one.see_members(2)
        one.membership._renew_at = float("inf")  # no beat
        with one.membership._in_use:  # so that nothing else is sent
            proxy.refuse()
            proxy.lose_next(what, 2)  # the first connection is the writer's
            one.membership.give({3: 1}, two.id)
            seen = len(one.views)
        assert proxy.lost.wait(20)
        owner, term = (one.id, 1) if what == "request" else (two.id, 2)
        two.see(lambda view: (view.owners[3], view.terms[3]) == (owner, term))
        assert [view for view in one.views[seen:] if view.settled] == []
        proxy.refuse(False)
        wait_until(lambda: any(view.settled for view in one.views))
        (view,) = [view for view in one.views if view.settled]
        # The term of a shard that stays has grown, so the lost hand-over does nothing any more.
        assert (view.owners[3], view.terms[3]) == (owner, 2)
        assert one.lost == []


def test_hand_overs_of_a_former_lease_are_dropped(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        one.fall_silent()
        one.membership.give({3: 1}, two.id)
        lease = one.membership._hand_overs[0].lease
        with followers(postgres, new_member(), start=False) as (other,):
            other.membership._hand_overs.append(one.membership._hand_overs[0])
            other.start()
            other.see(lambda view: len(view.members) == 3)
            other.settle({7: 1}, two.id)
            assert lease is not other.membership.lease
            assert all(3 not in view.settled for view in other.views)


# --- leaving -------------------------------------------------------------------------------------


def test_a_member_that_leaves_gets_nothing(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        two.membership.retire()
        view = two.see(lambda view: view.members[two.id].is_leaving)
        assert two.owned() == []
        view = one.settle({3: 1}, two.id)
        assert view.owners[3] == one.id
        admin.execute("UPDATE durable_shards SET owner = NULL WHERE shard < 10")
        assert two.see_owners(None, one.id).owners[:10] == [None] * 10
        one.see_owners(one.id)  # all: it alone divides them
        one.membership.retire()
        one.see(lambda view: view.members[one.id].is_leaving)
        one.close()
        two.see_owners(None)


def test_leaving_frees_the_shards_at_once(postgres: str) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        one.close()
        view = two.see_owners(two.id)
        assert list(view.members) == [two.id]
        assert set(view.terms) == {2}


# --- deaths --------------------------------------------------------------------------------------


def test_a_killed_process_of_this_machine_is_removed_by_one_look(postgres: str) -> None:
    PostgresStorage(postgres).open_writer().close()
    with (
        child(postgres, CALM_TTL, "member") as process,
        followers(postgres, new_member(), start=False) as (one,),
    ):
        one.start()
        one.see_members(2)
        (dead,) = set(one.views[-1].owners)
        process.kill()
        process.wait()
        one.membership.look()  # once
        view = one.wait(lambda view: set(view.owners) == {one.id})
        assert list(view.members) == [one.id] != [dead]
        assert set(view.terms) == {2}


def test_a_silent_member_of_another_machine_is_removed_after_its_ttl(
    postgres: str, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    with followers(postgres, new_member()) as (one,):
        began = time.monotonic()
        dead = add_member(admin, 0.4, "default", 3, 4)
        one.membership.look()
        one.wait(lambda view: dead in view.owners)
        # Its own beats are far too rare for this.
        view = one.wait(lambda view: set(view.owners) == {one.id})
        assert time.monotonic() - began >= 0.4
        assert dead not in view.members
        assert view.terms[2:5] == [1, 3, 3]
    assert "process 4711 on elsewhere has died; others acquire its shards" in caplog.text


def test_a_member_that_is_renewed_lives(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member()) as (one,):
        other = add_member(admin, 0.4, "default", 3)
        one.see_owners(one.id, other)
        began = time.monotonic()
        while time.monotonic() - began < 0.8:
            admin.execute("UPDATE durable_beats SET renewals = renewals + 1")
            one.membership.look()
        assert other in one.views[-1].members
        one.see_owners(one.id)


def test_dead_nodes_of_all_groups_are_removed(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member()) as (one,):
        dead = add_member(admin, 0.2, "other")
        one.membership.look()
        nodes = f"SELECT count(*) FROM durable_nodes WHERE node_id = '{dead}'"
        wait_until(lambda: count(admin, nodes) == 0)
        assert one.see_members(1)


def test_a_dead_member_whose_row_is_locked_is_removed_later(
    postgres: str, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_durable.storage")
    with followers(postgres, new_member(ttl=1)) as (one,):
        dead = add_member(admin, 0.6, "default", 3)
        with admin.transaction():
            admin.execute("SELECT FROM durable_nodes WHERE node_id = %s FOR KEY SHARE", (dead,))
            one.see_owners(one.id, dead)
            wait_until(lambda: "couldn't remove process 4711 on elsewhere yet" in caplog.text)
        one.see_owners(one.id)
        assert one.lost == []


# --- the end of a lease --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "another server", "no shards"])
def test_a_member_whose_row_is_not_its_own_any_more_loses_its_lease(
    postgres: str, admin: Admin, how: str
) -> None:
    with followers(postgres, new_member(types={"Cart": 3})) as (one,):
        look = one.membership.look()
        wait_until(lambda: one.views[-1].looked >= look)
        before, seen = one.id, len(one.views)
        one.membership._renew_at = float("inf")  # no beat, which would find it as well
        admin.execute(
            {
                "removed": b"DELETE FROM durable_nodes",
                "another server": b"UPDATE durable_nodes SET server = 'another'",
                "no shards": b"DELETE FROM durable_shards WHERE shard = 9",
            }[how]
        )
        one.membership.look()
        wait_until(lambda: one.lost)
        assert "another node has removed it, or the server has lost its row" in one.lost[0]
        with pytest.raises(LeaseOver):
            commit(one.writer, save("a", 0))
        assert len(one.views) == seen
        one.rejoin()
        view = one.see_owners(one.id)
        assert one.id != before
        assert one.me().types == {"Cart": 3}
        assert list(view.members) == [one.id]
        assert one.views[seen].owners[9] is None  # those of the former lease
        assert [each.number for each in one.views] == list(range(1, len(one.views) + 1))
        assert commit(one.writer, save("a", 0)) == []


def test_a_member_that_leaves_does_so_after_it_has_joined_again(postgres: str) -> None:
    with followers(postgres, new_member(), new_member(serves=False)) as (one, caller):
        one.membership.retire()
        one.see(lambda view: view.members[one.id].is_leaving)
        one.rejoin()
        one.see(lambda view: one.id in view.members and view.members[one.id].is_leaving)
        caller.see_owners(None)


def test_a_hanging_loop_acquires_nothing(postgres: str, admin: Admin) -> None:
    with followers(postgres, new_member(), start=False) as (one,):
        one.membership.watch(one.views.append)
        one.membership.follow(lambda call: None, lambda lease, text: one.lost.append(text))
        one.membership._ticked_at -= CALM_TTL + 1
        with followers(postgres, new_member(serves=False)) as (caller,):
            one.membership.look()
            caller.see(lambda view: view.members[one.id].serves)
            assert caller.see_members(2).owners == [None] * SHARDS
