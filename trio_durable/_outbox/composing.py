"""Composing: from the arguments of ``send`` to a message that a commit can carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from .._activations.object_type import ObjectType
from .._declarations.records import HandlerDefinition
from .._errors import InvalidMessage
from .._json.errors import as_unfit
from .._keys import ObjectKey, id_problem
from .._messages.delivery import MessageDelivery
from .._messages.message import SendFailed, message_id
from .._messages.request import NO_OPTIONS, SendOptions, SendRequest
from .._text import short_repr
from ..storage import NewMessage, StoredMessage, lane_of, new_token
from .message_codec import MessageCodec, MessageCodecs

_Route: TypeAlias = "tuple[ObjectType, HandlerDefinition, MessageCodec]"


class Composer:
    """Makes messages.

    Args:
        codecs: The codecs of their arguments.
        type_of: The object type of a class, or of a stored name.
    """

    def __init__(self, codecs: MessageCodecs, type_of: Callable[[type | str], ObjectType]) -> None:
        self._codecs = codecs
        self.type_of = type_of
        self._routes: dict[tuple[type | str, str], _Route] = {}

    def compose(
        self,
        request: SendRequest,
        tenant: str,
        now: int,
        sender: ObjectKey | None = None,
        delivery: MessageDelivery | None = None,
    ) -> NewMessage:
        """A message.

        Args:
            request: What to send.
            tenant: The tenant of the receiver, which is that of the sender.
            now: The current wall time, in microseconds since 1970 UTC.
            sender: The object whose turn sends it; None from outside.
            delivery: The message that this turn handles.

        Raises:
            InvalidMessage: It can't be sent.
            InvalidObjectId: The receiver's id can't be one.
            UnknownObjectType: The runtime doesn't know the class.
            UnknownHandler: The class has no such handler.
        """
        object_type, handler, codec = self._route(request.cls, request.handler)
        to, options = object_type.key_of(request.object_id, tenant), request.options
        if handler.readonly:
            problem = "the handler is read-only, so a message to it would change nothing; call it"
            raise InvalidMessage(to, handler.name, problem)
        if options is not NO_OPTIONS:
            self._check_options(options, to, handler.name, sender)
        is_delayed = options.wake_at is not None
        return NewMessage(
            to,
            "" if sender is None or is_delayed else lane_of(sender),
            new_token(),
            handler.name,
            _encoded(to, handler, codec, request.args, request.kwargs),
            now,
            options.wake_at,
            0 if delivery is None else delivery.stored.hops + 1,
            sender,
            options.reply_to,
            options.failed_to,
            options.key,
        )

    def _route(self, cls: type | str, name: str) -> _Route:
        """The requirements for sending to a handler. They are the same for each message."""
        route = self._routes.get((cls, name))
        if route is None:
            object_type = self.type_of(cls)
            handler = object_type.handler(name)
            route = object_type, handler, self._codecs.of(object_type, handler)
            self._routes[cls, name] = route
        return route

    def _check_options(
        self, options: SendOptions, to: ObjectKey, sent: str, sender: ObjectKey | None
    ) -> None:
        key_problem = None if options.key is None else id_problem(options.key)
        if key_problem is not None:
            problem = f"the key {short_repr(options.key)}: {key_problem}"
            raise InvalidMessage(to, sent, problem)
        for answer in (options.reply_to, options.failed_to):
            if answer is not None and sender is not None:
                self._check_answer(sender, answer, to, sent)

    def reply(self, stored: StoredMessage, result: object, now: int) -> NewMessage:
        """The answer to a message, to its sender.

        Raises:
            InvalidMessage: The result doesn't fit the handler that gets it.
        """
        assert stored.reply_to is not None
        return self._answer(stored, stored.reply_to, (result,), now)

    def failed(
        self, stored: StoredMessage, failures: int, error: str | None, now: int
    ) -> NewMessage:
        """The news of a message's death, to its sender.

        Raises:
            InvalidMessage: It doesn't fit the handler that gets it.
        """
        assert stored.failed_to is not None
        to = stored.key.to
        failure = SendFailed(
            message_id(stored.key.token),
            f"{to.type_name}/{to.object_id}",
            stored.handler,
            error,
            failures,
        )
        return self._answer(stored, stored.failed_to, (failure,), now)

    def _answer(
        self, stored: StoredMessage, name: str, args: tuple[object, ...], now: int
    ) -> NewMessage:
        assert stored.sender is not None
        to = stored.sender
        _, handler, codec = self._route(to.type_name, name)
        return NewMessage(
            to,
            lane_of(stored.key.to),
            new_token(),
            name,
            _encoded(to, handler, codec, args, {}),
            now,
            hops=stored.hops + 1,
            sender=stored.key.to,
        )

    def _check_answer(self, sender: ObjectKey, name: str, to: ObjectKey, sent: str) -> None:
        """Check the handler of an answer, before the message is sent."""
        handler = self.type_of(sender.type_name).handler(name)
        if handler.readonly:
            problem = f"the answer is for {name}, which is read-only and could do nothing with it"
            raise InvalidMessage(to, sent, problem)


def _encoded(
    to: ObjectKey,
    handler: HandlerDefinition,
    codec: MessageCodec,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> bytes:
    try:
        return codec.encode(args, kwargs)
    except Exception as error:  # hooks and validators may raise anything
        unfit = as_unfit(error)
        place = f"{unfit.path}: " if unfit.path else ""
        raise InvalidMessage(to, handler.name, f"{place}{unfit.problem}") from error
