"""Routed calls: the calls of a type's objects, wherever these are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

import orjson

from .._activations.activation import Activation
from .._activations.admission import admit
from .._activations.calls import Call, LocalCalls, OnceElsewhere, warn_of_repeats
from .._activations.directory import Directory
from .._activations.envelope import Envelope
from .._activations.exchange import Replies
from .._activations.observation import turn_event
from .._activations.services import Services
from .._activations.submission import Submission
from .._activations.turns import Outcome, run_turn
from .._activations.wait_graph import current_turn
from .._declarations.records import HandlerDefinition
from .._errors import CallCycle
from .._eventloop.loop import Waiter
from .._keys import ObjectKey, id_at
from .._messages.once import OnceRequest
from .call_codec import CallCodec
from .chain import encode_chain
from .peer import Peer
from .places import HERE
from .router import Router


class RoutedCalls(LocalCalls):
    """Calls of the objects of one type, here or in another process.

    Args:
        directory: The objects in memory.
        services: The runtime's parts.
        router: The way to other processes.
        codec: The codec of the type's handlers.
    """

    def __init__(
        self, directory: Directory, services: Services, router: Router, codec: CallCodec
    ) -> None:
        super().__init__(directory, services)
        self.codec = codec
        self._router = router
        self._places = router.places
        self._outgoing = {
            name: (codec.handler(name), _form("h", self.object_type.name, name))
            for name in self.object_type.handlers
        }
        """For each handler the codec of its calls, and the form of their requests."""
        self._call_here = self.call
        self.call: Call = self._routed
        self.elsewhere: Call | None = self._call_elsewhere
        self.once_elsewhere: OnceElsewhere | None = self._once_elsewhere

    def _routed(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
    ) -> Coroutine[Any, Any, object]:
        """See `CallPath.call`."""
        places = self._places
        if not places.moving and self.directory.find(address) is not None:
            return self._call_here(address, handler, args, kwargs, timeout)
        place = places.find(id_at(address))
        if place is HERE:
            if places.are_all_here:
                self.call = self._call_here
            return self._call_here(address, handler, args, kwargs, timeout)
        calling = self._call_elsewhere(address, handler, args, kwargs, timeout, place)
        if self._notifier is None:
            return calling
        return self._observed(self._notifier, address, handler.name, calling, handler.expected)

    async def _call_elsewhere(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
        peer: Peer | None = None,
    ) -> object:
        services, loop, name = self._services, self._loop, handler.name
        if services.closing or not loop.is_current():
            self.check_usable()
        key = partial(self.directory.key, address)
        codec, form = self._outgoing[name]
        body = form % (orjson.dumps(address), codec.encode_arguments(key, args, kwargs))
        origin = current_turn.get()
        if self._notifier is not None or origin is not None:
            if origin is not None and origin.is_once and not handler.readonly:
                warn_of_repeats(origin, key(), name)
            body += self._origin(key, name)
            peer = None  # an instrument has run since
        repeatable = handler.readonly and not handler.is_async
        began = loop.now()
        reply = await self._router.forward(
            key, id_at(address), name, body, timeout, repeatable=repeatable, peer=peer
        )
        if reply is HERE:
            if timeout is not None:
                timeout = max(began + timeout - loop.now(), 0.0)
            return await self._call_here(address, handler, args, kwargs, timeout)
        return codec.decode_reply(key, reply)

    async def _once_elsewhere(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
        once: OnceRequest,
    ) -> bytes | None:
        """See `OnceElsewhere`. The request may be made twice, so the router repeats it."""
        name, key = handler.name, partial(self.directory.key, address)
        arguments = self.codec.handler(name).encode_arguments(key, args, kwargs)
        body = _form("o", self.object_type.name, name) % (orjson.dumps(address), arguments)
        body += b"," + orjson.dumps([once.key.key, once.digest, once.signature])
        body += self._origin(key, name)
        reply = await self._router.forward(
            key, id_at(address), name, body, timeout, repeatable=True
        )
        return None if reply is HERE else orjson.dumps(reply)

    def _origin(self, key: Callable[[], ObjectKey], name: str) -> bytes:
        """The end of the request: the objects that wait for the call, and its trace.

        Raises:
            CallCycle: The object is one of these.
        """
        caller = self._services.wait_graph.caller()
        carrier = {} if self._notifier is None else self._notifier.inject()
        if caller is None and not carrier:
            return b""
        chain: Sequence[ObjectKey] = ()
        if caller is not None:
            chain, target = self._services.wait_graph.chain(caller), key()
            if target in chain:
                raise CallCycle(target, name, (chain[0], target))
        return b",%b,%b" % (orjson.dumps(encode_chain(chain)), orjson.dumps(carrier))

    # --- calls of other processes ----------------------------------------------------------------

    def open_object(self, address: str) -> Activation | None:
        """The object at an address, if a ``def`` turn can run in it now; its use is noted.

        Else the call has to be submitted: the object isn't in memory or is busy, or the call may
        have to be rejected.

        Raises:
            StateDecodeError: Its state can't be read.
        """
        services = self._services
        if (
            services.dropping
            or services.group_commit.is_behind
            or services.batched_load.is_behind
            or (activation := self.directory.use_active(address)) is None
        ):
            return None
        if not activation.open_up():
            return None
        activation.last_used = self._loop.now()
        return activation

    def submit(
        self,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
        waiter: Waiter,
        replies: Replies,
        chain: Sequence[ObjectKey] = (),
    ) -> Submission:
        """Call a handler for a caller elsewhere, which no task here waits for.

        Its turn comes from the mailbox. See `open_object` and `run_now` for one on the spot.

        Args:
            address: The object's address.
            handler: The handler.
            args: The arguments, by value already.
            kwargs: The same, by name.
            timeout: The time that is left to the caller, in seconds.
            waiter: Ended with the reply, or with an error.
            replies: Passes the reply by value.
            chain: The objects that wait for the call, see `WaitGraph.chain`.

        Raises:
            CallCycle: The object waits for one of them; the call was not made.
            RuntimeClosed: The runtime closes or is closed; the call was not made.
            TenantDropped: The object's tenant is being dropped, likewise.
            Overloaded: It was unlikely to end within its timeout, likewise.
            NotHere: The object lives in another process, likewise.
        """
        services, directory = self._services, self.directory
        if services.closing:
            raise services.closed_error("the runtime is closing")
        if services.group_commit.is_behind or services.batched_load.is_behind:
            key, loads = directory.key(address), directory.find(address) is None
            admit(services, key, handler.name, timeout, saves=not handler.readonly, loads=loads)
        activation = directory.use(address)
        activation.admit(handler.name, timeout)
        services.wait_graph.check_chain(chain, activation.state, handler.name)
        envelope = Envelope(waiter, handler.name, handler, args, kwargs, replies=replies)
        submission = Submission(activation, envelope, services.wait_graph, chain)
        self._put(activation, envelope, timeout)
        return submission

    def run_now(
        self,
        activation: Activation,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        replies: Replies,
    ) -> Outcome:
        """Run a ``def`` handler on an open object for a caller elsewhere, in a context of its own.

        Returns:
            The reply, or the error that the handler raised, whatever it is. It may leave
            once the object's gate has been passed.
        """
        services, state = self._services, activation.state
        try:
            step, context = services.loop.interruptible, copy_context()
            turn = (state, activation.runtime, handler, args, kwargs, replies)
            if services.observation is None:
                return step(context.run, run_turn, *turn), None
            run, event = services.observation.run, turn_event(state.key, handler)
            return step(context.run, run, event, run_turn, *turn), None
        except BaseException as error:  # noqa: BLE001  # handlers may raise anything
            state.turn = None  # should the end of the turn itself have been cut off
            if state.gate is not None:
                services.group_commit.wake(state)  # a RecursionError may have kept it from it
            return None, error


def _form(kind: str, type_name: str, handler: str) -> bytes:
    """The form of the requests of one handler: for the object's address, and the arguments."""
    names = [orjson.dumps(name).replace(b"%", b"%%") for name in (kind, type_name, handler)]
    return b"%b,%b,%%b,%b,%%b" % (names[0], names[1], names[2])
