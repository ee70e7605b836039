"""Sharing: the part of a runtime that shares its storage with the runtimes of other processes."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .._activations.directory import Directory
from .._activations.object_type import ObjectType
from .._activations.services import Services
from .._cluster.call_codec import CallCodec
from .._cluster.file_cluster import FileCluster
from .._cluster.handles import Handles
from .._cluster.nodes import Node
from .._cluster.routed_calls import RoutedCalls
from .._cluster.router import Router
from .._cluster.service import Service, Targets
from .._eventloop.tasks import OwnTasks
from .host import Host
from .settings import ClusterOnFile
from .sides import Sides

_FRAME_MARGIN = 4096
"""Bytes of a message beside arguments or a reply: type, id and handler, which are bounded."""


class Sharing:
    """The cluster of one runtime.

    Args:
        given: The user's settings, and the file.
        node_id: The runtime's id.
        services: The runtime's parts.
        host: The runtime's host.
        sides: The storage.
        tasks: Runs the tasks that outlive the runtime's own, until `leave`.
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
        *,
        owns: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.router = Router(services.loop, services.deadlines, services.output_gate)
        self._given = given
        self._node_id = node_id
        self._services = services
        self._host = host
        self._sides = sides
        self._tasks = tasks
        self._owns = owns
        self._failed = failed
        self._cluster: FileCluster | None = None

    def prepare(self, targets: Targets) -> None:
        """Make what `enter` needs.

        Args:
            targets: The objects, for requests of the other processes.
        """
        services, sides = self._services, self._sides
        service = Service(services, targets, self.router, self._tasks.start)
        self._cluster = FileCluster(
            services.loop,
            self._tasks,
            services.tasks,
            services.deadlines,
            self.router,
            self._given.settings,
            self._given.path,
            self._node_id,
            acquire=sides.acquire,
            release=sides.writing.close_early,
            owns=self._owns,
            join=sides.open_reader,
            in_thread=sides.writing.runner.run,
            serve=service.serve,
            answered=service.answered,
            failed=self._failed,
        )

    async def enter(self) -> None:
        """Become the owner of the storage, or find it. See `FileCluster.enter`."""
        with self._host.opening():
            await self._prepared.enter()

    @property
    def _prepared(self) -> FileCluster:
        assert self._cluster is not None
        return self._cluster

    def serve(self, object_type: ObjectType, handles: Handles) -> tuple[Directory, RoutedCalls]:
        """Serve the objects of one more type, here or in another process.

        Args:
            object_type: The type.
            handles: The handles of the runtime.

        Raises:
            DefinitionError: Values of a handler can't be sent to another process.
        """
        codec = CallCodec(object_type, handles, self._given.settings.max_frame - _FRAME_MARGIN)
        directory = Directory(attrs.evolve(object_type, exchange=codec), self._services)
        return directory, RoutedCalls(directory, self._services, self.router, codec)

    def nodes(self) -> list[Node]:
        """See `FileCluster.nodes`."""
        return self._prepared.nodes()

    def retire(self) -> None:
        """Take nothing over any more: the runtime closes."""
        if self._cluster is not None:
            self._cluster.retire()

    async def leave(self) -> None:
        """Say goodbye to the other processes, behind all answers."""
        self.router.close(self._services.closed_error)
        if self._cluster is not None:
            with self._host.closing():
                await self._cluster.leave()
        self._tasks.cancel()
        with self._host.closing():
            await self._tasks.wait()

    def forked(self) -> None:
        """The process is a forked one. See `FileCluster.forked`."""
        if self._cluster is not None:
            self._cluster.forked()
