"""Leasing: the leases under which a runtime serves its objects, and the loss of one.

From the moment at which a lease is over nothing in memory may leave, see `Tenure`. Then
all objects leave memory in one step of the event loop: their turns are cancelled, their callers get
`OwnerLost`, and commits that weren't written are forgotten. Only after that the writer joins again.
So no commit of one lease is written under the next, whose rows may look the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from .._activations.directory import Directory
from .._activations.services import Services
from .._activations.tenure import Tenure
from .._errors import OwnerLost, SchemaTooNew, StorageInUse, StorageUnavailable
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from ..storage import Lease, Membership, Storage, StorageFault

logger = logging.getLogger("trio_durable")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts to join again. Each pause is twice as long as the one before."""


class Leasing:
    """The leases of one runtime.

    Args:
        services: The runtime's parts, which get a tenure.
        storage: The storage.
        membership: The writer's.
        runner: The writer's.
        directories: The objects in memory.
        began: Called in the loop at the beginning of each further lease.
        lost: Called in the loop at the end of each, before the objects leave memory.
    """

    def __init__(
        self,
        services: Services,
        storage: Storage,
        membership: Membership,
        runner: Runner,
        directories: Sequence[Directory],
        *,
        began: Callable[[Lease], object],
        lost: Callable[[], object],
    ) -> None:
        self._services = services
        self._storage = storage
        self._membership = membership
        self._runner = runner
        self._directories = directories
        self._tenure = Tenure(services.loop, services.deadlines, membership.lease)
        services.tenure = self._tenure
        self._on_begin = began
        self._on_loss = lost

    def start(self) -> None:
        """Renew the lease, and watch for its end."""
        self._membership.follow(self._services.loop.call_soon_threadsafe, self._lost)

    def _lost(self, lease: Lease, problem: str) -> None:
        """A lease is over. In any thread."""
        self._services.loop.call_soon_threadsafe(self._depose, lease, problem)

    def _depose(self, lease: Lease, problem: str) -> None:
        """Give up all objects."""
        services = self._services
        if services.closed or lease is not self._tenure.lease:
            return
        logger.warning(
            "%s: the lease of this process is over (%s); its objects leave memory, and it joins "
            "again",
            *(self._storage.location, problem),
        )
        self._on_loss()
        lost = [each for directory in self._directories for each in directory.activations()]
        services.group_commit.depose(
            [activation.state for activation in lost],
            lambda owner: OwnerLost(owner.key, "save", problem),
        )
        for activation in lost:
            activation.depose(partial(_owner_lost, activation.key, problem))
        if not services.closing:
            services.tasks.start(self._rejoin, "trio_durable leasing")

    async def _rejoin(self) -> None:
        """Get the next lease, as another node."""
        services, location = self._services, self._storage.location
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._runner.run(self._membership.rejoin)
                break
            except (StorageInUse, SchemaTooNew) as error:
                services.end(error)
                return
            except (StorageUnavailable, StorageFault) as error:
                logger.warning("%s: couldn't join again, and tries once more: %s", location, error)
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        lease = self._membership.lease
        self._tenure.begin(lease)
        self._on_begin(lease)
        logger.info("%s: joined again as node %s", location, lease.holder)


def _owner_lost(key: ObjectKey, problem: str, name: str) -> OwnerLost:
    return OwnerLost(key, name, problem)
