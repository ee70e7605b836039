"""`Outgoing`: a message that is about to be sent, with options."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from .._activations.effects import ContextHost
from .._alarms.input import due_time
from .._declarations.handler import handler_behind
from .._durations import Duration
from .._errors import InvalidAlarm, InvalidMessage, NotInTurn
from .._keys import ObjectKey
from .._messages.message import message_id
from .._messages.request import NO_OPTIONS, SendOptions, SendRequest
from .._text import short_repr

P = ParamSpec("P")
R = TypeVar("R")


class Outgoing(Generic[R]):
    """A message of a turn with options, see `Context.outgoing`.

    The type argument is the result that the reply's handler takes.
    """

    __slots__ = ("_host", "_options")

    def __init__(self, host: ContextHost, options: SendOptions) -> None:
        self._host = host
        self._options = options

    def send(
        self,
        handler: Callable[Concatenate[str, P], Coroutine[Any, Any, R]],
        object_id: str,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str:
        """Send the message in this turn's commit. See `Context.send`.

        Returns:
            Its id.
        """
        return send(self._host, handler, object_id, args, kwargs, self._options)


def send(
    host: ContextHost,
    handler: object,
    object_id: str,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    options: SendOptions = NO_OPTIONS,
) -> str:
    """Send a message in the turn of an object. See `Context.send`."""
    if not host.in_turn:
        raise NotInTurn(f"self.ctx.send() on {host.key} outside of a turn")
    cls, name = sent_to(host.key, handler)
    return message_id(host.send(SendRequest(cls, object_id, name, args, kwargs, options)).token)


class OutsideMessage:
    """A message from outside of turns with options, see `Objects.outgoing`."""

    __slots__ = ("_once", "_send", "_wake_at")

    def __init__(
        self,
        send: Callable[
            [
                object,
                str,
                tuple[object, ...],
                dict[str, object],
                int | None,
                str | None,
            ],
            Coroutine[Any, Any, str],
        ],
        wake_at: int | None = None,
        once: str | None = None,
    ) -> None:
        self._send = send
        self._wake_at = wake_at
        self._once = once

    async def send(
        self,
        handler: Callable[Concatenate[str, P], Coroutine[Any, Any, object]],
        object_id: str,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str:
        """Send the message, and return when it is durable. See `Objects.send`.

        Returns:
            Its id; that of the first one which was sent with its once-key.
        """
        return await self._send(handler, object_id, args, kwargs, self._wake_at, self._once)


class Withdrawal:
    """The withdrawal of a message, see `Context.cancel_message`."""

    __slots__ = ("_host", "_is_staged", "_key")

    def __init__(self, host: ContextHost, key: str, is_staged: bool) -> None:
        self._host = host
        self._key = key
        self._is_staged = is_staged

    async def taken_back(self) -> bool:
        """True if the message waits, and so isn't handled any more if the turn commits.

        False if there is none, or its turn has ended.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        found = await self._host.find_sent(self._key)
        if found is not None and self._host.in_turn:
            self._host.stage().withdraw_message(found)
        return found is not None or self._is_staged


def sent_to(key: ObjectKey, handler: object) -> tuple[type, str]:
    """The class and the name of the handler that a message is for.

    Raises:
        InvalidMessage: ``handler`` is none.
    """
    found = handler_behind(handler)
    if found is None:
        raise InvalidMessage(
            key,
            short_repr(handler),
            "it is no handler; name it by its class, as in Cart.add",
        )
    return found


def answer_name(key: ObjectKey, handler: object | None) -> str | None:
    """The name of the sender's handler that gets an answer.

    Raises:
        InvalidMessage: ``handler`` is none.
    """
    return None if handler is None else sent_to(key, handler)[1]


def wake_time(
    key: ObjectKey, name: str, after: Duration | None, at: datetime | None, now: int
) -> int | None:
    """When a message may be delivered, in microseconds since 1970 UTC; None for at once.

    Raises:
        InvalidMessage: The arguments give no instant, or one that can't be stored.
    """
    if after is None and at is None:
        return None
    try:
        return due_time(key, "message", after, at, now)
    except InvalidAlarm as error:
        raise InvalidMessage(key, name, error.problem) from None
