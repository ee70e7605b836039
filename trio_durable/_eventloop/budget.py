"""Budget: how long calls that wait for nothing may run before other tasks of a Trio run do.

A checkpoint costs a read as much as the turn itself. So such a call lets other tasks run only when
the budget of its task is spent, and else looks for a cancellation, which costs a tenth.

Prior art: tokio's cooperative budget, which counts operations. A count bounds no time where a turn
may take 2 µs or 2 ms, so this is a time. It is one for all tasks of the run: a budget each would
let a sleeper wake 25 ms late beside 64 readers. So the task that comes back from a checkpoint has a
share of `ALL` that is smaller the more tasks stand in one. In a crowd a share is shorter than a
call, and to divide would cost more than it gives; then each call is a checkpoint, and the tasks are
counted once in a while.

Only Trio's scheduler cancels the scopes whose deadline has passed. Without a bound in time a loop
of reads would never meet its own deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter

from trio.lowlevel import RunVar, checkpoint, checkpoint_if_cancelled

EACH = 25e-6
"""Seconds that one task may run its calls without a checkpoint."""
ALL = 800e-6
"""Seconds that all tasks together may add to a pass of the scheduler."""
CROWD = 128
"""The number of tasks from which on there are no shares."""
_ROUNDS = 8
"""The checkpoints of each task of a crowd until they are counted again."""


class Budget:
    """The budget of the tasks of one Trio run, whichever runtimes they call."""

    __slots__ = ("_in_crowd", "_until", "_yielding")

    def __init__(self) -> None:
        self._until = 0.0
        self._yielding = 0
        self._in_crowd = 0
        """The checkpoints of a crowd that are left until its tasks are counted."""

    def spend(self) -> Awaitable[None]:
        """A checkpoint if the budget is spent, else a cancel point alone; to be awaited at once."""
        if self._in_crowd:
            self._in_crowd -= 1
            return checkpoint()  # noqa: ASYNC105  # the caller awaits it
        if perf_counter() < self._until:
            return checkpoint_if_cancelled()  # noqa: ASYNC105  # likewise
        return self._yield()

    async def _yield(self) -> None:
        self._yielding += 1
        try:
            await checkpoint()
        finally:
            yielding = self._yielding
            self._yielding = yielding - 1
        if yielding < CROWD:
            self._until = perf_counter() + min(EACH, ALL / yielding)
        else:
            self._in_crowd = max(self._in_crowd, _ROUNDS * yielding)


_budget: RunVar[Budget] = RunVar("trio_durable.budget")


def current_budget() -> Budget:
    """The budget of the Trio run of the caller."""
    try:
        return _budget.get()
    except LookupError:
        budget = Budget()
        _budget.set(budget)
        return budget
