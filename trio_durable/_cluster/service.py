"""Service: the requests of other processes, made here.

A ``def`` handler of an open object runs in the task that reads from the link. Other calls are put
into the mailbox of their object and answered from there, without a task of their own. Requests that
are no calls are few, and have one each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from .._activations.activation import Activation
from .._activations.once_runs import OnceRuns
from .._activations.placement import NotHere
from .._activations.requests import timed_out
from .._activations.services import NO_MESSAGES, Services
from .._declarations.records import HandlerDefinition
from .._errors import InvalidOnceKey, RuntimeClosed
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey, id_at
from .._messages.once import OnceRequest
from ..storage import Lease, OnceKey
from .answer import CUT_OFF_ANSWER, MOVED_ANSWER, Answer, fail, give
from .call_codec import Arguments, HandlerCodec
from .chain import decode_chain
from .incoming import Incoming
from .news_codec import WATCHED
from .places import Places
from .routed_calls import RoutedCalls


class Targets(Protocol):
    """The objects of a runtime, by the names of their types."""

    def calls(self, object_type: str) -> RoutedCalls:
        """The calls of a type's objects.

        Raises:
            UnknownObjectType: It isn't known.
        """
        ...

    def administer(self, name: str, arguments: list[Any]) -> Awaitable[bytes]:
        """Make a request about an object, or of the process that has all, and return its JSON."""
        ...

    def assist(self, name: str, arguments: list[Any]) -> Awaitable[bytes]:
        """Make a request of this member of a cluster, likewise."""
        ...

    @property
    def once_runs(self) -> OnceRuns | None:
        """The calls with a once-key that are here; None if the storage keeps none."""
        ...


class Service:
    """Serves the requests of all peers.

    Args:
        services: The runtime's parts.
        targets: The objects.
        places: Knows whether they are here.
        start: Starts a task.
    """

    def __init__(
        self,
        services: Services,
        targets: Targets,
        places: Places,
        start: Callable[[Callable[[], Any], str], object],
    ) -> None:
        self._services = services
        self._targets = targets
        self._places = places
        self._start = start
        self._calls: dict[str, RoutedCalls] = {}
        self.watches: Mapping[str, Callable[[Incoming], object]] = {}
        """The handlers of the requests of watches, by their names. They need no task."""
        self._administering = 0
        self._ended = AutoResetEvent(services.loop)
        """Set whenever one of these has ended."""

    async def answered(self) -> None:
        """Return when all requests of the runtime itself have their answers."""
        while self._administering:
            await self._ended.wait()

    def serve(self, incoming: Incoming) -> None:
        """Begin to serve a request. See `Peer`."""
        message = incoming.message
        try:
            kind, subject = message[3], message[4]
            is_watched = kind == "n" and subject == WATCHED
            if self._services.closing and not is_watched:
                incoming.fail(MOVED_ANSWER)
                return
            if kind == "n" and subject in self.watches:
                self.watches[subject](incoming)
            elif kind == "n":
                self._begin_making(incoming, self._targets.assist)
            elif kind == "a":
                begin = partial(self._begin_making, incoming, self._targets.administer)
                self._places.decide(message[5][1], partial(self._decided, incoming, begin))
            elif kind in ("h", "o"):
                self._begin_call(incoming, subject, message[5])
            else:
                raise unknown_request(f"of kind {kind}")
        except Exception as error:  # noqa: BLE001  # the caller gets it
            fail(incoming, error)

    def _begin_call(self, incoming: Incoming, type_name: str, address: str) -> None:
        calls = self._calls.get(type_name)
        if calls is None:
            calls = self._calls[type_name] = self._targets.calls(type_name)
        if self._places.is_here(calls.directory, address):
            self._call(incoming, calls)
        else:
            begin = partial(self._call, incoming, calls)
            self._places.decide(id_at(address), partial(self._decided, incoming, begin))

    def _decided(self, incoming: Incoming, begin: Callable[[], None], is_here: bool) -> None:
        """It is known whether the object of a request is here."""
        if not is_here or self._services.closing or incoming.is_withdrawn:
            incoming.fail(MOVED_ANSWER)
            return
        try:
            begin()
        except Exception as error:  # noqa: BLE001  # the caller gets it
            fail(incoming, error)

    def _begin_making(
        self, incoming: Incoming, make: Callable[[str, list[Any]], Awaitable[bytes]]
    ) -> None:
        name, arguments = incoming.message[4:6]
        self._start(partial(self._make, incoming, make, name, arguments), f"request {name}")
        self._administering += 1

    def _call(self, incoming: Incoming, calls: RoutedCalls) -> None:
        message = incoming.message
        handler = calls.object_type.handler(message[6])
        codec = calls.codec.handler(handler.name)
        arguments = codec.decode_arguments(partial(calls.directory.key, message[5]), message[7])
        notifier = self._services.notifier
        once, origin = None, message[8:]
        if message[3] == "o":
            once, *origin = origin
        make = partial(self._make_call, incoming, calls, handler, codec, arguments)
        if once is not None:
            make = partial(self._make_once, incoming, calls, handler, arguments, once)
        chain = decode_chain(origin[0]) if origin else ()
        if notifier is None:
            make(chain)
        else:
            carrier = origin[1] if len(origin) > 1 else {}
            with notifier.extract({k: v for k, v in carrier.items() if isinstance(v, str)}):
                make(chain)

    def _make_call(
        self,
        incoming: Incoming,
        calls: RoutedCalls,
        handler: HandlerDefinition,
        codec: HandlerCodec,
        arguments: Arguments,
        chain: Sequence[ObjectKey],
    ) -> None:
        """Run the turn here and now, or put the call into its mailbox."""
        services, (args, kwargs) = self._services, arguments
        address: str = incoming.message[5]
        lease = None if services.tenure is None else services.tenure.lease
        activation = None if handler.is_async else calls.open_object(address)
        if activation is not None:
            value, error = calls.run_now(activation, handler, args, kwargs, codec)
            self._give(incoming, lease, activation, handler, value, error)
            return
        answer = Answer(incoming, services, lease, calls.directory.key(address), handler.name)
        left = incoming.seconds_left
        try:
            submission = calls.submit(address, handler, args, kwargs, left, answer, codec, chain)
        except NotHere:
            incoming.fail(MOVED_ANSWER)
            return
        if answer.ended:
            submission.end()
        else:
            answer.submission = submission

    def _make_once(
        self,
        incoming: Incoming,
        calls: RoutedCalls,
        handler: HandlerDefinition,
        arguments: Arguments,
        once: list[str],
        chain: Sequence[ObjectKey],
    ) -> None:
        """Join the run of a once-key, or begin it."""
        services, runs, address = self._services, self._targets.once_runs, incoming.message[5]
        to, left = calls.directory.key(address), incoming.seconds_left
        if runs is None:
            raise InvalidOnceKey(to, handler.name, NO_MESSAGES)
        key, digest, signature = once
        request = OnceRequest(OnceKey(to, key), handler.name, digest, signature)
        lease = None if services.tenure is None else services.tenure.lease
        answer = Answer(incoming, services, lease, to, handler.name)
        joined = runs.join(calls, address, handler, *arguments, request, answer, chain=chain)
        if answer.ended:
            joined.end()
            return
        answer.submission = joined
        if left is not None:
            answer.expiry = partial(runs.expired, joined.run, left)
            services.deadlines.watch(answer, services.loop.now(), left)

    def _give(
        self,
        incoming: Incoming,
        lease: Lease | None,
        activation: Activation,
        handler: HandlerDefinition,
        value: object,
        error: BaseException | None,
    ) -> None:
        """Answer with the outcome of a turn, once all that it may tell of is durable."""
        services, state = self._services, activation.state
        gate, name, left = state.gate, handler.name, incoming.seconds_left
        if gate is None or (error is not None and not isinstance(error, Exception)):
            give(incoming, services, lease, state.key, name, value, error)
            return
        answer = Answer(incoming, services, lease, state.key, name)
        answer.value, answer.error, answer.has_run = value, error, True
        gate.hold(answer)
        if handler.readonly and not gate.taken:
            services.group_commit.wake(state)  # a change has done so
        if left is not None:
            answer.expiry = partial(timed_out, activation, name, left)
            services.deadlines.watch(answer, activation.last_used, left)

    async def _make(
        self,
        incoming: Incoming,
        make: Callable[[str, list[Any]], Awaitable[bytes]],
        name: str,
        arguments: list[Any],
    ) -> None:
        try:
            if self._services.closing:
                incoming.fail(MOVED_ANSWER)
                return
            incoming.reply(await make(name, arguments))
        except NotHere:
            incoming.fail(MOVED_ANSWER)
        except Exception as error:  # noqa: BLE001  # the caller gets it
            if isinstance(error, RuntimeClosed) and self._services.closing:
                incoming.fail(CUT_OFF_ANSWER)
            else:
                fail(incoming, error)
        finally:
            self._administering -= 1
            self._ended.set()


def unknown_request(name: str) -> ValueError:
    """The error of a request that a newer release may know."""
    return ValueError(f"{name!r:.80} is no request of this release")
