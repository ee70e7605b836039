"""Codecs of calls with a once-key: the digest of the arguments, and the stored reply.

The digest is of the arguments as they were given, by the names of the parameters, as messages have
them. Defaults aren't filled in, so that a release may change one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from .._activations.object_type import ObjectType
from .._cluster.call_codec import HandlerCodec
from .._cluster.handles import HandleForms, Handles
from .._cluster.parameters import handler_forms
from .._declarations.records import HandlerDefinition
from .._errors import ArgumentError, InvalidOnceKey, OnceReplyUnreadable, ReplyDecodeError
from .._json.errors import as_unfit
from .._keys import ObjectKey
from .._messages.once import MAX_REPLY_BYTES, OnceRequest, once_key_problem
from .._outbox.message_codec import MessageCodec
from .._text import short_repr
from ..storage import OnceKey

_ADVICE = "of a reply under a once-key; return less, and keep the rest in the object's state"


class OnceCodec:
    """The codec of the calls of one handler with a once-key.

    Args:
        object_type: The type of the objects.
        handles: The handles of the runtime.
        handler: The handler.

    Raises:
        DefinitionError: Values of a parameter or of the result have no JSON.
    """

    def __init__(
        self, object_type: ObjectType, handles: Handles, handler: HandlerDefinition
    ) -> None:
        forms = HandleForms(object_type.forms, handles).forms
        parameters, result = handler_forms(object_type, forms, handler)
        self._handler = handler
        self._arguments = MessageCodec(parameters)
        self._replies = HandlerCodec(handler.name, parameters, result, MAX_REPLY_BYTES, _ADVICE)
        self.result: Callable[[ObjectKey, str, object], bytes] = self._replies.result
        """See `OnceEncoder.result`."""

    def request(
        self, to: ObjectKey, key: object, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> OnceRequest:
        """The identity of a call.

        Raises:
            InvalidOnceKey: The key can't be one, or the handler takes none.
            ArgumentError: The handler doesn't take the arguments.
        """
        handler, once_key = self._handler, self.once_key(to, key)
        try:
            digest = self._arguments.digest(args, kwargs)
        except Exception as error:  # hooks and validators may raise anything
            unfit = as_unfit(error)
            place = f"{unfit.path}: " if unfit.path else ""
            raise ArgumentError(to, handler.name, f"{place}{unfit.problem}") from error
        return OnceRequest(once_key, handler.name, digest, self._arguments.signature)

    def request_of(self, key: OnceKey, arguments: bytes) -> OnceRequest:
        """See `OnceEncoder.request_of`."""
        digest = self._arguments.digest_of(arguments)
        return OnceRequest(key, self._handler.name, digest, self._arguments.signature)

    def once_key(self, to: ObjectKey, key: object) -> OnceKey:
        """The once-key of a call.

        Raises:
            InvalidOnceKey: The key can't be one, or the handler takes none.
        """
        handler = self._handler
        problem = once_key_problem(key)
        if problem is not None or not isinstance(key, str):
            raise InvalidOnceKey(to, handler.name, f"{short_repr(key)}: {problem}")
        if handler.readonly:
            problem = "the handler is read-only and changes nothing; call it without a once-key"
            raise InvalidOnceKey(to, handler.name, problem)
        return OnceKey(to, str.__str__(key))

    def decode(self, request: OnceRequest, reply: bytes) -> object:
        """The result of a call, from its stored reply.

        Raises:
            OnceReplyUnreadable: It doesn't fit this release.
        """
        to, key = request.key
        try:
            return self._replies.decode_reply(lambda: to, orjson.loads(reply))
        except (ReplyDecodeError, ValueError) as error:
            problem = error.problem if isinstance(error, ReplyDecodeError) else str(error)
            shown = reply.decode(errors="replace")
            raise OnceReplyUnreadable(to, request.handler, key, shown, problem) from error


class OnceCodecs:
    """The codecs of one runtime, each made when it is first needed.

    Args:
        handles: The handles of the runtime.
    """

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._made: dict[tuple[ObjectType, str], OnceCodec] = {}

    def of(self, object_type: ObjectType, handler: HandlerDefinition) -> OnceCodec:
        """The codec of one handler.

        Raises:
            DefinitionError: Values of a parameter or of the result have no JSON.
        """
        found = self._made.get((object_type, handler.name))
        if found is None:
            found = OnceCodec(object_type, self._handles, handler)
            self._made[object_type, handler.name] = found
        return found
