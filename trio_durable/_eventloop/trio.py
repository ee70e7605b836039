"""The backend for trio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_clock,
    current_task,
    current_trio_token,
    reschedule,
    wait_task_rescheduled,
)

from .loop import Loop, Ts, Waiter


class _TrioWaiter(Waiter):
    __slots__ = ("_task",)

    def __init__(self) -> None:
        self.ended = False
        self.value = self.error = self.expiry = None
        self._task: Task | None = None

    def release(self) -> None:
        if not self.ended:
            self.ended = True
            if self._task is not None:
                reschedule(self._task)

    def _abort(self, _raise_cancel: object) -> Abort:
        self.ended = True
        return Abort.SUCCEEDED

    async def wait(self) -> object:
        if self.ended:
            await checkpoint()
        else:
            self._task = current_task()
            await wait_task_rescheduled(self._abort)
        if self.error is not None:
            raise self.error
        # What looks after its deadline may keep the waiter for a while, but not a large reply.
        value, self.value = self.value, None
        return value


class _TrioLoop(Loop):
    def __init__(self) -> None:
        self.token = self._token = current_trio_token()
        self.time_source = clock = current_clock()
        self.is_virtual = not type(clock).__module__.startswith("trio._core")
        self.now = clock.current_time
        self.waiter = _TrioWaiter
        self.checkpoint = checkpoint

    def is_current(self) -> bool:
        try:
            return current_trio_token() is self._token
        except RuntimeError:
            return False

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, *args)

    def forgive_cancellation(self) -> bool:
        return False
