"""Wait-for graph of ``async def`` turns: a call that would close a cycle in it is refused.

A turn that calls another object waits for it, and its own object serves no other call meanwhile. If
the waits form a cycle, none of its calls would ever be answered. So the graph is searched before a
turn begins to wait, and `CallCycle` names the objects in the cycle. The graph needs no node of its
own for calls from outside, which nothing waits for.

Prior art: wait-for graphs of lock managers in databases, where the search runs after a time-out
and picks a victim. Here the search costs one step per object in the chain of waits, so it can run
before each wait, and the call that closes the cycle is the victim.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from .._errors import CallCycle
from .._keys import ObjectKey


class Node(Protocol):
    """A node of the graph: an object, with the turn that runs in it."""

    @property
    def key(self) -> ObjectKey:
        """The object's identity."""
        ...

    @property
    def turn(self) -> Turn | None:
        """The turn that runs; None between turns."""
        ...


class Turn:
    """A running turn, and the objects it waits for."""

    __slots__ = ("base_lost", "name", "node", "readonly", "waits_for")

    def __init__(self, node: Node | None, name: str, readonly: bool) -> None:
        self.node = node
        """The object whose turn it is; None once the turn has ended."""
        self.name = name
        self.readonly = readonly
        self.waits_for: list[Node] = []
        self.base_lost = False
        """A commit that the turn builds on has failed, so the turn fails when it ends."""


DEF_TURN = Turn(None, "", False)
"""Stands for any turn of a ``def`` handler: no task can wait in one, so it needs no record."""

current_turn: ContextVar[Turn | None] = ContextVar("trio_durable.turn", default=None)
"""The ``async def`` turn that the caller is in."""


def check_circle(origin: Node, target: Node, name: str) -> None:
    """Refuse to let a turn of ``origin`` wait for ``target``, in which it calls ``name``.

    Raises:
        CallCycle: ``target`` already waits for ``origin``.
    """
    path = _path(origin, target)
    if path is not None:
        keys = tuple(member.key for member in (origin, *path))
        raise CallCycle(target.key, name, keys)


def _path(origin: Node, target: Node) -> list[Node] | None:
    """The objects from ``target`` back to ``origin`` along their waits, if such a path exists."""
    path: list[Node] = []
    seen: set[Node] = set()

    def search(node: Node) -> bool:
        path.append(node)
        if node is origin:
            return True
        if node not in seen:
            seen.add(node)
            turn = node.turn
            if turn is not None and any(search(other) for other in list(turn.waits_for)):
                return True
        path.pop()
        return False

    return path if search(target) else None
