"""An event that wakes a task when there is work, or when its next deadline comes."""

from __future__ import annotations

import math

import anyio

from .loop import Loop, Waiter


class AutoResetEvent:
    """An event for one task, reset by the wait that it ends.

    Setting it several times before the task waits wakes the task once.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._is_set = False
        self._waiter: Waiter | None = None

    def set(self) -> None:
        """Wake the task, now or as soon as it waits."""
        self._is_set = True
        if self._waiter is not None:
            self._waiter.wake()

    async def wait(self, seconds: float = math.inf) -> None:
        """Return once the event is set, or after ``seconds``, and reset the event."""
        if not self._is_set:
            self._waiter = waiter = self._loop.waiter()
            if seconds == math.inf:
                await waiter.wait()
            else:
                with anyio.move_on_after(seconds):
                    await waiter.wait()
            self._waiter = None
        self._is_set = False
