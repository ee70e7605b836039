"""One request to an object, and the turn that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING

from .._alarms.delivery import Delivery
from .._declarations.records import HandlerDefinition
from .._eventloop.loop import Waiter

if TYPE_CHECKING:
    from .activation import Activation


Operation = Callable[["Activation"], object]
"""Something that the runtime does to an object in a turn of its own."""


class Envelope:
    """A request that waits for its turn: a call, an alarm, or an operation of the runtime's."""

    __slots__ = (
        "args",
        "context",
        "delivery",
        "handler",
        "kwargs",
        "name",
        "needs_instance",
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
    ) -> None:
        self.waiter = waiter
        self.context = copy_context()
        """The caller's context variables, in which the turn runs."""
        self.name = name
        self.handler = handler
        self.args = args
        self.kwargs = kwargs or {}
        self.needs_instance = needs_instance
        """Whether the object must have been activated; an unreadable one can still be deleted."""
        self.delivery = delivery
        """The alarm, if it is one."""
        self.stood_in_line = False
        """Whether it found the mailbox full."""
