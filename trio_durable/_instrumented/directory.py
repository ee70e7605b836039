"""A directory that tells of calls, and of objects that come into memory and leave it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal

from .._activations.activation import Activation
from .._activations.directory import Directory
from .._activations.envelope import Operation
from .._activations.services import Services
from .._api.durable_object import ObjectDefinition
from .._declarations.records import HandlerDefinition
from .._eventloop.timeouts import Deadlines
from .._keys import ObjectKey
from .._telemetry.events import Call, Entered, Hibernated, Woken
from .._telemetry.notifier import Notifier, request
from ..storage import AlarmChanges
from .activation import InstrumentedActivation


class InstrumentedDirectory(Directory):
    """Tells of what is done with the objects of one type."""

    def __init__(
        self,
        telemetry: Notifier,
        definition: ObjectDefinition,
        services: Services,
        deadlines: Deadlines,
        default_timeout: float | None,
        max_state_size: int,
    ) -> None:
        super().__init__(definition, services, deadlines, default_timeout, max_state_size)
        self._telemetry = telemetry
        self._why_left: Literal["idle", "evicted", "ended"] = "ended"

    # --- calls -----------------------------------------------------------------------------------

    async def call(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        calling = super().call(address, handler, args, kwargs, timeout)
        return await self._told(address, handler.name, calling)

    async def operate(
        self,
        address: str,
        name: str,
        operation: Operation,
        *,
        needs_instance: bool = False,
        saves: bool = True,
    ) -> object:
        def told(activation: Activation) -> object:
            assert isinstance(activation, InstrumentedActivation)
            return activation.operate(name, operation)

        operating = super().operate(address, name, told, needs_instance=needs_instance, saves=saves)
        return await self._told(address, name, operating)

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        await self._told(key.address, "change_alarms", super().change_alarms(key, changes))

    async def _told(self, address: str, name: str, calling: Coroutine[Any, Any, object]) -> object:
        telemetry = self._telemetry
        try:
            # Nobody is told of what can't be called, and nobody in another thread.
            self._check_usable()
            activation = self.find(address)
            key = self.key(address) if activation is None else activation.key
        except BaseException:
            calling.close()
            raise
        call = Call(key, name, 0 if activation is None else activation.depth)
        began = telemetry.start(call)
        request.set(call)
        try:
            result = await calling
        except BaseException as error:
            telemetry.fail(call, telemetry.now() - began, error)
            raise
        telemetry.stop(call, telemetry.now() - began)
        return result

    # --- who is in memory ------------------------------------------------------------------------

    def _new_activation(self, key: ObjectKey) -> Activation:
        self._telemetry.tell(Entered(key))
        return InstrumentedActivation(self, key, self._services, self._telemetry)

    def _use(self, address: str) -> Activation:
        is_hibernated = address in self._hibernated
        activation = super()._use(address)
        if is_hibernated:
            self._telemetry.tell(Woken(activation.key))
        return activation

    def _hibernate(self, activation: Activation) -> None:
        super()._hibernate(activation)
        self._telemetry.tell(Hibernated(activation.key))

    def retire(self, now: float) -> float:
        self._why_left = "idle"
        try:
            return super().retire(now)
        finally:
            self._why_left = "ended"

    def evict_oldest(self) -> None:
        self._why_left = "evicted"
        try:
            super().evict_oldest()
        finally:
            self._why_left = "ended"

    def remove(self, activation: Activation) -> None:
        super().remove(activation)
        assert isinstance(activation, InstrumentedActivation)
        activation.left(self._why_left)
