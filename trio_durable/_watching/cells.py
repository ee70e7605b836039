"""Cells of one hub: their watchers, and their end.

A cell exists exactly while it has watchers. `Hub` has those of the objects of this process, and
`RoutedHub` those of a cluster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .._eventloop.loop import Loop, Waiter
from .._keys import ObjectKey
from .cell import Cell
from .pacing import Pacing

C = TypeVar("C", bound=Cell)


class Cells(ABC, Generic[C]):
    """The cells of one hub.

    Args:
        loop: The event loop.
        start: Starts a task of the runtime.
    """

    def __init__(
        self, loop: Loop, start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
    ) -> None:
        self.loop = loop
        self._start = start
        self._cells: dict[ObjectKey, C] = {}
        self._pacing = Pacing(loop, self._cells)
        self._has_started = False
        self.has_ended: bool = False
        """True if all watches have ended, and later ones end at once."""
        self.failure: Callable[[], BaseException] | None = None
        """Makes the error that watches end with, if the runtime has failed."""

    # --- for watches -----------------------------------------------------------------------------

    def enter(self, key: ObjectKey) -> tuple[Cell, int]:
        """The cell of an object, and the mark of a new watcher that has seen none of its versions.

        See `Cell.parked`.
        """
        cell = self._cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
            if self.has_ended:
                cell.has_ended = True
                return cell, 0
            if not self._has_started:
                self._has_started = True
                self._start(self._pacing.run)
                self._begin()
            if not self._cells:
                self._listen()
            self._cells[key] = cell
            self._added(cell)
        cell.watchers += 1
        return cell, -self._needed(cell)

    def leave(self, cell: Cell) -> None:
        """A watcher is gone. A cell leaves with its last one."""
        cell.watchers -= 1
        found = self._cells.get(cell.key)
        if found is not None and found is cell and cell.watchers <= 0:
            self._remove(found)

    def _remove(self, cell: C) -> None:
        del self._cells[cell.key]
        self._pacing.forget(cell)
        self._removed(cell)
        if not self._cells:
            self._ignore()

    @abstractmethod
    def look(self, cell: Cell) -> None:
        """Have the state of a cell with a fault read, unless it is being read."""

    def park(self, cell: Cell, waiter: Waiter, seen: int) -> None:
        """Settle ``waiter`` once the cell has news for a watcher that has seen ``seen``."""
        cell.parked[waiter] = seen
        if cell.has_news(seen):
            self._pacing.changed(cell)

    @property
    def count(self) -> int:
        """The number of watched objects."""
        return len(self._cells)

    # --- for the kinds of hubs -------------------------------------------------------------------

    @abstractmethod
    def _new_cell(self, key: ObjectKey) -> C:
        """A cell of this hub."""

    @abstractmethod
    def _added(self, cell: C) -> None:
        """There is a new cell, whose state isn't known."""

    @abstractmethod
    def _needed(self, cell: C) -> int:
        """The confirmation that the first snapshot of a new watcher needs; 0 for none."""

    def _removed(self, cell: C) -> None:  # only some have more to do
        """A cell is gone."""

    def _begin(self) -> None:  # likewise
        """There is the first cell of all."""

    def _listen(self) -> None:  # likewise
        """There is a first cell."""

    def _ignore(self) -> None:  # likewise
        """The last cell is gone."""

    def _changed(self, cell: Cell) -> None:
        """A cell has another state, a fault, a confirmation, or its end."""
        self._pacing.changed(cell)

    def _adopt(self, cell: Cell, revision: int, row: bytes | None, number: int) -> None:
        """Take over a state, which gives all confirmations up to a number."""
        is_new = cell.adopt(revision, row)
        if cell.confirm(number) or is_new:
            self._changed(cell)

    # --- the end ---------------------------------------------------------------------------------

    @abstractmethod
    def doubt_all(self) -> None:
        """Have all states read again: other processes may have written meanwhile."""

    def dropped(self, tenant: str) -> None:
        """A tenant is gone: nothing of it is stored, and its watches end with that."""
        for cell in [cell for cell in self._cells.values() if cell.key.tenant == tenant]:
            self._gone(cell)

    def _gone(self, cell: C) -> None:
        cell.adopt(0, None)
        cell.confirm(cell.wanted)
        self._end(cell)

    def end(self, failure: Callable[[], BaseException] | None = None) -> None:
        """End all watches, after what they haven't seen. Later ones end at once.

        Args:
            failure: Makes the error that they end with, if the runtime has failed.
        """
        if not self.has_ended:
            self.has_ended, self.failure = True, failure
            for cell in list(self._cells.values()):
                self._end(cell)

    def _end(self, cell: C) -> None:
        cell.has_ended = True
        self._remove(cell)
        for waiter in list(cell.parked):
            waiter.settle()
        cell.parked.clear()
