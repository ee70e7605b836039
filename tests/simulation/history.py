"""What callers did and what they were told, in the order in which it happened.

An operation is what was done to one object: a call, an alarm's effect, a part of a turn that was
made durable by itself. Its place in time is an interval of the events that were counted, not of the
clock, which often stands still. What is known of its outcome is one of:

- ``ok``: its caller was told a result, and it took effect within its interval;
- ``unknown``: its caller heard nothing, or that it may have failed. It took effect within its
  interval, or never;
- ``never``: its caller was told that it had no effect, or gave up before its turn began;
- ``open``: nobody was told anything yet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import count
from typing import Literal, NamedTuple

import attrs

Known = Literal["open", "ok", "unknown", "never"]


class Key(NamedTuple):
    """An object, as the checker knows it."""

    type_name: str
    object_id: str


@attrs.define(eq=False)
class Operation:
    """One thing that was done to one object."""

    key: Key
    name: str
    args: tuple[object, ...]
    start: float
    """The event of its invocation."""
    process: object = None
    """Through which process it went."""
    number: int = 0
    end: float = math.inf
    """The event of its response, or by which it has taken effect if it ever does."""
    known: Known = "open"
    result: object = None
    has_begun: bool = False
    """Whether its turn has."""
    is_on_its_way: bool = False
    """Whether its turn has begun to make it durable, and goes on."""
    turn_at: float | None = None
    """The event of the beginning of its turn; of a cluster's only."""
    given_up: tuple[int, float] | None = None
    """The event and the time at which its caller was gone."""

    def __str__(self) -> str:
        told = f"= {self.result!r}" if self.known == "ok" else self.known
        arguments = ", ".join(map(repr, self.args))
        return f"[{self.start:>6}, {self.end:>6}] {self.name}({arguments}) {told}"


class History:
    """Notes operations as they begin and end.

    Args:
        now: The time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.operations: list[Operation] = []
        self.event = 0
        """How many events there have been."""
        self.slow_keys: Counter[Key] = Counter()
        """Objects a commit of which is still to be applied, though its caller was told by now that
        it failed; and how many."""
        self._numbers = count(1)
        self._ended: set[object] = set()
        self._current: dict[int, Operation] = {}
        self._pending: dict[object, dict[Operation, None]] = {}
        self._undecided: dict[tuple[object, Key], list[Operation]] = {}

    def tick(self) -> int:
        """One more event."""
        self.event += 1
        return self.event

    # --- what happens ----------------------------------------------------------------------------

    def invoke(
        self, process: object, key: Key, name: str, *args: object, has_begun: bool = False
    ) -> int:
        """An operation begins; its number, by which handlers know it."""
        number = next(self._numbers)
        if process not in self._ended:
            self._begin(process, key, name, args, number, has_begun)
        return number

    def _begin(
        self,
        process: object,
        key: Key,
        name: str,
        args: tuple[object, ...],
        number: int,
        has_begun: bool,
    ) -> Operation:
        operation = Operation(key, name, args, self.tick(), process, number, has_begun=has_begun)
        self.operations.append(operation)
        self._current[number] = operation
        self._pending.setdefault(process, {})[operation] = None
        return operation

    def operation(self, number: int) -> Operation | None:
        """The operation of that number, or its last part; None if its process was gone."""
        return self._current.get(number)

    def begins(self, number: int) -> None:
        """The turn of an operation begins."""
        operation = self._current.get(number)
        if operation is None or operation.process in self._ended:
            return
        operation.has_begun = True
        if operation.given_up is not None and operation.given_up[1] == self._now():
            # It wasn't queued any more: its turn was about to begin in that very moment.
            operation.known = "open"
            self.give_up(number)

    def is_on_its_way(self, number: int) -> bool:
        """Whether the turn was in the middle of making it durable."""
        operation = self._current.get(number)
        return operation is not None and operation.is_on_its_way

    def commits(self, number: int) -> None:
        """The turn of an operation makes durable what it has done so far."""
        operation = self._current.get(number)
        if operation is not None:
            operation.is_on_its_way = True

    def divide(self, number: int, result: object, name: str, *args: object) -> None:
        """What an operation has done so far is durable; the rest, if any, is another one."""
        operation = self._current.get(number)
        if operation is None or operation.process in self._ended:
            return
        is_given_up = operation.known == "unknown"
        if is_given_up:
            # Nobody waits for it, but its turn goes on, and it knows what it has done.
            undecided = self._undecided.get((operation.process, operation.key), [])
            if operation in undecided:
                undecided.remove(operation)
            operation.known = "open"
        self.succeed(number, result)
        self._begin(operation.process, operation.key, name, args, number, True)
        if is_given_up:
            self.give_up(number)

    def succeed(self, number: int, result: object, name: str | None = None) -> None:
        """Its caller was told a result; if there is a ``name``, that of something else done."""
        operation = self._close(number, "ok")
        if operation is not None:
            operation.result = result
            if name is not None:
                operation.name, operation.args = name, ()
            self._decide(operation)

    def refuse(self, number: int) -> None:
        """Its caller was told that it has had no effect, nor will have."""
        self._close(number, "never")

    def doubt(self, number: int) -> None:
        """Its caller was told that it may have failed."""
        operation = self._close(number, "unknown")
        if operation is not None and self.slow_keys[operation.key]:
            operation.end = math.inf

    def give_up(self, number: int) -> None:
        """Its caller waits no longer. What has begun goes on, what hasn't never does."""
        operation = self._current.get(number)
        if operation is None or operation.known != "open":
            return
        operation.given_up = (self.event, self._now())
        if not operation.has_begun:
            self.refuse(number)
        else:
            self._close(number, "unknown")
            operation.end = math.inf  # until it is decided
            if self.slow_keys[operation.key]:
                return
            self._undecided.setdefault((operation.process, operation.key), []).append(operation)

    def is_slow(self, keys: Collection[Key]) -> None:
        """Commits are still to be applied, of which their process will be told that they failed.

        What its callers have given up may be in one of them. The process loads the objects again,
        perhaps before that is applied, and goes on with what it has loaded until it writes.
        """
        self.slow_keys.update(keys)
        for owner in [each for each in self._undecided if each[1] in keys]:
            del self._undecided[owner]

    def is_applied(self, keys: Iterable[Key]) -> None:
        """Such commits have been applied, or refused."""
        self.slow_keys.subtract(keys)

    def end_process(self, process: object) -> None:
        """A process is gone, and can do nothing any more but what the storage still has to do."""
        self._ended.add(process)
        for operation in list(self._pending.pop(process, ())):
            if operation.has_begun:
                self.doubt(operation.number)  # it has been saved, or will never be
            else:
                self.refuse(operation.number)
        for owner, key in [each for each in self._undecided if each[0] is process]:
            for operation in self._undecided.pop((owner, key)):
                operation.end = self.event

    # --- inside ----------------------------------------------------------------------------------

    def _close(self, number: int, known: Known) -> Operation | None:
        operation = self._current.get(number)
        if operation is None or operation.known != "open":
            return None
        operation.known = known
        operation.end = self.tick()
        self._pending.get(operation.process, {}).pop(operation, None)
        return operation

    def _decide(self, later: Operation) -> None:
        """What was given up before a later one began has ended when that is durable."""
        owner = (later.process, later.key)
        undecided = self._undecided.get(owner)
        if not undecided or later.name in LOOKS:
            return
        rest = []
        for operation in undecided:
            assert operation.given_up is not None
            # Turns come one after the other, and what is done from outside as well.
            waits = later.name not in OUTSIDE or operation.name in OUTSIDE
            if operation.given_up[0] >= later.start or not waits:
                rest.append(operation)
            else:
                operation.end = later.end
        self._undecided[owner] = rest

    def by_object(self) -> Iterator[tuple[Key, list[Operation]]]:
        """The operations of each object."""
        found: dict[Key, list[Operation]] = {}
        for operation in self.operations:
            found.setdefault(operation.key, []).append(operation)
        yield from found.items()


OUTSIDE = frozenset({"arm", "disarm", "disarm_all"})
"""What doesn't wait for the turn under way."""
LOOKS = frozenset({"alarms", "inspect", "fire"})
"""What doesn't even wait for what is on its way to the storage."""
