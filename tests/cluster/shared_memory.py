"""A storage in memory that several runtimes of one event loop share, as members of a cluster.

The rows of members and shards are here, and a test moves them: it ends leases, holds back views and
the outcomes of hand-overs. All that a member decides from them is the library's own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import attrs
from support.fed_reader import FedReader
from support.leases import FakeLease

from trio_durable import Cluster, DurableRuntime, InlineRunner, MemoryStorage
from trio_durable.storage import (
    ClusterMembership,
    Commit,
    ForwardingWriter,
    Lease,
    LeaseOver,
    Member,
    MemberRow,
    NewMember,
    Reader,
    SharedStorage,
    View,
    Writer,
)

SHARDS = 16

Post = Callable[[Callable[[], object]], object]
Lost = Callable[[Lease, str], object]


class Rows:
    """What a database would have: the members, the shards, and the objects."""

    def __init__(self) -> None:
        self.objects = MemoryStorage()
        self.writer = self.objects.open_writer()
        self.reader = self.objects.open_reader()
        self.members: dict[str, Member] = {}
        self.owners: list[str | None] = [None] * SHARDS
        self.terms = [0] * SHARDS
        self.memberships: list[FakeMembership] = []
        self.released: list[set[int]] = []
        """The shards whose claims were ended, each time."""
        self._numbers = count(1)

    def new_id(self) -> str:
        return f"{next(self._numbers):08x}-0000-4000-8000-000000000000"

    def remove(self, node_id: str) -> None:
        """Remove a member, as others do when it is dead."""
        self.members.pop(node_id, None)
        for shard, owner in enumerate(self.owners):
            if owner == node_id:
                self.owners[shard] = None

    def look(self) -> None:
        """Let all members look, as their beats do."""
        for membership in list(self.memberships):
            membership.look()


class FakeMembership(ClusterMembership):
    def __init__(self, rows: Rows, member: NewMember) -> None:
        self.rows = rows
        self.member = member
        self.is_held = False
        """Views are held back."""
        self.fed: set[int] = set()
        self._views = self._looks = 0
        self._post: Post | None = None
        self._lost: Lost | None = None
        self._seen: Callable[[View], object] | None = None
        self._settled: set[int] = set()
        self._is_retired = False
        self._join()
        rows.memberships.append(self)

    def _join(self) -> None:
        self.current = FakeLease(self.rows.new_id())
        new = self.member
        self.rows.members[self.current.holder] = Member(
            self.current.holder,
            "here",
            1,
            "1",
            new.address,
            new.serves,
            False,
            new.types,
            new.release,
            0.0,
        )

    # --- the contract ----------------------------------------------------------------------------

    @property
    def lease(self) -> FakeLease:
        return self.current

    def follow(self, post: Post, lost: Lost) -> None:
        self._post, self._lost = post, lost
        self.rows.look()

    def rejoin(self) -> None:
        self.fed.clear()
        self._join()
        self.rows.look()

    @property
    def shards(self) -> int:
        return SHARDS

    @property
    def secret(self) -> bytes:
        return b"x" * 32

    def shard_of(self, object_id: str) -> int:
        return hashlib.sha256(object_id.encode()).digest()[0] % SHARDS

    def watch(self, seen: Callable[[View], object]) -> None:
        self._seen = seen

    def look(self) -> int:
        self._looks += 1
        if self._post is not None and not self.is_held:
            self._post(self.show)
        return self._looks

    def give(self, shards: Mapping[int, int], to: str) -> None:
        rows = self.rows
        receiver = rows.members.get(to)
        for shard, term in shards.items():
            is_mine = rows.owners[shard] == self.current.holder and rows.terms[shard] == term
            if is_mine and receiver is not None and not receiver.is_leaving:
                rows.owners[shard] = to
                rows.terms[shard] += 1
        self._settled.update(shards)
        rows.look()

    def retire(self) -> None:
        self._is_retired = True
        me = self.rows.members.get(self.current.holder)
        if me is not None:
            self.rows.members[me.node_id] = attrs.evolve(me, is_leaving=True)
        self.rows.look()

    def feed(self, shards: Collection[int]) -> None:
        self.fed = set(shards)

    def release_claims(self, shards: Collection[int]) -> None:
        self.rows.released.append(set(shards))

    # --- for tests -------------------------------------------------------------------------------

    def show(self) -> None:
        """Acquire what is free, and report a view."""
        rows, me = self.rows, self.current.holder
        if me not in rows.members or self._seen is None:
            return
        if self.member.serves and not self._is_retired:
            serving = [each for each in rows.members.values() if each.serves]
            share = -(-SHARDS // len(serving))
            wanted = share - rows.owners.count(me)
            for shard in [n for n, owner in enumerate(rows.owners) if owner is None]:
                if wanted > 0:
                    rows.owners[shard] = me
                    rows.terms[shard] += 1
                    wanted -= 1
        self._views += 1
        settled, self._settled = frozenset(self._settled), set()
        self._seen(
            View(
                self._views,
                dict(rows.members),
                tuple(rows.owners),
                tuple(rows.terms),
                self._looks,
                settled,
            )
        )

    def expire(self) -> None:
        """The lease is over, which nothing has noticed yet; others may remove the member."""
        self.current.is_over = True

    def lose(self) -> None:
        """The member was removed, and learns of it."""
        self.expire()
        self.rows.remove(self.current.holder)
        assert self._lost is not None
        self._lost(self.current, "on purpose")

    def close(self) -> None:
        self.rows.memberships.remove(self)
        self.expire()
        self.rows.remove(self.current.holder)
        self.rows.look()


class MemberWriter(ForwardingWriter):
    """The writing side of a member. Closing it leaves ``inner`` open."""

    def __init__(self, membership: FakeMembership, inner: Writer) -> None:
        super().__init__(inner)
        self._membership = membership

    @property
    def membership(self) -> FakeMembership:
        return self._membership

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if self._membership.current.holder not in self._membership.rows.members:
            raise LeaseOver("the node was removed")
        return super().commit(batch, now)

    def close(self) -> None:
        self._membership.close()


class _SharedReader(FedReader):
    """Closing it leaves ``inner`` open."""

    def close(self) -> None:
        pass


class SharedMemory(SharedStorage):
    """The storage of one member."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.membership: FakeMembership | None = None

    @property
    def location(self) -> str:
        return ":shared:"

    @property
    def keeps_messages(self) -> bool:
        return True

    def open_writer(self) -> Writer:
        raise NotImplementedError

    def open_member(self, member: NewMember) -> Writer:
        self.membership = FakeMembership(self.rows, member)
        return MemberWriter(self.membership, self.rows.writer)

    def open_reader(self) -> Reader:
        return _SharedReader(self.is_fed, self.rows.reader)

    def is_fed(self, object_id: str) -> bool:
        """True if the object is in a shard that this member is fed."""
        assert self.membership is not None
        return self.membership.shard_of(object_id) in self.membership.fed

    def list_members(self) -> list[MemberRow]:
        owned = Counter(self.rows.owners)
        members = self.rows.members.values()
        return [MemberRow(each, "default", owned[each.node_id]) for each in members]


@attrs.frozen
class Node:
    """A member, and its rows."""

    runtime: DurableRuntime
    membership: FakeMembership


@asynccontextmanager
async def node(rows: Rows, **settings: Any) -> AsyncIterator[Node]:
    """A member of a cluster."""
    storage = SharedMemory(rows)
    settings.setdefault("cluster", Cluster())
    async with DurableRuntime(storage, runner=InlineRunner, **settings) as runtime:
        assert storage.membership is not None
        yield Node(runtime, storage.membership)


@asynccontextmanager
async def nodes(count: int = 2, **settings: Any) -> AsyncIterator[list[Node]]:
    """Members of one cluster."""
    rows = Rows()
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node(rows, **settings)) for _ in range(count)]
