"""Group commit: everything that waits while one transaction runs goes into the next one.

Prior art: the group commit of write-ahead logs (Gawlick and Kinkade, IMS Fast Path, 1985;
PostgreSQL's and MySQL's commit queues). A sync of the disk costs about the same for one row as
for a hundred, so the transaction that waits for the disk collects what comes meanwhile.

The writer's thread pulls: when a transaction ends it takes what has gathered and begins the next
one at once, without a way through the event loop in between. How much it takes, and whether it
waits for more, `pace` decides.

Invariants:

- At most one ticket of an owner is pending: turns that come while it is are coalesced into it,
  one row for all of them. Behind it may be one in the writer's hands and one whose outcome is on
  its way to the loop, linked in the order of their revisions.
- Revisions are assigned when a ticket is opened, each on top of the ticket before. If one fails,
  those behind it fail with it: in the loop at once, and in the writer's thread by `refused`. The
  storage's fence alone would not do, for a deletion starts revisions over.
- An object that begins from nothing gets an epoch that nobody ever had, so that another runtime on
  the same storage, which knew an object that is gone, can't take the new one for it.
- A ticket's commit may change only while it is pending; `_lock` guards that against the writer's
  taking it. Its waiters belong to the loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import islice
from time import perf_counter, sleep
from typing import ClassVar, Protocol, TypeVar, cast

from .._errors import PersistenceError, StaleObject
from .._keys import ObjectKey
from .._rendezvous import Loop, Waiter
from .._runner import Job, Runner
from ._contract import AlarmChanges, Commit, StorageFault, Writer, new_epoch
from .pace import Pace

T = TypeVar("T")

MAX_BATCH_ROWS = 1024
MAX_BATCH_BYTES = 32 * 1024 * 1024


class Owner(Protocol):
    """Whose commits these are: an activation."""

    key: ObjectKey
    revision: int | None
    """The revision that is stored; 0 for none, None if that isn't known."""
    epoch: int
    """The epoch that is stored with it."""
    gate: Ticket | None
    """The last of its tickets that hasn't ended, which holds back its replies."""

    def committed(self) -> None:
        """A ticket became durable."""
        ...

    def commit_failed(self) -> None:
        """A ticket failed, and those behind it. Its effects are lost."""
        ...


class Ticket(Commit):
    """One commit on its way, and the replies that wait for it."""

    __slots__ = (
        "_alarms_size",
        "_others",
        "_waiter",
        "ended",
        "following",
        "owner",
        "preceding",
        "refused",
    )

    def __init__(
        self,
        owner: Owner,
        revision: int | None,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        epoch: int,
    ) -> None:
        # Commit's own fields, without the way through its constructor: one of these is made for
        # nearly every call.
        self.key = owner.key
        self.revision = revision
        self.state = state
        self.delete = delete
        self.alarms = alarms
        self.epoch = epoch if revision != 0 else new_epoch()
        self._alarms_size = alarms.size if alarms is not None else 0
        self.owner = owner
        self.ended = False
        self.preceding: Ticket | None = None
        """The owner's ticket that this one is based on, while that isn't durable."""
        self.following: Ticket | None = None
        """The owner's next ticket, based on this one."""
        self.refused = False
        """The writer's thread knows that it didn't apply, though the loop may not know yet."""
        # Nearly always one, and a list of one is one more thing for the garbage collector.
        self._waiter: Waiter | None = None
        self._others: list[Waiter] | None = None

    @property
    def next_revision(self) -> int | None:
        """What is stored once this is durable; None if it isn't known, for it stays what it is."""
        if self.delete:
            return 0
        return self.revision if self.state is None else (self.revision or 0) + 1

    @property
    def size(self) -> int:
        """The bytes that it takes to the storage, or somewhat more."""
        return (len(self.state) if self.state is not None else 0) + self._alarms_size

    def add(self, state: bytes | None, delete: bool, alarms: AlarmChanges | None) -> None:
        """Take up what a later turn did; while nobody has it in hands."""
        if state is not None or delete:
            self.state = state
            self.delete = delete
        if self.revision is None:
            self.revision = self.owner.revision
            self.epoch = self.owner.epoch if self.revision != 0 else new_epoch()
        if alarms is not None:
            self._alarms_size += alarms.size
            if self.alarms is None:
                self.alarms = alarms
            else:
                self.alarms.merge(alarms)

    def lost_its_base(self) -> bool:
        """Whether what it is based on was refused. For the writer's thread."""
        preceding = self.preceding  # once: the loop may take it away meanwhile
        return preceding is not None and preceding.refused

    def hold(self, waiter: Waiter) -> None:
        """Release ``waiter`` once this is durable, with the value or error it carries."""
        if self._waiter is None:
            self._waiter = waiter
        elif self._others is None:
            self._others = [waiter]
        else:
            self._others.append(waiter)

    def succeed(self) -> None:
        """Release what is held."""
        self.ended = True
        self.preceding = None
        if self._waiter is not None:
            self._waiter.release()
            for waiter in self._others or ():
                waiter.release()

    def fail(self, error: Callable[[], PersistenceError]) -> None:
        """Fail what is held, each waiter with an error of its own."""
        self.ended = True
        if self._waiter is not None:
            for waiter in (self._waiter, *(self._others or ())):
                waiter.fail(error())


def _ignore(key: ObjectKey, changes: AlarmChanges) -> None:
    pass


class GroupCommit:
    """Collects commits and hands them to the writer in batches."""

    _ticket_type: ClassVar[type[Ticket]] = Ticket

    def __init__(
        self,
        loop: Loop,
        runner: Runner,
        writer: Writer,
        wall_time: Callable[[], int],
        alarms_changed: Callable[[ObjectKey, AlarmChanges], None] = _ignore,
        alarms_uncertain: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._runner = runner
        self._writer = writer
        self._wall_time = wall_time
        self._alarms_changed = alarms_changed
        """Told of every commit that is durable and had to do with alarms."""
        self._alarms_uncertain = alarms_uncertain
        """Told when a transaction failed that would have set alarms, and may have done so."""
        self._lock = threading.Lock()
        self._pending: dict[Owner, Ticket] = {}
        self._pending_bytes = 0
        self._jobs: deque[Job] = deque()
        self._scheduled = False
        self._unsettled = 0
        self._pace = Pace()
        self._idle_since = perf_counter()
        self._idle: Waiter | None = None
        self.batches = 0
        self.rows = 0

    def submit(
        self, owner: Owner, state: bytes | None, delete: bool, alarms: AlarmChanges | None = None
    ) -> Ticket:
        """Put what a turn changed on its way, together with what of ``owner`` still waits."""
        with self._lock:
            ticket = self._pending.get(owner)
            if ticket is not None:
                self._pending_bytes -= ticket.size
                ticket.add(state, delete, alarms)
                self._pending_bytes += ticket.size
                return ticket
            previous = owner.gate
            revision, epoch = owner.revision, owner.epoch
            if previous is not None and previous.revision is not None:
                revision, epoch = previous.next_revision, previous.epoch
            ticket = self._ticket_type(owner, revision, state, delete, alarms, epoch)
            if previous is not None:
                ticket.preceding = previous
                previous.following = ticket
            self._pending[owner] = ticket
            if state is not None or alarms is not None:
                self._pending_bytes += ticket.size
            scheduled, self._scheduled = self._scheduled, True
        self._unsettled += 1
        if not scheduled:
            self._runner.post(self._drain)
        return ticket

    async def perform(self, job: Callable[[Writer], T]) -> T:
        """Let ``job`` do something else with the writer, between two transactions.

        If cancelled, the job is done all the same.

        Raises:
            StorageFault: What ``job`` raised.
        """
        waiter = self._loop.waiter()
        with self._lock:
            self._jobs.append(partial(self._answer, waiter, job))
            scheduled, self._scheduled = self._scheduled, True
        if not scheduled:
            self._runner.post(self._drain)
        return cast("T", await waiter.wait())

    async def drained(self) -> None:
        """Return when nothing is on its way."""
        while self._unsettled:
            self._idle = self._loop.waiter()
            await self._idle.wait()

    # In the writer's thread.

    def _drain(self) -> None:
        pace = self._pace
        idle_for = perf_counter() - self._idle_since
        while True:
            for _ in range(len(self._jobs)):
                self._jobs.popleft()()
            batch = self._take(idle_for)
            if batch is None:
                return
            if not batch:
                continue  # a job came meanwhile
            began = perf_counter()
            outcome = self._write(batch)
            pace.done(len(batch), perf_counter() - began)
            self._loop.call_soon_threadsafe(self._settle, batch, outcome)
            pending = len(self._pending)
            wait = pace.wait(pending)
            if wait:
                sleep(wait)
                pace.waited(len(self._pending) - pending)
            idle_for = 0.0

    def _answer(self, waiter: Waiter, job: Callable[[Writer], object]) -> None:
        try:
            value = job(self._writer)
        except Exception as error:
            fault = error if isinstance(error, StorageFault) else StorageFault.of(error)
            self._loop.call_soon_threadsafe(waiter.fail, fault)
        else:
            self._loop.call_soon_threadsafe(waiter.settle, value)

    def _write(self, batch: list[Ticket]) -> Collection[int] | StorageFault:
        """Carry out one transaction; the positions of what was refused, or why all was."""
        for ticket in batch:
            if ticket.lost_its_base():
                return self._write_apart(batch)
        return self._commit(batch)

    def _commit(self, batch: list[Ticket]) -> Collection[int] | StorageFault:
        refused: Iterable[int]
        outcome: Collection[int] | StorageFault
        try:
            refused = outcome = self._writer.commit(batch, self._wall_time())
        except Exception as error:
            outcome = error if isinstance(error, StorageFault) else StorageFault.of(error)
            refused = range(len(batch))
        for position in refused:
            batch[position].refused = True
        return outcome

    def _write_apart(self, batch: list[Ticket]) -> Collection[int] | StorageFault:
        """Write a batch without those whose predecessor was refused."""
        kept = []
        for position, ticket in enumerate(batch):
            if ticket.lost_its_base():
                ticket.refused = True
            else:
                kept.append(position)
        outcome = self._commit([batch[position] for position in kept]) if kept else ()
        if isinstance(outcome, StorageFault):
            return outcome
        applied = set(kept) - {kept[position] for position in outcome}
        return set(range(len(batch))) - applied

    def _take(self, idle_for: float) -> list[Ticket] | None:
        """What goes into the next transaction; None if there is nothing left to do."""
        with self._lock:
            pending = self._pending
            share = min(self._pace.share(len(pending), idle_for), MAX_BATCH_ROWS)
            if share == len(pending) and self._pending_bytes <= MAX_BATCH_BYTES:
                batch = list(pending.values())
                self._pending = {}
                self._pending_bytes = 0
            else:
                batch = []
                size = 0
                for ticket in islice(pending.values(), share):
                    if size > MAX_BATCH_BYTES:
                        break
                    batch.append(ticket)
                    size += ticket.size
                # Afterwards: to look for the first of a dict again and again, after each removal,
                # is quadratic.
                for ticket in batch:
                    del pending[ticket.owner]
                self._pending_bytes -= size
            if not batch and not self._jobs:
                self._scheduled = False
                self._idle_since = perf_counter()
                return None
        return batch

    # In the loop.

    def _settle(self, batch: list[Ticket], outcome: Collection[int] | StorageFault) -> None:
        self.batches += 1
        self._unsettled -= len(batch)
        if isinstance(outcome, StorageFault):
            for ticket in batch:
                self._fail(ticket, outcome)
            if any(ticket.alarms is not None for ticket in batch):
                self._alarms_uncertain()
        else:
            self.rows += len(batch) - len(outcome)
            for position in outcome:
                self._fail(batch[position], None)
            for ticket in batch:
                if not ticket.ended:
                    owner = ticket.owner
                    if ticket.state is not None or ticket.delete:
                        owner.revision, owner.epoch = ticket.next_revision, ticket.epoch
                    if owner.gate is ticket:
                        owner.gate = None
                    if ticket.alarms is not None:
                        self._alarms_changed(ticket.key, ticket.alarms)
                    owner.committed()
                    ticket.succeed()
        if self._idle is not None and not self._unsettled:
            self._idle.settle()

    def _fail(self, ticket: Ticket, fault: StorageFault | None) -> None:
        """Fail ``ticket`` and all behind it; stale if there is no ``fault``."""
        if ticket.ended:
            return
        owner, revision = ticket.owner, ticket.revision

        def error() -> PersistenceError:
            if fault is None:
                return StaleObject(owner.key, "save", "a newer owner wrote it", revision or 0)
            failure = PersistenceError(owner.key, "save", str(fault))
            failure.__cause__ = fault
            return failure

        with self._lock:
            pending = self._pending.pop(owner, None)
            if pending is not None:
                self._pending_bytes -= pending.size
                self._unsettled -= 1
        last: Ticket | None = ticket
        while last is not None:
            last.fail(error)
            last = last.following
        owner.gate = None
        owner.commit_failed()
