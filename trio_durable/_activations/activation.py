"""Activation: one live object in memory, with its mailbox and its life from loading to leaving.

Prior art: Orleans' grains and their turn-based concurrency; Cloudflare's output gates; Akka's
dispatchers, which give an actor a thread only while it has something to do.

A turn of a ``def`` handler can't be interrupted, so it needs no task of its own: it runs in the
task that finds the object idle, which is mostly its caller's. Only ``async def`` turns have a task,
the object's worker, which lives until the object hibernates. Calls that come during a job wait in
the mailbox, and the end of the job drains it. The price is that three places run turns (a caller,
the loader's task after a load, the worker), and that this is synchronous code which must leave
the object consistent before anything else can run.

State and commits are in `ObjectState`, the running of one turn is in `turns`. Invariants here:

- ``phase`` says how far the activation has come. It only moves forward, except that a failure, a
  deletion or leaving takes it back.
- ``job`` is the load, ``after_load`` or ``async def`` turn that the object waits for; an object
  with a job is busy. The mailbox holds something only while there is a job, since `_drain` empties
  it otherwise.
- An object is open if it has no job and a live instance. Then a caller may run a ``def`` turn on
  the spot; `LocalCalls` checks this itself, since every call does. A live instance without a job or
  a running turn implies that the phase is READY.
- ``leaving``: the object leaves memory as soon as its mailbox is empty, and it has no job and no
  commit that isn't durable.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from copy import copy
from functools import partial
from typing import Protocol

import anyio

from .._declarations.records import HandlerDefinition
from .._errors import (
    ActivationFailed,
    AlarmSuperseded,
    HandlerCancelled,
    PersistenceError,
    RuntimeClosed,
    StateDecodeError,
    StateEncodeError,
)
from .._eventloop.current import Dispatcher
from .._eventloop.loop import Waiter
from .._keys import ObjectKey
from .._persistence.ticket import Ticket
from .._telemetry.events import Activated, LeavingReason
from .._telemetry.events import Turn as TurnEvent
from .._text import error_summary
from ..storage import AlarmChanges, StorageFault, StoredObject
from .effects import Effects
from .envelope import Envelope, Operation
from .info import ActivationInfo, BusyObject, Status
from .mailbox import Mailbox
from .object_type import ObjectType
from .observation import after_load_event, operation_event, turn_event
from .phase import Job, Phase
from .services import Services
from .state import Commits, ObjectState
from .turns import (
    run_after_load,
    run_async_after_load,
    run_async_turn,
    run_queued_turn,
)
from .wait_graph import Turn
from .worker import Worker


class Residents(Protocol):
    """The objects of one type in memory: the directory."""

    def left(self, activation: Activation, why: LeavingReason) -> None:
        """An activation has left memory."""
        ...


class Activation:
    """One in-memory incarnation of an object."""

    __slots__ = (
        "_mailbox",
        "_residents",
        "_services",
        "_worker",
        "commits",
        "job",
        "last_used",
        "leaving",
        "phase",
        "runtime",
        "state",
    )

    def __init__(
        self, key: ObjectKey, object_type: ObjectType, services: Services, residents: Residents
    ) -> None:
        self.state = ObjectState(key, object_type, self)
        self.commits: Commits = services.group_commit
        """See `StateHost.commits`."""
        self.runtime: Dispatcher = services.runtime_of(key.tenant)
        """See `ContextHost.runtime`."""
        self.last_used = services.loop.now()
        """The loop's time of the last call, in seconds."""
        self.phase = Phase.NEW
        self.leaving = False
        self.job: Job | None = None
        self._services = services
        self._residents = residents
        self._mailbox: Mailbox | None = None  # only while something waits
        self._worker: Worker | None = None

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
        if not turn.base_lost:
            state.commit_turn(turn)
        if turn.base_lost:
            raise state.base_lost()
        if state.gate is None:
            await loop.checkpoint()
        else:
            waiter = loop.waiter()
            state.gate.hold(waiter)
            await waiter.wait()

    # --- snapshots -------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """The number of calls in the mailbox, and in the line before it."""
        mailbox = self._mailbox  # read once: an exporter of metrics is in another thread
        return 0 if mailbox is None else len(mailbox)

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
        seconds = self._services.loop.now() - job.began
        return BusyObject(self.key, job.name, seconds, self.depth)

    def activity(self) -> str:
        """The reason why a call waits, for messages."""
        if self.job is not None:
            since = self._services.loop.now() - self.job.began
            depth = self.depth
            waiting = f", {depth:,} {'call is' if depth == 1 else 'calls are'} waiting"
            return f"{self.job.name} has been running for {since:.3g} s{waiting if depth else ''}"
        if self.state.gate is not None:
            return "its commit isn't durable yet"
        return "it is idle"

    # --- the mailbox -----------------------------------------------------------------------------

    def accept(self, envelope: Envelope) -> None:
        """Put a request into the mailbox. There is no checkpoint from here to its place in it."""
        if self._mailbox is None:
            self._mailbox = Mailbox(self.state.object_type.options.mailbox_size)
        self._mailbox.put(envelope)
        if self.job is None:
            self._drain()

    def expected_wait(self) -> float:
        """Seconds until a call that comes now has had its turn, by the turns of late."""
        mailbox = self._mailbox
        if mailbox is None or mailbox.wait_estimate is None:
            return 0.0
        return mailbox.wait_estimate.wait(len(mailbox) + 1, self._services.loop.now())

    def is_queued(self, envelope: Envelope) -> bool:
        """True if the turn of ``envelope`` hasn't begun."""
        return self._mailbox is not None and envelope in self._mailbox

    def withdraw(self, envelope: Envelope) -> None:
        """Take back a request whose caller is gone, if its turn hasn't begun."""
        if self._mailbox is not None:
            self._mailbox.discard(envelope)

    def _drain(self) -> None:
        """Serve the mailbox until it is empty or a job has to end first."""
        mailbox = self._mailbox
        while mailbox and self.job is None:
            first = mailbox.first()
            if self.phase is Phase.NEW:
                self._load(first)
                return
            if not first.waiter.ended and first.needs_instance and self.phase is not Phase.READY:
                self._activate(first)
                continue
            mailbox.discard(first)
            if not first.waiter.ended:
                self._serve(first)
        if self.job is None:
            self._mailbox = None
            if self.leaving:
                self._leave()

    def _serve(self, envelope: Envelope) -> None:
        """Run or start the turn of one request."""
        self.last_used = self._services.loop.now()
        if self._mailbox is not None and self._mailbox.wait_estimate is not None:
            self._mailbox.wait_estimate.begin(self.last_used)
        state, handler, delivery = self.state, envelope.handler, envelope.delivery
        try:
            if delivery is not None and state.is_superseded(delivery):
                raise AlarmSuperseded(state.key, envelope.name)
            if envelope.needs_instance and state.instance is None:
                state.instantiate(first=False)
            if isinstance(handler, HandlerDefinition) and handler.is_async:
                self._begin_turn(handler.name, handler.readonly, envelope)
                return
            value = envelope.context.run(self._serve_now, envelope)
        except Exception as error:  # noqa: BLE001  # handlers may raise anything
            self._reply(envelope.waiter, None, error)
        except BaseException:  # Control-C, in a ``def``
            self._reply(envelope.waiter, None, _closed())
            raise
        else:
            self._reply(envelope.waiter, value, None)

    def _serve_now(self, envelope: Envelope) -> object:
        """Serve an operation, or the turn of a ``def`` handler."""
        handler, observation = envelope.handler, self._services.observation
        if isinstance(handler, Operation):
            if observation is None:
                return handler.run(self, *envelope.args)
            event = operation_event(self.key, handler.name)
            return observation.run(event, handler.run, self, *envelope.args)
        turn = (self.state, self.runtime, handler, envelope)
        if observation is None:
            return run_queued_turn(*turn)
        return observation.run(turn_event(self.key, handler), run_queued_turn, *turn)

    def _reply(self, waiter: Waiter, value: object, error: BaseException | None) -> None:
        if waiter.ended:
            return  # expired in this very moment; what its caller gets now must not be replaced
        waiter.value = value
        waiter.error = error
        gate = self.state.gate
        if gate is None:
            waiter.release()
        else:
            gate.hold(waiter)

    def _fail_mailbox(self, error: Callable[[], BaseException], *, live_only: bool = False) -> None:
        """Fail what waits; with ``live_only``, those requests alone that need an instance."""
        if self._mailbox is not None:
            for envelope in self._mailbox.everything():
                if envelope.needs_instance or not live_only:
                    self._mailbox.discard(envelope)
                    self._reply(envelope.waiter, None, error())

    # --- jobs ------------------------------------------------------------------------------------

    def open_up(self) -> bool:
        """Become open, if all that it takes is to decode the state; return whether it is open."""
        if self.job is None and self.phase is Phase.READY:
            if self.state.instance is None:
                self.state.instantiate(first=False)
            return True
        return False

    def _begin(self, name: str, turn: Turn | None = None) -> None:
        self.job = Job(name, self._services.loop.now(), turn)
        self._services.busy.add(self)

    def _begin_turn(self, name: str, readonly: bool, envelope: Envelope) -> None:
        """Let the worker run an ``async def`` turn."""
        self._begin(name, Turn(self.state, name, readonly))
        if self._worker is None:
            services = self._services
            self._worker = Worker(
                services.loop, services.start_task, str(self.key), self._run_assigned
            )
        try:
            self._worker.assign(envelope)
        except BaseException:  # no task can be started any more
            self._end()
            raise

    def _end(self) -> None:
        self.job = None
        self._services.ended(self)

    async def _run_assigned(self, envelope: Envelope) -> None:
        assert self.job is not None
        turn = self.job.turn
        assert turn is not None
        turn.task = self._services.loop.current_task()
        if self.phase is Phase.ACTIVATING:
            await self._run_after_load(turn, envelope)
        else:
            await self._run_async_turn(turn, envelope)
        self._end()
        self._drain()

    async def _run_async_turn(self, turn: Turn, envelope: Envelope) -> None:
        handler = envelope.handler
        assert isinstance(handler, HandlerDefinition)
        running = run_async_turn(self.state, self.runtime, turn, handler, envelope)
        if (observation := self._services.observation) is not None:
            event = envelope.context.run(turn_event, self.key, handler)
            running = observation.run_async(event, envelope.context, running)
        try:
            value, error = await running
        except BaseException as interruption:  # noqa: BLE001  # cancellation, or Control-C
            self._interrupted(turn, envelope, interruption)
        else:
            if turn.base_lost:
                self._invalidate()
            self._reply(envelope.waiter, value, error)

    def _interrupted(self, turn: Turn, envelope: Envelope, error: BaseException) -> None:
        """End a turn that was cancelled, with the runtime or by itself, or met Control-C."""
        if turn.base_lost:
            self._invalidate()
        if (
            isinstance(error, anyio.get_cancelled_exc_class())
            # No scope around the worker is cancelled, so it isn't the runtime that ends.
            and anyio.current_effective_deadline() > float("-inf")
            and self._services.loop.forgive_cancellation()
        ):
            self._reply(envelope.waiter, None, HandlerCancelled(self.key, turn.name))
            return
        self._reply(envelope.waiter, None, _closed())
        self._fail_mailbox(_closed)
        self._end()
        raise error

    # --- loading ---------------------------------------------------------------------------------

    def _load(self, first: Envelope) -> None:
        """Have the row read, for ``first`` and all that come meanwhile."""
        services = self._services
        self._begin("loading")
        self.phase = Phase.LOADING
        if services.observation is not None:
            services.observation.begin_load(self.key, first.context)
        services.batched_load.submit(self)

    def loaded(self, row: StoredObject | None) -> None:
        """See `Loading.loaded`."""
        if self._services.observation is not None:
            self._services.observation.end_load(self.key, None)
        self.state.load(row)
        self.phase = Phase.LOADED
        self._end()
        self._drain()

    def load_failed(self, fault: StorageFault) -> None:
        """See `Loading.load_failed`."""

        def error() -> PersistenceError:
            failure = PersistenceError(self.key, "load", str(fault))
            failure.__cause__ = fault
            return failure

        if self._services.observation is not None:
            self._services.observation.end_load(self.key, fault)
        self._fail_mailbox(error)
        self.phase = Phase.NEW
        self._end()
        self.leaving = True
        self._drain()

    # --- after_load ------------------------------------------------------------------------------

    def _activate(self, first: Envelope) -> None:
        """Make the first instance of this activation and let it run ``after_load``."""
        state, object_type = self.state, self.state.object_type
        self.last_used = self._services.loop.now()
        self.leaving = False
        was_stored = state.is_stored
        try:
            state.instantiate(first=True)
        except (StateDecodeError, StateEncodeError) as error:
            # The state stays unreadable for all that wait; but it can still be replaced.
            self.leaving = True
            self._fail_mailbox(partial(copy, error), live_only=True)
            return
        except Exception as error:  # noqa: BLE001  # factories of defaults may raise anything
            self._activation_failed(error)
            return
        if object_type.after_load is None:
            self._activated(was_stored)
        elif object_type.after_load_is_async:
            self.phase = Phase.ACTIVATING
            self._begin_turn("after_load", False, first)
        else:
            self.phase = Phase.ACTIVATING
            try:
                self._run_after_load_now(first.context)
            except Exception as error:  # noqa: BLE001  # after_load may raise anything
                self._activation_failed(error)
            except BaseException:  # Control-C; the next call activates the object once more
                state.roll_back()
                self.phase = Phase.LOADED
                self.leaving = True
                self.withdraw(first)
                self._reply(first.waiter, None, _closed())
                raise
            else:
                self._activated(was_stored)

    def _run_after_load_now(self, context: Context) -> None:
        observation = self._services.observation
        if observation is None:
            context.run(run_after_load, self.state, self.runtime)
        else:
            event = after_load_event(self.key, self.state.object_type)
            context.run(observation.run, event, run_after_load, self.state, self.runtime)

    async def _run_after_load(self, turn: Turn, envelope: Envelope) -> None:
        was_stored = self.state.is_stored
        running = run_async_after_load(self.state, self.runtime, turn, envelope.context)
        if (observation := self._services.observation) is not None:
            event = after_load_event(self.key, self.state.object_type)
            running = observation.run_async(event, envelope.context, running)
        try:
            _, error = await running
        except BaseException as interruption:  # noqa: BLE001  # cancellation, or Control-C
            self.phase = Phase.LOADED
            self.withdraw(envelope)
            self._interrupted(turn, envelope, interruption)
            return
        if turn.base_lost:
            self._invalidate()
        if error is not None:
            self._activation_failed(error)
        else:
            self._activated(was_stored)

    def _activated(self, was_stored: bool) -> None:
        # Even if the hook has deleted the object, or it would run for ever.
        self.phase = Phase.READY
        if self._services.notifier is not None:
            self._services.notifier.tell(Activated(self.key, was_stored))

    def _activation_failed(self, error: BaseException) -> None:
        """Fail all that wait; the next call activates the object once more."""
        problem = error_summary(error)

        def failure() -> Exception:
            failed = ActivationFailed(self.key, "after_load", problem)
            failed.__cause__ = error
            return failed

        self.state.roll_back()
        if self.phase is not Phase.NEW:
            self.phase = Phase.LOADED
        self.leaving = True
        self._fail_mailbox(failure, live_only=True)

    # --- the gate --------------------------------------------------------------------------------

    def committed(self) -> None:
        """See `TicketOwner.committed`."""
        if self.leaving:
            self._leave()

    def commit_failed(self) -> None:
        """See `TicketOwner.commit_failed`."""
        if self.job is not None and self.job.turn is not None:
            self.job.turn.base_lost = True
            return
        self._invalidate()
        if self.job is None:
            self._drain()

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
        if self.phase is not Phase.READY and self.job is None:
            self.leaving = True  # it is in memory for this only
        observation = self._services.observation
        if observation is None:
            return self.state.change_alarms(changes)
        return observation.run_apart(self.key, self.state.change_alarms, changes)

    def write_state(self, encoded: bytes) -> None:
        """Replace the object's state."""
        self.leaving = self.phase is not Phase.READY  # it came into memory for this only
        self.state.replace(encoded)

    def stop(self) -> None:
        """Leave memory once the turns queued so far have ended and are durable."""
        self.state.drop_instance()
        if self.phase is Phase.READY:
            self.phase = Phase.LOADED
        self.leaving = True

    def request_stop(self) -> Waiter:
        """Leave memory after the calls queued so far; the waiter is released then."""
        waiter = self._services.loop.waiter()
        self.accept(Envelope(waiter, STOP.name, STOP, needs_instance=False))
        return waiter

    # --- leaving memory --------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True if nothing runs or waits, and each commit is durable."""
        return self.job is None and self.state.gate is None and not self._mailbox

    def hibernate(self) -> None:
        """Let the instance and the worker go; the encoded state stays. The object must be idle."""
        self.state.drop_instance()
        if self._worker is not None:
            self._worker.dismiss()
            self._worker = None

    def shut_down(self, why: LeavingReason) -> None:
        """Leave memory. The object must be idle."""
        self._leave(why)

    def _leave(self, why: LeavingReason = "ended") -> None:
        if self.job is not None or self._mailbox or self.state.gate is not None:
            return  # or changes in memory would be lost; the end of that calls again
        self.leaving = False
        self.hibernate()
        self.phase = Phase.NEW
        self._residents.left(self, why)
        self.state.detach()

    def abandon(self) -> None:
        """Fail all that waits, because the runtime closes."""
        if self._services.observation is not None:
            unloaded = RuntimeClosed("the runtime closed before the object was loaded")
            self._services.observation.end_load(self.key, unloaded)
        self._fail_mailbox(_closed)


STOP = Operation("stop", Activation.stop, saves=False)


def _closed() -> RuntimeClosed:
    return RuntimeClosed("the runtime closed before the call was done")
