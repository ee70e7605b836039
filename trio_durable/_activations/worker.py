"""Worker: the task that runs the ``async def`` turns of one object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from .._eventloop.loop import Loop, Waiter
from .envelope import Envelope

StartTask = Callable[[Callable[[], Coroutine[Any, Any, None]], str], None]
"""Starts a named task in the runtime's nursery."""


class Worker:
    """Starts its task with the first assignment and parks it between assignments.

    A task per turn would cost several times as much as waking one. The activation assigns one
    envelope at a time, and dismisses the worker when it hibernates.
    """

    __slots__ = (
        "_assigned",
        "_dismissed",
        "_loop",
        "_name",
        "_parked",
        "_run",
        "_running",
        "_start_task",
    )

    def __init__(
        self,
        loop: Loop,
        start_task: StartTask,
        name: str,
        run: Callable[[Envelope], Awaitable[None]],
    ) -> None:
        self._loop = loop
        self._start_task = start_task
        self._name = name
        self._run = run
        self._running = False
        self._dismissed = False
        self._assigned: Envelope | None = None
        self._parked: Waiter | None = None

    def assign(self, envelope: Envelope) -> None:
        """Run ``envelope`` next. From within a run, when that is over."""
        self._assigned = envelope
        if not self._running:
            self._running = True
            self._start_task(self._work, self._name)
        elif self._parked is not None:
            self._parked.settle()

    def dismiss(self) -> None:
        """End the task, after the turn that it runs."""
        self._dismissed = True
        if self._parked is not None:
            self._parked.settle()

    async def _work(self) -> None:
        try:
            while self._assigned is not None:
                envelope, self._assigned = self._assigned, None
                await self._run(envelope)
                if self._assigned is None and not self._dismissed:
                    await self._park()
        finally:
            self._running = False

    async def _park(self) -> None:
        self._parked = self._loop.waiter()
        try:
            await self._parked.wait()
        except BaseException:
            # Cancelled; but if it was woken in the same moment, the turn must not be lost. It
            # will meet the cancellation itself.
            if self._assigned is None:
                raise
        finally:
            self._parked = None


class InContext:
    """Awaits a coroutine with its steps run in a given context.

    A worker serves many callers; each turn sees its own caller's context variables.
    """

    __slots__ = ("_context", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, object], context: Context) -> None:
        self._coroutine = coroutine
        self._context = context

    def __await__(self) -> Generator[Any, Any, object]:
        run, coroutine = self._context.run, self._coroutine
        try:
            yielded = run(coroutine.send, None)
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:  # noqa: BLE001  # thrown by the event loop
                    yielded = run(coroutine.throw, error)
                else:
                    yielded = run(coroutine.send, sent)
        except StopIteration as stop:
            return stop.value
