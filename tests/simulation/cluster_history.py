"""History of the calls of a cluster, whose members call each other.

A call may begin long after its caller has given it up, or after the caller's process is gone, since
it was on its way to another one. So its outcome stays unknown until a later turn of the object has
begun, and is durable: turns of an object come one after the other, wherever it lives, and nothing
of an earlier one is written any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .history import LOOKS, History, Key, Operation


class ClusterHistory(History):
    """See `History`."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._unsure: dict[Key, list[Operation]] = {}

    def begins(self, number: int) -> None:
        operation = self._current.get(number)
        if operation is not None:
            operation.has_begun = True
            operation.turn_at = self.tick()

    def divide(self, number: int, result: object, name: str, *args: object) -> None:
        operation = self._current.get(number)
        if operation is None:
            return
        is_unsure = operation.known == "unknown"
        if is_unsure:
            # Its caller has gone, but its turn goes on, and knows what it has done.
            self._unsure_of(operation.key).remove(operation)
            operation.known = "open"
        self.succeed(number, result)
        process, key = operation.process, operation.key
        rest = self._begin(process, key, name, args, number, True)
        rest.turn_at = rest.start
        if is_unsure:
            self.give_up(number)

    def give_up(self, number: int) -> None:
        self._leave_open(number)

    def doubt(self, number: int) -> None:
        self._leave_open(number)

    def end_process(self, process: object) -> None:
        self._ended.add(process)
        for operation in list(self._pending.pop(process, ())):
            self._leave_open(operation.number)

    def end(self) -> None:
        """The simulation is over: a turn that hasn't begun never does."""
        for operations in self._unsure.values():
            for operation in operations:
                if not operation.has_begun:
                    operation.known = "never"

    # --- inside ----------------------------------------------------------------------------------

    def _leave_open(self, number: int) -> None:
        operation = self._close(number, "unknown")
        if operation is not None:
            operation.end = math.inf
            self._unsure_of(operation.key).append(operation)

    def _unsure_of(self, key: Key) -> list[Operation]:
        return self._unsure.setdefault(key, [])

    def _decide(self, later: Operation) -> None:
        if later.turn_at is None or later.name in LOOKS:
            return
        rest = []
        for operation in self._unsure_of(later.key):
            if operation.turn_at is not None and operation.turn_at < later.turn_at:
                operation.end = later.end
            else:
                rest.append(operation)
        self._unsure[later.key] = rest
