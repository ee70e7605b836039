"""Once-runs: calls with a once-key at their object, of which each key has one at a time.

A once-key (an idempotency key, as in the ``Idempotency-Key`` header of HTTP) makes a call happen
once, however often it is made. The turn records its reply under the key, in the same commit as its
effects; a later call gets that reply. Prior art: Stripe's idempotent requests, the awakeables and
idempotency keys of Restate. There the key is looked up by one service and the effect is that of
another; here both are one row each of one transaction.

Invariants:

- A run is registered before its key is looked up, so that concurrent calls with the key join it.
- Each joined call has its own timeout. The run is withdrawn when the last one has left, if its turn
  hasn't begun.
- The storage refuses the record of a key that is there. So a run that has looked too early changes
  nothing: its commit is stale, and its callers look again.
- A turn that raises records nothing. All calls that have joined it get the error.
- Each joined call counts as a wait for the object, from when the turn is in the mailbox.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from .._declarations.records import HandlerDefinition
from .._errors import (
    CallCycle,
    CallTimeout,
    OnceMessageDied,
    OwnerLost,
    StorageUnavailable,
)
from .._eventloop.loop import CallbackWaiter, Waiter
from .._eventloop.runner import Runner
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from .._messages.message import message_id
from .._messages.once import OnceEncoder, OnceRequest, OnceTurn
from .._persistence.division import in_parts
from ..storage import OnceKey, OnceReply, Reader, StorageFault, StoredMessage
from .activation import Activation
from .admission import admit
from .calls import LocalCalls
from .envelope import Envelope
from .object_type import ObjectType
from .once_records import check_same, check_stored, expiry
from .placement import NotHere
from .services import Services
from .wait_graph import Node, Turn

logger = logging.getLogger("trio_durable.messages")

MAX_LOOKED_UP = 1024
"""Keys of one read."""


@attrs.define(eq=False)
class OnceRun:
    """One run of a once-key: its look-up, and then its turn or its wait for a message."""

    request: OnceRequest
    calls: LocalCalls
    address: str
    envelope: Envelope
    joined: dict[Joined, None] = attrs.field(factory=dict)
    activation: Activation | None = None
    """The object, once its turn, or its message, is waited for."""
    is_submitted: bool = False
    """Its turn is in the mailbox, or was."""
    is_over: bool = False

    @property
    def is_async(self) -> bool:
        """True if its handler is an ``async def``."""
        handler = self.envelope.handler
        return isinstance(handler, HandlerDefinition) and handler.is_async

    @property
    def key(self) -> ObjectKey:
        """The object."""
        return self.request.key.to


@attrs.define(eq=False)
class Joined:
    """A call that waits for the outcome of a run: the reply as JSON, or an error."""

    _runs: OnceRuns
    run: OnceRun
    waiter: Waiter
    caller: Turn | None
    """The turn that waits for it, if one of this process does."""
    chain: Sequence[ObjectKey]
    """The objects of other processes that wait for it. See `WaitGraph.chain`."""
    node: Node | None = None
    """The object that it waits for in the wait graph."""

    @property
    def has_begun(self) -> bool:
        """See `Submitted.has_begun`."""
        return self._runs.has_begun(self.run)

    def withdraw(self) -> None:
        """See `Submitted.withdraw`."""
        self._runs.leave(self)

    def end(self) -> None:
        """See `Submitted.end`."""
        self._runs.leave(self)


class OnceRuns:
    """All runs of one runtime.

    Args:
        services: The runtime's parts.
        runner: The reader's.
        reader: The side of the storage that finds once-keys.
        encoder: Returns the codec of a handler's calls.
        location: The storage, for errors.
    """

    def __init__(
        self,
        services: Services,
        runner: Runner,
        reader: Reader,
        encoder: Callable[[ObjectType, HandlerDefinition], OnceEncoder],
        location: str,
    ) -> None:
        self._services = services
        self._runner = runner
        self._reader = reader
        self._encoder = encoder
        self._location = location
        self._runs: dict[OnceKey, OnceRun] = {}
        self._to_look_up: list[OnceRun] = []
        self._has_some = AutoResetEvent(services.loop)

    # --- calls -----------------------------------------------------------------------------------

    async def call(
        self,
        calls: LocalCalls,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        request: OnceRequest,
        timeout: float | None,
    ) -> bytes:
        """Call a handler of an object here; return its reply, as JSON.

        Raises:
            NotHere: The object lives in another process.
            OnceKeyReused: The key was used for another call.
            OnceMessageDied: The key was used for a message, which is a dead letter.
            CallFailed: The call has failed, and may be made again with the key.
            Exception: The handler's error.
        """
        services, loop = self._services, self._services.loop
        activation = calls.directory.find(address)
        admit(services, request.key.to, handler.name, timeout, loads=activation is None)
        if activation is not None:
            activation.admit(handler.name, timeout)
        waiter, caller = loop.waiter(), services.wait_graph.caller()
        joined = self.join(calls, address, handler, args, kwargs, request, waiter, caller=caller)
        try:
            if timeout is not None and not waiter.ended:
                waiter.expiry = partial(self.expired, joined.run, timeout)
                services.deadlines.watch(waiter, loop.now(), timeout)
            reply = await waiter.wait()
            assert isinstance(reply, bytes)
            return reply
        finally:
            waiter.expiry = None
            self.leave(joined)

    def join(
        self,
        calls: LocalCalls,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        request: OnceRequest,
        waiter: Waiter,
        *,
        caller: Turn | None = None,
        chain: Sequence[ObjectKey] = (),
    ) -> Joined:
        """Join the run of a key, or begin it. The arguments are passed by value already.

        Args:
            calls: The calls of the object's type.
            address: The object's address.
            handler: The handler.
            args: The arguments.
            kwargs: The same, by name.
            request: The identity of the call.
            waiter: Ended with the reply as JSON, or with an error.
            caller: The turn of this process that waits for it.
            chain: The objects of other processes that do.

        Raises:
            OnceKeyReused: The key is in use for another call.
            CallCycle: The object waits for the caller.
        """
        run = self._runs.get(request.key)
        if run is None:
            run = self._begin(calls, address, handler, args, kwargs, request)
        else:
            check_same(request, run.request)
        joined = Joined(self, run, waiter, caller, chain)
        if run.activation is not None:
            self._begin_wait(joined, run.activation.state)
        run.joined[joined] = None
        return joined

    def leave(self, joined: Joined) -> None:
        """A call has its outcome, or its caller has gone. Called once, or more often."""
        run = joined.run
        run.joined.pop(joined, None)
        self._end_wait(joined)
        if run.joined or run.is_over:
            return
        if not run.is_submitted:
            self._forget(run)
        elif run.activation is not None and run.activation.is_queued(run.envelope):
            run.activation.withdraw(run.envelope)
            self._forget(run)

    def has_begun(self, run: OnceRun) -> bool:
        """True if the turn of a run has begun, so that it ends by itself."""
        activation = run.activation
        return run.is_submitted and not (
            activation is not None and activation.is_queued(run.envelope)
        )

    def expired(self, run: OnceRun, timeout: float) -> CallTimeout:
        """The error of a call that has timed out."""
        if run.activation is None:
            activity = "its once-key is being looked up"
            return CallTimeout(run.key, run.request.handler, timeout, activity, False)
        if not run.is_submitted:
            activity = "the message with its once-key waits; call again with the key"
            return CallTimeout(run.key, run.request.handler, timeout, activity, True)
        return run.calls.expired(run.activation, run.envelope, timeout)

    def _begin(
        self,
        calls: LocalCalls,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        request: OnceRequest,
    ) -> OnceRun:
        object_type = calls.object_type
        encoder = self._encoder(object_type, handler)
        turn = OnceTurn(request, encoder, partial(self._expiry, object_type))
        waiter = CallbackWaiter(lambda waiter: self._ended(run, waiter))
        envelope = Envelope(waiter, handler.name, handler, args, kwargs, once=turn, replies=turn)
        run = self._runs[request.key] = OnceRun(request, calls, address, envelope)
        self._to_look_up.append(run)
        self._has_some.set()
        return run

    def _expiry(self, object_type: ObjectType) -> int:
        return expiry(object_type, self._services.clock.now())

    # --- messages --------------------------------------------------------------------------------

    def reply(
        self,
        object_type: ObjectType,
        handler: HandlerDefinition,
        stored: StoredMessage,
        result: object,
    ) -> OnceReply:
        """The record of the result of a message that was sent with a once-key.

        Raises:
            ReplyError: The result can't be recorded.
        """
        assert stored.once_key is not None
        encoder, to = self._encoder(object_type, handler), stored.key.to
        request = encoder.request_of(OnceKey(to, stored.once_key), stored.arguments)
        encoded = encoder.result(to, handler.name, result)
        return request.recorded(encoded, self._expiry(object_type), stored.key.token)

    # --- look-ups --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look up the keys of new runs, until cancelled."""
        while True:
            await self._has_some.wait()
            while self._to_look_up:
                batch = self._to_look_up[:MAX_LOOKED_UP]
                del self._to_look_up[:MAX_LOOKED_UP]
                await self._look_up([run for run in batch if not run.is_over])

    async def _look_up(self, batch: list[OnceRun]) -> None:
        find = partial(_find_in_parts, self._reader, batch, self._services.clock.now())
        parts, clock = await self._runner.run(find), self._services.slice_clock
        share = clock.slice(clock.end_of_pass())
        for part, found in parts:
            for at, run in enumerate(part):
                if share.is_over:
                    await self._services.loop.checkpoint()
                    share = clock.slice(clock.end_of_pass())
                share.turns += 1
                try:
                    if isinstance(found, StorageFault):
                        raise StorageUnavailable(self._location, str(found)) from found
                    if not run.is_over:
                        self._found(run, found[at])
                except Exception as error:  # noqa: BLE001  # its callers get it
                    self._fail(run, error)

    async def find(self, keys: Sequence[OnceKey]) -> list[OnceReply | None]:
        """The records of some keys.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        now = self._services.clock.now()
        try:
            return await self._runner.run(lambda: self._reader.find_once(keys, now))
        except StorageFault as fault:
            raise StorageUnavailable(self._location, str(fault)) from fault

    def _found(self, run: OnceRun, stored: OnceReply | None) -> None:
        """The key of a run was looked up."""
        if stored is not None:
            check_stored(run.request, stored)
            if stored.reply is not None:
                self._settle(run, stored.reply)
                return
        activation = run.calls.directory.use(run.address)
        run.activation = activation
        for joined in list(run.joined):
            try:
                self._begin_wait(joined, activation.state)
            except CallCycle as error:  # the others may wait
                joined.waiter.fail(error)
        if all(joined.waiter.ended for joined in run.joined):
            self._forget(run)
        elif stored is None:
            run.is_submitted = True
            if not run.is_async and activation.is_open():
                activation.run_now(run.envelope)
            else:
                activation.accept(run.envelope)
        else:
            assert stored.token is not None
            name = f"trio_durable look for a dead message to {run.key}"
            look = partial(self._look_for_dead, run, stored.token)
            self._services.tasks.start(look, name, partial(self._fail, run))

    async def _look_for_dead(self, run: OnceRun, token: int) -> None:
        """Fail a run that waits for a message, if that is a dead letter already."""
        tenant = run.key.tenant
        try:
            (dead,) = await self._runner.run(
                lambda: self._reader.load_dead_messages([token], tenant)
            )
        except StorageFault as fault:
            self._fail(run, StorageUnavailable(self._location, str(fault)))
            return
        if dead is not None:
            self._fail(run, _died(run.request, token, dead.message.last_error))

    # --- outcomes --------------------------------------------------------------------------------

    def recorded(self, replies: Sequence[OnceReply]) -> None:
        """Replies of messages have become durable."""
        for stored in replies:
            run = self._runs.get(stored.key)
            if run is not None and not run.is_submitted and stored.reply is not None:
                self._found(run, stored)

    def died(self, key: OnceKey, token: int, error: str) -> None:
        """The message with a once-key has become a dead letter."""
        run = self._runs.get(key)
        if run is not None and not run.is_submitted:
            self._fail(run, _died(run.request, token, error))

    def moved(self, is_here: Callable[[ObjectKey], bool]) -> None:
        """Other objects may be here than before. Runs of the other keys end."""
        for run in list(self._runs.values()):
            if not run.is_submitted and not is_here(run.key):
                self._fail(run, OwnerLost(run.key, run.request.handler, "its object has moved"))

    def abandon(self) -> None:
        """Fail all runs whose turns aren't in a mailbox, because the runtime closes."""
        for run in list(self._runs.values()):
            if not run.is_submitted:
                self._fail(run, self._services.closed_error())

    def under_way(self, key: OnceKey) -> bool:
        """True if a key has a run."""
        return key in self._runs

    def _ended(self, run: OnceRun, waiter: Waiter) -> None:
        """The turn of a run is durable, or has failed."""
        error, waiter.error = waiter.error, None
        if error is not None:
            self._fail(run, error)
        else:
            assert isinstance(waiter.value, bytes)
            self._settle(run, waiter.value)

    def _settle(self, run: OnceRun, reply: bytes) -> None:
        self._forget(run)
        for joined in list(run.joined):
            joined.waiter.settle(reply)

    def _fail(self, run: OnceRun, error: BaseException) -> None:
        """Fail the calls that have joined a run, each with an error of its own."""
        self._forget(run)
        waiting = [joined.waiter for joined in run.joined if not joined.waiter.ended]
        if isinstance(error, NotHere):
            error = OwnerLost(run.key, run.request.handler, "its object has moved")
        if not waiting and isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._services.exit(error)  # no caller gets it
        for index, waiter in enumerate(waiting):
            waiter.fail(error if index == 0 else _copied(error, self._services))

    def _forget(self, run: OnceRun) -> None:
        run.is_over = True
        if self._runs.get(run.request.key) is run:
            del self._runs[run.request.key]

    # --- the wait graph --------------------------------------------------------------------------

    def _begin_wait(self, joined: Joined, node: Node) -> None:
        graph, name = self._services.wait_graph, joined.run.request.handler
        if joined.caller is not None:
            graph.check(joined.caller, node, name)
            graph.begin(joined.caller, node)
        elif joined.chain:
            graph.check_chain(joined.chain, node, name)
            graph.begin_elsewhere(joined, joined.chain, node)
        joined.node = node

    def _end_wait(self, joined: Joined) -> None:
        node, joined.node = joined.node, None
        if node is not None:
            graph = self._services.wait_graph
            if joined.caller is not None:
                graph.end(joined.caller, node)
            elif joined.chain:
                graph.end_elsewhere(joined, node)


def _find_in_parts(
    reader: Reader, batch: list[OnceRun], now: int
) -> list[tuple[list[OnceRun], list[OnceReply | None] | StorageFault]]:
    """Look up the keys of runs, in the reader's thread. One that can't be fails no other.

    Returns:
        The parts of the batch, each with what is recorded, or the fault that it has met.
    """

    def attempt(part: list[OnceRun]) -> list[OnceReply | None] | StorageFault:
        try:
            return reader.find_once([run.request.key for run in part], now)
        except StorageFault as fault:
            return fault

    return list(in_parts(batch, lambda run: run.request.key.to.tenant, attempt))


def _died(request: OnceRequest, token: int, error: str | None) -> OnceMessageDied:
    key = request.key
    return OnceMessageDied(
        key.to, request.handler, key.key, message_id(token), error or "it has failed"
    )


def _copied(error: BaseException, services: Services) -> BaseException:
    """An error for one more caller."""
    if not isinstance(error, Exception):
        return services.closed_error()
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001  # a class of the user's that can't be copied
        return error
    copied.__cause__ = error.__cause__
    return copied
