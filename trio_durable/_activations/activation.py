"""Activation: one live object in memory, with its mailbox and its life from loading to leaving.

Prior art: Orleans' grains and their turn-based concurrency; Cloudflare's output gates; Akka's
dispatchers, which give an actor a thread only while it has something to do.

A turn of a ``def`` handler can't be interrupted, so it needs no task of its own: it runs in the
task that finds the object open, which is mostly its caller's. All else waits in the object's
mailbox, which a worker of the runtime's pump serves; an ``async def`` turn that suspends keeps its
worker until it ends. An idle object has no task.

State and commits are in `ObjectState`, the running of one turn is in `turns`. Invariants here:

- ``phase`` says how far the activation has come. It only moves forward, except that a failure, a
  deletion or leaving takes it back.
- The object is busy exactly while it has a ``mailbox``. A stranger's request is in the mailbox, or
  is the mailbox, by one store. Waking the pump comes after, and may be repeated.
- ``mailbox.job`` is the load, ``after_load`` or ``async def`` turn that has to end before the
  mailbox is served on. The batched load or a worker has it, and ends it.
- An object is open if it is not busy, has a live instance, and no turn runs. Then a caller may run
  a ``def`` turn on the spot; `LocalCalls` checks this itself, since every call does. A live
  instance without a job or a running turn implies that the phase is READY.
- ``leaving``: the object leaves memory as soon as it isn't busy and has no commit that isn't
  durable.
- An exception while the mailbox is served, even of a signal's handler, ends one request
  (`_cut_off`), and the mailbox is served on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import anyio

from .._declarations.records import HandlerDefinition
from .._errors import AlarmSuperseded, CallFailed, TurnTimeout
from .._eventloop.loop import CallbackWaiter, Waiter
from .admission import admit_to_mailbox
from .envelope import Envelope, Operation
from .interruption import RESISTANCE_SECONDS, Interruption
from .mailbox import Mailbox
from .observation import after_load_event, operation_event, turn_event
from .opening import Opening
from .phase import Job, Phase
from .slices import Slice
from .turns import AfterLoadTurn, AsyncTurn, HandlerTurn, run_queued_turn
from .wait_graph import Turn
from .worker import Worker

logger = logging.getLogger("trio_durable")


class Activation(Opening):
    """One in-memory incarnation of an object."""

    __slots__ = ()

    phase: Phase
    last_used: float

    # --- the mailbox -----------------------------------------------------------------------------

    def accept(self, envelope: Envelope) -> None:
        """Put a request into the mailbox. There is no checkpoint from here to its place in it."""
        mailbox = self.mailbox
        if mailbox is None:
            mailbox = Mailbox(self.state.object_type.options.mailbox_size)
            mailbox.put(envelope)
            self.mailbox = mailbox
        else:
            mailbox.put(envelope)
        self.wake()

    def wake(self) -> None:
        """Have the mailbox served, unless a job has to end first. May be repeated."""
        mailbox, services = self.mailbox, self._services
        if mailbox is None:
            if self.leaving:
                self._leave()
            return
        services.busy[self] = None
        if mailbox.job is None:
            services.pump.add(self)

    def repair(self) -> None:
        """Wake all that should be awake.

        Called when a call has timed out, which nothing but a fault of the library's can need.
        """
        mailbox, services = self.mailbox, self._services
        if mailbox is None:
            services.group_commit.wake(self.state)
            return
        if self.phase is Phase.LOADING:
            services.batched_load.wake()
            return
        if self.state.turn is not None or self.running_turn is not None:
            return
        if self not in services.pump:
            services.pump.add(self)
        elif services.pump.is_overslept:
            services.pump.wake()
        else:
            return
        logger.error(
            "%s was busy, and nothing served it; it is served again. This is a fault of "
            "trio_durable, please report it",
            self.key,
        )

    def expected_wait(self) -> float:
        """Seconds until a call that comes now has had its turn, by the turns of late."""
        mailbox = self.mailbox
        if mailbox is None or mailbox.wait_estimate is None:
            return 0.0
        return mailbox.wait_estimate.wait(len(mailbox) + 1, self._services.loop.now())

    def admit(self, name: str, timeout: float | None) -> None:
        """Reject a call of ``name`` whose turn would come too late. See `admit_to_mailbox`."""
        if timeout is not None and self.mailbox is not None:
            admit_to_mailbox(self.key, name, timeout, self.depth, self.expected_wait())

    def is_queued(self, envelope: Envelope) -> bool:
        """True if the turn of ``envelope`` hasn't begun."""
        return self.mailbox is not None and envelope in self.mailbox

    def withdraw(self, envelope: Envelope) -> None:
        """Take back a request whose caller is gone, if its turn hasn't begun."""
        if self.mailbox is not None:
            self.mailbox.discard(envelope)

    def serve(self, share: Slice, worker: Worker) -> None:
        """See `Workplace.serve`."""
        try:
            self._serve_mailbox(share, worker)
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001  # see `_cut_off`
            self._cut_off(error)
        mailbox = self.mailbox
        if mailbox is not None and mailbox.job is None and share.is_over:
            self._services.pump.add(self)

    def _serve_mailbox(self, share: Slice, worker: Worker) -> None:
        state = self.state
        while (mailbox := self.mailbox) is not None:
            if mailbox.job is not None:
                return
            if state.turn is not None:  # a ``def`` turn in which the event loop runs
                state.awaited_turn()
                return
            if self._services.closed:
                self._fail_mailbox(self._services.closed_error)
            first = mailbox.first()
            if first is None:
                self._end_service()
                return
            if share.is_over:
                return
            share.turns += 1
            mailbox.serving = first
            if self.phase is Phase.NEW:
                self._load(mailbox, first)
            elif not first.waiter.ended and first.needs_instance and self.phase is not Phase.READY:
                self._activate(mailbox, first)
            else:
                mailbox.discard(first)
                if not first.waiter.ended:
                    self._serve(mailbox, first)
            job = mailbox.job
            if job is None:
                mailbox.serving = None
            elif job.turn is not None:
                if not self._begin_turn(job, job.turn, first, worker):
                    return
                if worker.is_spent:
                    share.end()

    def _end_service(self) -> None:
        """The mailbox is empty."""
        self.mailbox = None
        self._services.not_busy(self)
        if self.leaving:
            self._leave()

    def _serve(self, mailbox: Mailbox, envelope: Envelope) -> None:
        """Run the turn of one request, or make it the job."""
        self.last_used = now = self._services.loop.now()
        if mailbox.wait_estimate is not None:
            mailbox.wait_estimate.begin(now)
        state, handler, delivery = self.state, envelope.handler, envelope.delivery
        try:
            if delivery is not None and state.is_superseded(delivery):
                raise AlarmSuperseded(state.key, envelope.name)
            if envelope.needs_instance and state.instance is None:
                state.instantiate(first=False)
            if isinstance(handler, HandlerDefinition) and handler.is_async:
                mailbox.job = Job(handler.name, now, Turn(state, handler.name, handler.readonly))
                return
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001  # what decodes a state may raise anything
            self._reply(envelope, None, error)
        else:
            self._run(envelope)

    def _run(self, envelope: Envelope) -> None:
        """Run an operation, or the turn of a ``def`` handler, and reply."""
        try:
            step = self._services.loop.interruptible
            value = step(envelope.context.run, self._serve_now, envelope)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001  # handlers may raise anything
            self.state.turn = None  # should the end of the turn itself have been cut off
            self._reply(envelope, None, error)
        else:
            self._reply(envelope, value, None)

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

    def _cut_off(self, error: BaseException) -> None:
        """End the request that was served when ``error`` was raised between turns.

        It comes from a signal's handler, from a lack of memory, or is a fault of the library's. All
        that the turn has done is forgotten, unless its commit was submitted. See `ObjectState`.
        """
        turn = self.running_turn
        task = None if turn is None else turn.task
        if task is not None and task is not self._services.loop.current_task():
            self._services.failed(error)  # the turn that runs in another task isn't cut off
            return
        self.state.drop_turn()
        if self.phase is Phase.LOADING:
            self.phase = Phase.NEW
        elif self.phase is Phase.ACTIVATING:
            self.phase = Phase.LOADED
        mailbox = self.mailbox
        serving = None
        if mailbox is not None:
            serving = mailbox.serving
            mailbox.job = mailbox.serving = None
        if mailbox is not None and serving is not None:
            mailbox.discard(serving)
            self._reply(serving, None, error)
        else:
            self._services.failed(error)
        self.wake()

    def run_now(self, envelope: Envelope) -> None:
        """Run the turn of a request without a detour through the mailbox.

        The object must be open, and the handler a ``def``. For tasks of the runtime's own, such as
        the pump is: a caller's may be cancelled, or have no stack left.
        """
        self.last_used = self._services.loop.now()
        self._run(envelope)

    # --- jobs ------------------------------------------------------------------------------------

    def is_open(self) -> bool:
        """True if a ``def`` turn may run on the spot, after `open_up` if need be."""
        is_open = self.mailbox is None and self.state.turn is None
        return (is_open and self.state.instance is not None) or self.open_up()

    def open_up(self) -> bool:
        """Become open, if all that it takes is to decode the state; return whether it is open."""
        if self.mailbox is None and self.phase is Phase.READY and self.state.turn is None:
            if self.state.instance is None:
                self.state.instantiate(first=False)
            return True
        return False

    def _begin_turn(self, job: Job, turn: Turn, envelope: Envelope, worker: Worker) -> bool:
        """Begin the ``async def`` turn that is the mailbox's job; return True if it has ended."""
        services, context = self._services, envelope.context
        turn.task = worker.task
        shared = (services.loop.interruptible, self._cancelled)
        handler: HandlerDefinition | None = None
        running: AsyncTurn
        if self.phase is Phase.ACTIVATING:
            running = AfterLoadTurn(self.state, self.runtime, turn, context, *shared)
        else:
            assert isinstance(envelope.handler, HandlerDefinition)
            handler = envelope.handler
            running = HandlerTurn(self.state, self.runtime, turn, handler, envelope, *shared)
            if handler.limit is not None:
                job.limit = self._limited(handler.limit, turn)
        if (observation := services.observation) is not None:
            if handler is None:
                event = after_load_event(self.key, self.state.object_type)
            else:
                event = context.run(turn_event, self.key, handler)
            job.observed_at = observation.begin_async(event, context)
        job.worker = worker
        worker.take(self, running)
        if not running.begin():
            return False
        self._conclude(running)
        worker.drop()
        return True

    def conclude(self, turn: AsyncTurn) -> None:
        """See `Workplace.conclude`."""
        try:
            self._conclude(turn)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001  # see `_cut_off`
            self._cut_off(error)

    def _conclude(self, running: AsyncTurn) -> None:
        mailbox = self.mailbox
        assert mailbox is not None
        assert mailbox.job is not None
        assert mailbox.serving is not None
        value, error = running.take()
        try:
            self._end_job(mailbox.job, running, error)
            if running.turn.base_lost:
                self._invalidate()
            if running.is_handlers:
                self._reply(mailbox.serving, value, error)
            elif error is None:
                self._activated(running.was_stored)
            else:
                self._activation_failed(error)
        finally:
            del value, error
        mailbox.job = mailbox.serving = None

    def _end_job(self, job: Job, running: AsyncTurn, error: BaseException | None) -> None:
        """Nothing watches the turn any more. May be repeated."""
        if job.limit is not None:
            job.limit.discard()
        if (observation := self._services.observation) is not None:
            observation.end_async(self.key, running.context, job.observed_at, error)

    def cut_off(self, turn: AsyncTurn, error: BaseException) -> None:
        """See `Workplace.cut_off`."""
        job = self.job
        if job is None or job.turn is not turn.turn:
            self.wake()
            return
        if isinstance(error, anyio.get_cancelled_exc_class()):
            error = self._cancelled(turn.turn)
        try:
            turn.abandon()
            self._end_job(job, turn, error)
            self._cut_off(error)
        finally:
            del error

    def _limited(self, limit: float, turn: Turn) -> CallbackWaiter:
        """Interrupt a turn if it takes longer than ``limit`` seconds."""
        error = partial(TurnTimeout, self.key, turn.name, limit)
        passed = CallbackWaiter(lambda _: self.interrupt(turn, error))
        self._services.deadlines.watch(passed, self._services.loop.now(), limit)
        return passed

    def interrupt(self, turn: Turn, error: Callable[[], CallFailed]) -> None:
        """Cancel a turn unless it has ended. However it ends then, it fails with ``error``."""
        if turn.node is None or turn.interruption is not None:
            return
        now = self._services.loop.now()
        resistance = CallbackWaiter(lambda _: self._warn_of_resistance(turn))
        turn.interruption = Interruption(error, now, resistance)
        self._services.deadlines.watch(resistance, now, RESISTANCE_SECONDS)
        job = self.job
        if job is not None and job.turn is turn and job.worker is not None:
            job.worker.cancel(resistance)

    def depose(self, error: Callable[[str], CallFailed]) -> None:
        """Give the object up: the lease under which it is in memory is over.

        The instance may differ from the stored state, and nothing of it may leave. A turn that runs
        is cancelled. The next call makes another activation.

        Args:
            error: Makes the error of a call, by the name of its handler.
        """
        turn, state = self.running_turn, self.state
        state.base_lost = True
        if turn is not None:
            turn.base_lost = True
            self.interrupt(turn, partial(error, turn.name))
        elif state.turn is not None:
            state.awaited_turn().base_lost = True
        else:
            self._invalidate()
        mailbox = self.mailbox
        if mailbox is not None:
            if mailbox.serving is not None:
                mailbox.serving.waiter.fail(error(mailbox.serving.name))
            for envelope in mailbox.everything():
                envelope.waiter.fail(error(envelope.name))
                mailbox.discard(envelope)
        self.leaving = True
        self._residents.left(self, "ended")
        self.wake()

    def _warn_of_resistance(self, turn: Turn) -> None:
        logger.warning(
            "%s on %s still runs %g s after it was cancelled; the object serves nothing else until "
            "the handler ends: let the cancellation through, and shield no wait without a bound",
            *(turn.name, self.key, RESISTANCE_SECONDS),
        )

    # --- requests --------------------------------------------------------------------------------

    def request_stop(self) -> Waiter:
        """Leave memory after the calls queued so far; the waiter is released then."""
        waiter = self._services.loop.waiter()
        self.accept(Envelope(waiter, STOP.name, STOP, needs_instance=False))
        return waiter


STOP = Operation("stop", Activation.stop, saves=False)
