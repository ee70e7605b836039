"""The objects of a runtime for other processes: the runtimes of a cluster, and commands.

Imported only when it is needed, since links take long to import.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from .._activations.once_runs import OnceRuns
from .._cluster.call_codec import CallCodec
from .._cluster.places import OnePlace
from .._cluster.routed_calls import RoutedCalls
from .._cluster.router import Router
from .._cluster.service import unknown_request
from .._cluster.settings import DEFAULT_MAX_FRAME
from .._runtime.administration import Administration
from .._runtime.member_sharing import MemberSharing
from .._runtime.open_runtime import OpenRuntime
from .._runtime.routed_administration import AdministrationRequests, RoutedAdministration
from .._runtime.settings import ClusterOfMembers, ClusterOnFile
from .._runtime.sharing import FRAME_MARGIN
from .._runtime.tenant_barrier import TenantBarrier
from .commands import CALL, EDIT, WATCH, CommandRequests
from .registry import TypeRegistry
from .statistics import RuntimeStatistics


def join(
    opened: OpenRuntime,
    given: ClusterOnFile | ClusterOfMembers,
    registry: TypeRegistry,
    statistics: Callable[[], RuntimeStatistics],
) -> Administration:
    """Let a runtime share its storage, before any type is served; return its administration.

    Args:
        opened: The runtime's parts.
        given: The user's settings, and the file.
        registry: The types.
        statistics: Counts the runtime's work.
    """
    targets = RuntimeTargets(opened, registry, statistics)
    sharing = opened.share(given, targets)
    registry.delivers = sharing.delivers
    if isinstance(sharing, MemberSharing):
        targets.barrier = TenantBarrier(opened, sharing)
    return RoutedAdministration(opened, sharing, targets.barrier, registry.timeout_of)


class RequestTargets(ABC):
    """The objects of a runtime for requests of other processes: see `Targets`.

    Args:
        opened: The runtime's parts.
        registry: The types.
        statistics: Counts the runtime's work.
    """

    def __init__(
        self,
        opened: OpenRuntime,
        registry: TypeRegistry,
        statistics: Callable[[], RuntimeStatistics],
    ) -> None:
        self._opened = opened
        self._registry = registry
        self._commands = CommandRequests(opened, registry, statistics)
        self._requests = AdministrationRequests(Administration(opened), registry.calls)
        self.barrier: TenantBarrier | None = None
        """Holds tenants for other members of a cluster."""

    @property
    def once_runs(self) -> OnceRuns | None:
        """See `Targets.once_runs`."""
        messaging = self._opened.messaging
        return None if messaging is None else messaging.once_runs

    async def administer(self, name: str, arguments: list[Any]) -> bytes:
        """See `Targets.administer`."""
        if name == CALL:
            return await self._commands.call(arguments)
        if name == WATCH:
            return await self._commands.watch(arguments)
        if name == EDIT:
            return await self._commands.edit(arguments)
        return await self._requests.make(name, arguments)

    async def assist(self, name: str, arguments: list[Any]) -> bytes:
        """See `Targets.assist`."""
        answer = self._commands.of_process(name, arguments)
        if answer is not None:
            return answer
        if self.barrier is None:
            raise unknown_request(name)
        return await self.barrier.make(name, arguments)

    @abstractmethod
    def calls(self, object_type: str) -> RoutedCalls:
        """See `Targets.calls`."""


class RuntimeTargets(RequestTargets):
    """The objects of a runtime in a cluster."""

    def calls(self, object_type: str) -> RoutedCalls:
        """See `Targets.calls`."""
        calls = self._registry.calls(object_type)
        assert isinstance(calls, RoutedCalls)
        return calls


class CommandTargets(RequestTargets):
    """The objects of a runtime that is in no cluster, for commands."""

    def __init__(
        self,
        opened: OpenRuntime,
        registry: TypeRegistry,
        statistics: Callable[[], RuntimeStatistics],
    ) -> None:
        super().__init__(opened, registry, statistics)
        services, places = opened.services, OnePlace()
        places.acquired()
        self._router = Router(services.loop, services.deadlines, services.output_gate, places)

    def calls(self, object_type: str) -> RoutedCalls:
        """See `Targets.calls`.

        Raises:
            DefinitionError: Values of a handler can't be sent to another process.
        """
        directory = self._registry.calls(object_type).directory
        codec = CallCodec(directory.object_type, self._registry, DEFAULT_MAX_FRAME - FRAME_MARGIN)
        return RoutedCalls(directory, self._opened.services, self._router, codec)
