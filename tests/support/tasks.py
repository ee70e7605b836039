"""Outcomes of calls that run beside the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
