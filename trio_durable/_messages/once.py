"""Once-keys as values: a call that happens once, and its turn."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final, Protocol

import attrs
import orjson

from .._keys import ObjectKey, id_problem
from ..storage import MessageChanges, OnceKey, OnceReply

MAX_REPLY_BYTES: Final = 64 * 1024
"""Bytes of JSON that the reply of a call with a once-key may take."""


@attrs.frozen
class OnceRequest:
    """The identity of a call with a once-key."""

    key: OnceKey
    handler: str
    digest: str
    """Of the arguments as they were given, by name."""
    signature: str
    """Of the handler's parameters. Digests of another signature can't be compared."""

    def recorded(self, reply: bytes | None, expires_at: int, token: int | None) -> OnceReply:
        """The record of the call's reply, or the promise of one by the message with a token."""
        return OnceReply(
            self.key, self.handler, self.digest, self.signature, reply, expires_at, token
        )


class OnceEncoder(Protocol):
    """The codec of the calls of one handler with a once-key."""

    def request_of(self, key: OnceKey, arguments: bytes) -> OnceRequest:
        """The identity of a call that is made by a message with these arguments."""
        ...

    def result(self, key: ObjectKey, handler: str, result: object, /) -> bytes:
        """A handler's result as JSON.

        Raises:
            ReplyError: It has none, or a too large one.
        """
        ...


@attrs.define(eq=False)
class OnceTurn:
    """A call with a once-key on its way to its handler, and the `Replies` of its turn.

    The turn commits `changes`, so that its effects and the record of its reply are one transaction.
    """

    request: OnceRequest
    _encoder: OnceEncoder
    _expiry: Callable[[], int]
    """Returns the time at which the record expires."""
    changes: MessageChanges = attrs.field(factory=MessageChanges)
    """The record, and the turn's messages."""

    def result(self, key: ObjectKey, handler: str, result: object) -> object:
        """See `Replies.result`."""
        reply = self._encoder.result(key, handler, result)
        self.changes.record(self.request.recorded(reply, self._expiry(), None))
        return reply


def once_key_problem(key: object) -> str | None:
    """The reason why a once-key is invalid; None if it isn't. It has the bounds of an id."""
    return id_problem(key)


def derived_key(own: ObjectKey, origin: str, name: str) -> str:
    """The once-key of a call that a turn makes: the same at each attempt of the turn.

    Args:
        own: The object of the turn.
        origin: The turn's own once-key or message.
        name: The name that tells the calls of the turn apart.
    """
    parts = [own.type_name, own.object_id, origin, name]
    return blake2b(orjson.dumps(parts), digest_size=16).hexdigest()
