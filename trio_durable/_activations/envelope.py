"""One request to an object, and the turn that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

from .._alarms.alarm import Delivery
from .._api.durable_object import HandlerDefinition
from .._errors import CallCycle
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


class Turn:
    """An ``async def`` turn under way, and what it waits for."""

    __slots__ = ("activation", "readonly", "waits_for")

    def __init__(self, activation: Activation, readonly: bool) -> None:
        self.activation: Activation | None = activation
        """Whose turn it is; None once it has ended."""
        self.readonly = readonly
        self.waits_for: list[Activation] = []


current_turn: ContextVar[Turn | None] = ContextVar("trio_durable.turn", default=None)


def check_circle(origin: Activation, target: Activation, name: str) -> None:
    """Refuse to let a turn of ``origin`` wait for ``target``, in which it calls ``name``.

    Raises:
        CallCycle: It would never be answered, for ``target`` waits for ``origin``.
    """
    path = _path(origin, target)
    if path is not None:
        keys = tuple(member.key for member in (origin, *path))
        raise CallCycle(target.key, name, keys)


def _path(origin: Activation, target: Activation) -> list[Activation] | None:
    """From ``target`` back to ``origin`` along the objects' waits, if that leads there."""
    path: list[Activation] = []
    seen: set[Activation] = set()

    def search(activation: Activation) -> bool:
        path.append(activation)
        if activation is origin:
            return True
        if activation not in seen:
            seen.add(activation)
            turn = activation.turn
            if turn is not None and any(search(other) for other in list(turn.waits_for)):
                return True
        path.pop()
        return False

    return path if search(target) else None
