"""Once-calls: calls with a once-key from the side of the caller, and how they are repeated.

With a key a call may be made again, so the runtime does that itself: if the object's process has
ended, if a commit's outcome isn't known, if the object has moved. A plain call gets an error there,
since it may have happened.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from .._activations.calls import LocalCalls
from .._activations.once_records import check_stored, expiry
from .._activations.once_runs import OnceRuns
from .._activations.placement import NotHere
from .._activations.services import Services
from .._declarations.records import HandlerDefinition
from .._errors import (
    OnceKeyReused,
    OwnerLost,
    PersistenceError,
    StaleObject,
)
from .._keys import ObjectKey
from .._messages.once import OnceRequest
from .._outbox.outbox import Outbox
from ..storage import NewMessage, OnceReply
from .codecs import OnceCodecs

T = TypeVar("T")

FIRST_PAUSE = 0.01
"""Seconds before the first repeat, about."""
PATIENCE = 60.0
"""Seconds for which a call without a timeout is repeated."""
LONGEST_PAUSE = 1.0
"""The most seconds between two attempts."""

_REPEATED = (OwnerLost, PersistenceError, NotHere)


class OnceCalls:
    """Calls and messages with a once-key, of one runtime.

    Args:
        services: The runtime's parts.
        runs: The runs of the objects that are here.
        codecs: The codecs.
        outbox: Sends messages.
    """

    def __init__(
        self, services: Services, runs: OnceRuns, codecs: OnceCodecs, outbox: Outbox
    ) -> None:
        self._services = services
        self._runs = runs
        self._codecs = codecs
        self._outbox = outbox

    async def call(
        self,
        calls: LocalCalls,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
        key: str,
    ) -> object:
        """Call a handler once, however often the call is made with the key. See `CallPath.call`.

        Raises:
            InvalidOnceKey: The key can't be one, or the handler takes none.
            OnceKeyReused: It was used for another call of the object.
            OnceReplyUnreadable: The call has run, and its reply doesn't fit this release.
            OnceMessageDied: It was sent as a message, which is a dead letter.
            CallTimeout: No reply came within the timeout, however often it was tried.
        """
        calls.check_usable()
        to = calls.directory.key(address)
        codec = self._codecs.of(calls.object_type, handler)
        request = codec.request(to, key, args, kwargs)
        timeout = await self._services.output_gate.leave_turn(lambda: to, handler.name, timeout)
        args, kwargs = calls.by_value(address, handler, args, kwargs)
        attempt = partial(self._attempt, calls, address, handler, args, kwargs, request)
        reply = await self._repeated(attempt, to, timeout)
        return codec.decode(request, reply)

    async def _attempt(
        self,
        calls: LocalCalls,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        request: OnceRequest,
        left: float | None,
    ) -> bytes:
        if calls.once_elsewhere is not None:
            reply = await calls.once_elsewhere(address, handler, args, kwargs, left, request)
            if reply is not None:
                return reply
        tenure, to = self._services.tenure, request.key.to
        call = partial(self._runs.call, calls, address, handler, args, kwargs, request)
        if tenure is None:
            return await call(left)
        return await tenure.guard(lambda: to, handler.name, left, call)

    def promise(self, new: NewMessage, key: str) -> OnceReply:
        """The promise of the reply of a new message, which gets a once-key.

        Raises:
            InvalidOnceKey: The key can't be one.
        """
        object_type = self._outbox.type_of(new.to)
        codec = self._codecs.of(object_type, object_type.handler(new.handler))
        request = codec.request_of(codec.once_key(new.to, key), new.arguments)
        new.once_key = request.key.key
        wake_at = max(new.wake_at or 0, self._services.clock.now())
        return request.recorded(None, expiry(object_type, wake_at), new.token)

    async def send(self, new: NewMessage, promise: OnceReply | None, timeout: float | None) -> int:
        """Send a message, once if it has a once-key; return the token of the one with the key.

        Raises:
            OnceKeyReused: The key was used for another call or message.
            CallTimeout: The message wasn't durable within the timeout.
            PersistenceError: It could not be made durable.
        """
        if promise is None:
            await self._outbox.send(new, timeout)
            return new.token
        return await self._repeated(partial(self._send, new, promise), new.to, timeout)

    async def _send(self, new: NewMessage, promise: OnceReply, left: float | None) -> int:
        key = promise.key
        if self._runs.under_way(key):
            raise StaleObject(new.to, "send", "a call with its once-key is under way", 0)
        (stored,) = await self._runs.find([key])
        if stored is None:
            await self._outbox.send(new, left, promise)
            return new.token
        check_stored(promise, stored)
        if stored.token is None:
            problem = "a call, which has run and was no message"
            raise OnceKeyReused(new.to, new.handler, key.key, problem)
        return stored.token

    async def _repeated(
        self,
        attempt: Callable[[float | None], Awaitable[T]],
        to: ObjectKey,
        timeout: float | None,
    ) -> T:
        """The outcome of an attempt, which is repeated while that isn't known and there is time."""
        loop, pause, left = self._services.loop, FIRST_PAUSE, timeout
        until = loop.now() + (PATIENCE if timeout is None else timeout)
        while True:
            try:
                return await attempt(left)
            except _REPEATED as error:
                left = until - loop.now() - pause
                if left <= 0 or self._services.closing or _is_of_another(error, to):
                    raise
            await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # jitter
            pause = min(2 * pause, LONGEST_PAUSE)


def _is_of_another(error: Exception, to: ObjectKey) -> bool:
    """True if an error is of the caller's own turn, or of a call that the handler has made."""
    return isinstance(error, (OwnerLost, PersistenceError)) and error.key != to
