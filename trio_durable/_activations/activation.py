"""Activation: one live object in memory, with its mailbox and its life from loading to leaving.

Prior art: Orleans' grains and their turn-based concurrency; Cloudflare's output gates; Akka's
dispatchers, which give an actor a thread only while it has something to do.

A turn of a ``def`` handler can't be interrupted, so it needs no task of its own: it runs in the
task that finds the object open, which is mostly its caller's. Only ``async def`` turns have a task,
the object's worker, which lives until the object hibernates. Calls of a busy object wait in its
mailbox, which the worker serves, or the runtime's pump if there is none.

State and commits are in `ObjectState`, the running of one turn is in `turns`. Invariants here:

- ``phase`` says how far the activation has come. It only moves forward, except that a failure, a
  deletion or leaving takes it back.
- The object is busy exactly while it has a ``mailbox``. A stranger's request is in the mailbox, or
  is the mailbox, by one store. Waking the worker or the pump comes after, and may be repeated.
- ``mailbox.job`` is the load, ``after_load`` or ``async def`` turn that has to end before the
  mailbox is served on. The batched load or the worker has it, and ends it.
- An object is open if it is not busy, has a live instance, and no turn runs. Then a caller may run
  a ``def`` turn on the spot; `LocalCalls` checks this itself, since every call does. A live
  instance without a job or a running turn implies that the phase is READY.
- ``leaving``: the object leaves memory as soon as it isn't busy and has no commit that isn't
  durable.
- Whatever raises while the mailbox is served, be it a signal's handler, ends one request
  (`_cut_off`), and the mailbox is served on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .._declarations.records import HandlerDefinition
from .._errors import AlarmSuperseded, CallFailed, TurnTimeout
from .._eventloop.loop import CallbackWaiter, Waiter
from .admission import admit_to_mailbox
from .envelope import Envelope, Operation
from .interruption import RESISTANCE_SECONDS, Interruption
from .mailbox import Mailbox
from .observation import operation_event, turn_event
from .opening import Opening
from .phase import Job, Phase
from .pump import Slice
from .turns import Outcome, run_async_turn, run_queued_turn
from .wait_graph import Turn
from .worker import Worker

logger = logging.getLogger("trio_durable")


class Activation(Opening):
    """One in-memory incarnation of an object."""

    __slots__ = ()

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
        if mailbox.job is not None:
            return
        if self.worker is not None:
            self.worker.wake()
        else:
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
        has_owner = self.worker is not None or self in services.pump or self.state.turn is not None
        if not has_owner:
            services.pump.add(self)
        elif self.worker is not None and self.worker.is_parked:
            has_owner = False
            self.worker.wake()
        if not has_owner:
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
        if timeout is not None:
            admit_to_mailbox(self.key, name, timeout, self.depth, self.expected_wait())

    def is_queued(self, envelope: Envelope) -> bool:
        """True if the turn of ``envelope`` hasn't begun."""
        return self.mailbox is not None and envelope in self.mailbox

    def withdraw(self, envelope: Envelope) -> None:
        """Take back a request whose caller is gone, if its turn hasn't begun."""
        if self.mailbox is not None:
            self.mailbox.discard(envelope)

    def serve(self, share: Slice) -> bool:
        """See `Served.serve`."""
        envelope = self.advance(share)
        if envelope is not None:
            try:
                self._hand_to_worker(envelope)
            except BaseException as error:  # noqa: BLE001  # see `_cut_off`
                self._cut_off(error)
        mailbox = self.mailbox
        return mailbox is not None and mailbox.job is None and share.is_over

    def advance(self, share: Slice) -> Envelope | None:
        """Serve the mailbox until it is empty, a job has to end first, or the slice is over.

        Returns:
            The request of an ``async def`` turn, for a worker. It is the mailbox's job now.
        """
        try:
            return self._advance(share)
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001  # see `_cut_off`
            self._cut_off(error)
            return None

    def _advance(self, share: Slice) -> Envelope | None:
        state = self.state
        while (mailbox := self.mailbox) is not None:
            if mailbox.job is not None:
                # Its worker has ended before the turn has begun.
                is_left = mailbox.job.turn is not None and self.worker is None
                return mailbox.serving if is_left else None
            if state.turn is not None:  # a ``def`` turn in which the event loop runs
                state.awaited_turn()
                return None
            if self._services.closed:
                self._fail_mailbox(self._services.closed_error)
            first = mailbox.first()
            if first is None:
                self._end_service()
                return None
            if share.is_over:
                return None
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
            if mailbox.job is None:
                mailbox.serving = None
            elif mailbox.job.turn is not None:
                return first
        return None

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

    def _hand_to_worker(self, envelope: Envelope) -> None:
        worker = self.worker
        if worker is not None:
            worker.assign(envelope)
            return
        services = self._services
        worker = Worker(services.loop, services.slice_clock, self)
        worker.assign(envelope)
        try:
            self.worker = worker
            worker.start(services.tasks, str(self.key), partial(self._worker_failed, worker))
        except BaseException:  # no task can be started any more
            self.worker = None
            raise
        turn = self.running_turn
        if turn is not None and turn.interruption is not None:  # before it has begun
            worker.cancel(turn.interruption.resistance)

    def worker_left(self, worker: Worker) -> None:
        """See `Workplace.worker_left`."""
        if self.worker is worker:
            self.worker = None
            if self.mailbox is not None:
                self._services.pump.add(self)

    def _worker_failed(self, worker: Worker, error: BaseException) -> None:
        self._services.worker_ended(error)
        self.worker_left(worker)  # once more, should it have been cut off

    async def run(self, envelope: Envelope) -> None:
        """See `Workplace.run`."""
        try:
            mailbox = self.mailbox
            assert mailbox is not None
            assert mailbox.job is not None
            turn = mailbox.job.turn
            assert turn is not None
            turn.task = self._services.loop.current_task()
            if self.phase is Phase.ACTIVATING:
                await self._run_after_load(turn, envelope)
            else:
                await self._run_async_turn(turn, envelope)
            mailbox.job = mailbox.serving = None
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001  # see `_cut_off`
            self._cut_off(error)

    async def _run_async_turn(self, turn: Turn, envelope: Envelope) -> None:
        handler = envelope.handler
        assert isinstance(handler, HandlerDefinition)
        step = self._services.loop.interruptible
        running = run_async_turn(
            self.state, self.runtime, turn, handler, envelope, step, partial(self._cancelled, turn)
        )
        if (observation := self._services.observation) is not None:
            event = envelope.context.run(turn_event, self.key, handler)
            running = observation.run_async(event, envelope.context, running)
        if handler.limit is not None:
            running = self._within(handler.limit, turn, running)
        value, error = await running
        try:
            if turn.base_lost:
                self._invalidate()
            self._reply(envelope, value, error)
        finally:
            del value, error  # this frame lives as long as the worker

    async def _within(
        self, limit: float, turn: Turn, running: Coroutine[Any, Any, Outcome]
    ) -> Outcome:
        """Await a turn, and interrupt it if it takes longer than ``limit`` seconds."""
        error = partial(TurnTimeout, self.key, turn.name, limit)
        passed = CallbackWaiter(lambda _: self.interrupt(turn, error))
        self._services.deadlines.watch(passed, self._services.loop.now(), limit)
        try:
            return await running
        finally:
            passed.discard()

    def interrupt(self, turn: Turn, error: Callable[[], CallFailed]) -> None:
        """Cancel a turn unless it has ended. However it ends then, it fails with ``error``."""
        if turn.node is None or turn.interruption is not None:
            return
        now = self._services.loop.now()
        resistance = CallbackWaiter(lambda _: self._warn_of_resistance(turn))
        turn.interruption = Interruption(error, now, resistance)
        self._services.deadlines.watch(resistance, now, RESISTANCE_SECONDS)
        if self.worker is not None:
            self.worker.cancel(resistance)

    def depose(self, error: Callable[[str], CallFailed]) -> None:
        """Give the object up: the lease under which it is in memory is over.

        What is known of it may not be what is stored, and nothing of it may leave. A turn that runs
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
