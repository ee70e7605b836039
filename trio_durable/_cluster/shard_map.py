"""Shard map: the places of objects that the members of a cluster divide by shards.

It knows the owner of each shard from the latest `View`, and the objects that are in memory here. An
object in memory is this member's, so most calls need no look at the map.

A shard that this member gives away is closed first: nothing comes into memory any more, except for
turns that run here already, since their own objects may have to leave, too. When nothing of it is
left in memory it is given, and from then on no call is admitted until a view says who owns it.

Requests of other members about a shard that isn't here wait until this member has looked: either it
knows less than they do, or they less than it. So each hand-over costs a caller one answer *moved*
at most.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable

from .._activations.directory import Directory
from .._activations.placement import NotHere, Placed
from .._activations.wait_graph import running_turn
from .._keys import ObjectKey, id_at
from ..storage import ClusterMembership, View
from .peer import Peer
from .places import HERE, Here


class _Stage(enum.Enum):
    """The stage of a hand-over of one shard."""

    CLOSED = enum.auto()
    """Its objects leave memory."""
    GIVEN = enum.auto()
    """The storage was asked to change its owner."""


class ShardMap:
    """The `Places` and the `Placement` of a member.

    Args:
        membership: The membership.
        peer_of: Returns the connection to a member; None while there is none, which begins one.
    """

    def __init__(
        self, membership: ClusterMembership, peer_of: Callable[[str], Peer | None]
    ) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.emptied: Callable[[], object] = lambda: None
        """Called when the last object of a closed shard has left memory."""
        self._membership = membership
        self._peer_of = peer_of
        self.me = membership.lease.holder
        """The id of this member."""
        self.view: View | None = None
        """The latest view of the present lease."""
        self._here = bytearray(membership.shards)
        """1 for each shard that is served here."""
        self.moving: dict[int, _Stage] = {}
        """See `Places.moving`."""
        self._doubted: dict[int, int] = {}
        """For a shard that wasn't where the view says, the look that has to come first."""
        self._undecided: dict[int, list[tuple[int, Callable[[bool], object]]]] = {}
        """Requests about shards that aren't here, each with the look that decides."""
        self._residents: dict[int, dict[Placed, None]] = {}

    # --- see `Places` ----------------------------------------------------------------------------

    @property
    def are_all_here(self) -> bool:
        """See `Places.are_all_here`."""
        return False

    def is_here(self, directory: Directory, address: str) -> bool:
        """See `Places.is_here`."""
        if not self.moving and directory.find(address) is not None:
            return True
        return self._admits(self._shard_of(id_at(address)))

    def find(self, object_id: str) -> Peer | Here | None:
        """See `Places.find`."""
        shard = self._shard_of(object_id)
        if self._admits(shard):
            return HERE
        view = self.view
        if view is None:
            return None
        owner = view.owners[shard]
        if owner is None or owner == self.me:
            return None
        doubt = self._doubted.get(shard)
        if doubt is not None:
            if view.looked < doubt:
                return None
            del self._doubted[shard]
        return self._peer_of(owner)

    def tenure(self, object_id: str) -> object | None:
        """See `Places.tenure`."""
        shard, view = self._shard_of(object_id), self.view
        if view is None or not self._here[shard] or not self._membership.lease.is_valid():
            return None
        return self.me, view.terms[shard]

    def moved(self, object_id: str, peer: Peer) -> None:
        """See `Places.moved`."""
        shard = self._shard_of(object_id)
        doubt, view = self._doubted.get(shard), self.view
        if doubt is None or (view is not None and view.looked >= doubt):
            self._doubted[shard] = self._membership.look()

    def decide(self, object_id: str, decided: Callable[[bool], object]) -> None:
        """See `Places.decide`."""
        shard = self._shard_of(object_id)
        if self._here[shard]:
            decided(True)
        else:
            waiting = self._undecided.setdefault(shard, [])
            waiting.append((self._membership.look(), decided))

    # --- see `Placement` -------------------------------------------------------------------------

    def check(self, key: ObjectKey) -> None:
        """See `Placement.check`."""
        if not self._admits(self._shard_of(key.object_id)):
            raise NotHere(key)

    def entered(self, activation: Placed) -> None:
        """See `Placement.entered`."""
        shard = self._shard_of(activation.key.object_id)
        self._residents.setdefault(shard, {})[activation] = None

    def left(self, activation: Placed) -> None:
        """See `Placement.left`."""
        shard = self._shard_of(activation.key.object_id)
        residents = self._residents.get(shard)
        if residents is not None:
            residents.pop(activation, None)
            if not residents:
                del self._residents[shard]
                if shard in self.moving:
                    self.emptied()

    # --- changes ---------------------------------------------------------------------------------

    def begin(self, holder: str) -> None:
        """There is a new lease; nothing is here yet, and the views of the former one are over."""
        self.forget()
        self.me = holder

    def forget(self) -> None:
        """The lease is over: nothing is here any more."""
        self.view = None
        self._here = bytearray(len(self._here))
        self.moving.clear()
        self._doubted.clear()
        self.refuse_undecided()

    def adopt(self, view: View) -> list[int]:
        """Adopt a view. Returns the shards that are served here from now on."""
        self.view = view
        for shard in view.settled:
            self.moving.pop(shard, None)
        gained = []
        here, me = self._here, self.me
        for shard, owner in enumerate(view.owners):
            is_mine = owner == me and shard not in self.moving
            if is_mine and not here[shard]:
                here[shard] = 1
                gained.append(shard)
            elif here[shard] and not is_mine:
                here[shard] = 0
        self._decide()
        self.changed()
        return gained

    def _decide(self) -> None:
        """Decide the requests that were waiting for this view."""
        assert self.view is not None
        for shard in list(self._undecided):
            if shard in self.moving:
                continue  # the view that settles it decides
            waiting, is_here = self._undecided.pop(shard), bool(self._here[shard])
            kept = []
            for look, decided in waiting:
                if is_here or self.view.looked >= look:
                    decided(is_here)
                else:
                    kept.append((look, decided))
            if kept:
                self._undecided.setdefault(shard, []).extend(kept)

    def refuse_undecided(self) -> None:
        """Nothing will be here any more: refuse the requests that wait."""
        undecided, self._undecided = self._undecided, {}
        for waiting in undecided.values():
            for _, decided in waiting:
                decided(False)

    # --- hand-overs ------------------------------------------------------------------------------

    @property
    def owned(self) -> list[int]:
        """The shards that are served here."""
        return [shard for shard, is_here in enumerate(self._here) if is_here]

    def close(self, shards: Iterable[int]) -> None:
        """Close shards that are served here, for a hand-over."""
        for shard in shards:
            self._here[shard] = 0
            self.moving[shard] = _Stage.CLOSED

    def reopen(self, shards: Iterable[int]) -> None:
        """Serve closed shards again, which stay here."""
        for shard in shards:
            if self.moving.get(shard) is _Stage.CLOSED:
                del self.moving[shard]
                self._here[shard] = 1
        if self.view is not None:
            self._decide()
        self.changed()

    def residents(self, shard: int) -> list[Placed]:
        """The objects of a shard that are in memory."""
        return list(self._residents.get(shard, ()))

    def give(self, shards: Collection[int], to: str) -> None:
        """Ask the storage to give closed shards away, none of whose objects is in memory."""
        assert self.view is not None
        for shard in shards:
            self.moving[shard] = _Stage.GIVEN
        self._membership.give({shard: self.view.terms[shard] for shard in shards}, to)

    def is_moving(self, shard: int) -> bool:
        """True until the hand-over of a shard is settled."""
        return shard in self.moving

    # --- inside ----------------------------------------------------------------------------------

    def _shard_of(self, object_id: str) -> int:
        return self._membership.shard_of(object_id)

    def _admits(self, shard: int) -> bool:
        """True if an object of a shard may come into memory."""
        if self._here[shard]:
            return True
        return self.moving.get(shard) is _Stage.CLOSED and running_turn() is not None
