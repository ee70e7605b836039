"""One live object: its mailbox, its turns, and its life from loading to leaving memory.

Prior art: Orleans' grains and their turn-based concurrency; Cloudflare's output gates; Akka's
dispatchers, which give an actor a thread only while it has something to do.

A turn of a ``def`` handler can't be interrupted, so it needs no task of its own: it runs in the
task of whoever finds the object idle, mostly its caller's. Only ``async def`` turns have a task,
the object's worker, which lives until the object hibernates. Calls that come meanwhile wait in
the mailbox; whoever ends a turn drains it. The price is that three places run turns (a caller,
the loader's task after a load, the worker), and that all of it is synchronous code which must
leave the object consistent before anything else can run.

Invariants:

- ``busy``: a load, after_load or an async turn is under way. The mailbox holds something only
  while the object is busy, for `drain` empties it otherwise.
- ``open``: not busy and the instance is live, so that a caller may run a turn on the spot.
- ``state`` is what the last ended turn left, encoded; the instance never differs from it between
  turns. A turn that fails simply drops the instance: the next one is decoded from ``state``.
- ``gate`` is the last commit of the object that isn't durable yet. Every reply waits for it.
  When it fails, all the object has in memory is dropped, since it may build on what was lost;
  if a turn is under way then, it is ``doomed`` and fails when it ends.
- ``fresh``: after_load has not run in this activation. ``leaving``: the object goes from memory as
  soon as nothing waits and nothing is on its way. ``deleted``: the turn under way has deleted the
  object and committed that, so that whatever becomes of the turn, the object starts over.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from .._alarms.delivery import Delivery
from .._api.context import Context, Effects
from .._api.durable_object import DurableObject
from .._declarations.records import HandlerDefinition
from .._errors import (
    ActivationFailed,
    AlarmSuperseded,
    ArgumentError,
    HandlerCancelled,
    PersistenceError,
    ReadonlyViolation,
    ReplyError,
    RuntimeClosed,
    StateDecodeError,
    StateEncodeError,
)
from .._eventloop.current import runtime_var
from .._eventloop.loop import Waiter
from .._json.state import compact
from .._keys import ObjectKey
from .._persistence.ticket import Ticket
from .._text import error_summary
from ..storage import AlarmChanges, StorageFault, StoredObject
from .by_value import copied, is_atom
from .envelope import Envelope
from .info import ActivationInfo, Status
from .mailbox import Mailbox
from .services import Services
from .wait_graph import Turn, current_turn
from .worker import InContext, Worker

if TYPE_CHECKING:
    from .._api.objects import Objects
    from .directory import Directory


class Activation:
    """One in-memory incarnation of a durable object."""

    __slots__ = (
        "_busy",
        "_deleted",
        "_directory",
        "_doomed",
        "_fresh",
        "_instance",
        "_leaving",
        "_loaded",
        "_mailbox",
        "_services",
        "_since",
        "_state",
        "_turning",
        "_worker",
        "epoch",
        "gate",
        "key",
        "open",
        "revision",
        "running",
        "runtime",
        "touched",
        "turn",
    )

    def __init__(self, directory: Directory, key: ObjectKey, services: Services) -> None:
        self.key = key
        self.revision: int | None = None
        self.epoch = 0
        self.gate: Ticket | None = None
        self.open = False
        self._turning = False
        self.running = ""
        """What is under way, for messages."""
        self.turn: Turn | None = None
        self._directory = directory
        self._services = services
        self.runtime: Objects = services.runtime
        """See `Host.runtime`."""
        if key.tenant:
            self.runtime = services.runtime.tenant(key.tenant)
        self.touched = services.loop.now()
        """When it was last used."""
        self._busy = False
        self._since = 0.0  # when that began
        self._loaded = False
        self._fresh = True
        self._state: bytes | None = None
        """None if the object starts from its defaults and these weren't encoded yet."""
        self._instance: DurableObject | None = None
        self._mailbox: Mailbox | None = None  # only while something waits
        self._worker: Worker | None = None
        self._doomed = False
        """A commit failed while a turn was under way that builds on it."""
        self._deleted = False
        """The turn under way has deleted the object and committed that."""
        self._leaving = False

    # --- what a context and messages ask ---------------------------------------------------------

    @property
    def in_turn(self) -> bool:
        """Whether the caller is in a turn of the object.

        A context that some other task has kept must not meddle with a turn that isn't its own.
        """
        return self._turning and (self.turn is None or current_turn.get() is self.turn)

    def wall_time(self) -> int:
        """See `Host.wall_time`."""
        return self._services.clock.now()

    @property
    def depth(self) -> int:
        """How many calls wait for their turn."""
        return len(self._mailbox) if self._mailbox else 0

    def info(self) -> ActivationInfo:
        """A snapshot for the outside."""
        if not self._loaded or (self._fresh and self._instance is None and self._busy):
            status: Status = "loading"
        else:
            status = "hibernated" if self._instance is None else "active"
        return ActivationInfo(self.key, status, self.depth, self.revision or 0)

    def activity(self) -> str:
        """What keeps a call waiting."""
        if self._busy:
            since = self._services.loop.now() - self._since
            waiting = f", {self.depth} calls wait" if self.depth else ""
            return f"{self.running} has been under way for {since:.3g} s{waiting}"
        if self.gate is not None:
            return "its commit is under way"
        return "it is idle"

    # --- turns -----------------------------------------------------------------------------------

    def run_turn(
        self, handler: HandlerDefinition, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """Run a ``def`` handler, here and now. The object must be open.

        The result may be handed out once `gate` is passed.

        Raises:
            Exception: What the handler raised, or what was wrong with what it did. Nothing of
                the turn is left then.
        """
        services = self._services
        self.touched = services.loop.now()
        self._turning = True
        # Unless the caller is in it already, which is likely and costs nothing then.
        entered = runtime_var.get(None) is self.runtime or runtime_var.set(self.runtime)
        try:
            result = handler.function(self._instance, *args, **kwargs)
        except BaseException as error:
            self._roll_back()
            explained = self._explained(error, handler)
            if explained is not error:
                raise explained from error
            raise
        finally:
            self._turning = False
            if entered is not True:
                runtime_var.reset(entered)
        return self._end_turn(handler.name, handler.readonly, result)

    def _end_turn(self, name: str, readonly: bool, result: object) -> object:
        """Take over what a turn did: copy its reply, put its commit on the way."""
        instance = self._instance
        assert instance is not None
        try:
            if not is_atom(result):
                if instance.ctx._delivery is not None and not isinstance(result, Coroutine):
                    result = None  # nobody waits for it
                try:
                    result = copied(result)
                except TypeError as error:
                    raise ReplyError(self.key, name, str(error)) from error
            effects = instance.ctx._effects
            if instance.ctx._delivery is not None:
                self._check_current(instance.ctx._delivery, name)
            state = self._directory.codec.encode(self.key, instance)
            if readonly:
                self._check_unchanged(name, state, effects)
            elif state != self._state:
                self._directory.codec.check_size(self.key, state)
        except BaseException:
            self._roll_back()
            raise
        if effects is not None or self._deleted:
            instance.ctx._effects = None
            self._commit_effects(state, effects or Effects())
        elif state != self._state:
            self._save(state)
        return result

    def _save(self, state: bytes, alarms: AlarmChanges | None = None) -> None:
        self._state = compact(state)
        self.gate = self._services.group_commit.submit(self, self._state, False, alarms)

    def _check_unchanged(self, name: str, state: bytes, effects: Effects | None) -> None:
        if state != self._state:
            raise ReadonlyViolation(self.key, name, "changed the object's state")
        if effects is not None:
            raise ReadonlyViolation(self.key, name, "staged effects through self.ctx")

    def _commit_effects(self, state: bytes, effects: Effects) -> None:
        if effects.delete:
            self._delete(effects.alarms)
        elif state != self._state and not self._deleted:
            self._save(state, effects.alarms)
        elif effects.alarms is not None:
            self._change_alarms(effects.alarms)
        if effects.delete or self._deleted:
            self._deleted = False
            self._start_over()

    def _delete(self, alarms: AlarmChanges | None) -> None:
        self.gate = self._services.group_commit.submit(self, None, self.is_stored(), alarms)

    def _change_alarms(self, alarms: AlarmChanges) -> None:
        self.gate = self._services.group_commit.submit(self, None, False, alarms)

    def _start_over(self) -> None:
        """Be a new object, as after a deletion: one that needn't be in memory."""
        self._drop_instance()
        self._state = None
        self._fresh = True
        self._leaving = True

    def _roll_back(self) -> None:
        """Let the state be what the turn before left; the instance is made anew from it."""
        self._drop_instance()
        if self._deleted:
            self._deleted = False
            self._start_over()

    def _drop_instance(self) -> None:
        if self._instance is not None:
            # The handler may have put it somewhere; it is a detached instance from now on.
            self._instance.__dict__.pop("ctx", None)
            self._instance = None
        self.open = False

    def _explained(self, error: BaseException, handler: HandlerDefinition) -> BaseException:
        """``error`` of a handler, with a note; or our own if the call itself was wrong."""
        trace = error.__traceback__
        if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:
            # Raised by calling the handler, not inside of it.
            problem = str(error).replace(f"{handler.function.__qualname__}()", "it", 1)
            return ArgumentError(self.key, handler.name, f"{problem}; it takes {handler.signature}")
        if isinstance(error, anyio.get_cancelled_exc_class()):
            # A ``def`` can't be cancelled; it must have touched something that was.
            return HandlerCancelled(self.key, handler.name)
        if isinstance(error, Exception):
            error.add_note(f"in {handler.name} on {self.key}; its turn was rolled back")
        return error

    async def commit_now(self) -> None:
        """See `Context.commit`."""
        instance = self._instance
        assert instance is not None
        if not self._doomed:
            if instance.ctx._delivery is not None:
                self._check_current(instance.ctx._delivery, self.running)
            effects = instance.ctx._effects
            state = self._directory.codec.encode(self.key, instance)
            if self.turn is not None and self.turn.readonly:
                self._check_unchanged(self.running, state, effects)
            if effects is not None and effects.delete:
                effects.delete = False
                self._delete(instance.ctx._take_alarms())
                self._deleted = True
            elif state != self._state and not self._deleted:
                self._directory.codec.check_size(self.key, state)
                self._save(state, instance.ctx._take_alarms())
            elif (alarms := instance.ctx._take_alarms()) is not None:
                self._change_alarms(alarms)
        if self._doomed:
            raise self._lost()
        if self.gate is None:
            await self._services.loop.checkpoint()
        else:
            waiter = self._services.loop.waiter()
            self.gate.hold(waiter)
            await waiter.wait()

    def _lost(self) -> PersistenceError:
        return PersistenceError(
            self.key, "save", "an earlier change that this turn builds on could not be saved"
        )

    # --- alarms ----------------------------------------------------------------------------------

    def change_alarms(self, changes: AlarmChanges) -> Ticket:
        """Change the object's alarms from outside of its turns.

        They don't depend on its state, so it needn't be loaded, nor wait for the turn under way.
        """
        if self._fresh and not self._busy:
            self._leaving = True  # it is in memory for this only
        self._change_alarms(changes)
        assert self.gate is not None
        return self.gate

    def _run_alarm(
        self, handler: HandlerDefinition, delivery: Delivery, args: tuple[object, ...]
    ) -> object:
        """`run_turn` for an alarm."""
        with self._delivering(delivery):
            return self.run_turn(handler, args, {})

    @contextmanager
    def _delivering(self, delivery: Delivery | None) -> Iterator[None]:
        """Let the turn inside handle an alarm: what it commits at its end acknowledges that."""
        instance = self._instance
        if delivery is None or instance is None:
            yield
            return
        ctx = instance.ctx
        ctx._begin_delivery(delivery)
        try:
            yield
        finally:
            ctx._delivery = None

    def is_superseded(self, delivery: Delivery) -> bool:
        """Whether the alarm isn't any more what was claimed, be that durable yet or not."""
        ticket = self.gate
        while ticket is not None and not ticket.ended:
            if ticket.alarms is not None and ticket.alarms.touches(delivery.key.name):
                return True
            ticket = ticket.preceding
        return delivery.superseded

    def _check_current(self, delivery: Delivery, name: str) -> None:
        if not delivery.replaced and self.is_superseded(delivery):
            raise AlarmSuperseded(self.key, name)

    # --- the mailbox -----------------------------------------------------------------------------

    def accept(self, envelope: Envelope) -> None:
        """Put a request into the mailbox. There is no checkpoint from here to its place in it."""
        if self._mailbox is None:
            self._mailbox = Mailbox(self._directory.definition.options.mailbox_size)
        self._mailbox.put(envelope)
        if not self._busy:
            self._drain()

    def expected_wait(self) -> float:
        """Seconds until the turn of a call that comes now has ended, as far as can be told."""
        mailbox = self._mailbox
        if mailbox is None or mailbox.backlog is None:
            return 0.0
        return mailbox.backlog.wait(len(mailbox) + 1, self._services.loop.now())

    def is_queued(self, envelope: Envelope) -> bool:
        """Whether the turn of ``envelope`` hasn't begun."""
        return self._mailbox is not None and envelope in self._mailbox

    def withdraw(self, envelope: Envelope) -> None:
        """Take back a request whose caller is gone, if its turn hasn't begun."""
        if self._mailbox is not None:
            self._mailbox.discard(envelope)

    def open_up(self) -> bool:
        """Become open, if only the decoding of the state is missing for it."""
        if self._busy or not self._loaded or self._fresh or self._instance is not None:
            return self.open
        self.touched = self._services.loop.now()
        self._revive()
        self.open = True
        return True

    def _drain(self) -> None:
        """Run what is queued until nothing is, or something under way must be waited for."""
        mailbox = self._mailbox
        while mailbox and not self._busy:
            first = mailbox.first()
            if not self._loaded:
                self._load(first)
                return
            if not first.waiter.ended and first.needs_instance and self._fresh:
                self._begin(first)
                continue
            mailbox.discard(first)
            if not first.waiter.ended:
                self._serve(first)
        if self._busy:
            return
        self._mailbox = None
        self.open = self._loaded and self._instance is not None
        if self._leaving:
            self._leave()

    def _serve(self, envelope: Envelope) -> None:
        """Run or start the turn of one request."""
        self.touched = self._services.loop.now()
        if self._mailbox is not None and self._mailbox.backlog is not None:
            self._mailbox.backlog.begin(self.touched)
        handler, delivery = envelope.handler, envelope.delivery
        try:
            if delivery is not None and self.is_superseded(delivery):
                raise AlarmSuperseded(self.key, envelope.name)
            if envelope.needs_instance and self._instance is None:
                self._revive()
            if not isinstance(handler, HandlerDefinition):
                value = envelope.context.run(handler, self)
            elif handler.is_async:
                self._set_busy(handler.name)
                self._assign(envelope)
                return
            elif delivery is not None:
                value = envelope.context.run(self._run_alarm, handler, delivery, envelope.args)
            else:
                value = envelope.context.run(self.run_turn, handler, envelope.args, envelope.kwargs)
        except Exception as error:
            self._reply(envelope.waiter, None, error)
        except BaseException:  # Control-C, in a ``def``
            self._reply(envelope.waiter, None, _closed())
            raise
        else:
            self._reply(envelope.waiter, value, None)

    def _reply(self, waiter: Waiter, value: object, error: BaseException | None) -> None:
        if waiter.ended:
            return  # expired in this very moment; what its caller gets now must not be replaced
        waiter.value = value
        waiter.error = error
        if self.gate is None:
            waiter.release()
        else:
            self.gate.hold(waiter)

    def _set_busy(self, running: str) -> None:
        self._busy = True
        self.open = False
        self.running = running
        self._since = self._services.loop.now()
        self._services.began()

    def _set_idle(self) -> None:
        self._busy = False
        self._services.ended()

    # --- loading and after_load ------------------------------------------------------------------

    def _load(self, first: Envelope) -> None:
        """Have read what is stored, for ``first`` and all behind it."""
        self._set_busy("loading")
        self._services.batched_load.submit(self)

    def loaded(self, row: StoredObject | None) -> None:
        """See `Loading.loaded`."""
        self._loaded = True
        self.revision, self._state = (row.revision, row.state) if row else (0, None)
        self.epoch = row.epoch if row else 0
        self._set_idle()
        self._drain()

    def load_failed(self, fault: StorageFault) -> None:
        """See `Loading.load_failed`."""

        def error() -> PersistenceError:
            failure = PersistenceError(self.key, "load", str(fault))
            failure.__cause__ = fault
            return failure

        self._fail_mailbox(error)
        self._set_idle()
        self._leaving = True
        self._drain()

    def _revive(self) -> DurableObject:
        """Make the live instance from the state.

        Raises:
            StateDecodeError: The state can't be read.
            StateEncodeError: There is no state yet and a default can't be stored.
        """
        codec = self._directory.codec
        instance: DurableObject
        if self._state is None:
            instance = self._directory.definition.default_state()
            self._state = compact(codec.encode(self.key, instance))
        else:
            instance = codec.decode(self.key, self._state)
            if self._fresh:
                # What is stored may lack new fields or be written differently; what a turn
                # changes is told from what this class would write.
                self._state = compact(codec.encode(self.key, instance))
        instance.__dict__["ctx"] = Context(self)
        self._instance = instance
        return instance

    def _begin(self, first: Envelope) -> None:
        """Make the first instance of this activation and let it run after_load."""
        definition = self._directory.definition
        self.touched = self._services.loop.now()
        self._leaving = False
        try:
            instance = self._revive()
        except (StateDecodeError, StateEncodeError) as error:
            # Such a state stays unreadable for all who wait; but it can still be replaced.
            self._leaving = True
            self._fail_mailbox(partial(copy, error), live_only=True)
            return
        except Exception as error:  # from a default's factory
            self._begin_failed(error)
            return
        if not definition.has_after_load:
            self._fresh = False
        elif definition.after_load_is_async:
            self._set_busy("after_load")
            self._assign(first)
        else:
            try:
                first.context.run(self._run_after_load_here, instance)
                self._fresh = False
            except Exception as error:
                self._begin_failed(error)

    def _run_after_load_here(self, instance: DurableObject) -> None:
        """Run a ``def`` after_load, as a turn."""
        runtime_var.set(self.runtime)
        self._turning = True
        try:
            result = instance.after_load()
        except anyio.get_cancelled_exc_class() as error:
            raise HandlerCancelled(self.key, "after_load") from error
        finally:
            self._turning = False
        if isinstance(result, Coroutine):
            result.close()
            raise TypeError("it returned a coroutine; write it with async def")
        self._end_turn("after_load", False, None)

    def _begin_failed(self, error: Exception) -> None:
        """after_load raised: tell all who wait, and let the next call begin anew."""
        problem = error_summary(error)

        def failure() -> Exception:
            failed = ActivationFailed(self.key, "after_load", problem)
            failed.__cause__ = error
            return failed

        self._roll_back()
        self._leaving = True
        self._fail_mailbox(failure, live_only=True)

    def _fail_mailbox(self, error: Callable[[], BaseException], *, live_only: bool = False) -> None:
        if self._mailbox is not None:
            for envelope in self._mailbox.everything():
                if envelope.needs_instance or not live_only:
                    self._mailbox.discard(envelope)
                    self._reply(envelope.waiter, None, error())

    # --- async turns -----------------------------------------------------------------------------

    def _assign(self, envelope: Envelope) -> None:
        if self._worker is None:
            services = self._services
            self._worker = Worker(
                services.loop, services.start_task, str(self.key), self._run_assigned
            )
        self._worker.assign(envelope)

    async def _run_assigned(self, envelope: Envelope) -> None:
        if self._fresh:
            await self._run_after_load(envelope)
        else:
            await self._run_async_turn(envelope)
        self._set_idle()
        self._drain()

    async def _run_async_turn(self, envelope: Envelope) -> None:
        handler = envelope.handler
        assert isinstance(handler, HandlerDefinition)
        try:
            with self._delivering(envelope.delivery):
                coroutine = handler.function(self._instance, *envelope.args, **envelope.kwargs)
                result = await self._in_turn(envelope, handler.readonly, coroutine)
                if self._doomed:
                    raise self._lost()
                result = self._end_turn(handler.name, handler.readonly, result)
        except Exception as error:
            self._turn_failed(handler, envelope, error)
        except BaseException as error:
            self._turn_interrupted(handler.name, envelope, error)
        else:
            self._reply(envelope.waiter, result, None)
        finally:
            self._doomed = False

    def _turn_failed(
        self, handler: HandlerDefinition, envelope: Envelope, error: BaseException
    ) -> None:
        self._roll_back()
        if self._doomed:
            self._forget()
            if not isinstance(error, PersistenceError):
                lost = self._lost()
                lost.__cause__ = error
                error = lost
        elif not isinstance(error, (ReplyError, ReadonlyViolation, AlarmSuperseded)):
            error = self._explained(error, handler)
        self._reply(envelope.waiter, None, error)

    def _turn_interrupted(self, name: str, envelope: Envelope, error: BaseException) -> None:
        """Something ended the turn from outside: the runtime's cancellation, or Control-C."""
        self._roll_back()
        if self._doomed:
            self._forget()
        if (
            isinstance(error, anyio.get_cancelled_exc_class())
            # No scope around the worker is cancelled, so it isn't the runtime that ends.
            and anyio.current_effective_deadline() > float("-inf")
            and self._services.loop.forgive_cancellation()
        ):
            self._reply(envelope.waiter, None, HandlerCancelled(self.key, name))
            return
        self._reply(envelope.waiter, None, _closed())
        self._fail_mailbox(_closed)
        self._set_idle()
        raise error

    async def _run_after_load(self, envelope: Envelope) -> None:
        try:
            after_load: Callable[..., Any] = self._directory.definition.cls.after_load
            await self._in_turn(envelope, False, after_load(self._instance))
            if self._doomed:
                raise self._lost()
            self._end_turn("after_load", False, None)
        except Exception as error:
            if self._doomed:
                self._forget()
            self._begin_failed(error)
        except BaseException as error:
            self.withdraw(envelope)
            self._turn_interrupted("after_load", envelope, error)
        else:
            self._fresh = False
        finally:
            self._doomed = False

    async def _in_turn(
        self, envelope: Envelope, readonly: bool, coroutine: Coroutine[Any, Any, object]
    ) -> object:
        """Await what an ``async def`` made, in the caller's context variables, as a turn."""
        self.turn = turn = Turn(self, readonly)
        envelope.context.run(current_turn.set, turn)
        envelope.context.run(runtime_var.set, self.runtime)
        self._turning = True
        try:
            return await InContext(coroutine, envelope.context)
        finally:
            self._turning = False
            self.turn = turn.activation = None

    # --- the gate --------------------------------------------------------------------------------

    def committed(self) -> None:
        """See `Owner.committed`."""
        if self._leaving:
            self._leave()

    def commit_failed(self) -> None:
        """See `Owner.commit_failed`."""
        if self._busy and self._loaded:
            self._doomed = True
            return
        self._forget()
        if not self._busy:
            self._drain()

    def _forget(self) -> None:
        """Drop everything: what is stored counts, not what is in memory."""
        self._drop_instance()
        self._state = None
        self.revision = None
        self._loaded = False
        self._fresh = True
        self._deleted = False
        self._leaving = True

    # --- what the runtime does to an object in its turn ------------------------------------------

    def read_state(self) -> DurableObject:
        """A detached instance with the object's state."""
        if self._state is None:
            return self._directory.definition.default_state()
        state: DurableObject = self._directory.codec.decode(self.key, self._state)
        return state

    def write_state(self, state: bytes) -> None:
        """Replace the object's state."""
        self._leaving = self._fresh  # it came into memory for this only
        if state != self._state or not self.is_stored():
            self._save(state)
        self._drop_instance()

    def delete(self) -> None:
        """Delete the object and become a new one."""
        self._delete(AlarmChanges(clear=True))
        self._start_over()

    def is_stored(self) -> bool:
        """Whether there is a row of it, once the gate is passed."""
        if self.gate is not None and self.gate.revision is not None:
            return bool(self.gate.next_revision)
        return bool(self.revision)

    def stop(self) -> None:
        """Leave memory when the turns queued so far have ended and are durable."""
        self._drop_instance()
        self._fresh = True
        self._leaving = True

    def send_away(self) -> Waiter:
        """Leave memory behind the calls queued so far; the waiter is released when that is done."""
        waiter = self._services.loop.waiter()
        self.accept(Envelope(waiter, "stop", Activation.stop, needs_instance=False))
        return waiter

    # --- leaving memory --------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, not even a commit."""
        return not self._busy and self.gate is None

    def hibernate(self) -> None:
        """Let the instance and the worker go; the encoded state stays. It must be idle."""
        self._drop_instance()
        if self._worker is not None:
            self._worker.dismiss()
            self._worker = None

    def shut_down(self) -> None:
        """Leave memory. It must be idle."""
        self._leave()

    def _leave(self) -> None:
        if self._busy or self._mailbox or self.gate is not None:
            return  # or what is in memory would be lost; whoever ends that calls again
        self._leaving = False
        self.hibernate()
        self._loaded = False
        if self._directory.holds(self):
            self._directory.remove(self)

    def abandon(self) -> None:
        """Fail all that waits, because the runtime closes."""
        self._fail_mailbox(_closed)


def _closed() -> RuntimeClosed:
    return RuntimeClosed("the runtime closed before the call was done")
