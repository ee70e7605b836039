"""Calls of objects that the runtime can lose, each checked on its way in and out. See `Tenure`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .._declarations.records import HandlerDefinition
from .._errors import OwnerLost, RuntimeClosed
from .._keys import ObjectKey
from ..storage import AlarmChanges
from .activation import STOP
from .calls import LocalCalls
from .directory import Directory
from .envelope import Operation
from .services import Services
from .tenure import LOST, Tenure
from .wait_graph import current_turn


class LeasedCalls(LocalCalls):
    """Calls in a runtime that serves its objects under a lease.

    Args:
        directory: The objects in memory.
        services: The runtime's parts; it has a tenure.
    """

    def __init__(self, directory: Directory, services: Services) -> None:
        super().__init__(directory, services)
        assert services.tenure is not None
        self._tenure: Tenure = services.tenure
        self._unchecked_call = super()._call

    async def _call(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        # `Tenure.enter` and `Tenure.leave`, without a coroutine for each.
        lease, origin = self._tenure.lease, current_turn.get()
        if not lease.is_valid() or (origin is not None and origin.base_lost):
            key = partial(self.directory.key, address)
            timeout = await self._tenure.enter(key, handler.name, timeout)
            lease = self._tenure.lease
        try:
            value = await self._unchecked_call(address, handler, args, kwargs, timeout)
        except RuntimeClosed:
            raise
        except Exception:
            if lease.is_valid():
                raise
        else:
            if lease.is_valid():
                return value
        raise OwnerLost(self.directory.key(address), handler.name, LOST)

    async def _operate(
        self, address: str, operation: Operation, args: tuple[object, ...]
    ) -> object:
        key = partial(self.directory.key, address)
        operate = super()._operate
        return await self._leased(key, operation.name, lambda: operate(address, operation, args))

    async def _interrupt(self, address: str) -> object:
        key, interrupt = partial(self.directory.key, address), super()._interrupt
        return await self._leased(key, STOP.name, lambda: interrupt(address))

    async def _change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> object:
        change = super()._change_alarms
        name = "a change of its alarms"
        return await self._leased(lambda: key, name, lambda: change(key, changes))

    async def _leased(
        self,
        key: Callable[[], ObjectKey],
        name: str,
        make: Callable[[], Coroutine[Any, Any, object]],
    ) -> object:
        await self._tenure.enter(key, name, self.object_type.timeout)
        return await self._tenure.leave(self._tenure.lease, key, name, make())
