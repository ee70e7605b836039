"""The wait-for graph of ``async def`` turns; calls that would close a cycle are refused."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from .._errors import CallCycle

if TYPE_CHECKING:
    from .activation import Activation


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
