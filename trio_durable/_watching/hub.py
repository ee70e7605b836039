"""Hub: the cells of the objects of this process, and all that changes them.

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
- The hub listens exactly while it has cells.
- A confirmation comes from a read that began after it was asked for, or from a later commit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from .._eventloop.loop import Loop
from .._keys import ObjectKey
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from ..storage import AlarmRow, StorageFault, StoredObject
from .cell import Cell, Follower
from .cells import Cells


class _Look:
    """A read of a cell's state: see `Loading`. Its row reaches the hub as all loads do."""

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


class Hub(Cells[Cell]):
    """The watched objects of this process.

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
        super().__init__(loop, start)
        self._group_commit = group_commit
        self._batched_load = batched_load
        self._is_in_writer = is_in_writer

    # --- the watchers ----------------------------------------------------------------------------

    def _new_cell(self, key: ObjectKey) -> Cell:
        return Cell(key)

    def _listen(self) -> None:
        self._group_commit.listeners.states = self
        self._batched_load.listener = self

    def _ignore(self) -> None:
        self._group_commit.listeners.states = None
        self._batched_load.listener = None

    def _added(self, cell: Cell) -> None:
        cell.wanted += 1
        self.look(cell)

    def _needed(self, cell: Cell) -> int:
        if cell.fault is not None:
            self.look(cell)
        return 0  # commits are reported before their replies

    def look(self, cell: Cell) -> None:
        """See `Cells.look`."""
        if not cell.is_looked_for and not cell.has_ended:
            cell.is_looked_for, cell.fault = True, None
            cell.look_is_outdated = cell.look_again = False
            cell.covers = cell.wanted
            self._batched_load.submit(_Look(self, cell))

    # --- the followers ---------------------------------------------------------------------------

    def follow(self, key: ObjectKey, follower: Follower) -> tuple[Cell, int]:
        """The cell of an object, for a follower, and the confirmation to wait for.

        `unfollow` ends that.
        """
        is_new = key not in self._cells
        cell, _ = self.enter(key)
        cell.followers.append(follower)
        return cell, cell.wanted if is_new else self.ask(cell)

    def unfollow(self, cell: Cell, follower: Follower) -> None:
        """A follower is gone."""
        cell.followers.remove(follower)
        self.leave(cell)

    def ask(self, cell: Cell) -> int:
        """Ask for the confirmation of a cell's state; return its number."""
        cell.wanted += 1
        self._doubt(cell)
        return cell.wanted

    def _changed(self, cell: Cell) -> None:
        super()._changed(cell)
        for follower in list(cell.followers):
            follower.changed(cell)

    # --- the states ------------------------------------------------------------------------------

    def committed(self, key: ObjectKey, revision: int, row: bytes | None) -> None:
        """See `StateListener.committed`."""
        cell = self._cells.get(key)
        if cell is not None:
            cell.look_is_outdated, cell.look_again = True, False
            self._adopt(cell, revision, row, cell.wanted)

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
            revision, state = (0, None) if row is None else (row.revision, row.state)
            self._adopt(cell, revision, state, cell.confirmed)

    def looked(self, cell: Cell) -> None:
        """A read of the cell's state has ended."""
        cell.is_looked_for = False
        if not self._is_in_writer(cell.key) and cell.confirm(cell.covers):
            self._changed(cell)  # else the outcome of that commit confirms, or has it read again
        if cell.look_again:
            self.look(cell)

    def look_failed(self, cell: Cell, fault: StorageFault) -> None:
        """A read of the cell's state has failed. The first watcher to raise it begins another."""
        cell.is_looked_for, cell.fault = False, fault
        self._changed(cell)

    def _doubt(self, cell: Cell) -> None:
        """Have the state read again, since it may be another one."""
        cell.look_again = True  # after the read that is under way, if there is one
        self.look(cell)

    def doubt_all(self) -> None:
        """See `Cells.doubt_all`."""
        for cell in list(self._cells.values()):
            self._doubt(cell)

    def _end(self, cell: Cell) -> None:
        super()._end(cell)
        for follower in list(cell.followers):
            follower.changed(cell)
