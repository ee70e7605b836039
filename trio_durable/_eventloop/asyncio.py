"""The backend for asyncio, and for loops that replace asyncio's own, such as uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from .loop import Loop, Ts, Waiter


def is_virtual(loop: asyncio.AbstractEventLoop) -> bool:
    """True if the clock of ``loop`` differs from real time: its class has a `time` of its own."""
    return not (
        type(loop).__module__.startswith("uvloop")
        or getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
    )


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
            self.ended = True
            if self._future is not None and not self._future.done():
                self._future.set_result(None)

    async def wait(self) -> object:
        """See `Waiter.wait`."""
        if self.ended:
            await asyncio.sleep(0)
        else:
            self._future = self._loop.create_future()
            try:
                await self._future
            except asyncio.CancelledError:
                self.ended = True
                raise
        if self.error is not None:
            raise self.error
        # `Deadlines` may hold the waiter for a while longer; it must not hold a large reply.
        value, self.value = self.value, None
        return value


class AsyncioLoop(Loop):
    """The event loop of asyncio that runs the caller.

    Raises:
        RuntimeError: None does.
    """

    def __init__(self) -> None:
        self.token = self.time_source = self._loop = loop = asyncio.get_running_loop()
        self.is_virtual = is_virtual(loop)
        self.now = loop.time
        self.waiter = partial(AsyncioWaiter, loop)
        self.checkpoint = partial(asyncio.sleep, 0)
        self.current_task = partial(asyncio.current_task, loop)

    def is_current(self) -> bool:
        """See `Loop.is_current`."""
        return asyncio._get_running_loop() is self._loop

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """See `Loop.call_soon_threadsafe`."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, *args)

    def waits_for_me(self, task: object) -> bool:
        """See `Loop.waits_for_me`."""
        current = self.current_task()
        if current is None or task is None:
            return False
        return current is task or anyio.get_current_task().parent_id == id(task)

    def forgive_cancellation(self) -> bool:
        """See `Loop.forgive_cancellation`."""
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is not None:
            while task.cancelling():
                task.uncancel()
        return True
