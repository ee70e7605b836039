"""Outcomes of calls that run beside the test, and of calls that are cancelled at one await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

import anyio
from anyio.abc import TaskGroup

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Outcome(Generic[T_co]):
    """What became of a call in a task of its own."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self.error: BaseException | None = None
        self._values: list[T_co] = []

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    async def wait(self) -> None:
        """Return when it has ended, in whatever way."""
        await self._ended.wait()

    @property
    def value(self) -> T_co:
        """The reply; an error is raised."""
        assert self.done, "the call is still under way"
        if self.error is not None:
            raise self.error
        return self._values[0]

    def cancel(self) -> None:
        """Cancel the caller."""
        self.scope.cancel()

    async def run(self, function: Callable[[], Awaitable[Any]]) -> None:
        with self.scope:
            try:
                self._values.append(await function())
            except Exception as error:  # noqa: BLE001  # for the test to inspect
                self.error = error
        if self.scope.cancelled_caught:
            self.error = RuntimeError("the caller was cancelled")
        self._ended.set()


class Calls:
    """Starts calls in tasks of their own."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def start(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[T]:
        """Call in a new task, which starts when the test next waits."""
        outcome: Outcome[T] = Outcome()
        self._tasks.start_soon(outcome.run, lambda: function(*args, **kwargs))
        return outcome


@asynccontextmanager
async def calls() -> AsyncIterator[Calls]:
    """A place for calls beside the test; waits for them to end."""
    async with anyio.create_task_group() as tasks:
        yield Calls(tasks)


NEVER = -1
"""For `cancelled_at`: the call isn't cancelled."""


async def cancelled_at(number: int, call: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """Make a call that is cancelled at one of the awaits that suspend it; return its outcome.

    Args:
        number: The await, from 1 on; with 0 the call is cancelled before it begins.
        call: The call.
    """
    outcome: Outcome[T] = Outcome()
    await outcome.run(lambda: _CancelledAt(number, call, outcome.cancel))
    return outcome


class _CancelledAt(Awaitable[T_co]):
    def __init__(
        self, number: int, call: Callable[[], Awaitable[T_co]], cancel: Callable[[], object]
    ) -> None:
        self._left = number
        self._call = call
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, T_co]:
        self._count(0)
        steps = self._call().__await__()
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                suspended = resume()
            except StopIteration as stop:
                value: T_co = stop.value
                return value
            self._count(1)
            try:
                resume = partial(steps.send, (yield suspended))
            except BaseException as error:  # noqa: BLE001  # for the call
                resume = partial(steps.throw, error)

    def _count(self, number: int) -> None:
        self._left -= number
        if self._left == 0:
            self._cancel()
