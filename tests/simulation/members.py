"""Members of a simulated cluster: their leases and shards as a database has them, in virtual time.

A member renews its lease by beats, which take their time and may fail like all requests to the
storage. A member whose renewals stand still for its whole TTL is removed by another one, and then
nothing that it writes is applied: the fence. All else is the library's own.

Trade-off: claims of alarms aren't released when a shard is taken over. They run out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import anyio
import attrs
from support.fed_reader import FedReader

from trio_durable.storage import (
    ClusterMembership,
    Lease,
    LeaseOver,
    Member,
    MemberRow,
    Membership,
    NewMember,
    Reader,
    SharedStorage,
    StorageFault,
    View,
    Writer,
)

from .intercepted import MountedWriter
from .network import Side
from .storage import Mounted

if TYPE_CHECKING:
    from .world import Process

T = TypeVar("T")

SHARDS = 4
"""More than there are ids of objects, each of which has a shard of its own."""
TTL = 1.0
_VALID = 0.8
"""The part of the TTL for which a lease is valid."""
_BEATS = 4
"""In a TTL."""
_AGAIN_SECONDS = 0.1
"""After a beat that has failed."""

Post = Callable[[Callable[[], object]], object]
Lost = Callable[[Lease, str], object]


def shard_of(object_id: str) -> int:
    return sum(object_id.encode()) % SHARDS


class MemberRows:
    """The rows of the members and the shards."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.renewals: dict[str, int] = {}
        self.owners: list[str | None] = [None] * SHARDS
        self.terms = [0] * SHARDS
        self.gone: set[str] = set()
        """Members whose death is proved, as it is on the same machine."""
        self._numbers = count(1)

    def join(self, new: NewMember) -> str:
        node_id = f"{next(self._numbers):08x}-0000-4000-8000-000000000000"
        self.members[node_id] = Member(
            node_id,
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
        self.renewals[node_id] = 0
        return node_id

    def remove(self, node_id: str) -> None:
        self.members.pop(node_id, None)
        self.renewals.pop(node_id, None)
        self.owners = [None if owner == node_id else owner for owner in self.owners]

    def check(self, node_id: str) -> None:
        """The fence: nothing is written for a member that was removed."""
        if node_id not in self.members:
            raise LeaseOver("the node was removed")

    def acquire(self, node_id: str) -> None:
        """Acquire shards that have no owner, up to the member's share."""
        takers = View(0, self.members, self.owners, self.terms).takers()
        if node_id not in takers:
            return
        share = -(-SHARDS // len(takers))
        for shard, owner in enumerate(self.owners):
            if owner is None and self.owners.count(node_id) < share:
                self._own(shard, node_id)

    def give(self, shard: int, term: int, by: str, to: str) -> None:
        receiver = self.members.get(to)
        is_given = self.owners[shard] == by and self.terms[shard] == term
        if is_given and receiver is not None and not receiver.is_leaving:
            self._own(shard, to)

    def _own(self, shard: int, node_id: str) -> None:
        self.owners[shard] = node_id
        self.terms[shard] += 1


class SimulatedLease(Lease):
    """Valid until some time, and for no longer once that has come."""

    __slots__ = ("_holder", "is_reported")

    def __init__(self, holder: str, valid_until: float) -> None:
        self._holder = holder
        self.valid_until = valid_until
        self.is_reported = False

    @property
    def holder(self) -> str:
        return self._holder

    def renew(self, sent_at: float) -> None:
        self.valid_until = max(self.valid_until, sent_at + _VALID * TTL)

    @property
    def is_over(self) -> bool:
        if anyio.current_time() >= self.valid_until:
            self.valid_until = -math.inf
        return self.valid_until == -math.inf


@attrs.define
class _Silence:
    """The renewals of another member, and since when they stand still."""

    renewals: int
    since: float


class SimulatedMembership(ClusterMembership):
    """The membership of one process, which beats on a connection of its own.

    Args:
        process: The process.
        new: What it is.
    """

    def __init__(self, process: Process, new: NewMember) -> None:
        self._process = process
        self._new = new
        self._rows = process.world.members
        self._side = Side(process.world.network, process)
        self.fed: set[int] = set()
        self._silences: dict[str, _Silence] = {}
        self._gifts: dict[int, tuple[int, str]] = {}
        """By shard: its term, and who is to get it."""
        self._views = self._looks = 0
        self._is_retired = self._is_closed = self._is_beating = False
        self._beats_at = math.inf
        self._seen: Callable[[View], object] | None = None
        self._post: Post | None = None
        self._on_loss: Lost | None = None
        self._lease = self._join()

    def _join(self) -> SimulatedLease:
        return SimulatedLease(self._rows.join(self._new), anyio.current_time() + _VALID * TTL)

    # --- the contract ----------------------------------------------------------------------------

    @property
    def lease(self) -> SimulatedLease:
        return self._lease

    def follow(self, post: Post, lost: Lost) -> None:
        self._post, self._on_loss = post, lost
        self._watch_lease(self._lease)
        self._beat_at(anyio.current_time())

    def rejoin(self) -> None:
        if self._process.is_dead:
            raise StorageFault("the process is dead")
        self._rows.remove(self._lease.holder)
        self.fed.clear()
        self._gifts.clear()
        self._silences.clear()
        self._lease = self._join()
        self._watch_lease(self._lease)
        self._beat_at(anyio.current_time())

    @property
    def shards(self) -> int:
        return SHARDS

    @property
    def secret(self) -> bytes:
        return b"x" * 32

    def shard_of(self, object_id: str) -> int:
        return shard_of(object_id)

    def watch(self, seen: Callable[[View], object]) -> None:
        self._seen = seen

    def look(self) -> int:
        self._looks += 1
        if self._post is not None:
            self._beat_at(anyio.current_time())
        return self._looks

    def give(self, shards: Mapping[int, int], to: str) -> None:
        self._gifts.update({shard: (term, to) for shard, term in shards.items()})
        self.look()

    def retire(self) -> None:
        self._is_retired = True
        self.look()

    def feed(self, shards: Collection[int]) -> None:
        self.fed = set(shards)

    def release_claims(self, shards: Collection[int]) -> None:
        self._process.call_storage("release_claims", lambda: None)

    def close(self) -> None:
        """Leave. In the writer's thread."""
        self._is_closed = True
        if not self._process.is_dead:
            self._rows.remove(self._lease.holder)

    # --- beats -----------------------------------------------------------------------------------

    def _beat_at(self, at: float) -> None:
        if at < self._beats_at:
            self._beats_at = at
            self._process.world.network.post(at, lambda: self._beat(at))

    def _beat(self, at: float) -> None:
        if at != self._beats_at or self._is_over:
            return
        if self._is_beating:  # `_end_beat` goes on
            return
        self._beats_at, self._is_beating = math.inf, True
        lease, looked, sent_at = self._lease, self._looks, anyio.current_time()
        gifts = dict(self._gifts)
        self._side.post_work(lambda: self._do_beat(lease, looked, sent_at, gifts))

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._process.is_dead

    def _do_beat(
        self,
        lease: SimulatedLease,
        looked: int,
        sent_at: float,
        gifts: Mapping[int, tuple[int, str]],
    ) -> None:
        """At the database."""
        found: View | None = None
        is_removed = False
        if not self._is_over:
            try:
                found = self._process.call_storage(
                    "beat", lambda: self._look_at_rows(lease.holder, looked, gifts)
                )
                is_removed = found is None
            except StorageFault:
                self._silences.clear()
        self._side.post_answer(lambda: self._end_beat(lease, looked, sent_at, found, is_removed))

    def _look_at_rows(
        self, holder: str, looked: int, gifts: Mapping[int, tuple[int, str]]
    ) -> View | None:
        rows = self._rows
        if holder not in rows.members:
            return None
        rows.renewals[holder] += 1
        if self._is_retired:
            rows.members[holder] = attrs.evolve(rows.members[holder], is_leaving=True)
        for shard, (term, to) in gifts.items():
            rows.give(shard, term, holder, to)
        self._remove_dead(holder)
        rows.acquire(holder)
        self._views += 1
        return View(
            self._views,
            dict(rows.members),
            tuple(rows.owners),
            tuple(rows.terms),
            looked,
            frozenset(gifts),
        )

    def _remove_dead(self, me: str) -> None:
        rows, now = self._rows, anyio.current_time()
        before, self._silences = self._silences, {}
        for node_id, renewals in list(rows.renewals.items()):
            if node_id == me:
                continue
            silence = before.get(node_id)
            if silence is None or silence.renewals != renewals:
                silence = _Silence(renewals, now)
            if node_id in rows.gone or now - silence.since >= TTL:
                rows.remove(node_id)
            else:
                self._silences[node_id] = silence

    def _end_beat(
        self,
        lease: SimulatedLease,
        looked: int,
        sent_at: float,
        view: View | None,
        is_removed: bool,
    ) -> None:
        """In the process."""
        self._is_beating = False
        if self._is_over:
            return
        if lease is self._lease:
            if is_removed:
                lease.valid_until = -math.inf
                self._report(lease, "the node was removed")
            elif view is not None and not lease.is_over:
                lease.renew(sent_at)
                for shard in view.settled:
                    self._gifts.pop(shard, None)
                if self._seen is not None:
                    self._seen(view)
        now = anyio.current_time()
        if view is None:
            next_at = now + _AGAIN_SECONDS
        elif self._looks > looked or lease is not self._lease:
            next_at = now
        else:
            next_at = max(now, sent_at + TTL / _BEATS)
        self._beats_at = math.inf
        self._beat_at(next_at)

    # --- the end of a lease ----------------------------------------------------------------------

    def _watch_lease(self, lease: SimulatedLease) -> None:
        def look() -> None:
            if self._is_over or lease is not self._lease:
                return
            if lease.is_over:
                self._report(lease, "it wasn't renewed in time")
            else:
                self._process.world.network.post(lease.valid_until, look)

        look()

    def _report(self, lease: SimulatedLease, problem: str) -> None:
        """Let the runtime know, which may take a while as everything does."""
        on_loss = self._on_loss
        if lease.is_reported or on_loss is None:
            return
        lease.is_reported = True
        self._process.world.leases_lost += 1
        self._side.post_answer(lambda: None if self._is_over else on_loss(lease, problem))


class MemberStorage(Mounted, SharedStorage):
    """The database as a member of a cluster sees it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self._membership: SimulatedMembership | None = None

    def open_member(self, member: NewMember) -> Writer:
        self._membership = SimulatedMembership(self._process, member)
        return _MemberWriter(self._membership, super().open_writer())

    def open_reader(self) -> Reader:
        return FedReader(self.is_fed, super().open_reader())

    def prove_death(self) -> None:
        """Let the other members know that the process has ended."""
        membership = self._membership
        if membership is not None:
            self._process.world.members.gone.add(membership.lease.holder)

    def is_fed(self, object_id: str) -> bool:
        membership = self._membership
        return membership is not None and shard_of(object_id) in membership.fed

    def list_members(self) -> list[MemberRow]:
        rows = self._process.world.members
        return [
            MemberRow(member, "default", rows.owners.count(member.node_id))
            for member in rows.members.values()
        ]


class _MemberWriter(MountedWriter):
    """Writes nothing for a member that was removed."""

    def __init__(self, membership: SimulatedMembership, inner: Writer) -> None:
        super().__init__(inner, self._check)
        self._membership = membership

    def _check(self, kind: str, work: Callable[[], T], /) -> T:
        self._membership._rows.check(self._membership.lease.holder)
        return work()

    @property
    def membership(self) -> Membership:
        return self._membership

    def close(self) -> None:
        self._membership.close()
