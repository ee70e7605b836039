"""Pacing: watchers are woken in small groups, so that callers come first.

Ten thousand tasks that are woken at once hold up all others for as long as they run, after each
commit. So a pass wakes `GROUP` of them, and the next pass comes when four times as long has gone by
as these took.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from .._eventloop.loop import Loop, Waiter
from .._keys import ObjectKey
from .cell import Cell

GROUP = 64
"""The watchers that are woken in one pass."""
SHARE = 0.2
"""The most of the event loop's time that passes take."""


class Pacing:
    """Wakes the watchers of cells that have changed.

    Args:
        loop: The event loop.
        cells: All cells.
    """

    def __init__(self, loop: Loop, cells: Mapping[ObjectKey, Cell]) -> None:
        self._loop = loop
        self._cells = cells
        self._stopwatch = loop.stopwatch()
        self._due: dict[Cell, None] = {}
        """The cells of which some watchers may not have seen the latest version."""
        self._sleeping: Waiter | None = None

    def changed(self, cell: Cell) -> None:
        """Wake the watchers of a cell, before long."""
        cell.to_examine = len(cell.parked)
        if cell.parked:
            self._due[cell] = None
            if self._sleeping is not None:
                self._sleeping.settle()

    def forget(self, cell: Cell) -> None:
        """Nothing waits for a cell any more."""
        self._due.pop(cell, None)

    async def run(self) -> None:
        """Wake watchers until cancelled. May be begun once more, after it was cut off anywhere."""
        for cell in list(self._cells.values()):
            self.changed(cell)
        while True:
            while not self._due:
                self._sleeping = self._loop.waiter()
                await self._sleeping.wait()
            began = self._stopwatch()
            self.wake_group()
            await self._loop.checkpoint()  # they run now
            await self._loop.checkpoint()
            spent = self._stopwatch() - began
            if spent > 0:
                await anyio.sleep(spent * (1 / SHARE - 1))

    def wake_group(self) -> None:
        """Wake some watchers, of one cell after the other."""
        left = GROUP
        while left and self._due:
            cell = next(iter(self._due))
            del self._due[cell]
            parked = cell.parked
            while left and parked and cell.to_examine > 0:
                left -= 1
                cell.to_examine -= 1
                waiter, seen = next(iter(parked.items()))
                if cell.has_news(seen):
                    waiter.settle()
                    del parked[waiter]
                else:  # woken for this change, and here once more
                    parked[waiter] = parked.pop(waiter)
            if parked and cell.to_examine > 0:
                self._due[cell] = None
