"""`Messages`: messages from outside of turns, and calls that happen once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Concatenate, ParamSpec

from .._activations.calls import LocalCalls
from .._activations.services import NO_MESSAGES
from .._activations.wait_graph import running_turn
from .._declarations.records import HandlerDefinition
from .._durations import Duration, positive_int
from .._errors import InvalidMessage, InvalidOnceKey
from .._keys import ObjectKey
from .._messages.message import (
    DeadMessage,
    MessageCounts,
    WaitingMessage,
    counts_of,
    dead_of,
    message_id,
    token_of,
    waiting_of,
)
from .._messages.request import SendOptions, SendRequest
from .._runtime.administration import Administration
from .._runtime.open_runtime import OpenRuntime
from .durable_object import DurableObject
from .outgoing import OutsideMessage, sent_to, wake_time

P = ParamSpec("P")

_MOST = 1_000_000
_OUTSIDE = ObjectKey("runtime", "send")
"""Stands for the receiver in errors about a message that has none yet."""


def checked_limit(limit: int) -> int:
    """The size of a page: ``limit``, a million at most.

    Raises:
        ValueError: ``limit`` isn't an int of 1 or more.
    """
    return min(positive_int(limit, "limit"), _MOST)


class Messages(ABC):
    """Messages from outside, and calls with once-keys, as a part of `Objects`."""

    _tenant: str

    async def send(
        self,
        handler: Callable[Concatenate[str, P], Coroutine[Any, Any, object]],
        object_id: str,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str:
        """Send a message to an object, and return when it is durable: a call that happens later.

        It happens once, whatever ends meanwhile, and is tried again by the handler's ``retry`` if
        it raises. Messages from outside of turns are in no order.

        Args:
            handler: The receiver's handler, by its class: ``Cart.add``.
            object_id: The receiver's id.
            args: The handler's arguments; 64 KiB of JSON at most.
            kwargs: The same, by name.

        Returns:
            The message's id.

        Raises:
            InvalidMessage: It can't be sent; also if the caller is in a turn, where the message
                would be sent even if the turn fails: there ``self.ctx.send()`` is right.
            CallTimeout: It wasn't durable within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
            OwnerLost: The runtime has lost its lease meanwhile; it may have been sent.
            RuntimeClosed: The runtime has ended meanwhile; likewise.
        """
        return await OutsideMessage(self._send).send(handler, object_id, *args, **kwargs)

    def outgoing(
        self,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        once: str | None = None,
    ) -> OutsideMessage:
        """A message with options, to be sent by ``send`` of the result.

        For example ``await runtime.outgoing(once=key).send(Order.place, "o-1", "tea")``.

        Args:
            after: The time from now until it may be delivered.
            at: The instant from which it may be delivered, instead of ``after``.
            once: The message's once-key, see `get`. Sent again with the key, it is the same
                message; a call with the key waits for the result of its handler.

        Raises:
            InvalidMessage: An option is invalid; from ``send`` as well.
            OnceKeyReused: The key was used for something else; from ``send``.
        """
        wake_at = wake_time(_OUTSIDE, "outgoing", after, at, self._usable().clock.now())
        return OutsideMessage(self._send, wake_at, once)

    async def _send(
        self,
        handler: object,
        object_id: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        wake_at: int | None,
        once: str | None,
    ) -> str:
        """See `OutsideMessage.send`."""
        administration = self._administered()
        cls, name = sent_to(_OUTSIDE, handler)
        key = self._key(cls, object_id)
        if running_turn() is not None:
            problem = "it is sent within a turn, even if that fails; use self.ctx.send()"
            raise InvalidMessage(key, name, problem)
        request = SendRequest(cls, object_id, name, args, kwargs, SendOptions(wake_at))
        new, promise = administration.compose(request, key, once)
        return message_id(await administration.send_message(new, promise))

    async def settled(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Return when no message waits for an object, as far as it can be delivered now.

        Messages that sleep, because they are delayed or have failed, aren't waited for.
        """
        key = self._key(object_type, object_id)
        await self._administered().settled(key)

    async def list_messages(
        self,
        object_type: type[DurableObject] | str | None = None,
        object_id: str | None = None,
        /,
        *,
        after: WaitingMessage | None = None,
        limit: int = 100,
    ) -> list[WaitingMessage]:
        """The messages that wait, by receiver, and then in their order.

        Args:
            object_type: Only those to objects of this type: a class, or its stored name.
            object_id: Only those to this object.
            after: Only messages after this one; pass the last of a page for the next page.
            limit: The size of a page, a million at most; a larger limit means a million.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: The storage can't be read.
        """
        type_name = self._name_of(object_type)
        limit, tenant = checked_limit(limit), self._tenant
        place = None if after is None else after.place
        found = await self._usable().read(
            lambda reader: reader.list_messages(type_name, object_id, place, limit, tenant)
        )
        return list(map(waiting_of, found))

    async def list_dead_messages(
        self,
        object_type: type[DurableObject] | str | None = None,
        /,
        *,
        after: DeadMessage | None = None,
        limit: int = 100,
    ) -> list[DeadMessage]:
        """The dead letters among messages: those that failed for the last time, oldest first.

        Args:
            object_type: Only those to objects of this type: a class, or its stored name.
            after: Only dead letters after this one; pass the last of a page for the next page.
            limit: The size of a page, a million at most; a larger limit means a million.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: The storage can't be read.
        """
        type_name = self._name_of(object_type)
        limit, tenant = checked_limit(limit), self._tenant
        number = 0 if after is None else after.place.seq
        found = await self._usable().read(
            lambda reader: reader.list_dead_messages(type_name, number, limit, tenant)
        )
        return list(map(dead_of, found))

    async def count_messages(self) -> list[MessageCounts]:
        """The numbers of stored messages and dead letters, by the receiver's type.

        Other than `DurableRuntime.statistics`, which has counters of this runtime, it reads an
        index of all messages in the storage.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        tenant = self._tenant
        found = await self._usable().read(lambda reader: reader.summarize_messages(tenant))
        return list(map(counts_of, found))

    async def retry_message(self, message_id: str, /) -> bool:
        """Let a dead letter wait again, behind what its sender has sent since, with all attempts.

        Returns:
            Whether there was such a dead letter.

        Raises:
            StorageUnavailable: The change could not be made durable.
        """
        found = await self._receiver_of_dead(message_id)
        return found is not None and await self._administered().retry_message(*found)

    async def retry_messages(self, object_type: type[DurableObject] | str, /) -> int:
        """Let all dead letters of a type wait again, oldest first; return their number.

        Those that are dead letters again by the end of it are left.

        Raises:
            StorageUnavailable: A change could not be made durable.
        """
        retried: set[str] = set()
        last: DeadMessage | None = None
        while page := await self.list_dead_messages(object_type, after=last):
            last = page[-1]
            for dead in page:
                if dead.id not in retried and await self.retry_message(dead.id):
                    retried.add(dead.id)
        return len(retried)

    async def drop_message(self, message_id: str, /) -> bool:
        """Remove a dead letter.

        Returns:
            Whether there was such a dead letter.

        Raises:
            StorageUnavailable: The change could not be made durable.
        """
        found = await self._receiver_of_dead(message_id)
        return found is not None and await self._administered().drop_message(*found)

    async def _receiver_of_dead(self, message_id: str) -> tuple[ObjectKey, int] | None:
        """The receiver and the token of a dead letter; None if there is no such one."""
        opened, token, tenant = self._usable(), token_of(message_id), self._tenant
        if token is None:
            await opened.loop.checkpoint()
            return None
        [dead] = await opened.read(lambda reader: reader.load_dead_messages([token], tenant))
        return None if dead is None else (dead.message.key.to, token)

    async def _once(
        self,
        calls: LocalCalls,
        address: str,
        handler: HandlerDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        timeout: float | None,
        key: str,
    ) -> object:
        """Make a call with a once-key. See `OnceCall`."""
        messaging = self._usable().messaging
        if messaging is None:
            raise InvalidOnceKey(calls.directory.key(address), handler.name, NO_MESSAGES)
        made = messaging.once_calls
        return await made.call(calls, address, handler, args, kwargs, timeout, key)

    # --- the rest of `Objects` -------------------------------------------------------------------

    @abstractmethod
    def _key(self, object_type: type[DurableObject] | str, object_id: str) -> ObjectKey:
        """The key of an object, which another runtime may serve."""

    @abstractmethod
    def _usable(self) -> OpenRuntime:
        """The parts of the open runtime, for the caller's event loop."""

    @abstractmethod
    def _name_of(self, object_type: type[DurableObject] | str | None) -> str | None:
        """The stored name of a type, which another runtime may serve; None for None."""

    @abstractmethod
    def _administered(self) -> Administration:
        """The requests that are made of the runtime, for the caller's event loop."""
