"""Group commit: everything that waits while one transaction runs goes into the next one.

Prior art: the group commit of write-ahead logs (Gawlick and Kinkade, IMS Fast Path, 1985;
PostgreSQL's and MySQL's commit queues). A sync of the disk costs about the same for one row as
for a hundred, so the transaction that waits for the disk collects what comes meanwhile.

The writer's thread pulls: when a transaction ends it takes what has gathered and begins the next
one at once, without a way through the event loop in between. The trade-off: a thread that is
faster than the callers come back would take them in small batches and sync twice as often as
needed, which a slow disk makes expensive. So before it takes a batch smaller than the one before,
it gives the callers it has just released a moment, an eighth of what the last transaction took.

Invariants:

- At most one ticket of an owner is pending: turns that come while it is are coalesced into it,
  one row for all of them. Behind it may be one in the writer's hands and one whose outcome is on
  its way to the loop, linked in the order of their revisions.
- Revisions are assigned when a ticket is opened, each on top of the ticket before. If one fails,
  those behind it fail with it: in the loop at once, and in the storage by its fence, since the
  revision they are based on was never stored.
- A ticket's commit may change only while it is pending; `_lock` guards that against the writer's
  taking it. Its waiters belong to the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Protocol

from .._errors import PersistenceError, StaleObject
from .._keys import ObjectKey
from .._rendezvous import Loop, Waiter
from .._runner import Runner
from ._contract import Commit, StorageFault, Writer

MAX_BATCH_ROWS = 1024
MAX_BATCH_BYTES = 32 * 1024 * 1024


class Owner(Protocol):
    """Whose commits these are: an activation."""

    key: ObjectKey
    revision: int
    """The revision that is stored, as far as known; 0 for none."""
    gate: Ticket | None
    """The last of its tickets that hasn't ended, which holds back its replies."""

    def committed(self) -> None:
        """A ticket became durable."""
        ...

    def commit_failed(self) -> None:
        """A ticket failed, and those behind it. Its effects are lost."""
        ...


class Ticket:
    """One commit on its way, and the replies that wait for it."""

    __slots__ = ("_waiters", "commit", "ended", "following", "owner")

    def __init__(self, owner: Owner, commit: Commit) -> None:
        self.owner = owner
        self.commit = commit
        self.ended = False
        self.following: Ticket | None = None
        self._waiters: list[tuple[Waiter, object, BaseException | None]] = []

    @property
    def next_revision(self) -> int:
        """What is stored once this is durable."""
        commit = self.commit
        if commit.delete:
            return 0
        return commit.revision if commit.state is None else commit.revision + 1

    def hold(
        self, waiter: Waiter, value: object = None, error: BaseException | None = None
    ) -> None:
        """Release ``waiter`` with ``value`` or ``error`` once this is durable."""
        self._waiters.append((waiter, value, error))

    def succeed(self) -> None:
        """Release what is held."""
        self.ended = True
        for waiter, value, error in self._waiters:
            if error is None:
                waiter.settle(value)
            else:
                waiter.fail(error)
        self._waiters.clear()

    def fail(self, error: Callable[[], PersistenceError]) -> None:
        """Fail what is held, each waiter with an error of its own."""
        self.ended = True
        for waiter, _, _ in self._waiters:
            waiter.fail(error())
        self._waiters.clear()


class GroupCommit:
    """Collects commits and hands them to the writer in batches."""

    def __init__(
        self, loop: Loop, runner: Runner, writer: Writer, wall_time: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._runner = runner
        self._writer = writer
        self._wall_time = wall_time
        self._lock = threading.Lock()
        self._arrival = threading.Semaphore(0)
        self._pending: dict[Owner, Ticket] = {}
        self._scheduled = False
        self._unsettled = 0
        self._idle: Waiter | None = None
        self.batches = 0
        self.rows = 0

    def submit(self, owner: Owner, state: bytes | None, delete: bool) -> Ticket:
        """Put what a turn changed on its way, together with what of ``owner`` still waits."""
        with self._lock:
            ticket = self._pending.get(owner)
            if ticket is not None:
                ticket.commit.state = state
                ticket.commit.delete = delete
                return ticket
            previous = owner.gate
            revision = owner.revision if previous is None else previous.next_revision
            ticket = Ticket(owner, Commit(owner.key, revision, state, delete))
            if previous is not None:
                previous.following = ticket
            self._pending[owner] = ticket
            scheduled, self._scheduled = self._scheduled, True
        self._unsettled += 1
        if not scheduled:
            self._runner.post(self._drain)
        return ticket

    async def drained(self) -> None:
        """Return when nothing is on its way."""
        while self._unsettled:
            self._idle = self._loop.waiter()
            await self._idle.wait()

    # In the writer's thread.

    def _drain(self) -> None:
        while batch := self._take():
            outcome: Collection[int] | StorageFault
            try:
                outcome = self._writer.commit([t.commit for t in batch], self._wall_time())
            except Exception as error:
                outcome = error if isinstance(error, StorageFault) else StorageFault.of(error)
            self._loop.call_soon_threadsafe(self._settle, batch, outcome)

    def _take(self) -> list[Ticket]:
        with self._lock:
            pending = self._pending
            if not pending:
                self._scheduled = False
                return []
            self._pending = {}
            batch: list[Ticket] = []
            size = 0
            for owner, ticket in pending.items():
                if len(batch) == MAX_BATCH_ROWS or size > MAX_BATCH_BYTES:
                    self._pending[owner] = ticket
                else:
                    batch.append(ticket)
                    size += len(ticket.commit.state or b"")
        return batch

    # In the loop.

    def _settle(self, batch: list[Ticket], outcome: Collection[int] | StorageFault) -> None:
        self.batches += 1
        self._unsettled -= len(batch)
        if isinstance(outcome, StorageFault):
            for ticket in batch:
                self._fail(ticket, outcome)
        else:
            self.rows += len(batch)
            for position, ticket in enumerate(batch):
                if ticket.ended:
                    continue
                if outcome and position in outcome:
                    self._fail(ticket, None)
                else:
                    owner = ticket.owner
                    owner.revision = ticket.next_revision
                    if owner.gate is ticket:
                        owner.gate = None
                    owner.committed()
                    ticket.succeed()
        if self._idle is not None and not self._unsettled:
            self._idle.settle()

    def _fail(self, ticket: Ticket, fault: StorageFault | None) -> None:
        """Fail ``ticket`` and all behind it; stale if there is no ``fault``."""
        if ticket.ended:
            return
        owner, revision = ticket.owner, ticket.commit.revision

        def error() -> PersistenceError:
            if fault is None:
                return StaleObject(owner.key, "save", "a newer owner wrote it", revision)
            failure = PersistenceError(owner.key, "save", str(fault))
            failure.__cause__ = fault
            return failure

        with self._lock:
            if self._pending.pop(owner, None) is not None:
                self._unsettled -= 1
        last: Ticket | None = ticket
        while last is not None:
            last.fail(error)
            last = last.following
        owner.gate = None
        owner.commit_failed()
