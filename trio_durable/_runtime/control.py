"""Control: the socket over which commands reach a runtime on an SQLite file that is in no cluster.

It has the endpoint, the links and the requests of a cluster, and admits commands only. So a command
that changes something does it in the process that has the objects, and the app goes on. A member of
a cluster has such a socket anyway.

Opening a runtime doesn't wait for it, and doesn't fail because of it. The parts that serve requests
are imported with the first connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .._activations.services import Services
from .._errors import StorageUnavailable
from .._eventloop.tasks import OwnTasks
from .._text import error_summary
from .host import Host

if TYPE_CHECKING:
    from .._cluster.file_endpoint import FileEndpoint
    from .._cluster.handshake import Connection
    from .._cluster.incoming import Incoming
    from .._cluster.peers import Peers
    from .._cluster.service import Service, Targets

logger = logging.getLogger("trio_durable")

T = TypeVar("T")

MAX_COMMANDS = 256
"""Commands that are connected at the same time. Each takes a file descriptor of the app."""


async def _at_once(work: Callable[[], T]) -> T:
    # The note is small, and the storage's thread may be busy.
    return work()


class Control:
    """The socket of one runtime, for commands.

    Args:
        path: The file.
        node_id: The runtime's id.
        services: The runtime's parts.
        host: The runtime's host.
        tasks: Runs the tasks, which outlive the runtime's own, until `leave`.
        targets: Makes the objects, for requests of commands.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        path: Path,
        node_id: str,
        services: Services,
        host: Host,
        tasks: OwnTasks,
        targets: Callable[[], Targets],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._path = path
        self._node_id = node_id
        self._services = services
        self._host = host
        self._tasks = tasks
        self._targets = targets
        self._failed = failed
        self._endpoint: FileEndpoint | None = None
        self._peers: Peers | None = None
        self._service: Service | None = None
        self.problem: str | None = "the runtime has just been opened"
        """The reason that commands can't connect; None if they can."""

    def open(self) -> None:
        """Begin to listen, in a task."""
        if self._services.loop.is_virtual:
            self.problem = "the event loop's time is virtual"
        else:
            self._tasks.start(self._open, "trio_durable control", self._fault)

    async def _open(self) -> None:
        # Imported here, since it takes long.
        from .._cluster.address import SocketPathTooLong, local_address
        from .._cluster.file_endpoint import FileEndpoint, FileNode
        from .._cluster.nodes import this_node
        from .._cluster.settings import Command

        command = Command()
        node = this_node(self._node_id, serves=True, shards=1)
        try:
            endpoint = FileEndpoint(
                self._services.loop,
                self._tasks,
                self._path,
                local_address(self._path.with_name(f"{self._path.name}-socket")),
                may_replace=True,
                me=FileNode(node, command.max_calls, command.max_frame),
                is_shared=False,
                accepted=self._accepted,
                in_thread=_at_once,
                failed=self._fault,
            )
            await endpoint.open()
        except (SocketPathTooLong, StorageUnavailable) as problem:
            self.problem = str(problem)
            logger.info("%s: commands can't reach this process: %s", self._path, problem)
        else:
            self._endpoint, self.problem = endpoint, None

    def _fault(self, error: BaseException) -> None:
        """The app goes on without its socket; but Control-C is passed on."""
        self.problem = error_summary(error)
        if isinstance(error, Exception):
            logger.error("%s: commands can't reach this process", self._path, exc_info=error)
        else:
            self._failed(error)

    def _accepted(self, connection: Connection) -> None:
        from .._cluster.handshake import HandshakeFailed
        from .._cluster.nodes import node_of

        if self._services.closing:
            raise HandshakeFailed("the runtime closes")
        if node_of(connection.them.info).serves:
            raise HandshakeFailed("this process has opened the file without cluster=True")
        if self._peers is None:
            self._peers = self._made_peers()
        if len(self._peers) >= MAX_COMMANDS:
            raise HandshakeFailed(f"{MAX_COMMANDS} commands are connected")
        self._peers.add(connection)

    def _made_peers(self) -> Peers:
        from .._cluster.peers import Peers
        from .._cluster.places import OnePlace
        from .._cluster.service import Service
        from .._cluster.settings import Command

        places = OnePlace()
        places.acquired()
        services = self._services
        self._service = Service(services, self._targets(), places, self._tasks.start)
        return Peers(
            services.loop,
            self._tasks,
            services.deadlines,
            Command(),
            serve=self._serve,
            ended=lambda _peer, _seconds: None,
            failed=self._fault,
        )

    def _serve(self, incoming: Incoming) -> None:
        assert self._service is not None
        self._service.serve(incoming)

    async def leave(self) -> None:
        """Say goodbye to the commands, behind all answers, and close the socket."""
        with self._host.closing():
            if self._endpoint is not None:
                self._endpoint.close()
            if self._peers is not None and self._service is not None:
                await self._service.answered()
                await self._peers.leave()
        self._tasks.cancel()
        with self._host.closing():
            await self._tasks.wait()

    def forked(self) -> None:
        """The process is a forked one, and drops its copies of the sockets."""
        if self._endpoint is not None:
            self._endpoint.forked()
        if self._peers is not None:
            self._peers.forked()
