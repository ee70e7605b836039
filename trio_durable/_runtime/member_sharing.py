"""Member sharing: the part of a runtime that divides the objects of a database with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._activations.services import Services
from .._cluster.member_cluster import MemberCluster
from .._cluster.nodes import Node
from .._cluster.router import Router
from .._cluster.service import Service, Targets
from .._eventloop.tasks import OwnTasks
from ..storage import ClusterMembership, Lease
from .host import Host
from .settings import ClusterOfMembers
from .sharing import Sharing
from .sides import Sides


class MemberSharing(Sharing):
    """The cluster of one runtime on a database.

    Args:
        given: The user's settings, and the storage.
        services: The runtime's parts.
        host: The runtime's host.
        sides: The storage.
        tasks: Runs the tasks that outlive the runtime's own, until `leave`.
        targets: The objects, for requests of the other processes.
        fed: Called when the reader returns the alarms of other shards than before.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        given: ClusterOfMembers,
        services: Services,
        host: Host,
        sides: Sides,
        tasks: OwnTasks,
        targets: Targets,
        *,
        fed: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        membership = sides.writer.membership
        assert isinstance(membership, ClusterMembership)
        assert sides.endpoint is not None
        runner = sides.writing.runner
        self._cluster = MemberCluster(
            services,
            tasks,
            given.settings,
            given.storage.location,
            sides.endpoint,
            membership,
            serve=lambda incoming: service.serve(incoming),
            answered=lambda: service.answered(),
            release_claims=lambda shards: runner.run(lambda: membership.release_claims(shards)),
            fed=fed,
            failed=failed,
        )
        shard_map = self._cluster.shard_map
        services.placement = shard_map
        router = Router(
            services.loop, services.deadlines, services.output_gate, shard_map, services.tenure
        )
        super().__init__(router, given.settings, services, host, tasks)
        self.service = service = Service(services, targets, shard_map, tasks.start)

    @property
    def is_central(self) -> bool:
        """See `Sharing.is_central`."""
        return False

    async def enter(self) -> None:
        """See `Sharing.enter`."""
        with self._host.opening():
            await self._cluster.enter()

    def began(self, lease: Lease) -> None:
        """See `Sharing.began`."""
        self._cluster.begin(lease)

    def lost(self) -> None:
        """See `Sharing.lost`."""
        self._cluster.lost()

    def delivers(self, object_id: str) -> bool:
        """See `Sharing.delivers`."""
        return self._cluster.delivers(object_id)

    async def ask_all(self, request: str, arguments: Sequence[object], timeout: float) -> list[Any]:
        """See `Sharing.ask_all`."""
        return await self._cluster.ask_all(request, arguments, timeout)

    @property
    def shards(self) -> int:
        """See `Sharing.shards`."""
        return len(self._cluster.shard_map.owned)

    def nodes(self) -> list[Node]:
        """See `Sharing.nodes`."""
        return self._cluster.nodes()

    def retire(self) -> None:
        """See `Sharing.retire`."""
        self._cluster.retire()

    async def give_all(self) -> None:
        """See `Sharing.give_all`."""
        await self._cluster.give_all()

    async def _leave(self) -> None:
        await self._cluster.leave()

    def forked(self) -> None:
        """See `Sharing.forked`."""
        self._cluster.forked()
