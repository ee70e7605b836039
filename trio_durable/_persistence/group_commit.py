"""Group commit: all commits that arrive while one transaction runs are in the next one.

Prior art: the group commit of write-ahead logs (Gawlick and Kinkade, IMS Fast Path, 1985;
PostgreSQL's and MySQL's commit queues). An fsync costs about the same for one row as for a
hundred, so commits that arrive during one share the next.

The writer's thread pulls: when a transaction ends, it takes the pending commits and begins the next
one at once, without a detour through the event loop. `batching` decides how many it takes, and
whether it waits for more.

Publication is one store: a ticket counts from the moment at which it stands in its owner's
``gate``, and nothing else has to agree with that. The writer's thread takes it from there. The
owners that wait for it and its wake-up are hints, which may be given twice, and are given again
with each commit, so no exception of a signal's handler can leave a commit unwritten for good.

Invariants:

- At most one ticket of an owner is pending: later turns join it, one row for all of them. The owner
  may have two earlier tickets: one that the writer is committing, and one whose outcome is on its
  way to the loop. They are linked in the order of their revisions, from the gate backwards.
- Revisions are assigned when a ticket is opened, each on top of the ticket before. If a ticket
  fails, the later ones fail with it: in the loop at once, and in the writer's thread by `refused`.
  The storage's fence isn't enough, because a deletion starts revisions over.
- A new object gets an epoch that no other object ever had, so none is taken for a deleted one.
- A pending ticket is replaced, or taken by the writer, under `_lock`. Its waiters belong to the
  loop.
- A batch that the storage refuses because of a part of it is divided, and each part is settled on
  its own. The objects that were refused are suspects: until a commit of theirs succeeds they are
  written apart from all others and after them.
- Telemetry is reported, listeners are called, and then the replies that wait are released.
- Tickets are settled one by one under guard. A fault there ends the runtime, not the event loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from time import perf_counter, sleep
from typing import TypeVar, TypeVarTuple, cast

from .._errors import PersistenceError, StaleObject
from .._eventloop.loop import Loop, Waiter
from .._eventloop.runner import Job, Runner
from .._keys import ObjectKey
from .._telemetry.notifier import Notifier
from ..storage import AlarmChanges, MessageChanges, PartialFault, StorageFault, Writer
from .batching import BatchPolicy
from .commit_events import CommitEvents, ObservedTicket
from .commit_listener import CommitListener
from .division import in_parts
from .doorbell import Doorbell
from .listeners import Listeners, raised
from .ticket import STALE_PROBLEM, Ticket, TicketOwner
from .wait_estimate import WaitEstimate

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

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
        failed: Called in the loop with a fault of the group commit itself or of a listener.
    """

    def __init__(
        self,
        loop: Loop,
        runner: Runner,
        writer: Writer,
        wall_time: Callable[[], int],
        listeners: tuple[CommitListener, ...] = (),
        notifier: Notifier | None = None,
        failed: Callable[[BaseException], object] = raised,
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._wall_time = wall_time
        self.listeners: Listeners = Listeners(listeners, failed)
        self._events = None if notifier is None else CommitEvents(loop, notifier)
        self._ticket_type: type[Ticket] = Ticket if notifier is None else ObservedTicket
        self._lock = threading.Lock()
        self._dirty: dict[TicketOwner, None] = {}
        """The owners that may have a pending ticket, in order."""
        self._submitted_bytes = 0  # written by the loop
        self._taken_bytes = 0  # written by the writer's thread
        self._suspects: dict[ObjectKey, None] = {}
        """The objects that the storage refused last. For the writer's thread."""
        self._jobs: deque[Job] = deque()
        self._performing: set[Waiter] = set()
        self._doorbell = Doorbell(runner, self._drain, lambda: self._dirty or self._jobs)
        self._writing: list[Ticket] = []
        self._written: deque[tuple[list[Ticket], Collection[int] | StorageFault]] = deque()
        self._failed = failed
        self._closed: Callable[[], BaseException] | None = None
        self._policy = BatchPolicy()
        self._idle_since = perf_counter()
        self._idle: Waiter | None = None
        self._wait_estimate = WaitEstimate()
        self.is_behind: bool = False
        """True if more commits wait than fit into the next transaction."""
        self.batches: int = 0
        self.rows: int = 0

    def add_listener(self, listener: CommitListener) -> None:
        """Call one more listener, after those before it."""
        self.listeners.alarms = (*self.listeners.alarms, listener)

    @property
    def _pending_bytes(self) -> int:
        return self._submitted_bytes - self._taken_bytes

    def submit(
        self,
        owner: TicketOwner,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None = None,
        encoded: object = None,
        messages: MessageChanges | None = None,
    ) -> Ticket:
        """Submit the changes of a turn; they join the pending ticket of ``owner`` if it has one.

        The ticket is the owner's gate when this returns. If this raises, it may be all the same;
        then the changes count, as those of a turn whose reply is lost.

        Args:
            owner: The object.
            state: Its new state, or None to leave the stored one.
            delete: Delete it.
            alarms: Changes of its alarms.
            encoded: See `Ticket.encoded`.
            messages: Changes of messages.
        """
        if self._closed is not None:
            raise self._closed()
        gate = owner.gate
        ticket = None
        if gate is not None and not gate.taken and gate.takes(state, delete):
            ticket = gate.with_changes(state, delete, alarms, encoded, messages)
            # In one line, so that no tracer or debugger gets in between with the lock held.
            with self._lock: is_pending = self._replace(gate, ticket)  # fmt: skip  # noqa: E701
            if is_pending:
                self._submitted_bytes += ticket.size - gate.size
            else:
                ticket = None
        if ticket is None:
            revision, epoch = owner.revision, owner.epoch
            if gate is not None and gate.revision is not None:
                revision, epoch = gate.next_revision, gate.epoch
            make = self._ticket_type
            ticket = make(owner, revision, state, delete, alarms, epoch, encoded, gate, messages)
            owner.gate = ticket
            self._submitted_bytes += ticket.size
        self._dirty[owner] = None
        pending_bytes = self._submitted_bytes - self._taken_bytes
        if len(self._dirty) > MAX_BATCH_ROWS or pending_bytes > MAX_BATCH_BYTES:
            self.is_behind = True
        self._doorbell.ring()
        return ticket

    def _replace(self, gate: Ticket, ticket: Ticket) -> bool:
        """Replace a ticket unless the writer has it; return False then. For `_lock`'s holder."""
        if gate.taken:
            return False
        gate.replaced_by = ticket
        gate.owner.gate = ticket
        return True

    def wake(self, owner: TicketOwner | None = None) -> None:
        """Wake the writer if it sleeps and there is work. May be repeated.

        Args:
            owner: An owner that may have a pending ticket which the writer doesn't know of.
        """
        if owner is not None and owner.gate is not None and not owner.gate.taken:
            self._dirty[owner] = None
        if self._written:
            self._loop.call_soon_threadsafe(self._settle_written)
        self._doorbell.ring()

    def expected_wait(self) -> float:
        """The estimated seconds until a commit that is submitted now is durable."""
        now = perf_counter()
        whole = max(len(self._dirty) // MAX_BATCH_ROWS, self._pending_bytes // MAX_BATCH_BYTES)
        return self._wait_estimate.wait_of_late(whole + 1, now)  # because the disk may hang

    async def perform(self, job: Callable[[Writer], T]) -> T:
        """Run another job with the writer, between two transactions, and return its result.

        If cancelled, the job runs all the same.

        Raises:
            StorageFault: The job failed.
        """
        waiter = self._loop.waiter()
        self._performing.add(waiter)
        try:
            self._jobs.append(partial(self._answer, waiter, job))
            self.wake()
            return cast("T", await waiter.wait())
        finally:
            self._performing.discard(waiter)

    @property
    def is_drained(self) -> bool:
        """True if all tickets have ended."""
        # In the order in which a ticket passes through these.
        return not self._dirty and not self._writing and not self._written

    async def drained(self) -> None:
        """Return when all tickets have ended."""
        while not self.is_drained:
            self.wake()
            self._idle = self._loop.waiter()
            await self._idle.wait()

    def abandon(self, owners: Iterable[TicketOwner], error: Callable[[], BaseException]) -> None:
        """Fail the replies that wait for a commit, whose outcome stays unknown to them.

        The runtime ends without waiting for the writer any longer, and refuses later changes.

        Args:
            owners: All objects in memory.
            error: Makes an error for each reply, and for later changes.
        """
        self._closed = error
        for owner in self._unfinished(owners):
            if owner.gate is not None:
                owner.gate.fail_all(error)
        for waiter in list(self._performing):
            waiter.fail(error())

    def depose(
        self, owners: Iterable[TicketOwner], error: Callable[[TicketOwner], BaseException]
    ) -> None:
        """Fail all commits, as the writer's lease is lost. Some may be durable."""
        for owner in self._unfinished(owners):
            self._dirty.pop(owner, None)
            gate, owner.gate = owner.gate, None
            if gate is not None:
                gate.fail_all(partial(error, owner))

    def _unfinished(self, owners: Iterable[TicketOwner]) -> list[TicketOwner]:
        """All owners that may have tickets: objects in memory, and senders from outside."""
        with self._lock: found, parts = [*owners, *self._dirty], [self._writing]  # fmt: skip  # noqa: E701
        parts += [part for part, _ in list(self._written)]
        return found + [ticket.owner for part in parts for ticket in part]

    # In the writer's thread.

    def _drain(self) -> None:
        self._doorbell.answered()
        policy, idle_for = self._policy, perf_counter() - self._idle_since
        while True:
            if self._jobs:
                self._do_jobs()
            was_behind = self.is_behind
            batch = self._take(idle_for)
            if batch is None:
                if self._idle is not None:  # what was dirty may have had nothing to write
                    self._loop.call_soon_threadsafe(self._settle_written)
                return
            if not batch:
                continue  # a job has arrived since the check above
            began = perf_counter()
            self._wait_estimate.begin(began)
            rest = len(batch)
            for part, outcome in self._write(batch):
                self._written.append((part, outcome))
                rest -= len(part)
                if not rest:
                    self._writing = []  # before the loop looks whether all is settled
                    # Before the loop is woken, whose turns this thread may have to wait for.
                    ended, share = perf_counter(), len(batch) / MAX_BATCH_ROWS
                    self._wait_estimate.end(ended, 1.0 if was_behind else share)
                    policy.done(len(batch), ended - began)
                self._loop.call_soon_threadsafe(self._settle_written)
            self._do_jobs()
            pending = len(self._dirty)
            wait = policy.wait(pending)
            if wait:
                sleep(wait)
                policy.waited(len(self._dirty) - pending)
            idle_for = 0.0

    def _do_jobs(self) -> None:
        """Run the jobs so far, and then what no reply waits for."""
        self._wait_estimate.begin(perf_counter())  # because the disk may hang in these, too
        for _ in range(len(self._jobs)):
            self._jobs.popleft()()
        with suppress(Exception):  # it is called again
            self._writer.maintain()
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
            if ticket.preceding is not None and ticket.lost_its_base():
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
        dirty = self._dirty
        share = min(self._policy.share(len(dirty), idle_for), MAX_BATCH_ROWS)
        owners = list(islice(dirty, share))
        batch: list[Ticket] = []
        self._writing = batch
        with self._lock: self._collect(owners, batch)  # fmt: skip  # noqa: E701  # see `submit`
        rows, size = len(dirty), self._pending_bytes
        self.is_behind = rows > MAX_BATCH_ROWS or size > MAX_BATCH_BYTES
        if not batch and not self._jobs:
            self._idle_since = perf_counter()
            if self._doorbell.may_sleep():
                return None
        return batch

    def _collect(self, owners: list[TicketOwner], batch: list[Ticket]) -> None:
        """Move the pending tickets of ``owners`` to ``batch``. For `_lock`'s holder."""
        size, pop, append = 0, self._dirty.pop, batch.append  # this runs for each change
        for owner in owners:
            pop(owner, None)  # first: what is published from here on is in it again
            ticket = owner.gate
            if ticket is not None and not ticket.taken and not ticket.ended:
                if ticket.preceding is not None and (first := ticket.next_to_take) is not ticket:
                    self._dirty[owner] = None  # for the next transaction, which has one of a key
                    ticket = first
                ticket.take()
                append(ticket)
                size += ticket.size
                if size > MAX_BATCH_BYTES:
                    break
        self._taken_bytes += size
        if not self._dirty:
            self._taken_bytes = self._submitted_bytes  # should an exception have parted them

    # In the loop.

    def _settle_written(self) -> None:
        """Settle the transactions that have ended. If an earlier call was cut off, its, too."""
        while self._written:
            batch, outcome = self._written[0]
            if self._events is not None:  # first, because the objects go on from here
                self._events.ended(batch, outcome)
            self._guarded(self._settle, batch, outcome)
            self._written.popleft()
        if self._idle is not None and self.is_drained:
            self._idle.settle()

    def _settle(self, batch: list[Ticket], outcome: Collection[int] | StorageFault) -> None:
        self.batches += 1
        if isinstance(outcome, StorageFault):
            for ticket in batch:
                self._guarded(self._fail, ticket, outcome)
            self.listeners.failed(batch)
        else:
            self.rows += len(batch) - len(outcome)
            for position in outcome:
                self._guarded(self._fail, batch[position], None)
            for ticket in batch:
                if not ticket.ended:
                    try:  # as in `_guarded`, which would be one more call for each commit
                        self._succeed(ticket)
                    except BaseException as error:  # noqa: BLE001
                        self._failed(error)
                        self._guarded(self._succeed, ticket)

    def _guarded(self, settle: Callable[[*Ts], None], *args: *Ts) -> None:
        """Call ``settle``, a second time if it raises: it can be repeated.

        One ticket must not keep the others waiting, so what it raises then is passed on.
        """
        try:
            settle(*args)
        except BaseException as error:  # noqa: BLE001  # a fault, or a signal's handler
            self._failed(error)
            try:
                settle(*args)
            except BaseException as again:  # noqa: BLE001
                self._failed(again)

    def _succeed(self, ticket: Ticket) -> None:
        owner = ticket.owner
        if ticket.state is not None or ticket.delete:
            owner.revision, owner.epoch = ticket.next_revision, ticket.epoch
        if owner.gate is ticket:
            owner.gate = None
        has_effects = ticket.alarms is not None or ticket.messages is not None or ticket.delete
        if has_effects or self.listeners.states is not None:
            self.listeners.succeeded(ticket)
        owner.committed(ticket)
        ticket.succeed()

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

        later, lost = owner.gate, []
        while later is not None and later is not ticket:
            lost.append(later)
            later = later.preceding
        self._dirty.pop(owner, None)
        owner.gate = None
        owner.commit_failed()
        for each in (ticket, *reversed(lost)):
            each.fail(error)
            self.listeners.refused(each)


def _tenant_of(ticket: Ticket) -> str:
    return ticket.key.tenant


def _ignore(fault: PartialFault) -> None:
    pass
