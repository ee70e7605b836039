"""All objects of one type: from an address to its activation, and how a call gets there.

An address is an id, together with the name of a tenant if the object has one; so the objects of
all tenants are in here, and share one order of use and one bound.

Between looking an address up and the place in its mailbox there is no checkpoint, so concurrent
first calls meet at one activation, which loads once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from itertools import islice

import anyio

from .._alarms.delivery import Delivery
from .._api.durable_object import ObjectDefinition, resolved_fields
from .._declarations.records import AlarmDefinition, HandlerDefinition
from .._errors import (
    AlarmSuperseded,
    ArgumentError,
    CallCycle,
    CallTimeout,
    DefinitionError,
    InvalidObjectId,
    MailboxFull,
    RuntimeClosed,
    UnknownHandler,
    WrongEventLoop,
)
from .._eventloop.loop import Expired, Waiter
from .._eventloop.timeouts import Deadlines
from .._json.state import StateCodec
from .._keys import ObjectKey, address_of, at_address, id_problem
from ..storage import AlarmChanges
from .activation import Activation
from .admission import admit, admit_to
from .by_value import copied, is_atom
from .envelope import Envelope, Operation
from .eviction import NEVER
from .services import Services
from .wait_graph import check_circle, current_turn

logger = logging.getLogger("trio_durable.alarms")

_LOOKS = 64
"""How many objects to look at for an idle one."""
_SOON = 1.0
"""Seconds after which to look again at what should retire but is busy, at the earliest."""


class Directory:
    """The objects of one type in one runtime.

    Raises:
        DefinitionError: The class can't have objects.
    """

    def __init__(
        self,
        definition: ObjectDefinition,
        services: Services,
        deadlines: Deadlines,
        default_timeout: float | None,
        max_state_size: int,
    ) -> None:
        if definition.is_abstract:
            missing = ", ".join(sorted(getattr(definition.cls, "__abstractmethods__", ())))
            raise DefinitionError(
                definition.cls.__qualname__, "", f"is abstract, it lacks {missing}; use a subclass"
            )
        resolved_fields(definition.cls)
        self.definition = definition
        self.codec = StateCodec(
            definition.cls, max_state_size, definition.schema, definition.upgrades
        )
        timeout = definition.options.call_timeout
        self.timeout = timeout if isinstance(timeout, float) or timeout is None else default_timeout
        self._services = services
        self._deadlines = deadlines
        self._loop = services.loop
        options = definition.options
        self._hibernate_after = _or_never(options.hibernate_after)
        self._shutdown_after = _or_never(options.shutdown_after)
        self._retires_after = min(self._hibernate_after, self._shutdown_after)
        # Each in the order of last use.
        self._active: OrderedDict[str, Activation] = OrderedDict()
        self._hibernated: OrderedDict[str, Activation] = OrderedDict()
        services.residency.add(self)

    def address(self, object_id: str, tenant: str) -> str:
        """Where an object of this type is.

        Raises:
            InvalidObjectId: It can't be an id.
        """
        problem = id_problem(object_id)
        if problem is not None:
            shown = repr(object_id)
            raise InvalidObjectId(
                self.definition.name, shown if len(shown) < 80 else shown[:77] + "…", problem
            )
        # Of a str subclass only the text counts; an enum's own str() would say something else.
        return address_of(str.__str__(object_id), tenant)

    def key(self, address: str) -> ObjectKey:
        """The key of what is at an address."""
        return at_address(self.definition.name, address)

    def handler(self, name: str) -> HandlerDefinition:
        """The handler of that name.

        Raises:
            UnknownHandler: There is none.
        """
        handler = self.definition.handlers.get(name)
        if handler is None:
            raise UnknownHandler(self.definition.name, name, tuple(self.definition.handlers))
        return handler

    # --- who is in memory ------------------------------------------------------------------------

    def activations(self) -> list[Activation]:
        """Those in memory now."""
        return [*self._hibernated.values(), *self._active.values()]

    def find(self, address: str) -> Activation | None:
        """The activation of an object, if it is in memory."""
        return self._active.get(address) or self._hibernated.get(address)

    def holds(self, activation: Activation) -> bool:
        """Whether ``activation`` is the one of its object."""
        return self.find(activation.key.address) is activation

    def remove(self, activation: Activation) -> None:
        """Forget ``activation``."""
        address = activation.key.address
        if self._active.pop(address, None) is None:
            del self._hibernated[address]
        self._services.residency.leave()

    def _use(self, address: str) -> Activation:
        """The activation of an object, for a call: woken or made if need be, and last in order.

        Raises:
            TenantDropped: Its tenant is being dropped.
        """
        services = self._services
        if services.dropping:
            services.refuse_dropped(self.key(address))
        activation = self._active.get(address)
        if activation is not None:
            self._active.move_to_end(address)
            return activation
        activation = self._hibernated.pop(address, None)
        due = self._loop.now() + self._retires_after
        if activation is not None:
            self._active[address] = activation
            services.residency.expect(due)
        else:
            # First, or the newcomer itself might have to make room: it is idle still.
            services.residency.enter(due)
            activation = self._active[address] = self._new_activation(self.key(address))
        return activation

    def _new_activation(self, key: ObjectKey) -> Activation:
        """What the object is in memory from now on."""
        return Activation(self, key, self._services)

    def retire(self, now: float) -> float:
        """See `Population.retire`."""
        next_due = NEVER
        for objects, after, retire in (
            (self._hibernated, self._shutdown_after, Activation.shut_down),
            (self._active, self._shutdown_after, Activation.shut_down),
            (self._active, self._hibernate_after, self._hibernate),
        ):
            while objects and after < NEVER:
                address, activation = next(iter(objects.items()))
                due = activation.touched + after
                if due > now:
                    next_due = min(next_due, due)
                    break
                if activation.is_idle:
                    retire(activation)
                else:  # in use for longer than that: as if used just now, or a little later
                    activation.touched = max(now, now + _SOON - after)
                    objects.move_to_end(address)
        return next_due

    def _hibernate(self, activation: Activation) -> None:
        address = activation.key.address
        del self._active[address]
        self._hibernated[address] = activation
        activation.hibernate()

    def oldest_use(self) -> float:
        """See `Population.oldest_use`."""
        oldest = self._oldest()
        return NEVER if oldest is None else oldest.touched

    def evict_oldest(self) -> None:
        """See `Population.evict_oldest`."""
        oldest = self._oldest()
        if oldest is not None:
            oldest.shut_down()

    def _oldest(self) -> Activation | None:
        for objects in (self._hibernated, self._active):
            # Busy ones have callers waiting for them. If so many of them come first, all are let
            # be: looking further would take longer the more there are.
            for activation in islice(objects.values(), _LOOKS):
                if activation.is_idle:
                    return activation
        return None

    # --- calls -----------------------------------------------------------------------------------

    async def call(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        """Run a handler in a turn of the object and return its reply once that is durable."""
        loop = self._loop
        if self._services.closing or not loop.is_current():
            self._check_usable()
        if args or kwargs:
            args, kwargs = self._by_value(address, handler, args, kwargs)
        services = self._services
        if services.group_commit.is_behind or services.batched_load.is_behind:
            admit(
                services,
                self.key(address),
                handler.name,
                timeout,
                saves=not handler.readonly,
                loads=self.find(address) is None,
            )
        activation = self._use(address)
        if handler.is_async or not (activation.open or activation.open_up()):
            envelope = Envelope(loop.waiter(), handler.name, handler, args, kwargs)
            return await self._queue(activation, envelope, timeout)
        error = result = None
        try:
            result = activation.run_turn(handler, args, kwargs)
        except Exception as raised:
            if activation.gate is None:
                raise
            error = raised
        gate = activation.gate
        if gate is None:
            await loop.checkpoint()
            return result
        waiter = loop.waiter()
        waiter.value = result
        waiter.error = error
        gate.hold(waiter)
        if timeout is not None:
            self._deadlines.watch(waiter, activation.touched, timeout)
        try:
            return await waiter.wait()
        except Expired:
            raise CallTimeout(
                activation.key, handler.name, timeout or 0, activation.activity()
            ) from None

    async def operate(
        self,
        address: str,
        name: str,
        operation: Operation,
        *,
        needs_instance: bool = False,
        saves: bool = True,
    ) -> object:
        """Do something to the object itself, in a turn; reply once all before it is durable."""
        self._check_usable()
        loads = self.find(address) is None
        admit(self._services, self.key(address), name, self.timeout, saves=saves, loads=loads)
        activation = self._use(address)
        envelope = Envelope(self._loop.waiter(), name, operation, needs_instance=needs_instance)
        return await self._queue(activation, envelope, self.timeout)

    # --- alarms ----------------------------------------------------------------------------------

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Change an object's alarms from outside; return once that is durable."""
        self._check_usable()
        admit(self._services, key, "a change of its alarms", self.timeout, loads=False)
        activation = self._use(key.address)
        turn = current_turn.get()
        if turn is not None and turn.activation is activation:
            raise CallCycle(key, "a change of its alarms from outside", (key, key))
        waiter = self._loop.waiter()
        activation.change_alarms(changes).hold(waiter)
        if self.timeout is not None:
            self._deadlines.watch(waiter, self._loop.now(), self.timeout)
        try:
            await waiter.wait()
        except Expired:
            raise CallTimeout(
                key, "a change of its alarms", self.timeout or 0, activation.activity()
            ) from None

    def alarm_definition(self, name: str) -> AlarmDefinition | None:
        """What handles alarms of that name, if anything does."""
        return self.definition.alarms.get(name, self.definition.handle_alarm)

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """Let an alarm be handled in a turn of its object; ``waiter`` learns when that is durable.

        If nothing handles alarms of that name, the alarm just goes.
        """
        key = delivery.key
        activation = self._use(key.address)
        handler = self.alarm_definition(key.name)
        if handler is None:
            if activation.is_superseded(delivery):
                waiter.fail(AlarmSuperseded(activation.key, key.name))
                return
            logger.debug("alarm %s went off, and nothing handles it", key)
            changes = AlarmChanges(acknowledged={key.name: delivery.claim})
            activation.change_alarms(changes).hold(waiter)
            return
        args = () if key.name in self.definition.alarms else (delivery.alarm,)
        activation.accept(Envelope(waiter, key.name, handler, args, delivery=delivery))

    # --- queued calls ----------------------------------------------------------------------------

    async def _queue(
        self, activation: Activation, envelope: Envelope, timeout: float | None
    ) -> object:
        """Put ``envelope`` into the mailbox and wait for its reply."""
        waiter = envelope.waiter
        turn = current_turn.get()
        origin = None if turn is None else turn.activation
        if origin is not None:
            check_circle(origin, activation, envelope.name)
        if timeout is not None:
            admit_to(activation, envelope.name, timeout)
        if turn is not None and origin is not None:
            turn.waits_for.append(activation)
        activation.accept(envelope)
        if timeout is not None and not waiter.ended:
            waiter.expiry = partial(self._timed_out, activation, envelope, timeout)
            self._deadlines.watch(waiter, self._loop.now(), timeout)
        try:
            return await waiter.wait()
        except (CallTimeout, anyio.get_cancelled_exc_class()):
            activation.withdraw(envelope)
            raise
        finally:
            waiter.expiry = None  # or it would keep the object for as long as the waiter is kept
            if turn is not None and origin is not None:
                turn.waits_for.remove(activation)

    def _timed_out(self, activation: Activation, envelope: Envelope, timeout: float) -> CallTimeout:
        size = self.definition.options.mailbox_size
        activity = activation.activity()
        if envelope.stood_in_line and activation.is_queued(envelope):
            return MailboxFull(activation.key, envelope.name, timeout, activity, size)
        return CallTimeout(activation.key, envelope.name, timeout, activity)

    def _by_value(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        try:
            if not all(map(is_atom, args)):
                args = tuple(map(copied, args))
            if kwargs:
                kwargs = {name: copied(value) for name, value in kwargs.items()}
        except TypeError as error:
            raise ArgumentError(
                self.key(address), handler.name, f"an argument can't be passed by value: {error}"
            ) from error
        return args, kwargs

    def _check_usable(self) -> None:
        """Refuse calls from the wrong place, and from outside while the runtime closes.

        Raises:
            WrongEventLoop: Not the runtime's.
            RuntimeClosed: It is closing or closed. What its last turns call is served, though.
        """
        if not self._loop.is_current():
            raise WrongEventLoop(
                f"{self.definition.name} was called from a thread or event loop that isn't the "
                "runtime's"
            )
        turn = current_turn.get()
        if self._services.closing and (
            self._services.closed or turn is None or turn.activation is None
        ):
            raise RuntimeClosed(
                "the runtime is closed" if self._services.closed else "the runtime is closing"
            )


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds
