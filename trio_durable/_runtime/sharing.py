"""Sharing: the part of a runtime that shares its storage with the runtimes of other processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import attrs

from .._activations.directory import Directory
from .._activations.object_type import ObjectType
from .._activations.services import Services
from .._cluster.call_codec import CallCodec
from .._cluster.handles import Handles
from .._cluster.news_codec import WATCH, WATCHED
from .._cluster.nodes import Node
from .._cluster.publisher import Publisher
from .._cluster.routed_calls import RoutedCalls
from .._cluster.routed_hub import RoutedHub
from .._cluster.router import Router
from .._cluster.service import Service
from .._cluster.settings import Cluster
from .._eventloop.tasks import OwnTasks
from .._watching.hub import Hub
from ..storage import Lease
from .host import Host

FRAME_MARGIN = 4096
"""Bytes of a message beside arguments or a reply: type, id and handler, which are bounded."""


class Sharing(ABC):
    """The cluster of one runtime.

    Args:
        router: The way to the objects of other processes.
        settings: The user's.
        services: The runtime's parts.
        host: The runtime's host.
        tasks: Runs the tasks that outlive the runtime's own, until `leave`.
    """

    def __init__(
        self, router: Router, settings: Cluster, services: Services, host: Host, tasks: OwnTasks
    ) -> None:
        self.router = router
        self.service: Service
        """Serves the requests of other processes."""
        self.publisher: Publisher
        """The watches of other processes."""
        self._settings = settings
        self._services = services
        self._host = host
        self._tasks = tasks

    @property
    @abstractmethod
    def is_central(self) -> bool:
        """True if one process has all objects, and alone knows the others."""

    @abstractmethod
    async def enter(self) -> None:
        """Become a part of the cluster.

        Raises:
            StorageInUse: The owner of the storage doesn't answer.
            StorageUnavailable: The storage can't be opened, or nothing serves it.
        """

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
        codec = CallCodec(object_type, handles, self._settings.max_frame - FRAME_MARGIN)
        path = partial(RoutedCalls, router=self.router, codec=codec)
        return attrs.evolve(object_type, exchange=codec), path

    def watching(
        self, hub: Hub, supervise: Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
    ) -> RoutedHub:
        """Share the states of the objects of this process; return those of all objects.

        Args:
            hub: The states of those of this process.
            supervise: Starts a task of the runtime, which runs for ever.
        """
        services, places = self._services, self.router.places
        start = services.tasks.start
        routed = RoutedHub(services.loop, hub, places, supervise, start)
        publisher = self.publisher = Publisher(services.loop, hub, places, supervise, start)

        def places_changed() -> None:
            routed.places_changed()
            publisher.places_changed()

        self.router.changed = places_changed
        self.service.watches = {WATCH: publisher.serve, WATCHED: routed.serve}
        return routed

    @abstractmethod
    async def ask_all(self, request: str, arguments: Sequence[object], timeout: float) -> list[Any]:
        """Make a request of each other process that has objects; return their answers.

        Args:
            request: Its name.
            arguments: Plain JSON.
            timeout: Seconds.

        Raises:
            TimeoutError: One didn't answer.
            RequestFailed: Likewise.
            BaseException: The first error of a request.
        """

    @abstractmethod
    def nodes(self) -> list[Node]:
        """The nodes that this process knows, those with objects first."""

    @property
    @abstractmethod
    def shards(self) -> int:
        """The parts of all objects that live in this process; on a file there is one."""

    def began(self, lease: Lease) -> None:  # noqa: B027  # only some have leases
        """There is another lease, where leases can be lost."""

    def lost(self) -> None:  # noqa: B027  # likewise
        """The lease is over, likewise."""

    def delivers(self, object_id: str) -> bool:
        """True if alarms of an object are delivered in this process, if it delivers any."""
        return True

    @abstractmethod
    def retire(self) -> None:
        """Take nothing over any more: the runtime closes."""

    async def give_all(self) -> None:  # noqa: B027  # the owner of a file has no one to give it to
        """Give all objects to other processes, while calls go on."""

    async def leave(self) -> None:
        """Say goodbye to the other processes, behind all answers."""
        self.router.close(self._services.closed_error)
        with self._host.closing():
            await self._leave()
        self._tasks.cancel()
        with self._host.closing():
            await self._tasks.wait()

    @abstractmethod
    async def _leave(self) -> None:
        """Say goodbye, within a bounded time."""

    @abstractmethod
    def forked(self) -> None:
        """The process is a forked one, and drops its copies of the sockets."""
