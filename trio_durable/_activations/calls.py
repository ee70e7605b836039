"""Calls: the local path of a call, from the handle to the reply.

A call is admitted or rejected, its arguments are copied, its object's activation is looked up, and
then the turn runs: on the spot if the handler is a ``def`` and the object is open, else from the
mailbox. The reply waits at the object's gate.

A handle holds what calls it, as a `CallPath`. In one process that is `LocalCalls`; with several, a
router stands there, and the choice is made when the runtime opens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from .._alarms.delivery import Delivery
from .._clock import boot_time
from .._declarations.records import HandlerDefinition
from .._errors import (
    AlarmSuperseded,
    OwnerLost,
    RuntimeClosed,
)
from .._eventloop.loop import Expired, Waiter
from .._keys import ObjectKey
from .._messages.delivery import MessageDelivery
from .._messages.once import OnceRequest
from .admission import admit
from .by_value import are_atoms, arguments_by_value
from .directory import Directory
from .envelope import Envelope
from .object_type import ObjectType
from .observation import turn_event
from .placement import NotHere
from .requests import Requests, timed_out
from .services import Services
from .submission import Submission
from .tenure import check_lease
from .turns import run_turn
from .wait_graph import Gated, current_turn

logger = logging.getLogger("trio_durable.alarms")
message_logger = logging.getLogger("trio_durable.messages")

Call = Callable[
    [str, HandlerDefinition, tuple[object, ...], dict[str, object], float | None],
    Coroutine[Any, Any, object],
]
"""Runs a handler in a turn of an object, and returns its reply once that is durable.

Called with the object's address, the handler, its arguments and the call's timeout."""
OnceElsewhere = Callable[
    [
        str,
        HandlerDefinition,
        tuple[object, ...],
        dict[str, object],
        float | None,
        OnceRequest,
    ],
    Coroutine[Any, Any, "bytes | None"],
]
"""Makes a call with a once-key where the object is. Returns the reply as JSON; None if that is
here."""


class CallPath(Protocol):
    """The way of a call to the objects of one type."""

    @property
    def object_type(self) -> ObjectType:
        """The type of the objects."""
        ...

    call: Call


class LocalCalls(Requests):
    """Calls of the objects of one type in this process.

    Args:
        directory: The objects in memory.
        services: The runtime's parts.
    """

    def __init__(self, directory: Directory, services: Services) -> None:
        super().__init__(directory, services)
        self._exchange = exchange = directory.object_type.exchange
        self._fitting = None if exchange is None else exchange.fitting
        self.elsewhere: Call | None = None
        """Makes a call whose object isn't here any more; None if no process else has objects."""
        self.once_elsewhere: OnceElsewhere | None = None
        """The same for a call with a once-key, wherever the object is."""
        self.call: Call = self._call if self._notifier is None else self._observed_call

    # --- handlers --------------------------------------------------------------------------------

    async def _call(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        """See `CallPath.call`."""
        loop, services, tenure = self._loop, self._services, self._tenure
        if services.closing or not loop.is_current():
            self.check_usable()
        origin, lease = current_turn.get(), None
        if tenure is not None:
            lease = tenure.lease
            if boot_time() >= lease.valid_until or (origin is not None and origin.base_lost):
                key = partial(self.directory.key, address)
                timeout = await tenure.enter(key, handler.name, timeout)
                lease = tenure.lease
        if (fitting := self._fitting) is not None:
            if kwargs or not fitting[handler.name].takes(args):
                args, kwargs = self.by_value(address, handler, args, kwargs)
        elif kwargs or (args and not are_atoms(args)):
            args, kwargs = self.by_value(address, handler, args, kwargs)
        if origin is not None and (handler.is_async or not handler.readonly):
            key = partial(self.directory.key, address)
            if origin.is_once and not handler.readonly:
                warn_of_repeats(origin, key(), handler.name)
            if origin.must_wait:
                timeout = await services.output_gate.passed(origin, key, handler.name, timeout)
        directory = self.directory
        if services.group_commit.is_behind or services.batched_load.is_behind:
            admit(
                services,
                directory.key(address),
                handler.name,
                timeout,
                saves=not handler.readonly,
                loads=directory.find(address) is None,
            )
        try:
            activation = directory.use(address)
        except NotHere:
            if self.elsewhere is None:
                raise
            return await self.elsewhere(address, handler, args, kwargs, timeout)
        state = activation.state
        try:
            if handler.is_async or (
                (activation.mailbox is not None or state.turn is not None or state.instance is None)
                and not activation.open_up()
            ):
                envelope = Envelope(loop.waiter(), handler.name, handler, args, kwargs)
                result = await self._queue(activation, envelope, timeout)
            else:
                activation.last_used = loop.now()
                result = waiter = None
                try:
                    if services.observation is None:
                        result = run_turn(state, activation.runtime, handler, args, kwargs)
                    else:
                        result = services.observation.run(
                            turn_event(state.key, handler),
                            run_turn,
                            *(state, activation.runtime, handler, args, kwargs),
                        )
                except BaseException as raised:
                    state.turn = None  # should the end of the turn itself have been cut off
                    if state.gate is None or not isinstance(raised, Exception):
                        raise
                    services.group_commit.wake(state)  # a RecursionError may have kept it from it
                    waiter = loop.waiter()
                    waiter.error = raised
                gate = state.gate
                if gate is None:
                    await loop.pause()
                else:
                    if waiter is None:
                        waiter = loop.waiter()
                        waiter.value = result
                    gate.hold(waiter)
                    if handler.readonly and not gate.taken:
                        services.group_commit.wake(state)  # likewise; a change has done so
                    if timeout is not None:
                        self._deadlines.watch(waiter, activation.last_used, timeout)
                    try:
                        result = await waiter.wait()
                    except Expired:
                        raise timed_out(activation, handler.name, timeout or 0) from None
        except Exception as error:
            if lease is not None and not isinstance(error, RuntimeClosed):
                check_lease(lease, state.key, handler.name)
            raise
        if lease is not None and boot_time() >= lease.valid_until:
            check_lease(lease, state.key, handler.name)
        return result

    def by_value(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Copies of the arguments of a call.

        Raises:
            ArgumentError: They can't be passed by value.
        """
        key = partial(self.directory.key, address)
        if self._exchange is not None:
            return self._exchange.arguments(key, handler.name, args, kwargs)
        return arguments_by_value(key, handler.name, args, kwargs)

    # --- deliveries ------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """Handle an alarm in a turn of its object; ``waiter`` is released when that is durable.

        An alarm without a handler is discarded.

        Raises:
            AlarmUnhandled: It recurs, and has no handler.
            OwnerLost: The object lives in another process.
        """
        key = delivery.key
        try:
            activation = self.directory.use(key.address)
        except NotHere:
            raise OwnerLost(key.object_key, key.name, "it is in another process") from None
        handler = self.object_type.alarm_handler(key.name)
        if handler is self.object_type.handle_alarm and delivery.is_of_other_release:
            handler = None  # or the catch-all of an older release would end it
        if handler is None or delivery.is_skipped:
            if activation.state.is_superseded(delivery):
                waiter.fail(AlarmSuperseded(activation.key, key.name))
            else:
                logger.debug("alarm %s is too late, or has no handler: it is discarded", key)
                activation.change_alarms(delivery.discarded(activation.wall_time())).hold(waiter)
            return
        args = (delivery.alarm,) if handler is self.object_type.handle_alarm else ()
        activation.accept(Envelope(waiter, key.name, handler, args, delivery=delivery))

    def deliver_message(
        self,
        delivery: MessageDelivery,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Submission | None:
        """Handle a message in a turn of its object; it is released when that is durable.

        Returns:
            The request in the mailbox; None if the turn has ended.

        Raises:
            OwnerLost: The object lives in another process.
            TenantDropped: Its tenant is being dropped.
        """
        to = delivery.stored.key.to
        try:
            activation = self.directory.use(to.address)
        except NotHere:
            raise OwnerLost(to, handler.name, "it is in another process") from None
        envelope = Envelope(
            delivery, handler.name, handler, args, kwargs, message=delivery, replies=delivery
        )
        if not handler.is_async and activation.is_open():
            activation.run_now(envelope)
            return None
        activation.accept(envelope)
        return Submission(activation, envelope, self._services.wait_graph, ())

    # --- instruments -----------------------------------------------------------------------------

    async def _observed_call(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> object:
        assert self._notifier is not None
        calling = self._call(address, handler, args, kwargs, timeout)
        expected = handler.expected
        return await self._observed(self._notifier, address, handler.name, calling, expected)


def warn_of_repeats(origin: Gated, key: ObjectKey, name: str) -> None:
    """Warn of a call that a turn with a once-key makes without one: it may happen once more."""
    message_logger.warning(
        "%s has a once-key and calls %s on %s without one, which happens once more if the turn is "
        "repeated; use runtime.get(..., once=self.ctx.once_key(name)), or self.ctx.send()",
        *(origin.key, name, key),
    )
