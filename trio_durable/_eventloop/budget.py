"""Budget: how long calls that wait for nothing may run before other tasks of a Trio run do.

A checkpoint costs a read as much as the turn itself. So such a call lets other tasks run only when
the budget of its task is spent, and else looks for a cancellation, which costs a tenth.

Prior art: tokio's cooperative budget, which counts operations. A count bounds no time where a turn
may take 2 µs or 2 ms, so this is a time. It is one for all tasks of the run: a budget each would
let a sleeper wake 25 ms late beside 64 readers. So the task that comes back from a checkpoint has a
share of `ALL` that is smaller the more tasks stand in one.

Only Trio's scheduler cancels the scopes whose deadline has passed. Without a bound in time a loop
of reads would never meet its own deadline.
"""

from __future__ import annotations

from time import perf_counter

from trio.lowlevel import RunVar, checkpoint, checkpoint_if_cancelled

EACH = 20e-6
"""Seconds that one task may run its calls without a checkpoint."""
ALL = 500e-6
"""Seconds that all tasks together may add to a pass of the scheduler."""


class Budget:
    """The budget of the tasks of one Trio run, whichever runtimes they call."""

    __slots__ = ("_until", "_yielding")

    def __init__(self) -> None:
        self._until = 0.0
        self._yielding = 0

    async def spend(self) -> None:
        """A checkpoint if the budget is spent, else a cancel point alone."""
        if perf_counter() < self._until:
            await checkpoint_if_cancelled()
            return
        self._yielding += 1
        try:
            await checkpoint()
        finally:
            yielding = self._yielding
            self._yielding = yielding - 1
        self._until = perf_counter() + min(EACH, ALL / yielding)


_budget: RunVar[Budget] = RunVar("trio_durable.budget")


def current_budget() -> Budget:
    """The budget of the Trio run of the caller."""
    try:
        return _budget.get()
    except LookupError:
        budget = Budget()
        _budget.set(budget)
        return budget
