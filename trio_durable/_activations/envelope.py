"""Envelope: one request to an object, from its arrival until its turn."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context

import attrs

from .._alarms.delivery import Delivery
from .._declarations.records import HandlerDefinition
from .._eventloop.loop import Waiter
from .._messages.delivery import MessageDelivery
from .._messages.once import OnceTurn
from .effects import Effects
from .exchange import Replies


@attrs.frozen(eq=False)
class Operation:
    """A request of the runtime's own, such as ``get_state``, served in a turn like a call."""

    name: str
    """The name of the public method."""
    run: Callable[..., object]
    """Called with the activation, and with the request's arguments."""
    needs_instance: bool = False
    """The object must be activated first. An object whose state is unreadable can't be, but it can
    still be deleted or overwritten."""
    saves: bool = True
    """It may change what is stored."""


class Envelope:
    """A request that waits for its turn: a call, an alarm, or an `Operation`."""

    __slots__ = (
        "args",
        "context",
        "delivery",
        "handler",
        "kwargs",
        "message",
        "name",
        "needs_instance",
        "once",
        "replies",
        "stood_in_line",
        "waiter",
    )

    def __init__(
        self,
        waiter: Waiter,
        name: str,
        handler: HandlerDefinition | Operation,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
        *,
        needs_instance: bool = True,
        delivery: Delivery | None = None,
        message: MessageDelivery | None = None,
        once: OnceTurn | None = None,
        replies: Replies | None = None,
    ) -> None:
        self.waiter: Waiter = waiter
        self.context: Context = copy_context()
        """The caller's context variables, in which the turn runs."""
        self.name: str = name
        self.handler: HandlerDefinition | Operation = handler
        self.args: tuple[object, ...] = args
        self.kwargs: dict[str, object] = kwargs or {}
        self.needs_instance: bool = needs_instance
        """See `Operation.needs_instance`."""
        self.delivery: Delivery | None = delivery
        """The alarm, if the request is one."""
        self.message: MessageDelivery | None = message
        """The message, if the request is one."""
        self.once: OnceTurn | None = once
        """The call with a once-key, if the request is one."""
        self.replies: Replies | None = replies
        """See `ObjectState.end_turn`."""
        self.stood_in_line: bool = False
        """It found the mailbox full and waited for a place in it."""

    @property
    def is_delivery(self) -> bool:
        """True if no caller waits for its outcome."""
        return self.delivery is not None or self.message is not None

    def begin(self) -> Effects | None:
        """The effects with which its turn begins."""
        if self.delivery is None and self.message is None and self.once is None:
            return None
        return Effects(self.delivery, self.message, self.once)
