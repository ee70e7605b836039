"""Sharing: the part of a runtime that shares its storage with the runtimes of other processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs

from .._activations.directory import Directory
from .._activations.object_type import ObjectType
from .._activations.services import Services
from .._cluster.call_codec import CallCodec
from .._cluster.file_cluster import FileCluster
from .._cluster.handles import Handles
from .._cluster.nodes import Node
from .._cluster.places import OnePlace
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
        self.router = Router(services.loop, services.deadlines, services.output_gate, places)
        self._given = given
        self._services = services
        self._host = host
        self._tasks = tasks
        service = Service(services, targets, places, tasks.start)
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

    async def enter(self) -> None:
        """Become the owner of the storage, or find it. See `FileCluster.enter`."""
        with self._host.opening():
            await self._cluster.enter()

    def routed(
        self, object_type: ObjectType, handles: Handles
    ) -> tuple[ObjectType, Callable[[Directory, Services], RoutedCalls]]:
        """A type of objects that live here or in another process, and the path of their calls.

        Args:
            object_type: The type.
            handles: The handles of the runtime.

        Raises:
            DefinitionError: Values of a handler can't be sent to another process.
        """
        codec = CallCodec(object_type, handles, self._given.settings.max_frame - _FRAME_MARGIN)
        path = partial(RoutedCalls, router=self.router, codec=codec)
        return attrs.evolve(object_type, exchange=codec), path

    def nodes(self) -> list[Node]:
        """See `FileCluster.nodes`."""
        return self._cluster.nodes()

    def retire(self) -> None:
        """Take nothing over any more: the runtime closes."""
        self._cluster.retire()

    async def leave(self) -> None:
        """Say goodbye to the other processes, behind all answers."""
        self.router.close(self._services.closed_error)
        with self._host.closing():
            await self._cluster.leave()
        self._tasks.cancel()
        with self._host.closing():
            await self._tasks.wait()

    def forked(self) -> None:
        """The process is a forked one. See `FileCluster.forked`."""
        self._cluster.forked()
