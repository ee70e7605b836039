"""Hand-over: gives shards to other members, some at a time, while calls go on.

A shard is closed, its objects leave memory when their turns have ended and their commits are
durable, and then the storage changes its owner. Callers of the shard wait meanwhile, and go to the
new owner with the next view. Few shards are closed at a time, so that no caller waits for long.

A shard with a turn that doesn't end stays, and is tried again later; the others move on. A member
that leaves waits for such turns as long as its grace period allows.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

import anyio

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .balance import plan
from .shard_map import ShardMap

logger = logging.getLogger("trio_durable.cluster")

SHARDS_AT_A_TIME = 16
OBJECTS_PER_SLICE = 256
"""How many objects are sent away without a checkpoint."""
PATIENCE_SECONDS = 1.0
"""How long a shard may stay closed because of a turn that runs."""
RETRY_SECONDS = 60.0
"""When a shard that stayed is tried again."""
_LOOK_SECONDS = 0.05
"""The interval at which objects that stay are asked again to leave."""


class HandOver:
    """The hand-overs of one member. One runs at a time.

    Args:
        loop: The event loop.
        shard_map: The shards.
        closing: Called with shards that are closed, whose alarms are delivered no more.
        reopened: Called with those that stay.
    """

    def __init__(
        self,
        loop: Loop,
        shard_map: ShardMap,
        closing: Callable[[list[int]], object],
        reopened: Callable[[list[int]], object],
    ) -> None:
        self._loop = loop
        self._map = shard_map
        self._closing = closing
        self._reopened = reopened
        self._changed = AutoResetEvent(loop)
        shard_map.emptied = self._changed.set
        self._stayed: dict[int, float] = {}
        """The shards that stayed, and when they are tried again."""
        self._is_leaving = False
        self._all_given = anyio.Event()

    def adopted(self) -> None:
        """There is a new view."""
        self._changed.set()

    async def run(self) -> None:
        """Give shards away whenever another member should have them; all of them after `give_all`.

        Runs until it is cancelled, or has given all away.
        """
        while not self._is_done():
            chosen = self._chosen()
            if chosen:
                await self._give(chosen)
            else:
                now = self._loop.now()
                later = (at for at in self._stayed.values() if at > now)
                due = min(later, default=now + RETRY_SECONDS)
                await self._changed.wait(max(due - now, _LOOK_SECONDS))
        self._all_given.set()

    async def give_all(self) -> None:
        """Give all shards to others, and return when that is done. The member has retired."""
        self._is_leaving = True
        self._stayed.clear()
        self._changed.set()
        await self._all_given.wait()

    def _is_done(self) -> bool:
        """True if this member leaves, and has no more shards, or there is no other to get them."""
        return self._is_leaving and not (self._map.owned and self._has_takers())

    def _has_takers(self) -> bool:
        view = self._map.view
        return view is not None and any(
            member.serves and not member.is_leaving and node_id != self._map.me
            for node_id, member in view.members.items()
        )

    def _chosen(self) -> dict[int, str]:
        """The next shards to give away, and to whom."""
        view = self._map.view
        if view is None:
            return {}
        now, chosen = self._loop.now(), {}
        planned = plan(view, self._map.me)
        for shard in sorted(planned, key=lambda shard: self._stayed.get(shard, 0.0)):
            if self._map.is_moving(shard) or self._stayed.get(shard, now) > now:
                continue
            chosen[shard] = planned[shard]
            if len(chosen) == SHARDS_AT_A_TIME:
                break
        return chosen

    async def _give(self, chosen: dict[int, str]) -> None:
        shards, waiting = list(chosen), dict(chosen)
        self._closing(shards)
        self._map.close(shards)
        began = self._loop.now()
        until = began + PATIENCE_SECONDS
        while waiting and self._loop.now() < until:
            if self._map.view is None:
                return  # the lease is over
            await self._send_away(list(waiting))
            ready = defaultdict(list)
            for shard in list(waiting):
                if not self._map.residents(shard):
                    ready[waiting.pop(shard)].append(shard)
            for to, empty in ready.items():
                self._map.give(empty, to)
            if waiting:
                await self._changed.wait(_LOOK_SECONDS)
        if waiting:
            again_at = self._loop.now() + (_LOOK_SECONDS if self._is_leaving else RETRY_SECONDS)
            self._stayed.update(dict.fromkeys(waiting, again_at))
            self._map.reopen(waiting)
            self._reopened(list(waiting))
        while any(self._map.is_moving(shard) for shard in shards):
            await self._changed.wait()
        logger.info(
            "gave %d shards to %s in %.3f s; %d stay because of turns that run",
            *(len(shards) - len(waiting), ", ".join(sorted(set(chosen.values())))),
            *(self._loop.now() - began, len(waiting)),
        )

    async def _send_away(self, shards: list[int]) -> None:
        """Ask the objects of shards to leave memory; those that wait for a commit do so later."""
        asked = 0
        for shard in shards:
            for resident in self._map.residents(shard):
                resident.retire()
                asked += 1
                if asked % OBJECTS_PER_SLICE == 0:
                    await self._loop.checkpoint()
