"""Hub: the cells of one runtime, and all that changes them.

It listens to commits and loads while there is a cell, and has the state of each new one read.

Invariants:

- A cell is registered before its state is read, so no commit falls between the two. A commit that
  is reported meanwhile is newer than the read, and wins.
- A read counts only if no commit of its object was in the writer's hands when it arrived. It may
  have seen that commit, or a later one, whose reports would come after it and lead back. Their
  outcome tells the state, or has it read again.
- The outcome of a failed commit isn't known, so the state is read again. Such a commit may also
  land after that read. The next load of the object sees it, and counts like a read.
- A state that was read is adopted, also with a lower revision: after a deletion, or after a
  failover that has lost commits, it is the truth.
- A cell exists exactly while it has watchers, and the hub listens exactly while it has cells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from .._eventloop.loop import Loop, Waiter
from .._keys import ObjectKey
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from ..storage import AlarmRow, StorageFault, StoredObject
from .cell import Cell
from .pacing import Pacing


class _Look:
    """A read of a cell's state: see `Loading`. The hub hears of its row as of all loads."""

    recurring_alarms: Collection[str] = ()

    def __init__(self, hub: Hub, cell: Cell) -> None:
        self._hub = hub
        self._cell = cell

    @property
    def key(self) -> ObjectKey:
        return self._cell.key

    def loaded(self, row: StoredObject | None, alarms: Sequence[AlarmRow | None]) -> None:
        self._hub.looked(self._cell)

    def load_failed(self, fault: StorageFault) -> None:
        self._hub.look_failed(self._cell, fault)


class Hub:
    """The watched objects of one runtime.

    Args:
        loop: The event loop.
        group_commit: Reports commits.
        batched_load: Reads states, and reports other loads.
        is_in_writer: True for an object of which a commit is in the writer's hands.
        start: Starts a task of the runtime.
    """

    def __init__(
        self,
        loop: Loop,
        group_commit: GroupCommit,
        batched_load: BatchedLoad,
        is_in_writer: Callable[[ObjectKey], bool],
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
    ) -> None:
        self.loop = loop
        self._group_commit = group_commit
        self._batched_load = batched_load
        self._is_in_writer = is_in_writer
        self._start = start
        self._cells: dict[ObjectKey, Cell] = {}
        self._pacing = Pacing(loop, self._cells)
        self._has_started = False
        self._has_ended = False
        self.failure: Callable[[], BaseException] | None = None
        """Makes the error that watches end with, if the runtime has failed."""

    # --- for watches -----------------------------------------------------------------------------

    def enter(self, key: ObjectKey) -> Cell:
        """The cell of an object, for one more watcher."""
        cell = self._cells.get(key)
        if cell is None:
            cell = Cell(key)
            if self._has_ended:
                cell.has_ended = True
                return cell
            if not self._has_started:
                self._has_started = True
                self._start(self._pacing.run)
            if not self._cells:
                self._group_commit.listeners.states = self
                self._batched_load.listener = self
            self._cells[key] = cell
            self.look(cell)
        elif cell.fault is not None:
            self.look(cell)
        cell.watchers += 1
        return cell

    def leave(self, cell: Cell) -> None:
        """A watcher is gone. A cell leaves with its last one, and the hub with its last cell."""
        cell.watchers -= 1
        if cell.watchers <= 0 and self._cells.get(cell.key) is cell:
            self._remove(cell)

    def _remove(self, cell: Cell) -> None:
        del self._cells[cell.key]
        self._pacing.forget(cell)
        if not self._cells:
            self._group_commit.listeners.states = None
            self._batched_load.listener = None

    def look(self, cell: Cell) -> None:
        """Have the state read, unless it is being read."""
        if not cell.is_looked_for and not cell.has_ended:
            cell.is_looked_for, cell.fault = True, None
            cell.look_is_outdated = cell.look_again = False
            self._batched_load.submit(_Look(self, cell))

    def park(self, cell: Cell, waiter: Waiter, seen: int) -> None:
        """Settle ``waiter`` once the cell has a version other than ``seen``, or a fault."""
        cell.parked[waiter] = seen
        if cell.has_news(seen):
            self._pacing.changed(cell)

    @property
    def count(self) -> int:
        """The number of watched objects."""
        return len(self._cells)

    # --- the states ------------------------------------------------------------------------------

    def committed(self, key: ObjectKey, revision: int, row: bytes | None) -> None:
        """See `StateListener.committed`."""
        cell = self._cells.get(key)
        if cell is not None:
            cell.look_is_outdated, cell.look_again = True, False
            self._adopt(cell, revision, row)

    def uncertain(self, key: ObjectKey) -> None:
        """See `StateListener.uncertain`."""
        cell = self._cells.get(key)
        if cell is not None:
            self._doubt(cell)

    def loaded(self, key: ObjectKey, row: StoredObject | None) -> None:
        """See `LoadListener.loaded`."""
        cell = self._cells.get(key)
        if cell is None or (cell.is_looked_for and cell.look_is_outdated):
            return
        if not self._is_in_writer(key):
            self._adopt(cell, *((0, None) if row is None else (row.revision, row.state)))

    def looked(self, cell: Cell) -> None:
        """A read of the cell's state has ended."""
        cell.is_looked_for = False
        if cell.look_again:
            self.look(cell)

    def look_failed(self, cell: Cell, fault: StorageFault) -> None:
        """A read of the cell's state has failed. The first watcher to raise it begins another."""
        cell.is_looked_for, cell.fault = False, fault
        self._pacing.changed(cell)

    def _doubt(self, cell: Cell) -> None:
        """Have the state read again, since it may be another one."""
        cell.look_again = True  # after the read that is under way, if there is one
        self.look(cell)

    def doubt_all(self) -> None:
        """Have all states read again: other processes may have written meanwhile."""
        for cell in list(self._cells.values()):
            self._doubt(cell)

    def _adopt(self, cell: Cell, revision: int, row: bytes | None) -> None:
        if cell.adopt(revision, row):
            self._pacing.changed(cell)

    # --- the end ---------------------------------------------------------------------------------

    def dropped(self, tenant: str) -> None:
        """A tenant is gone: nothing of it is stored, and its watches end with that."""
        for cell in [cell for cell in self._cells.values() if cell.key.tenant == tenant]:
            self._adopt(cell, 0, None)
            self._end(cell)

    def end(self, failure: Callable[[], BaseException] | None = None) -> None:
        """End all watches, after what they haven't seen. Later ones end at once.

        Args:
            failure: Makes the error that they end with, if the runtime has failed.
        """
        if not self._has_ended:
            self._has_ended, self.failure = True, failure
            for cell in list(self._cells.values()):
                self._end(cell)

    def _end(self, cell: Cell) -> None:
        cell.has_ended = True
        self._remove(cell)
        for waiter in list(cell.parked):
            waiter.settle()
        cell.parked.clear()
