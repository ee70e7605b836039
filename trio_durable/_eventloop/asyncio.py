"""The backend for asyncio, and for loops that replace asyncio's own, such as uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from functools import partial
from importlib import import_module
from operator import call
from typing import Any

import anyio

from .loop import Loop, Ts, Waiter, check_headroom


def is_virtual(loop: asyncio.AbstractEventLoop) -> bool:
    """True if the clock of ``loop`` differs from real time: its class has a `time` of its own."""
    return not (
        type(loop).__module__.startswith("uvloop")
        or getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
    )


_LEVELS = 12
"""How deep the functions of an event loop call each other to resume a task."""


class AsyncioWaiter(Waiter):
    """A waiter whose task is parked in a future of asyncio."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = False
        self.value = self.error = self.expiry = None
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def release(self) -> None:
        """See `Waiter.release`."""
        if not self.ended:
            if self._future is not None and not self._future.done():
                self._future.set_result(None)
            self.ended = True

    def wake(self) -> None:
        """See `Waiter.wake`.

        A future that meets the limit on recursion while it is settled forgets its task.
        """
        if not self.ended:
            check_headroom(_LEVELS)
            self.settle()

    async def wait(self) -> object:
        """See `Waiter.wait`."""
        try:
            if self.ended:
                await asyncio.sleep(0)
            else:
                self._future = self._loop.create_future()
                await self._future
        finally:
            self.ended = True
            self._future = None
        if self.error is not None:
            self._raise()
        value, self.value = self.value, None
        return value


class AsyncioLoop(Loop):
    """The event loop of asyncio that runs the caller.

    Raises:
        RuntimeError: None does.
    """

    is_asyncio = True

    def __init__(self) -> None:
        super().__init__()
        self.token = self.time_source = self._loop = loop = asyncio.get_running_loop()
        self.is_virtual = is_virtual(loop)
        self.now = loop.time
        self.waiter = partial(AsyncioWaiter, loop)
        self.checkpoint = self.pause = partial(asyncio.sleep, 0)
        self.interruptible = call
        self.current_task = partial(asyncio.current_task, loop)

    def is_current(self) -> bool:
        """See `Loop.is_current`."""
        return asyncio._get_running_loop() is self._loop

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """See `Loop.call_soon_threadsafe`."""
        self._arrived.append((callback, args))
        try:
            self._loop.call_soon_threadsafe(self._guard.send, None)
        except RuntimeError:  # such as RecursionError
            if not self._loop.is_closed():
                raise
            self._arrived.clear()

    def spawn(
        self, run: Callable[[], Coroutine[Any, Any, None]], name: str, context: Context
    ) -> object:
        """See `Loop.spawn`. The loop itself has weak references only."""
        # Not by the loop's task factory: an eager one would run the task inside of the caller.
        return asyncio.Task(run(), loop=self._loop, name=name, context=context)

    def cancel_probe(self, task: object) -> Callable[[], object]:
        """See `Loop.cancel_probe`: the requests not taken back, and AnyIO's innermost scope.

        No public attribute has the scope. Without this one a scope that a handler leaves open would
        be noticed when it is cancelled, in the turn of another object.
        """
        assert isinstance(task, asyncio.Task)
        state = _anyio_states().get(task)
        cancelling = task.cancelling

        def probe() -> object:
            return cancelling() or getattr(state, "cancel_scope", None)

        return probe

    def interrupt(self, error: BaseException) -> None:
        """See `Loop.interrupt`."""
        self._loop.call_soon(_raise, error)  # the loop ends with these, as from any callback

    def waits_for_me(self, task: object) -> bool:
        """See `Loop.waits_for_me`."""
        current = self.current_task()
        if current is None or task is None:
            return False
        return current is task or anyio.get_current_task().parent_id == id(task)


def _anyio_states() -> Mapping[object, object]:
    """The records that AnyIO keeps of tasks in its scopes."""
    return getattr(import_module("anyio._backends._asyncio"), "_task_states", {})


def _raise(error: BaseException) -> None:
    raise error
