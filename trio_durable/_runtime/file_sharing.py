"""File sharing: the part of a runtime that shares an SQLite file with other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._activations.services import Services
from .._cluster.file_cluster import FileCluster
from .._cluster.nodes import Node
from .._cluster.places import OnePlace
from .._cluster.router import Router
from .._cluster.service import Service, Targets
from .._eventloop.tasks import OwnTasks
from .host import Host
from .settings import ClusterOnFile
from .sharing import Sharing
from .sides import Sides


class FileSharing(Sharing):
    """The cluster of one runtime on a file.

    Args:
        given: The user's settings, and the file.
        node_id: The runtime's id.
        services: The runtime's parts.
        host: The runtime's host.
        sides: The storage.
        tasks: Runs the tasks that outlive the runtime's own, until `leave`.
        targets: The objects, for requests of the other processes.
        owns: Called when the objects are in this process.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        given: ClusterOnFile,
        node_id: str,
        services: Services,
        host: Host,
        sides: Sides,
        tasks: OwnTasks,
        targets: Targets,
        *,
        owns: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        places = OnePlace()
        router = Router(services.loop, services.deadlines, services.output_gate, places)
        super().__init__(router, given.settings, services, host, tasks)
        self.service = service = Service(services, targets, places, tasks.start)
        self._places = places
        self._cluster = FileCluster(
            services.loop,
            tasks,
            services.tasks,
            services.deadlines,
            places,
            given.settings,
            given.path,
            node_id,
            acquire=sides.acquire,
            release=sides.writing.close_early,
            owns=owns,
            join=sides.open_reader,
            in_thread=sides.writing.runner.run,
            serve=service.serve,
            answered=service.answered,
            failed=failed,
        )

    @property
    def is_central(self) -> bool:
        """See `Sharing.is_central`."""
        return True

    async def enter(self) -> None:
        """See `Sharing.enter`, and `FileCluster.enter`."""
        with self._host.opening():
            await self._cluster.enter()

    async def ask_all(self, request: str, arguments: Sequence[object], timeout: float) -> list[Any]:
        """See `Sharing.ask_all`: the owner has all objects."""
        return await self._cluster.ask_all(request, arguments, timeout)

    @property
    def shards(self) -> int:
        """See `Sharing.shards`."""
        return int(self._places.is_owner)

    def nodes(self) -> list[Node]:
        """See `Sharing.nodes`."""
        return self._cluster.nodes()

    def retire(self) -> None:
        """See `Sharing.retire`."""
        self._cluster.retire()

    async def _leave(self) -> None:
        await self._cluster.leave()

    def forked(self) -> None:
        """See `Sharing.forked`."""
        self._cluster.forked()
