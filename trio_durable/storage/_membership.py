"""Membership: a writer's place among the runtimes of a storage, and its leases.

A storage that is its writer's until that is closed, such as a locked file, has none of it.

Members of a cluster divide the objects of a storage by shards. All that a member knows of the
others comes from the storage, as a `View`: the owner of each shard, as of one read. Each shard
has a term, which grows with each change of its owner. A shard without an owner is acquired by any
member that serves; a shard with an owner changes it only when the owner gives it away, or when the
owner is removed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs

from .._clock import boot_time


class Lease(ABC):
    """The time in which a writer's runtime owns the objects of its storage.

    A lease that is over stays over. Until then no other runtime has another one. Used from any
    thread.
    """

    __slots__ = ("valid_until",)

    valid_until: float
    """Its end unless it is renewed, in seconds of the machine's boot-time clock (CLOCK_BOOTTIME,
    or Python's monotonic clock where there is none). Once it is over it is in the past for good.

    It is an attribute because each reply is compared with it."""

    @property
    @abstractmethod
    def holder(self) -> str:
        """The id of its holder, which no other holder ever has."""

    def is_valid(self) -> bool:
        """True if it isn't over. Doesn't block."""
        return boot_time() < self.valid_until


class Membership(ABC):
    """A writer's place among the runtimes of a storage, where that can be lost.

    It holds one `Lease` after the other, and renews each in a thread of its own. When a lease is
    over, the runtime's memory may be older than the storage, and the writer applies
    nothing until there is the next lease.
    """

    @property
    @abstractmethod
    def lease(self) -> Lease:
        """The latest lease. From any thread."""

    @abstractmethod
    def follow(
        self, post: Callable[[Callable[[], object]], object], lost: Callable[[Lease, str], object]
    ) -> None:
        """Renew the lease for as long as the event loop runs, and report its end.

        Called once, by a runtime that has opened the writer.

        Args:
            post: Calls a function in the event loop, from any thread.
            lost: Called from any thread when a lease is over, once for each, with the reason.
        """

    @abstractmethod
    def rejoin(self) -> None:
        """Get the next lease, as a new holder. Called in the writer's thread. May take long.

        Raises:
            StorageInUse: Another runtime owns the storage.
            StorageUnavailable: It can't be had now.
        """


@attrs.frozen
class NewMember:
    """A runtime that joins a cluster."""

    group: str
    """The group whose objects it shares. Groups have nothing to do with each other."""
    address: str | None
    """Where the other members reach it; None for one that only calls."""
    serves: bool
    """It may own shards."""
    ttl: float
    """Seconds without a renewal after which others may remove it."""
    types: Mapping[str, int]
    """The schema versions of its object types, by stored name."""
    release: int
    """The application's own release number; 0 if it gives none."""


@attrs.frozen
class Member:
    """A member of a cluster, as the storage knows it."""

    node_id: str
    host: str
    pid: int
    library: str
    """Its release of trio_durable."""
    address: str | None
    serves: bool
    is_leaving: bool
    """It gives its shards away, and gets none."""
    types: Mapping[str, int]
    release: int
    age: float = attrs.field(eq=False)
    """Seconds since its last renewal, by the storage's clock; for messages only."""


@attrs.frozen
class MemberRow:
    """A runtime of a storage that several may share, with the storage's knowledge of it."""

    member: Member
    group: str | None
    """The group that it is a member of; None for one that owns all objects alone."""
    shards: int
    """The number of shards that it owns; 1 for one that owns all objects alone."""


def newest(members: Iterable[Member]) -> list[str]:
    """The ids of the members that may get shards, in order.

    These serve, don't leave, and aren't older than another one, by the schema of a type or by the
    application's release. If each is older than another one, all of them may.
    """
    up = [member for member in members if member.serves and not member.is_leaving]
    release = max((member.release for member in up), default=0)
    schemas: dict[str, int] = {}
    for member in up:
        for name, version in member.types.items():
            schemas[name] = max(version, schemas.get(name, 0))
    found = [
        member
        for member in up
        if member.release == release
        and all(version == schemas[name] for name, version in member.types.items())
    ]
    return sorted(member.node_id for member in found or up)


@attrs.frozen
class View:
    """The members of a group and the owners of its shards, as of one read of the storage."""

    number: int
    """The number of the view; later ones of a membership have higher numbers."""
    members: Mapping[str, Member]
    """The members, by id."""
    owners: Sequence[str | None]
    """The id of each shard's owner."""
    terms: Sequence[int]
    """The term of each shard."""
    looked: int = 0
    """The number of the latest `ClusterMembership.look` before the storage was read."""
    settled: Collection[int] = ()
    """The shards that were to be given away, and whose owners in this view are the outcome."""

    def takers(self) -> list[str]:
        """The ids of the members that may get shards, see `newest`."""
        return newest(self.members.values())


class ClusterMembership(Membership):
    """The membership of a runtime that shares the objects of a storage with others.

    Each lease is that of another member, and each has views of its own: the shards that the former
    member owned have no owner when its successor joins. No view of a former lease comes after
    `rejoin` has returned.
    """

    @property
    @abstractmethod
    def shards(self) -> int:
        """The number of shards, of all members of the storage."""

    @property
    @abstractmethod
    def secret(self) -> bytes:
        """The secret that the members prove to each other."""

    @abstractmethod
    def shard_of(self, object_id: str) -> int:
        """The shard of an object, whatever its type and tenant. From any thread."""

    @abstractmethod
    def watch(self, seen: Callable[[View], object]) -> None:
        """Acquire shards and report views from now on. Called before `follow`.

        Args:
            seen: Called in the event loop with each view, in order.
        """

    @abstractmethod
    def look(self) -> int:
        """Read the storage soon, as it may have changed. From the event loop, never blocks.

        Returns:
            The number of this look, higher than those before. A view follows whose `View.looked` is
            at least that, even if nothing has changed.
        """

    @abstractmethod
    def give(self, shards: Mapping[int, int], to: str) -> None:
        """Give shards to another member soon. From the event loop, never blocks.

        The runtime has dropped all that it had of their objects. A later view has the shards among
        its `View.settled`, and the runtime serves nothing of them until then.

        Args:
            shards: The terms of the shards, as the runtime knows them.
            to: The id of the member.
        """

    @abstractmethod
    def retire(self) -> None:
        """Acquire nothing any more, and get nothing: the runtime closes. Never blocks."""

    @abstractmethod
    def feed(self, shards: Collection[int]) -> None:
        """Let the reader's horizon feed return the alarms of these shards alone, from now on.

        Until the first call it returns none. From the event loop, never blocks.
        """

    @abstractmethod
    def release_claims(self, shards: Collection[int]) -> None:
        """End the claims of alarms in shards that were acquired, as if they had run out.

        Called in the writer's thread, before their alarms are fed.

        Raises:
            StorageFault: Some may be held still, until they run out.
        """
