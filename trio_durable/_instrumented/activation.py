"""An activation that tells of its loads and turns."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Literal, ParamSpec, TypeVar

from .._activations.activation import Activation
from .._activations.directory import Directory
from .._activations.envelope import Envelope, Operation
from .._activations.services import Services
from .._api.durable_object import DurableObject
from .._declarations.records import HandlerDefinition
from .._errors import RuntimeClosed
from .._keys import ObjectKey
from .._persistence.ticket import Ticket
from .._telemetry.events import Activated, Left, Load, Turn
from .._telemetry.notifier import Notifier, request
from ..storage import AlarmChanges, StorageFault, StoredObject

P = ParamSpec("P")
T = TypeVar("T")


class InstrumentedActivation(Activation):
    """Tells of what one object does.

    ``turn_event`` is the turn under way, of which the commits are that the object submits.
    """

    __slots__ = ("_failure", "_has_left", "_loading", "_telemetry", "_was_stored", "turn_event")

    def __init__(
        self, directory: Directory, key: ObjectKey, services: Services, telemetry: Notifier
    ) -> None:
        super().__init__(directory, key, services)
        self._telemetry = telemetry
        self.turn_event: Turn | None = None
        self._failure: BaseException | None = None
        """What the ``async def`` under way has failed with."""
        self._loading: tuple[Load, Context, float] | None = None
        """The load under way, the context it is told in, and when it began."""
        self._was_stored = False
        self._has_left = False

    # --- turns -----------------------------------------------------------------------------------

    def run_turn(
        self, handler: HandlerDefinition, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        turn = Turn(self.key, handler.name, handler.readonly, handler.function, request.get())
        return self._told(turn, super().run_turn, handler, args, kwargs)

    def operate(self, name: str, operation: Operation) -> object:
        """Do something to the object itself."""
        turn = Turn(self.key, name, False, None, request.get())
        return self._told(turn, operation, self)

    def _told(self, turn: Turn, run: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a turn that can't be interrupted, in the context that it is told in."""
        telemetry = self._telemetry
        self.turn_event = turn
        began = telemetry.start(turn)
        try:
            result = run(*args, **kwargs)
        except BaseException as error:
            telemetry.fail(turn, telemetry.now() - began, error)
            raise
        finally:
            self.turn_event = None
        telemetry.stop(turn, telemetry.now() - began)
        return result

    async def _run_async_turn(self, envelope: Envelope) -> None:
        handler = envelope.handler
        assert isinstance(handler, HandlerDefinition)
        told_for = envelope.context.run(request.get)
        turn = Turn(self.key, handler.name, handler.readonly, handler.function, told_for)
        await self._told_async(turn, envelope, super()._run_async_turn(envelope))

    async def _told_async(
        self, turn: Turn, envelope: Envelope, running: Coroutine[Any, Any, None]
    ) -> None:
        """Await a turn, and tell of it in its own context."""
        telemetry, run = self._telemetry, envelope.context.run
        self.turn_event = turn
        self._failure = None
        began = run(telemetry.start, turn)
        try:
            await running
        finally:
            self.turn_event = None
            duration = telemetry.now() - began
            failure, self._failure = self._failure, None
            if failure is None:
                run(telemetry.stop, turn, duration)
            else:
                run(telemetry.fail, turn, duration, failure)

    def _turn_failed(
        self, handler: HandlerDefinition, envelope: Envelope, error: BaseException
    ) -> None:
        self._failure = error
        super()._turn_failed(handler, envelope, error)

    def _turn_interrupted(self, name: str, envelope: Envelope, error: BaseException) -> None:
        self._failure = error
        super()._turn_interrupted(name, envelope, error)

    def change_alarms(self, changes: AlarmChanges) -> Ticket:
        turn, self.turn_event = self.turn_event, None  # it comes from outside
        try:
            return super().change_alarms(changes)
        finally:
            self.turn_event = turn

    # --- loading and after_load ------------------------------------------------------------------

    def _load(self, first: Envelope) -> None:
        load = Load(self.key)
        self._loading = load, first.context, first.context.run(self._telemetry.start, load)
        super()._load(first)

    def loaded(self, row: StoredObject | None) -> None:
        self._load_ended(None)
        super().loaded(row)

    def load_failed(self, fault: StorageFault) -> None:
        self._load_ended(fault)
        super().load_failed(fault)

    def _load_ended(self, error: Exception | None) -> None:
        if self._loading is None:
            return  # the runtime closes, and doesn't wait for it
        (load, context, began), self._loading = self._loading, None
        duration = self._telemetry.now() - began
        if error is None:
            context.run(self._telemetry.stop, load, duration)
        else:
            context.run(self._telemetry.fail, load, duration, error)

    def _begin(self, first: Envelope) -> None:
        self._was_stored = self.is_stored()
        super()._begin(first)
        self._tell_if_activated()

    def _run_after_load_here(self, instance: DurableObject) -> None:
        turn = Turn(self.key, "after_load", False, type(instance).after_load, None)
        self._told(turn, super()._run_after_load_here, instance)

    async def _run_after_load(self, envelope: Envelope) -> None:
        after_load = self._directory.definition.cls.after_load
        turn = Turn(self.key, "after_load", False, after_load, None)
        await self._told_async(turn, envelope, super()._run_after_load(envelope))
        self._tell_if_activated()

    def _begin_failed(self, error: Exception) -> None:
        self._failure = error
        super()._begin_failed(error)

    def _tell_if_activated(self) -> None:
        if not self._fresh:
            self._telemetry.tell(Activated(self.key, self._was_stored))

    # --- leaving memory --------------------------------------------------------------------------

    def abandon(self) -> None:
        self._load_ended(RuntimeClosed("the runtime closed before the object was loaded"))
        super().abandon()
        self.left("closed")

    def left(self, reason: Literal["idle", "evicted", "ended", "closed"]) -> None:
        """Tell that it leaves memory, unless that was told already."""
        if not self._has_left:
            self._has_left = True
            self._telemetry.tell(Left(self.key, reason))
