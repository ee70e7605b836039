"""The objects of a runtime for other processes: the runtimes of a cluster, and commands.

Imported only when it is needed, since links take long to import.
"""

from __future__ import annotations

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
from .registry import TypeRegistry


def join(
    opened: OpenRuntime, given: ClusterOnFile | ClusterOfMembers, registry: TypeRegistry
) -> Administration:
    """Let a runtime share its storage, before any type is served; return its administration.

    Args:
        opened: The runtime's parts.
        given: The user's settings, and the file.
        registry: The types.
    """
    requests = AdministrationRequests(Administration(opened), registry.calls)
    targets = RequestTargets(opened, registry, requests)
    sharing = opened.share(given, targets)
    registry.delivers = sharing.delivers
    if isinstance(sharing, MemberSharing):
        targets.barrier = TenantBarrier(opened, sharing)
    return RoutedAdministration(opened, sharing, targets.barrier, registry.timeout_of)


class CommandTargets:
    """The objects of a runtime that is in no cluster, for requests of commands: see `Targets`.

    Args:
        opened: The runtime's parts.
        registry: The types.
    """

    def __init__(self, opened: OpenRuntime, registry: TypeRegistry) -> None:
        self._opened = opened
        self._registry = registry
        self.administer = AdministrationRequests(Administration(opened), registry.calls).make
        services, places = opened.services, OnePlace()
        places.acquired()
        self._router = Router(services.loop, services.deadlines, services.output_gate, places)

    @property
    def once_runs(self) -> OnceRuns | None:
        """See `Targets.once_runs`."""
        messaging = self._opened.messaging
        return None if messaging is None else messaging.once_runs

    async def assist(self, name: str, arguments: list[Any]) -> bytes:
        """See `Targets.assist`. There are no other members."""
        raise unknown_request(name)

    def calls(self, object_type: str) -> RoutedCalls:
        """See `Targets.calls`.

        Raises:
            DefinitionError: Values of a handler can't be sent to another process.
        """
        directory = self._registry.calls(object_type).directory
        codec = CallCodec(directory.object_type, self._registry, DEFAULT_MAX_FRAME - FRAME_MARGIN)
        return RoutedCalls(directory, self._opened.services, self._router, codec)


class RequestTargets:
    """The objects of a runtime for requests of other processes: see `Targets`.

    Args:
        opened: The runtime's parts.
        registry: The types.
        requests: Requests of the runtime itself.
    """

    def __init__(
        self, opened: OpenRuntime, registry: TypeRegistry, requests: AdministrationRequests
    ) -> None:
        self._opened = opened
        self._registry = registry
        self.administer = requests.make
        self.barrier: TenantBarrier | None = None
        """Holds tenants for other members of a cluster."""

    @property
    def once_runs(self) -> OnceRuns | None:
        """See `Targets.once_runs`."""
        messaging = self._opened.messaging
        return None if messaging is None else messaging.once_runs

    async def assist(self, name: str, arguments: list[Any]) -> bytes:
        """See `Targets.assist`."""
        if self.barrier is None:
            raise unknown_request(name)
        return await self.barrier.make(name, arguments)

    def calls(self, object_type: str) -> RoutedCalls:
        """See `Targets.calls`."""
        calls = self._registry.calls(object_type)
        assert isinstance(calls, RoutedCalls)
        return calls
