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
    CallCycle,
    CallTimeout,
    MailboxFull,
    OwnerLost,
    RuntimeClosed,
    TurnInterrupted,
    TurnWontEnd,
    WrongEventLoop,
)
from .._eventloop.loop import CallbackWaiter, Expired, Waiter
from .._keys import ObjectKey
from .._messages.delivery import MessageDelivery
from .._telemetry import events
from .._telemetry.notifier import Notifier
from ..storage import AlarmChanges
from .activation import STOP, Activation
from .admission import admit
from .by_value import are_atoms, arguments_by_value
from .directory import Directory
from .envelope import Envelope, Operation
from .exchange import Replies
from .object_type import ObjectType
from .observation import observed, turn_event
from .placement import NotHere
from .services import Services
from .tenure import check_lease
from .turns import run_turn
from .wait_graph import Turn, current_turn, running_turn

logger = logging.getLogger("trio_durable.alarms")

WONT_END_SECONDS = 60.0
"""How long a turn may go on after its interruption, if calls have no timeout."""

Call = Callable[
    [str, HandlerDefinition, tuple[object, ...], dict[str, object], float | None],
    Coroutine[Any, Any, object],
]
"""Runs a handler in a turn of an object, and returns its reply once that is durable.

Called with the object's address, the handler, its arguments and the call's timeout."""
_CHANGE = "a change of its alarms"


class CallPath(Protocol):
    """The way of a call to the objects of one type."""

    @property
    def object_type(self) -> ObjectType:
        """The type of the objects."""
        ...

    call: Call


class LocalCalls:
    """Calls of the objects of one type in this process.

    Args:
        directory: The objects in memory.
        services: The runtime's parts.
    """

    def __init__(self, directory: Directory, services: Services) -> None:
        self.directory = directory
        self.object_type = directory.object_type
        self._exchange = exchange = directory.object_type.exchange
        self._fitting = None if exchange is None else exchange.fitting
        self._services = services
        self._deadlines = services.deadlines
        self._loop = services.loop
        self._notifier = services.notifier
        self._tenure = services.tenure
        self.elsewhere: Call | None = None
        """Makes a call whose object isn't here any more; None if no process else has objects."""
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
            self._check_usable()
        origin, lease = current_turn.get(), None
        if tenure is not None:
            lease = tenure.lease
            if boot_time() >= lease.valid_until or (origin is not None and origin.base_lost):
                key = partial(self.directory.key, address)
                timeout = await tenure.enter(key, handler.name, timeout)
                lease = tenure.lease
        if (fitting := self._fitting) is not None:
            if kwargs or not fitting[handler.name].takes(args):
                args, kwargs = self._by_value(address, handler, args, kwargs)
        elif kwargs or (args and not are_atoms(args)):
            args, kwargs = self._by_value(address, handler, args, kwargs)
        if origin is not None and (handler.is_async or not handler.readonly) and origin.must_wait:
            key = partial(self.directory.key, address)
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
                    await loop.checkpoint()
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

    def _by_value(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        key = partial(self.directory.key, address)
        if self._exchange is not None:
            return self._exchange.arguments(key, handler.name, args, kwargs)
        return arguments_by_value(key, handler.name, args, kwargs)

    # --- the mailbox -----------------------------------------------------------------------------

    async def _queue(
        self,
        activation: Activation,
        envelope: Envelope,
        timeout: float | None,
        *,
        is_admitted: bool = False,
    ) -> object:
        """Put ``envelope`` into the mailbox and wait for its reply."""
        waiter, node = envelope.waiter, activation.state
        graph = self._services.wait_graph
        caller = graph.caller()
        if caller is not None:
            graph.check(caller, node, envelope.name)
        if not is_admitted:
            activation.admit(envelope.name, timeout)
        if caller is not None:
            graph.begin(caller, node)
        try:
            self._put(activation, envelope, timeout)
            return await waiter.wait()
        finally:
            activation.withdraw(envelope)  # if it is there still, its caller gives up
            waiter.expiry = None  # or it would keep the object for as long as the waiter is kept
            if caller is not None:
                graph.end(caller, node)

    def _put(self, activation: Activation, envelope: Envelope, timeout: float | None) -> None:
        waiter = envelope.waiter
        activation.accept(envelope)
        if timeout is not None and not waiter.ended:
            waiter.expiry = partial(self._timed_out, activation, envelope, timeout)
            self._deadlines.watch(waiter, self._loop.now(), timeout)

    def _timed_out(self, activation: Activation, envelope: Envelope, timeout: float) -> CallTimeout:
        is_queued = activation.is_queued(envelope)
        if envelope.stood_in_line and is_queued:
            size, activity = self.object_type.options.mailbox_size, activation.activity()
            activation.repair()
            return MailboxFull(activation.key, envelope.name, timeout, activity, size)
        return timed_out(activation, envelope.name, timeout, may_have_run=not is_queued)

    def _check_usable(self) -> None:
        """Refuse calls from the wrong place, and from outside while the runtime closes.

        Raises:
            WrongEventLoop: The caller runs in another loop or thread than the runtime.
            RuntimeClosed: The runtime is closing or closed. Calls by its last turns are served.
        """
        if self._services.closed:  # first: in a forked process asyncio's loop isn't current
            raise self._services.closed_error("the runtime is closed")
        if not self._loop.is_current():
            raise WrongEventLoop(
                f"{self.object_type.name} was called from a thread or event loop that isn't the "
                "runtime's"
            )
        if self._services.closing and running_turn() is None:
            raise self._services.closed_error("the runtime is closing")

    # --- operations, and alarms from outside -----------------------------------------------------

    async def operate(self, address: str, operation: Operation, *args: object) -> object:
        """Run an operation in a turn of an object; return its result once that is durable."""
        operating = self._operate(address, operation, args)
        if self._notifier is not None:
            operating = self._observed(self._notifier, address, operation.name, operating)
        return await operating

    async def _operate(
        self, address: str, operation: Operation, args: tuple[object, ...]
    ) -> object:
        self._check_usable()
        timeout, operate = (
            self.object_type.timeout,
            partial(self._operate_now, address, operation),
        )
        if self._tenure is None:
            return await operate(args, timeout)
        key = partial(self.directory.key, address)
        return await self._tenure.guard(key, operation.name, timeout, partial(operate, args))

    async def _operate_now(
        self, address: str, operation: Operation, args: tuple[object, ...], timeout: float | None
    ) -> object:
        directory = self.directory
        if operation.saves:
            key = partial(directory.key, address)
            timeout = await self._services.output_gate.leave_turn(key, operation.name, timeout)
        admit(
            self._services,
            directory.key(address),
            operation.name,
            timeout,
            saves=operation.saves,
            loads=directory.find(address) is None,
        )
        activation = directory.use(address)
        envelope = Envelope(
            self._loop.waiter(),
            operation.name,
            operation,
            args,
            needs_instance=operation.needs_instance,
        )
        return await self._queue(activation, envelope, timeout)

    async def interrupt(self, address: str) -> None:
        """Cancel the turn that runs in an object, and let the object leave memory.

        Raises:
            CallCycle: That turn waits for the caller, or is the caller.
            TurnWontEnd: It still runs after the call timeout.
        """
        stopping = self._interrupt(address)
        if self._notifier is not None:
            stopping = self._observed(self._notifier, address, STOP.name, stopping)
        await stopping

    async def _interrupt(self, address: str) -> object:
        self._check_usable()
        activation = self.directory.find(address)
        turn = None if activation is None else activation.running_turn
        if activation is None or turn is None:
            return await self._operate(address, STOP, ())
        if self._tenure is None:
            return await self._interrupt_turn(activation, turn, self.object_type.timeout)
        interrupt = partial(self._interrupt_turn, activation, turn)
        key, timeout = activation.key, self.object_type.timeout
        return await self._tenure.guard(lambda: key, STOP.name, timeout, interrupt)

    async def _interrupt_turn(
        self, activation: Activation, turn: Turn, timeout: float | None
    ) -> object:
        key, now = activation.key, self._loop.now()
        caller = self._services.wait_graph.caller()
        if caller is not None:
            self._services.wait_graph.check(caller, activation.state, STOP.name)
        envelope = Envelope(self._loop.waiter(), STOP.name, STOP, needs_instance=False)
        bound = WONT_END_SECONDS if timeout is None else timeout

        def give_up(_: object) -> None:
            if turn.node is not None:
                envelope.waiter.fail(TurnWontEnd(key, turn.name, bound))

        activation.interrupt(turn, partial(TurnInterrupted, key, turn.name))
        end = CallbackWaiter(give_up)
        self._deadlines.watch(end, now, bound)  # ahead of the timeout, if it is the same
        try:
            return await self._queue(activation, envelope, timeout, is_admitted=True)
        finally:
            end.discard()

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Change an object's alarms from outside; return once that is durable."""
        changing = self._change_alarms(key, changes)
        if self._notifier is not None:
            changing = self._observed(self._notifier, key.address, "change_alarms", changing)
        await changing

    async def _change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> object:
        self._check_usable()
        timeout = self.object_type.timeout
        if self._tenure is None:
            return await self._change_alarms_now(key, changes, timeout)
        change = partial(self._change_alarms_now, key, changes)
        return await self._tenure.guard(lambda: key, _CHANGE, timeout, change)

    async def _change_alarms_now(
        self, key: ObjectKey, changes: AlarmChanges, timeout: float | None
    ) -> object:
        name = _CHANGE
        timeout = await self._services.output_gate.leave_turn(lambda: key, name, timeout)
        admit(self._services, key, name, timeout, loads=False)
        activation = self.directory.use(key.address)
        caller = self._services.wait_graph.caller()
        if caller is not None and caller.node is activation.state:
            raise CallCycle(key, f"{_CHANGE} from outside", (key, key))
        waiter = self._loop.waiter()
        activation.change_alarms(changes).hold(waiter)
        if timeout is not None:
            self._deadlines.watch(waiter, self._loop.now(), timeout)
        try:
            return await waiter.wait()
        except Expired:
            raise timed_out(activation, name, timeout or 0) from None

    # --- deliveries ------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """Handle an alarm in a turn of its object; ``waiter`` is released when that is durable.

        An alarm without a handler is discarded.

        Raises:
            OwnerLost: The object lives in another process.
        """
        key = delivery.key
        try:
            activation = self.directory.use(key.address)
        except NotHere:
            raise OwnerLost(key.object_key, key.name, "it is in another process") from None
        handler = self.object_type.alarm_handler(key.name)
        if handler is None:
            if activation.state.is_superseded(delivery):
                waiter.fail(AlarmSuperseded(activation.key, key.name))
                return
            logger.debug("alarm %s has no handler and is discarded", key)
            acknowledged = {key.name: delivery.claim}
            activation.change_alarms(AlarmChanges(acknowledged=acknowledged)).hold(waiter)
            return
        args = () if key.name in self.object_type.alarms else (delivery.alarm,)
        activation.accept(Envelope(waiter, key.name, handler, args, delivery=delivery))

    def deliver_message(
        self,
        delivery: MessageDelivery,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        replies: Replies,
        waiter: Waiter,
    ) -> Callable[[], bool]:
        """Handle a message in a turn of its object; ``waiter`` is released when that is durable.

        Returns:
            A function that withdraws it, and returns whether its turn hasn't begun.

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
            waiter, handler.name, handler, args, kwargs, message=delivery, replies=replies
        )
        activation.accept(envelope)

        def withdraw() -> bool:
            is_queued = activation.is_queued(envelope)
            activation.withdraw(envelope)
            return is_queued

        return withdraw

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

    async def _observed(
        self,
        notifier: Notifier,
        address: str,
        name: str,
        calling: Coroutine[Any, Any, object],
        expected: tuple[type[Exception], ...] = (),
    ) -> object:
        """Await a call, and report it to the instruments."""
        try:
            # A call that can't be made is no event, and instruments run in one thread only.
            self._check_usable()
            activation = self.directory.find(address)
        except BaseException:
            calling.close()
            raise
        key = self.directory.key(address) if activation is None else activation.key
        depth = 0 if activation is None else activation.depth
        return await observed(notifier, events.Call(key, name, depth, expected), calling)


def timed_out(
    activation: Activation, name: str, timeout: float, *, may_have_run: bool = True
) -> CallTimeout:
    """The error of a request that wasn't served in time, or isn't durable."""
    activity = activation.activity()
    activation.repair()
    return CallTimeout(activation.key, name, timeout, activity, may_have_run)
