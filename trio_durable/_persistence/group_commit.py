"""Group commit: all commits that arrive while one transaction runs are in the next one.

Prior art: the group commit of write-ahead logs (Gawlick and Kinkade, IMS Fast Path, 1985;
PostgreSQL's and MySQL's commit queues). An fsync costs about the same for one row as for a
hundred, so commits that arrive during one share the next.

The writer's thread pulls: when a transaction ends, it takes the pending commits and begins the next
one at once, without a detour through the event loop. `batching` decides how many it takes, and
whether it waits for more.

Invariants:

- At most one ticket of an owner is pending: later turns are coalesced into it, one row for all of
  them. The owner may have two earlier tickets: one that the writer is committing, and one whose
  outcome is on its way to the loop. They are linked in the order of their revisions.
- Revisions are assigned when a ticket is opened, each on top of the ticket before. If a ticket
  fails, the later ones fail with it: in the loop at once, and in the writer's thread by `refused`.
  The storage's fence isn't enough, because a deletion starts revisions over.
- A new object gets an epoch that no other object ever had. Otherwise another runtime on the same
  storage, which knew a deleted object of that key, could take the new one for it.
- A ticket's commit may change only while it is pending; `_lock` guards that against the writer's
  taking it. Its waiters belong to the loop.
- A batch that the storage refuses because of a part of it is divided, and each part is settled on
  its own. The objects that were refused are suspects: until a commit of theirs succeeds they are
  written after all others and apart from them, so that they don't have the next batch divided.
- Listeners are called in the loop, before the replies that wait for a commit are released.
  Telemetry is reported before both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from time import perf_counter, sleep
from typing import TypeVar, cast

from .._errors import PersistenceError, StaleObject
from .._eventloop.loop import Loop, Waiter
from .._eventloop.runner import Job, Runner
from .._keys import ObjectKey
from .._telemetry.notifier import Notifier
from ..storage import AlarmChanges, PartialFault, StorageFault, Writer
from .batching import BatchPolicy
from .commit_events import CommitEvents, ObservedTicket
from .commit_listener import CommitListener
from .division import in_parts
from .ticket import STALE_PROBLEM, Ticket, TicketOwner
from .wait_estimate import WaitEstimate

T = TypeVar("T")

MAX_BATCH_ROWS = 1024
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_SUSPECTS = 1024
"""How many objects are remembered because the storage refused them."""


class GroupCommit:
    """Collects commits and hands them to the writer in batches.

    Args:
        loop: The event loop.
        runner: The writer's.
        writer: The side of the storage that commits.
        wall_time: The time, in microseconds since 1970 UTC; called in the writer's thread.
        listeners: The listeners, in the order in which they are called.
        notifier: The receiver of telemetry, if there are instruments.
    """

    def __init__(
        self,
        loop: Loop,
        runner: Runner,
        writer: Writer,
        wall_time: Callable[[], int],
        listeners: tuple[CommitListener, ...] = (),
        notifier: Notifier | None = None,
    ) -> None:
        self._loop = loop
        self._runner = runner
        self._writer = writer
        self._wall_time = wall_time
        self._listeners = listeners
        self._events = None if notifier is None else CommitEvents(loop, notifier)
        self._ticket_type: type[Ticket] = Ticket if notifier is None else ObservedTicket
        self._lock = threading.Lock()
        self._pending: dict[TicketOwner, Ticket] = {}
        self._pending_bytes = 0
        self._suspects: dict[ObjectKey, None] = {}
        """The objects that the storage refused last. For the writer's thread."""
        self._jobs: deque[Job] = deque()
        self._scheduled = False
        self._unsettled = 0
        self._policy = BatchPolicy()
        self._idle_since = perf_counter()
        self._idle: Waiter | None = None
        self._wait_estimate = WaitEstimate()
        self.is_behind = False
        """True if more commits wait than fit into the next transaction."""
        self.batches = 0
        self.rows = 0

    def add_listener(self, listener: CommitListener) -> None:
        """Call one more listener, after those before it."""
        self._listeners = (*self._listeners, listener)

    def submit(
        self,
        owner: TicketOwner,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None = None,
    ) -> Ticket:
        """Submit the changes of a turn; they join the pending ticket of ``owner`` if it has one.

        Returns:
            The ticket, which must become the owner's gate.
        """
        with self._lock:
            ticket = self._pending.get(owner)
            if ticket is not None:
                self._pending_bytes -= ticket.size
                ticket.add(state, delete, alarms)
                self._pending_bytes += ticket.size
                if self._pending_bytes > MAX_BATCH_BYTES:
                    self.is_behind = True
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
            if len(self._pending) > MAX_BATCH_ROWS or self._pending_bytes > MAX_BATCH_BYTES:
                self.is_behind = True
            scheduled, self._scheduled = self._scheduled, True
        self._unsettled += 1
        if not scheduled:
            self._runner.post(self._drain)
        return ticket

    def expected_wait(self) -> float:
        """The estimated seconds until a commit that is submitted now is durable."""
        now = perf_counter()
        whole = max(len(self._pending) // MAX_BATCH_ROWS, self._pending_bytes // MAX_BATCH_BYTES)
        return self._wait_estimate.wait_of_late(whole + 1, now)  # because the disk may hang

    async def perform(self, job: Callable[[Writer], T]) -> T:
        """Run another job with the writer, between two transactions, and return its result.

        If cancelled, the job runs all the same.

        Raises:
            StorageFault: The job failed.
        """
        waiter = self._loop.waiter()
        with self._lock:
            self._jobs.append(partial(self._answer, waiter, job))
            scheduled, self._scheduled = self._scheduled, True
        if not scheduled:
            self._runner.post(self._drain)
        return cast("T", await waiter.wait())

    async def drained(self) -> None:
        """Return when all tickets have ended."""
        while self._unsettled:
            self._idle = self._loop.waiter()
            await self._idle.wait()

    # In the writer's thread.

    def _drain(self) -> None:
        policy = self._policy
        idle_for = perf_counter() - self._idle_since
        while True:
            if self._jobs:
                self._do_jobs()
            was_behind = self.is_behind
            batch = self._take(idle_for)
            if batch is None:
                return
            if not batch:
                continue  # a job has arrived since the check above
            began = perf_counter()
            self._wait_estimate.begin(began)
            for part, outcome in self._write(batch):
                self._loop.call_soon_threadsafe(self._settle, part, outcome)
            ended = perf_counter()
            self._wait_estimate.end(ended, 1.0 if was_behind else len(batch) / MAX_BATCH_ROWS)
            policy.done(len(batch), ended - began)
            pending = len(self._pending)
            wait = policy.wait(pending)
            if wait:
                sleep(wait)
                policy.waited(len(self._pending) - pending)
            idle_for = 0.0

    def _do_jobs(self) -> None:
        self._wait_estimate.begin(perf_counter())  # because the disk may hang in a job, too
        for _ in range(len(self._jobs)):
            self._jobs.popleft()()
        self._wait_estimate.end(perf_counter(), 0.0)

    def _answer(self, waiter: Waiter, job: Callable[[Writer], object]) -> None:
        try:
            value = job(self._writer)
        except Exception as error:  # noqa: BLE001  # storages may raise anything
            fault = error if isinstance(error, StorageFault) else StorageFault.of(error)
            self._loop.call_soon_threadsafe(waiter.fail, fault)
        else:
            self._loop.call_soon_threadsafe(waiter.settle, value)

    def _write(
        self, batch: list[Ticket]
    ) -> Iterator[tuple[list[Ticket], Collection[int] | StorageFault]]:
        """Write a batch, in one transaction unless a part of it is refused or suspect.

        Yields:
            The parts of the batch, each with the positions that were refused, or why it failed.
        """
        attempt, divided = self._commit, _ignore
        if (events := self._events) is not None:
            attempt, divided = partial(events.around, write=self._commit), events.divided
        for tickets in self._suspects_apart(batch) if self._suspects else (batch,):
            for part, outcome in in_parts(tickets, _tenant_of, attempt, divided):
                refused = range(len(part)) if isinstance(outcome, StorageFault) else outcome
                for position in refused:
                    part[position].refused = True
                if self._suspects or isinstance(outcome, PartialFault):
                    self._judge(part, isinstance(outcome, PartialFault))
                yield part, outcome

    def _commit(self, batch: list[Ticket]) -> Collection[int] | StorageFault:
        """Run one transaction; return the positions that were refused, or why it failed."""
        for ticket in batch:
            if ticket.lost_its_base():
                return self._commit_without_lost(batch)
        try:
            return self._writer.commit(batch, self._wall_time())
        except Exception as error:  # noqa: BLE001  # storages may raise anything
            return error if isinstance(error, StorageFault) else StorageFault.of(error)

    def _commit_without_lost(self, batch: list[Ticket]) -> Collection[int] | StorageFault:
        """Commit a batch without the tickets whose base was refused."""
        kept = [at for at, ticket in enumerate(batch) if not ticket.lost_its_base()]
        outcome = self._commit([batch[at] for at in kept]) if kept else ()
        if isinstance(outcome, PartialFault):
            outcome.positions = [kept[at] for at in outcome.positions]
        if isinstance(outcome, StorageFault):
            return outcome
        applied = set(kept) - {kept[at] for at in outcome}
        return set(range(len(batch))) - applied

    def _suspects_apart(self, batch: list[Ticket]) -> list[list[Ticket]]:
        """The tickets of other objects, and then those of suspects."""
        suspects = [ticket for ticket in batch if ticket.key in self._suspects]
        others = [ticket for ticket in batch if ticket.key not in self._suspects]
        return [tickets for tickets in (others, suspects) if tickets]

    def _judge(self, part: list[Ticket], are_refused: bool) -> None:
        """Add the objects of a part to the suspects, or take them out."""
        for ticket in part:
            self._suspects.pop(ticket.key, None)
            if are_refused:
                self._suspects[ticket.key] = None
                if len(self._suspects) > MAX_SUSPECTS:
                    del self._suspects[next(iter(self._suspects))]

    def _take(self, idle_for: float) -> list[Ticket] | None:
        """The tickets for the next transaction; None if there is nothing left to do."""
        with self._lock:
            pending = self._pending
            share = min(self._policy.share(len(pending), idle_for), MAX_BATCH_ROWS)
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
                # In a second pass: finding a dict's first key after each removal is quadratic.
                for ticket in batch:
                    del pending[ticket.owner]
                self._pending_bytes -= size
            rows, size = len(self._pending), self._pending_bytes
            self.is_behind = rows > MAX_BATCH_ROWS or size > MAX_BATCH_BYTES
            if not batch and not self._jobs:
                self._scheduled = False
                self._idle_since = perf_counter()
                return None
        return batch

    # In the loop.

    def _settle(self, batch: list[Ticket], outcome: Collection[int] | StorageFault) -> None:
        if self._events is not None:
            self._events.ended(batch, outcome)  # first, because the objects go on from here
        self.batches += 1
        self._unsettled -= len(batch)
        if isinstance(outcome, StorageFault):
            for ticket in batch:
                self._fail(ticket, outcome)
            if any(ticket.alarms is not None for ticket in batch):
                for listener in self._listeners:
                    listener.uncertain()
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
                        for listener in self._listeners:
                            listener.committed(ticket.key, ticket.alarms)
                    owner.committed()
                    ticket.succeed()
        if self._idle is not None and not self._unsettled:
            self._idle.settle()

    def _fail(self, ticket: Ticket, fault: StorageFault | None) -> None:
        """Fail ``ticket`` and those based on it. It is stale if there is no ``fault``."""
        if ticket.ended:
            return
        owner, revision = ticket.owner, ticket.revision

        def error() -> PersistenceError:
            if fault is None:
                return StaleObject(owner.key, "save", STALE_PROBLEM, revision or 0)
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


def _tenant_of(ticket: Ticket) -> str:
    return ticket.key.tenant


def _ignore(fault: PartialFault) -> None:
    pass
