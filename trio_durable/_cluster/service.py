"""Service: the requests of other processes, made here.

A call of a handler is put into the mailbox of its object and answered from there, without a task of
its own. Other requests are few, and have one each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

from .._activations.placement import NotHere
from .._activations.services import Services
from .._activations.submission import Submission
from .._activations.tenure import check_lease
from .._errors import DurableError, ReplyError, RuntimeClosed
from .._eventloop.loop import CallbackWaiter, Waiter
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from .call_codec import HandlerCodec
from .chain import decode_chain
from .incoming import Incoming
from .link import MessageTooLarge
from .places import Places
from .remote_errors import encode_error
from .routed_calls import RoutedCalls
from .router import CUT_OFF, MOVED, text

_MOVED, _CUT_OFF = text(MOVED), text(CUT_OFF)
_NO_TRACE = nullcontext()


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
        self._administering = 0
        self._ended = AutoResetEvent(services.loop)
        """Set whenever one of these has ended."""

    async def answered(self) -> None:
        """Return when all requests of the runtime itself have their answers."""
        while self._administering:
            await self._ended.wait()

    def serve(self, incoming: Incoming) -> None:
        """Begin to serve a request. See `Peer`."""
        try:
            self._begin(incoming)
        except Exception as error:  # noqa: BLE001  # the caller gets it
            fail(incoming, error)

    def _begin(self, incoming: Incoming) -> None:
        if self._services.closing:
            incoming.fail(_MOVED)
            return
        kind, *subject = incoming.message[3:]
        if kind == "n":
            self._begin_making(incoming, self._targets.assist)
            return
        if kind == "a":
            begin = partial(self._begin_making, incoming, self._targets.administer)
            self._places.decide(subject[1][1], partial(self._decided, incoming, begin))
            return
        type_name, address = subject[:2]
        calls = self._targets.calls(type_name)
        if self._places.is_here(calls.directory, address):
            self._call(incoming, calls)
            return
        object_id = calls.directory.key(address).object_id
        begin = partial(self._call, incoming, calls)
        self._places.decide(object_id, partial(self._decided, incoming, begin))

    def _decided(self, incoming: Incoming, begin: Callable[[], None], is_here: bool) -> None:
        """It is known whether the object of a request is here."""
        if not is_here or self._services.closing or incoming.is_withdrawn:
            incoming.fail(_MOVED)
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
        address, name, data, *rest = incoming.message[5:]
        chain = decode_chain(rest[0]) if rest else ()
        notifier = self._services.notifier
        trace = _NO_TRACE if notifier is None else notifier.extract(_carrier(rest))
        handler = calls.object_type.handler(name)
        key, codec = calls.object_type.key(address), calls.codec.handler(name)
        args, kwargs = codec.decode_arguments(lambda: key, data)
        answer = Answer(incoming, key, name, codec, self._services)
        waiter = CallbackWaiter(answer.ended)
        try:
            with trace:
                submission = calls.submit(
                    address, handler, args, kwargs, incoming.seconds_left, waiter, chain
                )
        except NotHere:
            incoming.fail(_MOVED)
            return
        if waiter.ended:
            submission.end()
            return
        answer.submission = submission
        incoming.withdrawn = submission.withdraw

    async def _make(
        self,
        incoming: Incoming,
        make: Callable[[str, list[Any]], Awaitable[bytes]],
        name: str,
        arguments: list[Any],
    ) -> None:
        try:
            if self._services.closing:
                incoming.fail(_MOVED)
                return
            incoming.reply(await make(name, arguments))
        except NotHere:
            incoming.fail(_MOVED)
        except Exception as error:  # noqa: BLE001  # the caller gets it
            if isinstance(error, RuntimeClosed) and self._services.closing:
                incoming.fail(_CUT_OFF)
            else:
                fail(incoming, error)
        finally:
            self._administering -= 1
            self._ended.set()


class Answer:
    """The answer to a call, given when its turn has ended and is durable."""

    __slots__ = ("_codec", "_incoming", "_key", "_lease", "_name", "_services", "submission")

    submission: Submission | None

    def __init__(
        self,
        incoming: Incoming,
        key: ObjectKey,
        name: str,
        codec: HandlerCodec,
        services: Services,
    ) -> None:
        self._incoming = incoming
        self._key = key
        self._name = name
        self._codec = codec
        self._services = services
        self._lease = None if services.tenure is None else services.tenure.lease
        self.submission = None

    def ended(self, waiter: Waiter) -> None:
        """The call has ended."""
        incoming, error = self._incoming, waiter.error
        submission, self.submission = self.submission, None
        if submission is not None:
            submission.end()
        waiter.expiry = incoming.withdrawn = None
        try:
            if self._lease is not None:
                check_lease(self._lease, self._key, self._name)
            if error is None:
                incoming.reply(self._codec.encode_reply(self._key, waiter.value))
                return
            if isinstance(error, RuntimeClosed) and self._services.closing:
                never_ran = submission is None or not submission.has_begun
                incoming.fail(_MOVED if never_ran else _CUT_OFF)
            else:
                fail(incoming, error)
        except MessageTooLarge as too_large:
            fail(incoming, ReplyError(self._key, self._name, str(too_large)))
        except DurableError as problem:
            fail(incoming, problem)
        finally:
            waiter.error = waiter.value = None


def unknown_request(name: str) -> ValueError:
    """The error of a request that a newer release may know."""
    return ValueError(f"{name!r:.80} is no request of this release")


def _carrier(rest: list[Any]) -> dict[str, str]:
    """The trace of a call: what follows its chain."""
    carrier = rest[1] if len(rest) > 1 else {}
    return {name: each for name, each in carrier.items() if isinstance(each, str)}


def fail(incoming: Incoming, error: BaseException) -> None:
    """Answer with an error; with a shorter one if it is too large."""
    try:
        incoming.fail(encode_error(error))
    except MessageTooLarge as too_large:
        incoming.fail(encode_error(too_large))
