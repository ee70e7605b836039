"""Requests: the ways into an object's mailbox that calls have in common, and the runtime's own.

Those are its operations, such as ``get_state``, the interruption of a turn, and changes of alarms
from outside.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from .._errors import (
    CallCycle,
    CallTimeout,
    MailboxFull,
    TurnInterrupted,
    TurnWontEnd,
    WrongEventLoop,
)
from .._eventloop.loop import CallbackWaiter, Expired
from .._keys import ObjectKey
from .._telemetry import events
from .._telemetry.notifier import Notifier
from ..storage import AlarmChanges
from .activation import STOP, Activation
from .admission import admit
from .directory import Directory
from .envelope import Envelope, Operation
from .object_type import ObjectType
from .observation import observed
from .services import Services
from .wait_graph import Turn, running_turn

WONT_END_SECONDS = 60.0
"""How long a turn may go on after its interruption, if calls have no timeout."""

_CHANGE = "a change of its alarms"


class Requests:
    """Requests to the objects of one type in this process.

    Args:
        directory: The objects in memory.
        services: The runtime's parts.
    """

    def __init__(self, directory: Directory, services: Services) -> None:
        self.directory = directory
        self.object_type: ObjectType = directory.object_type
        self._services = services
        self._deadlines = services.deadlines
        self._loop = services.loop
        self._notifier = services.notifier
        self._tenure = services.tenure

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
            waiter.expiry = partial(self.expired, activation, envelope, timeout)
            self._deadlines.watch(waiter, self._loop.now(), timeout)

    def expired(self, activation: Activation, envelope: Envelope, timeout: float) -> CallTimeout:
        """The error of a request from the mailbox that wasn't served in time."""
        is_queued = activation.is_queued(envelope)
        if envelope.stood_in_line and is_queued:
            size, activity = self.object_type.options.mailbox_size, activation.activity()
            activation.repair()
            return MailboxFull(activation.key, envelope.name, timeout, activity, size)
        return timed_out(activation, envelope.name, timeout, may_have_run=not is_queued)

    def check_usable(self) -> None:
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
        self.check_usable()
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
        self.check_usable()
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
        self.check_usable()
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

    # --- instruments ------------------------------------------------------------------------------

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
            self.check_usable()
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
