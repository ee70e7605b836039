"""Wait-for graph of ``async def`` turns: a call that would close a cycle in it is refused.

A turn that calls another object waits for it, and its own object serves no other call meanwhile. If
the waits form a cycle, none of its calls would ever be answered. So the graph is searched before a
turn begins to wait, and `CallCycle` names the objects in the cycle. The graph needs no node of its
own for calls from outside, which nothing waits for.

A wait counts only if the turn can't end before it: the caller is the task of the turn, or a child
of that task. Which tasks are known to be children depends on the event loop (`Loop.waits_for_me`).
A call of a task that the handler has started and doesn't await isn't a wait of the turn: the turn
ends, and then the call is served. A cycle through a task of which it isn't known that the turn
awaits it, such as one of ``asyncio.gather``, ends with the timeouts of its calls.

Turns of other processes may wait for an object, too. Each of their calls comes with its chain: the
objects whose turns wait for it, there and in the processes before. Locks of distributed databases
are searched by edge chasing (Chandy, Misra and Haas, 1983), with messages of their own; here the
edges travel with the call that would close the cycle, and no message is added.

Prior art: wait-for graphs of lock managers in databases, where the search runs after a time-out
and picks a victim. Here the search runs before each wait, and the call that closes the cycle is the
victim. It goes along the waits from the callee and against them from the caller, one edge of each
at a time, until either side has no more. So it takes constant time if nothing waits for the caller,
which is mostly so, however long the chain of waits or however many others wait for the callee.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from itertools import islice
from typing import Protocol

from .._errors import CallCycle, PersistenceError
from .._eventloop.loop import Loop
from .._keys import ObjectKey
from .._persistence.ticket import Ticket
from .interruption import Interruption

MAX_CHAIN = 256
"""The most objects in the chain of a call. A longer cycle ends with the timeouts of its calls."""


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

    @property
    def gate(self) -> Ticket | None:
        """The object's last ticket that isn't durable."""
        ...


class Gated(Protocol):
    """A turn or its object, whose pending commits hold back what it hands on. See `OutputGate`."""

    @property
    def key(self) -> ObjectKey | None:
        """The object's identity."""
        ...

    @property
    def gate(self) -> Ticket | None:
        """The last ticket that isn't durable and that the caller may know of."""
        ...

    @property
    def base_lost(self) -> bool:
        """A commit has failed that the caller may know of."""
        ...

    @property
    def must_wait(self) -> bool:
        """True if what the caller hands on has to wait, or is refused. See `OutputGate`."""
        ...

    @property
    def is_once(self) -> bool:
        """True if it may be run once more, since its caller has a once-key."""
        ...


class Turn:
    """A running turn, and the objects it waits for."""

    __slots__ = (
        "base_lost",
        "interruption",
        "is_def",
        "is_once",
        "key",
        "last_ticket",
        "name",
        "node",
        "readonly",
        "task",
        "waits_for",
    )

    def __init__(self, node: Node | None, name: str, readonly: bool) -> None:
        self.node = node
        """The object whose turn it is; None once the turn has ended."""
        self.key: ObjectKey | None = None if node is None else node.key
        self.name: str = name
        self.readonly: bool = readonly
        self.task: object = None
        """The task that it runs in; None before it runs."""
        self.waits_for: dict[Node, int] = {}
        """The number of its waits for each object."""
        self.base_lost: bool = False
        """A commit that the turn builds on has failed, so the turn fails when it ends."""
        self.interruption: Interruption | None = None
        """The turn was cancelled, so it fails when it ends."""
        self.is_def: bool = False
        """It is the turn of a ``def`` handler, which has let the event loop run."""
        self.is_once: bool = False
        """Its caller has a once-key, so that it may be run once more."""
        self.last_ticket: Ticket | None = None
        """The object's last pending ticket when the turn ended."""

    @property
    def gate(self) -> Ticket | None:
        """The last ticket on which depends what the turn knows; None if all of that is durable.

        A task that the turn has left behind has it from the turn, after its end.
        """
        if self.node is not None:
            return self.node.gate
        ticket = self.last_ticket
        return None if ticket is None or ticket.is_durable else ticket.latest

    @property
    def must_wait(self) -> bool:
        """See `Gated.must_wait`."""
        return self.base_lost or self.gate is not None

    def end(self) -> None:
        """The turn is over; its commit has been submitted."""
        if self.node is not None:
            self.last_ticket, self.node = self.node.gate, None


def base_lost_error(key: ObjectKey) -> PersistenceError:
    """The error of a turn of ``key`` that builds on a failed commit."""
    problem = "an earlier change that this turn builds on could not be saved"
    return PersistenceError(key, "save", problem)


DEF_TURN = Turn(None, "", False)
"""Stands for any turn of a ``def`` handler: no task can wait in one, so it needs no record."""

current_turn: ContextVar[Gated | None] = ContextVar("trio_durable.turn", default=None)
"""The turn that the caller is in, or that has started the caller's task.

For a ``def`` turn that may change something it is the object's state, which costs no record. So a
task that the turn has started waits for later commits of the object, too.
"""


def running_turn() -> Turn | None:
    """The ``async def`` turn that the caller is in, or that has started its task and still runs."""
    turn = current_turn.get()
    return turn if isinstance(turn, Turn) and turn.node is not None else None


class WaitGraph:
    """The waits of all turns in one runtime. Adding and removing one takes constant time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[Node, dict[Turn, None]] = {}
        """The turns that wait for an object, in order; no entry if there are none."""
        self._elsewhere: dict[Node, dict[object, Sequence[ObjectKey]]] = {}
        """The chains of the calls of other processes that wait for an object, likewise."""

    def caller(self) -> Turn | None:
        """The turn that waits for as long as the current task does; None if none does."""
        turn = running_turn()
        return turn if turn is not None and self._loop.waits_for_me(turn.task) else None

    def check(self, caller: Turn, target: Node, name: str) -> None:
        """Refuse to let ``caller`` wait for ``target``, in which it calls ``name``.

        Raises:
            CallCycle: ``target`` already waits for the caller's object.
        """
        origin = caller.node
        assert origin is not None
        path = self._path(origin, target)
        if path is not None:
            keys = tuple(member.key for member in (origin, *path))
            raise CallCycle(target.key, name, keys)
        if self._elsewhere:
            self.check_chain(self.chain(caller), target, name)

    def begin(self, caller: Turn, target: Node) -> None:
        """``caller`` begins to wait for ``target``."""
        caller.waits_for[target] = caller.waits_for.get(target, 0) + 1
        self._waiting.setdefault(target, {})[caller] = None

    def end(self, caller: Turn, target: Node) -> None:
        """One wait of ``caller`` for ``target`` is over."""
        caller.waits_for[target] -= 1
        if not caller.waits_for[target]:
            del caller.waits_for[target]
            waiting = self._waiting[target]
            del waiting[caller]
            if not waiting:
                del self._waiting[target]

    def waits(self) -> list[tuple[ObjectKey, str, ObjectKey]]:
        """The waits of this moment: the waiting object, the handler of its turn, and the other.

        An object of another process waits with the handler "".
        """
        found = [
            (turn.node.key, turn.name, node.key)
            for node, turns in self._waiting.items()
            for turn in turns
            if turn.node is not None
        ]
        found += [
            (chain[0], "", node.key)
            for node, calls in self._elsewhere.items()
            for chain in calls.values()
            if chain
        ]
        return found

    # --- waits of other processes ----------------------------------------------------------------

    def chain(self, caller: Turn) -> tuple[ObjectKey, ...]:
        """The objects that wait for ``caller`` to end, its own first, `MAX_CHAIN` at most."""
        assert caller.node is not None
        found: dict[ObjectKey, None] = {}
        for node in _reached(caller.node, self._waiters):
            found[node.key] = None
            for chain in self._elsewhere.get(node, {}).values():
                found.update(dict.fromkeys(chain))
        return tuple(islice(found, MAX_CHAIN))

    def check_chain(self, chain: Sequence[ObjectKey], target: Node, name: str) -> None:
        """Refuse to let a turn of another process wait for ``target``.

        Args:
            chain: The objects that wait for the call, the caller's first; none if nothing does.
            target: The object that it calls.
            name: The handler.

        Raises:
            CallCycle: ``target`` already waits for one of them.
        """
        if chain:
            callers = frozenset(chain)
            for node in _reached(target, _waits):
                if node.key in callers:
                    raise CallCycle(target.key, name, _circle(chain[0], target, node))

    def begin_elsewhere(self, call: object, chain: Sequence[ObjectKey], target: Node) -> None:
        """The call of another process, with a chain, begins to wait for ``target``."""
        self._elsewhere.setdefault(target, {})[call] = chain

    def end_elsewhere(self, call: object, target: Node) -> None:
        """That wait is over."""
        calls = self._elsewhere[target]
        del calls[call]
        if not calls:
            del self._elsewhere[target]

    # --- inside ----------------------------------------------------------------------------------

    def _path(self, origin: Node, target: Node) -> list[Node] | None:
        """The objects from ``target`` back to ``origin`` along their waits, if there is a path."""
        if origin is target:
            return [target]
        before: dict[Node, Node | None] = {target: None}
        after: dict[Node, Node | None] = {origin: None}
        along = _search(target, before, _waits)
        against = _search(origin, after, self._waiters)
        for one, other in zip(along, against, strict=False):  # the end of either is the end
            for met in (one, other):
                if met in before and met in after:
                    return [*reversed(_followed(met, before)), *_followed(met, after)[1:]]
        return None

    def _waiters(self, node: Node) -> Iterator[Node]:
        """The objects whose turns wait for ``node``."""
        return (turn.node for turn in self._waiting.get(node, ()) if turn.node is not None)


def _reached(start: Node, edges: Callable[[Node], Iterable[Node]]) -> Iterator[Node]:
    """``start``, and all nodes that its edges lead to, breadth first."""
    found: dict[Node, Node | None] = {start: None}
    yield start
    known = 1
    for end in _search(start, found, edges):
        if len(found) > known:
            known = len(found)
            yield end


def _circle(caller: ObjectKey, target: Node, node: Node) -> tuple[ObjectKey, ...]:
    """A cycle, as far as this process knows it: ``node`` waits for the caller elsewhere."""
    keys = (caller, target.key, node.key, caller)
    return tuple(key for key, before in zip(keys, (None, *keys), strict=False) if key != before)


def _waits(node: Node) -> Iterable[Node]:
    """The objects that the turn of ``node`` waits for."""
    return () if node.turn is None else node.turn.waits_for


def _search(
    start: Node, found: dict[Node, Node | None], edges: Callable[[Node], Iterable[Node]]
) -> Iterator[Node]:
    """Search breadth first, and yield the end of each edge once it is in ``found``."""
    pending = deque([start])
    while pending:
        node = pending.popleft()
        for end in edges(node):
            if end not in found:
                found[end] = node
                pending.append(end)
            yield end


def _followed(node: Node | None, found: dict[Node, Node | None]) -> list[Node]:
    """The way from ``node`` to the start of the search."""
    way: list[Node] = []
    while node is not None:
        way.append(node)
        node = found[node]
    return way
