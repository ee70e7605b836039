"""Members of a cluster for tests, whose views a test waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from support.postgres import wait_until

from trio_durable.storage import Member, NewMember, View
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._cluster import PostgresClusterMembership

CALM_TTL = 600.0
"""A TTL so long that a member does nothing by itself, but only when it is asked to look."""


def new_member(
    group: str = "default",
    *,
    serves: bool = True,
    ttl: float = CALM_TTL,
    types: dict[str, int] | None = None,
    release: int = 0,
) -> NewMember:
    return NewMember(group, "tcp://127.0.0.1:7400", serves, ttl, types or {}, release)


class Follower:
    """A member that has been opened, and the views that it got.

    Args:
        storage: A storage of its own.
        new: The member.
    """

    def __init__(self, storage: PostgresStorage, new: NewMember) -> None:
        self.storage = storage
        self.writer = storage.open_member(new)
        membership = self.writer.membership
        assert isinstance(membership, PostgresClusterMembership)
        self.membership = membership
        self.views: list[View] = []
        self.lost: list[str] = []

        self.id = self.membership.lease.holder
        self._is_open = True

    def rejoin(self) -> None:
        self.membership.rejoin()
        self.id = self.membership.lease.holder

    def close(self) -> None:
        """Leave. May be repeated."""
        if self._is_open:
            self._is_open = False
            self.writer.close()

    def start(self) -> None:
        """Acquire shards and get views."""
        self.membership.watch(self.views.append)
        self.membership.follow(lambda call: call(), lambda lease, text: self.lost.append(text))

    def wait(self, condition: Callable[[View], object]) -> View:
        """Wait until the latest view is such a one."""
        wait_until(lambda: self.views and condition(self.views[-1]))
        return self.views[-1]

    def see(self, condition: Callable[[View], object]) -> View:
        """Look until the latest view is such a one."""

        def look() -> bool:
            self.membership.look()
            return bool(self.views and condition(self.views[-1]))

        wait_until(look)
        self.rest()
        return self.views[-1]

    def rest(self) -> None:
        """Wait until it has looked as often as it was asked to."""
        wait_until(lambda: not self.membership._woken.is_set())
        with self.membership._in_use:
            pass

    def see_owners(self, *owners: str | None) -> View:
        """Look until each of these owns shards, and no other one."""
        return self.see(lambda view: set(view.owners) == set(owners))

    def see_members(self, count: int) -> View:
        """Look until there are so many members."""
        return self.see(lambda view: len(view.members) == count)

    def settle(self, shards: dict[int, int], to: str) -> View:
        """Give shards, and wait for the view that settles them."""
        self.membership.give(shards, to)
        wait_until(lambda: any(shards.keys() <= set(view.settled) for view in self.views))
        (view,) = [view for view in self.views if shards.keys() <= set(view.settled)]
        return view

    def owned(self) -> list[int]:
        """The shards that are its own in the latest view."""
        return [shard for shard, owner in enumerate(self.views[-1].owners) if owner == self.id]

    def me(self) -> Member:
        return self.views[-1].members[self.id]

    def fall_silent(self) -> None:
        """Do nothing any more, as a process that was killed on another machine."""
        self.membership._is_closing = True
        self.membership._woken.set()
        self.membership._thread.join()


@contextmanager
def followers(conninfo: str, *members: NewMember, start: bool = True) -> Iterator[list[Follower]]:
    """Members that have seen each other. The first one of a group that serves owns all shards."""
    with ExitStack() as stack:
        found: list[Follower] = []
        groups: list[str] = []
        serving: set[str] = set()
        for member in members:
            follower = Follower(PostgresStorage(conninfo), member)
            stack.callback(follower.close)
            found.append(follower)
            groups.append(member.group)
            if member.serves:
                serving.add(member.group)
            if start:
                follower.start()
                if member.group in serving:
                    follower.see(lambda view: None not in view.owners)
        if start:
            for follower, group in zip(found, groups, strict=True):
                size = groups.count(group)
                follower.see(lambda view, size=size: len(view.members) >= size)  # type: ignore[misc]
        yield found
