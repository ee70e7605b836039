"""Resident: an object in memory, apart from the serving of its mailbox.

The first of the three classes that an activation is made of, one upon the other: this one has the
attributes, the commits, and the object's leaving; `Opening` loads it and runs ``after_load``;
`Activation` serves the mailbox. The invariants stand there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

from .._alarms.recurrence import Recurrence, with_marks
from .._alarms.staged import conditional_names, with_changes
from .._errors import InvalidMessage, RuntimeClosed, StaleObject
from .._eventloop.current import Dispatcher
from .._keys import ObjectKey
from .._messages.request import SendRequest
from .._persistence.ticket import STALE_PROBLEM, Ticket
from .._telemetry.events import LeavingReason
from .._telemetry.events import Turn as TurnEvent
from ..storage import AlarmChanges, MessageKey, NewMessage, StoredAlarm
from .await_chain import AwaitedFrame
from .effects import Effects
from .envelope import Envelope
from .info import ActivationInfo, BusyObject, Status, duration
from .mailbox import Mailbox
from .object_type import ObjectType
from .phase import Job, Phase
from .services import NO_MESSAGES, Mail, Services
from .state import ObjectState
from .state_host import Commits
from .wait_graph import Turn, base_lost_error


class Residents(Protocol):
    """The objects of one type in memory: the directory."""

    def left(self, activation: Resident, why: LeavingReason) -> None:
        """An activation has left memory."""
        ...


class Resident(ABC):
    """An object in memory: the host of its state."""

    __slots__ = (
        "_residents",
        "_services",
        "commits",
        "last_used",
        "leaving",
        "mailbox",
        "phase",
        "runtime",
        "state",
    )

    def __init__(
        self,
        key: ObjectKey,
        object_type: ObjectType,
        services: Services,
        residents: Residents,
        now: float,
    ) -> None:
        self.state: ObjectState = ObjectState(key, object_type, self)
        self.commits: Commits = services.group_commit
        """See `StateHost.commits`."""
        self.runtime: Dispatcher = services.runtime_of(key.tenant)
        """See `ContextHost.runtime`."""
        self.last_used: float = now
        """The loop's time of the last call, in seconds."""
        self.phase: Phase = Phase.NEW
        self.leaving: bool = False
        self.mailbox: Mailbox | None = None
        """The requests that wait or are served; None unless the object is busy."""
        self._services = services
        self._residents = residents

    @property
    def key(self) -> ObjectKey:
        """The object's identity."""
        return self.state.key

    # --- what the state and its context ask: see `StateHost` and `ContextHost` -------------------

    @property
    def in_turn(self) -> bool:
        """See `ContextHost.in_turn`."""
        return self.state.in_turn

    @property
    def effects(self) -> Effects | None:
        """See `ContextHost.effects`."""
        return self.state.effects

    def stage(self) -> Effects:
        """See `ContextHost.stage`."""
        return self.state.stage()

    def wall_time(self) -> int:
        """See `ContextHost.wall_time`."""
        return self._services.clock.now()

    def send(self, request: SendRequest) -> NewMessage:
        """See `ContextHost.send`."""
        effects, key = self.state.stage(), self.state.key
        new = self._mail(request.handler).compose(
            request, key.tenant, self._services.clock.now(), key, effects.message
        )
        effects.send(new)
        return new

    async def find_sent(self, sender_key: str) -> MessageKey | None:
        """See `ContextHost.find_sent`."""
        await self._gate_passed()
        return await self._mail(sender_key).find_sent(self.key, sender_key)

    @property
    def recurrences(self) -> Mapping[str, Recurrence]:
        """See `ContextHost.recurrences`."""
        return self.state.object_type.recurrences

    async def list_alarms(self) -> list[StoredAlarm]:
        """See `ContextHost.list_alarms`."""
        await self._gate_passed()
        effects = self.state.effects
        names = conditional_names(None if effects is None else effects.alarms)
        stored, rows = await self._services.read_alarms(self.key, names)
        now = self.wall_time()
        changes = None if effects is None else effects.alarms_by_its_end(now)
        return with_changes(self.key, stored, rows, changes, now)

    async def _gate_passed(self) -> None:
        """Wait until earlier changes, which count, are stored."""
        gate = self.state.gate
        if gate is not None:
            waiter = self._services.loop.waiter()
            gate.hold(waiter)
            await waiter.wait()

    def _mail(self, handler: str) -> Mail:
        mail = self._services.mail
        if mail is None:
            raise InvalidMessage(self.key, handler, NO_MESSAGES)
        return mail

    @property
    def turn_event(self) -> TurnEvent | None:
        """See `StateHost.turn_event`."""
        observation = self._services.observation
        return None if observation is None else observation.turn_of(self.key)

    async def commit_now(self) -> None:
        """See `Context.commit`."""
        state, loop = self.state, self._services.loop
        turn = state.turn
        assert turn is not None
        if turn.interruption is not None:
            raise turn.interruption.error()
        if not turn.base_lost:
            state.commit_turn(turn)
        if turn.base_lost:
            raise base_lost_error(state.key)
        if state.gate is None:
            await loop.checkpoint()
        else:
            waiter = loop.waiter()
            state.gate.hold(waiter)
            await waiter.wait()

    @abstractmethod
    def wake(self) -> None:
        """Have the mailbox served, unless a job has to end first. May be repeated."""

    # --- snapshots -------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """The number of calls in the mailbox, and in the line before it."""
        mailbox = self.mailbox  # read once: an exporter of metrics is in another thread
        return 0 if mailbox is None else len(mailbox)

    @property
    def job(self) -> Job | None:
        """The load or ``async def`` turn that the mailbox waits for."""
        mailbox = self.mailbox
        return None if mailbox is None else mailbox.job

    @property
    def running_turn(self) -> Turn | None:
        """The ``async def`` turn that runs, or is about to."""
        job = self.job
        return None if job is None else job.turn

    def info(self) -> ActivationInfo:
        """A snapshot for users."""
        if self.phase in (Phase.NEW, Phase.LOADING):
            status: Status = "loading"
        else:
            status = "hibernated" if self.state.instance is None else "active"
        return ActivationInfo(self.key, status, self.depth, self.state.revision or 0)

    def busy_info(self) -> BusyObject | None:
        """See `Busy.busy_info`."""
        job = self.job
        if job is None:
            return None
        now = self._services.loop.now()
        interruption = None if job.turn is None else job.turn.interruption
        cancelled = None if interruption is None else now - interruption.began
        return BusyObject(self.key, job.name, now - job.began, self.depth, cancelled)

    def awaited(self) -> list[AwaitedFrame]:
        """See `Busy.awaited`."""
        job = self.job
        return [] if job is None or job.worker is None else job.worker.awaited()

    def activity(self) -> str:
        """The reason why a call waits, for messages."""
        busy = self.busy_info()
        if busy is not None:
            running = f"{busy.doing} has been running for {duration(busy)}"
            if not busy.waiting:
                return running
            calls = "call is" if busy.waiting == 1 else "calls are"
            return f"{running}, {busy.waiting:,} {calls} waiting"
        if self.state.gate is not None:
            return "its commit isn't durable yet"
        return "it is idle"

    # --- replies ---------------------------------------------------------------------------------

    def _reply(self, envelope: Envelope, value: object, error: BaseException | None) -> None:
        """Hand out the outcome of a turn, once all that it may tell of is durable."""
        waiter = envelope.waiter
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and (
            waiter.ended or envelope.is_delivery
        ):
            self._services.exit(error)  # no caller gets it
            error = self._services.closed_error()
        if waiter.ended:
            return  # expired in this very moment; what its caller gets now must not be replaced
        waiter.value = value
        waiter.error = error
        gate = self.state.gate
        if gate is None or (error is not None and not isinstance(error, Exception)):
            waiter.release()
        else:
            gate.hold(waiter)
        if envelope.message is not None and error is None:
            envelope.message.turn_ended()

    def _fail_mailbox(self, error: Callable[[], BaseException], *, live_only: bool = False) -> None:
        """Fail what waits; with ``live_only``, those requests alone that need an instance."""
        if self.mailbox is not None:
            for envelope in self.mailbox.everything():
                if envelope.needs_instance or not live_only:
                    self._reply(envelope, None, error())
                    self.mailbox.discard(envelope)  # last: a reply can be repeated

    # --- the gate --------------------------------------------------------------------------------

    def committed(self) -> None:
        """See `TicketOwner.committed`."""
        if self.leaving:
            self._leave()

    def commit_failed(self) -> None:
        """See `TicketOwner.commit_failed`."""
        turn = self.running_turn
        if turn is not None:
            turn.base_lost = True
        elif self.state.turn is not None:
            self.state.awaited_turn().base_lost = True
        else:
            self._invalidate()
            self.wake()

    def was_awaited(self, base_lost: bool) -> None:
        """See `StateHost.was_awaited`."""
        if base_lost:
            self._invalidate()
        self.wake()

    def started_over(self) -> None:
        """See `StateHost.started_over`."""
        self.phase = Phase.LOADED
        self.leaving = True

    def _invalidate(self) -> None:
        """Forget all that is in memory, since it may build on a change that was lost."""
        self.state.invalidate()
        if self.phase is not Phase.LOADING:
            self.phase = Phase.NEW
        self.leaving = True

    # --- requests from outside of turns ----------------------------------------------------------

    def change_alarms(self, changes: AlarmChanges) -> Ticket:
        """Change the object's alarms from outside of its turns.

        They don't depend on its state, so it needn't be loaded, nor wait for a turn that runs.
        """
        if self.phase is not Phase.READY and self.mailbox is None:
            self.leaving = True  # it is in memory for this only
        changes = with_marks(self.recurrences, changes, self.wall_time())
        observation = self._services.observation
        if observation is None:
            return self.state.change_alarms(changes)
        return observation.run_apart(self.key, self.state.change_alarms, changes)

    def write_state(self, encoded: bytes) -> None:
        """Replace the object's state."""
        self.leaving = self.phase is not Phase.READY  # it came into memory for this only
        self.state.replace(encoded)

    def replace_state(self, encoded: bytes, revision: int, digest: str | None) -> bool:
        """Replace the object's state, if its row is the expected one.

        Args:
            encoded: The new fields.
            revision: The expected revision; 0 if nothing should be stored.
            digest: The expected digest of the row, see `row_digest`; None if there should be none.

        Returns:
            False if another row is stored, or about to be.
        """
        self.leaving = self.phase is not Phase.READY  # it came into memory for this only
        if (self.state.row_id[0], self.state.row_digest) != (revision, digest):
            return False
        self.state.replace(encoded)
        return True

    def rewrite(self, revision: int, epoch: int, row: bytes | None) -> None:
        """Replace or delete the object's row, of whatever schema, if it is the expected one.

        Args:
            revision: The expected revision; 0 if nothing should be stored.
            epoch: The expected epoch, if something should be; 0 if the storage keeps none.
            row: The state as it is to be stored; None to delete the object with its alarms.

        Raises:
            StaleObject: Another row is stored, or about to be.
        """
        self.leaving = self.phase is not Phase.READY  # it came into memory for this only
        its_revision, its_epoch = self.state.row_id
        if its_revision != revision or (epoch and revision and its_epoch != epoch):
            raise StaleObject(self.key, "save", STALE_PROBLEM, revision)
        if row is None:
            self.state.delete()
        else:
            self.state.rewrite(row)

    def stop(self) -> None:
        """Leave memory once the turns queued so far have ended and are durable."""
        self.state.drop_instance()
        if self.phase is Phase.READY:
            self.phase = Phase.LOADED
        self.leaving = True

    # --- leaving memory --------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True if nothing runs or waits, and each commit is durable."""
        state = self.state
        return self.mailbox is None and state.gate is None and state.turn is None

    def hibernate(self) -> None:
        """Let the instance go; the encoded state stays. The object must be idle."""
        self.state.drop_instance()

    def retire(self) -> None:
        """Leave memory as soon as nothing runs or waits, and each commit is durable."""
        self.leaving = True
        self.wake()

    def shut_down(self, why: LeavingReason) -> None:
        """Leave memory. The object must be idle."""
        self._leave(why)

    def _leave(self, why: LeavingReason = "ended") -> None:
        if not self.is_idle:
            return  # or changes in memory would be lost; the end of that calls again
        self.leaving = False
        self.hibernate()
        self.phase = Phase.NEW
        self._residents.left(self, why)
        self.state.detach()

    def abandon(self) -> None:
        """Fail all that waits, because the runtime closes."""
        closed = self._services.closed_error
        if self._services.observation is not None:
            unloaded = RuntimeClosed("the runtime closed before the object was loaded")
            self._services.observation.end_load(self.key, unloaded)
        self._fail_mailbox(closed)
        mailbox = self.mailbox
        if mailbox is not None and mailbox.serving is not None:
            mailbox.serving.waiter.fail(closed())
