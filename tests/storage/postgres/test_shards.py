"""The table of shards: each race of two transactions, with a connection for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.postgres import wait_until

from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._connection import Connection
from trio_durable.storage.postgres._nodes import NewNode, NodeTable, is_deposed
from trio_durable.storage.postgres._shards import ShardTable

from .members import followers, new_member
from .rows import Admin, commit, count, in_thread, save, setting, waits

WAIT = "20s"
SMALL, LARGE = UUID(int=1), UUID(int=2**128 - 1)


class Members:
    """Members of a group that nothing renews, and the connections of two of them.

    Shard 0 to 9 are those of ``one``.
    """

    def __init__(self, conninfo: str) -> None:
        storage = PostgresStorage(conninfo)
        storage.open_writer().close()  # it makes the tables
        self.storage = storage
        self.here, self.there = self.connect(), self.connect()
        row = self.here.execute("SELECT current_schema()").fetchone()
        assert row is not None
        self.home = str(row[0])
        self.nodes = NodeTable(self.home)
        self.table = ShardTable(self.home, "default", WAIT)
        self.server = self.here.session.server.incarnation
        self.one, self.two = self.join(), self.join()
        assert self.acquire(self.here, self.one, range(10)) == 10

    def connect(self) -> Connection:
        return self.storage._connect("admin")

    def join(self, node_id: UUID | None = None) -> UUID:
        node = NewNode(node_id or uuid4(), "elsewhere", self.server, 60, None, "default")
        assert not self.nodes.join(self.here, node, None).others
        self.announce(self.here, node.node_id)
        return node.node_id

    def announce(self, connection: Connection, node_id: UUID, is_leaving: bool = False) -> None:
        self.table.announce(connection, node_id, self.server, serves=True, is_leaving=is_leaving)

    def acquire(
        self, connection: Connection, node_id: UUID, shards: range, term: int = 0
    ) -> int | None:
        """The number of the acquired shards; None if the fence has refused it."""
        connection.fence = node_id, self.server
        try:
            return self.table.acquire(connection, node_id, dict.fromkeys(shards, term))
        except psycopg.Error as error:
            if not is_deposed(error):
                raise
            return None

    def give(
        self, connection: Connection, giver: UUID, to: UUID, *shards: int, term: int = 1
    ) -> bool:
        return self.table.give(connection, giver, self.server, dict.fromkeys(shards, term), to)

    def void(self, connection: Connection, *shards: int) -> None:
        self.table.void(connection, self.one, dict.fromkeys(shards, 1))

    def remove(self, connection: Connection, node_id: UUID) -> bool:
        return self.nodes.remove(connection, node_id, 0, WAIT)

    def owners(self, count: int = 10) -> list[tuple[UUID | None, int]]:
        """The owners and terms of the first shards."""
        division = self.table.read(self.here, None)
        return [
            (None if owner is None else UUID(owner), term)
            for owner, term in zip(division.owners[:count], division.terms, strict=False)
        ]

    def close(self) -> None:
        self.here.discard()
        self.there.discard()


@pytest.fixture
def members(postgres: str) -> Iterator[Members]:
    with closing(Members(postgres)) as members:
        yield members


def in_turn(
    members: Members,
    admin: Admin,
    first: Callable[[Connection], object],
    second: Callable[[Connection], object],
) -> tuple[object, object]:
    """Let ``second`` begin while the transaction of ``first`` is open, for which it waits.

    Returns their results.
    """
    with members.here.transaction():
        one = first(members.here)
        outcome, thread = in_thread(lambda: second(members.there))
        wait_until(lambda: waits(admin) or outcome)
        assert outcome == []
    thread.join()
    return one, outcome[0]


# --- acquisition ---------------------------------------------------------------------------------


def test_an_acquisition_waits_for_the_removal_of_its_node(members: Members, admin: Admin) -> None:
    assert in_turn(
        members,
        admin,
        lambda it: members.remove(it, members.two),
        lambda it: members.acquire(it, members.two, range(10, 20)),
    ) == (True, None)
    assert members.owners(20)[10:] == [(None, 0)] * 10


def test_the_removal_of_a_node_waits_for_its_acquisition_and_frees_these_shards(
    members: Members, admin: Admin
) -> None:
    assert in_turn(
        members,
        admin,
        lambda it: members.acquire(it, members.two, range(10, 20)),
        lambda it: members.remove(it, members.two),
    ) == (10, True)
    assert members.owners(20)[10:] == [(None, 1)] * 10


def test_an_acquisition_passes_over_the_shards_of_another_one(members: Members) -> None:
    with members.here.transaction():
        assert members.acquire(members.here, members.two, range(10, 15)) == 5
        assert members.acquire(members.there, members.one, range(10, 20)) == 5
    assert members.acquire(members.there, members.one, range(10, 20)) == 0
    owners = [owner for owner, _ in members.owners(20)[10:]]
    assert owners == [members.two] * 5 + [members.one] * 5


def test_a_shard_whose_owner_has_joined_since_the_acquisition_began_is_not_acquired(
    postgres: str, members: Members, admin: Admin
) -> None:
    """The statement that waits for its own node's row has a snapshot without the new owner's."""
    with psycopg.connect(postgres) as other:
        other.execute("SELECT FROM durable_nodes WHERE node_id = %s FOR UPDATE", (members.two,))
        acquired, thread = in_thread(
            lambda: members.acquire(members.there, members.two, range(10, 20))
        )
        wait_until(lambda: waits(admin) == 1)
        newcomer = members.join()
        assert members.acquire(members.here, newcomer, range(10, 15)) == 5
    thread.join()
    assert acquired == [5]
    owners = members.owners(20)[10:]
    assert owners == [(newcomer, 1)] * 5 + [(members.two, 1)] * 5


def test_only_shards_without_an_owner_are_acquired(members: Members) -> None:
    assert members.acquire(members.there, members.two, range(10), term=1) == 0
    assert members.owners() == [(members.one, 1)] * 10


def test_a_shard_that_had_an_owner_since_the_read_is_not_acquired(members: Members) -> None:
    assert members.remove(members.here, members.one)
    assert members.acquire(members.there, members.two, range(10), term=0) == 0
    assert members.acquire(members.there, members.two, range(10), term=1) == 10
    assert members.owners() == [(members.two, 2)] * 10


def test_a_node_of_another_incarnation_of_the_server_acquires_nothing(
    members: Members, admin: Admin
) -> None:
    admin.execute("UPDATE durable_nodes SET server = 'another'")
    assert members.acquire(members.there, members.two, range(10, 20)) is None


# --- reading -------------------------------------------------------------------------------------


def test_nodes_and_shards_are_read_by_one_statement(members: Members) -> None:
    """Else the owner of a shard could be missing among the nodes, and look dead."""
    waited: list[object] = []
    wait = members.here.wait

    def counting(generator: Any, *args: Any, **kwargs: Any) -> Any:
        waited.append(generator)
        return wait(generator, *args, **kwargs)

    members.here.wait = counting  # type: ignore[method-assign, assignment]
    division = members.table.read(members.here, None)
    assert len(waited) == 1
    assert {UUID(owner) for owner in division.owners if owner} <= division.nodes.keys()


def test_shards_are_read_again_only_if_one_has_changed(members: Members, admin: Admin) -> None:
    before = members.table.read(members.here, None)
    again = members.table.read(members.here, before)
    assert again.owners is before.owners
    changes: list[Callable[[], object]] = [
        lambda: members.acquire(members.there, members.two, range(10, 11)),
        lambda: members.give(members.there, members.one, members.two, 0),
        lambda: members.void(members.there, 1),
        lambda: members.remove(members.there, members.one),
        lambda: admin.execute("UPDATE durable_shards SET term = 0"),
    ]
    for change in changes:
        change()
        after = members.table.read(members.here, before)
        fresh = members.table.read(members.here, None)
        assert (after.owners, after.terms) != (before.owners, before.terms)
        assert (after.owners, after.terms) == (fresh.owners, fresh.terms)
        before = after
    assert set(before.terms) == {0}


# --- joining -------------------------------------------------------------------------------------


def test_the_second_member_of_a_new_group_waits_for_the_first_one(
    members: Members, admin: Admin
) -> None:
    def join(connection: Connection) -> bool:
        node = NewNode(uuid4(), "elsewhere", members.server, 60, None, "new")
        return not members.nodes.join(connection, node, None).others

    assert in_turn(members, admin, join, join) == (True, True)
    shards = "SELECT count(*) FROM durable_shards"
    assert count(admin, f"{shards} WHERE \"group\" = 'new' AND owner IS NULL AND term = 0") == 1024
    assert count(admin, shards) == 2048


def test_a_member_that_joins_changes_no_shards_of_its_group(members: Members) -> None:
    with members.there.transaction():
        assert members.acquire(members.there, members.two, range(10, 20)) == 10
        members.join()  # it waits for none of them
    assert members.owners(20) == [(members.one, 1)] * 10 + [(members.two, 1)] * 10


def test_a_node_alone_and_one_that_joins_a_group_exclude_each_other(
    members: Members, admin: Admin
) -> None:
    for node_id in (members.one, members.two):
        assert members.remove(members.here, node_id)

    def join(group: str | None) -> Callable[[Connection], bool]:
        node = NewNode(uuid4(), "elsewhere", members.server, 60, None, group)
        return lambda connection: not members.nodes.join(connection, node, None).others

    assert in_turn(members, admin, join(None), join("default")) == (True, False)
    admin.execute("DELETE FROM durable_nodes")
    assert in_turn(members, admin, join("default"), join(None)) == (True, False)


# --- giving --------------------------------------------------------------------------------------


def test_a_hand_over(members: Members) -> None:
    assert members.give(members.here, members.one, members.two, 3, 4)
    kept = [(members.one, 1)]
    assert members.owners() == kept * 3 + [(members.two, 2)] * 2 + kept * 5


def test_a_hand_over_of_another_term_or_owner_does_nothing(members: Members) -> None:
    before = members.owners(20)
    assert members.give(members.here, members.one, members.two, 3, term=2)
    assert members.give(members.here, members.two, members.one, 3)
    assert members.give(members.here, members.one, members.two, 11, term=0)  # without an owner
    assert members.owners(20) == before


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM durable_nodes WHERE node_id = %s",
        "UPDATE durable_nodes SET status = 'leaving' WHERE node_id = %s",
        "UPDATE durable_nodes SET serves = false WHERE node_id = %s",
        "UPDATE durable_nodes SET \"group\" = 'other' WHERE node_id = %s",
        "UPDATE durable_nodes SET server = 'another' WHERE node_id = %s",
    ],
)
@pytest.mark.parametrize("is_meanwhile", [False, True], ids=["before", "meanwhile"])
def test_a_node_that_can_not_own_shards_is_given_none(
    members: Members, admin: Admin, change: str, is_meanwhile: bool
) -> None:
    def run(connection: Connection) -> None:
        connection.execute(change, (members.two,))

    def give(connection: Connection) -> bool:
        return members.give(connection, members.one, members.two, 3)

    if is_meanwhile:
        assert in_turn(members, admin, run, give) == (None, True)
    else:
        run(members.here)
        assert give(members.there)
    assert members.owners() == [(members.one, 1)] * 10


def test_a_removed_node_gives_nothing(members: Members, admin: Admin) -> None:
    assert in_turn(
        members,
        admin,
        lambda it: members.remove(it, members.one),
        lambda it: members.give(it, members.one, members.two, 3),
    ) == (True, False)
    assert members.owners() == [(None, 1)] * 10


def test_the_removal_of_the_giver_waits_for_a_hand_over(members: Members, admin: Admin) -> None:
    assert in_turn(
        members,
        admin,
        lambda it: members.give(it, members.one, members.two, 3),
        lambda it: members.remove(it, members.one),
    ) == (True, True)
    assert members.owners(4) == [(None, 1)] * 3 + [(members.two, 2)]


def test_the_removal_of_the_receiver_waits_for_a_hand_over_and_frees_its_shards(
    members: Members, admin: Admin
) -> None:
    assert in_turn(
        members,
        admin,
        lambda it: members.give(it, members.one, members.two, 3),
        lambda it: members.remove(it, members.two),
    ) == (True, True)
    assert members.owners(4) == [(members.one, 1)] * 3 + [(None, 2)]


def test_a_node_that_leaves_waits_for_a_hand_over_to_it(members: Members, admin: Admin) -> None:
    """So it gets nothing any more once it is known to leave."""
    in_turn(
        members,
        admin,
        lambda it: members.give(it, members.one, members.two, 3),
        lambda it: members.announce(it, members.two, is_leaving=True),
    )
    assert members.owners(4)[3] == (members.two, 2)
    assert count(admin, "SELECT count(*) FROM durable_nodes WHERE status = 'leaving'") == 1


def test_a_hand_over_waits_for_a_commit_of_the_giver(members: Members, admin: Admin) -> None:
    members.here.fence = members.one, members.server
    assert in_turn(
        members,
        admin,
        members.nodes.lock,
        lambda it: members.give(it, members.one, members.two, 3),
    ) == (None, True)
    assert members.owners(4)[3] == (members.two, 2)


def test_a_commit_of_the_receiver_does_not_wait_for_a_hand_over(members: Members) -> None:
    members.there.fence = members.two, members.server
    with members.here.transaction():
        assert members.give(members.here, members.one, members.two, 3)
        members.nodes.lock(members.there)


def test_hand_overs_in_opposite_directions_do_not_block_each_other(
    postgres: str, members: Members, admin: Admin
) -> None:
    small, large = members.join(SMALL), members.join(LARGE)
    assert members.acquire(members.here, small, range(20, 21)) == 1
    assert members.acquire(members.here, large, range(21, 22)) == 1
    with psycopg.connect(postgres) as other:
        other.execute("SELECT FROM durable_nodes WHERE node_id = %s FOR UPDATE", (SMALL,))
        one, first = in_thread(lambda: members.give(members.here, small, large, 20))
        wait_until(lambda: waits(admin) == 1)
        two, second = in_thread(lambda: members.give(members.there, large, small, 21))
        wait_until(lambda: waits(admin) == 2)
    first.join()
    second.join()
    assert (one, two) == ([True], [True])
    assert members.owners(22)[20:] == [(large, 2), (small, 2)]


def test_a_hand_over_does_not_wait_for_ever(members: Members) -> None:
    members.table = ShardTable(members.home, "default", "50ms")
    with members.here.transaction():
        members.here.execute("SELECT FROM durable_nodes FOR KEY SHARE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            members.give(members.there, members.one, members.two, 3)
        members.here.execute("SELECT FROM durable_shards FOR UPDATE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            members.void(members.there, 3)
        assert members.there.is_usable()
    assert members.owners() == [(members.one, 1)] * 10


# --- hand-overs in doubt -------------------------------------------------------------------------


def test_a_hand_over_that_comes_late_does_nothing(members: Members) -> None:
    """The server may get it long after its connection was given up."""
    members.void(members.here, 3)
    assert members.give(members.there, members.one, members.two, 3, 4)
    assert members.owners(5)[3:] == [(members.one, 2), (members.two, 2)]


def test_the_end_of_a_doubt_waits_for_the_hand_over(members: Members, admin: Admin) -> None:
    assert in_turn(
        members,
        admin,
        lambda it: members.give(it, members.one, members.two, 3),
        lambda it: members.void(it, 3, 4),
    ) == (True, None)
    assert members.owners(5)[3:] == [(members.two, 2), (members.one, 2)]


def test_a_removed_node_is_in_no_doubt(members: Members) -> None:
    assert members.remove(members.here, members.one)
    members.void(members.there, 3)
    assert members.owners() == [(None, 1)] * 10


# --- commits of the writer -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one statement", "pipeline"])
def test_a_hand_over_waits_for_a_save_in_doubt(postgres: str, admin: Admin, kind: str) -> None:
    batch = [save("a", 1, b"2")]
    if kind == "pipeline":
        batch.append(setting("c", "z"))
    with followers(postgres, new_member(), new_member()) as (one, two):
        commit(one.writer, save("a", 0))
        with psycopg.connect(postgres) as other:
            other.execute("SELECT FROM durable_objects FOR UPDATE")
            saving, thread = in_thread(lambda: commit(one.writer, *batch))
            wait_until(lambda: waits(admin) == 1)  # with the lock on its node
            one.membership.give({0: 1}, two.id)
            wait_until(lambda: waits(admin) == 2)
            assert one.views[-1].settled == frozenset()
        thread.join()
        assert saving == [[]]
        view = one.see(lambda view: view.terms[0] == 2)  # an earlier one may have settled it
        assert view.owners[0] == two.id
