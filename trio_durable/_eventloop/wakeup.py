"""What wakes a task that works when there is something to do, or when it is time."""

from __future__ import annotations

import anyio

from .loop import Loop, Waiter


class Bell:
    """Wakes one task, at once or as soon as it waits; once, however often it was rung."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._rung = False
        self._waiter: Waiter | None = None

    def ring(self) -> None:
        """Wake the task."""
        self._rung = True
        if self._waiter is not None:
            self._waiter.settle()

    async def wait(self, seconds: float) -> None:
        """Return when it is rung, or after so many seconds."""
        if not self._rung:
            self._waiter = self._loop.waiter()
            with anyio.move_on_after(seconds):
                await self._waiter.wait()
            self._waiter = None
        self._rung = False
