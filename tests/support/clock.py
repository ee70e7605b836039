"""Virtual time for asyncio, as `trio.testing.MockClock` gives it for trio."""

from __future__ import annotations

import asyncio
import math
import selectors

import anyio.lowlevel
import trio
import trio.testing


class _JumpingSelector(selectors.SelectSelector):
    """Instead of sleeping until the next timer, lets the time jump there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            # A hair more, or rounding may leave the timer a fraction of its due time away.
            self.now = math.nextafter(self.now + timeout + 1e-9, math.inf)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which waiting costs no real time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without a timeout, which would be over at once."""
        await super().shutdown_default_executor()

    def jump(self, seconds: float) -> None:
        """Let virtual time pass without running anything."""
        self._jumping.now += seconds


def block(seconds: float) -> None:
    """Let virtual time pass while the loop stands still, as code that blocks it does."""
    if trio.lowlevel.in_trio_task():
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.jump(seconds)


async def settle() -> None:
    """Return when nothing goes on by itself any more, without letting virtual time pass."""
    if trio.lowlevel.in_trio_task():
        await trio.testing.wait_all_tasks_blocked()
    else:
        # Each is one round of the event loop; no chain of callbacks in the tests is as long.
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
