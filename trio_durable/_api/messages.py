"""`Messages`: messages to objects from outside of turns, for a runtime or a tenant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

from .._activations.wait_graph import running_turn
from .._errors import InvalidMessage
from .._keys import ObjectKey
from .._messages.message import message_id
from .._messages.request import SendOptions, SendRequest
from .._runtime.administration import Administration
from .durable_object import DurableObject
from .outgoing import sent_to

P = ParamSpec("P")


class Messages(ABC):
    """Messages from outside, as a part of `Objects`."""

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
        """
        administration = self._administered()
        cls, name = sent_to(ObjectKey("runtime", "send"), handler)
        key = self._key(cls, object_id)
        if running_turn() is not None:
            problem = "it is sent within a turn, even if that fails; use self.ctx.send()"
            raise InvalidMessage(key, name, problem)
        request = SendRequest(cls, object_id, name, args, kwargs, SendOptions())
        new = administration.compose(request, key)
        await administration.send_message(new)
        return message_id(new.token)

    async def settled(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Return when no message waits for an object, as far as it can be delivered now.

        Messages that sleep, because they are delayed or have failed, aren't waited for.
        """
        key = self._key(object_type, object_id)
        await self._administered().settled(key)

    # --- the rest of `Objects` -------------------------------------------------------------------

    @abstractmethod
    def _key(self, object_type: type[DurableObject] | str, object_id: str) -> ObjectKey:
        """The key of an object, which another runtime may serve."""

    @abstractmethod
    def _administered(self) -> Administration:
        """The requests that are made of the runtime, for the caller's event loop."""
