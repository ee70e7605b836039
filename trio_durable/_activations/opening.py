"""Opening: an object on its way from a row to a live instance on which ``after_load`` has run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextvars import Context
from copy import copy
from functools import partial

from .._alarms.recurrence import corrections
from .._errors import (
    ActivationFailed,
    HandlerCancelled,
    PersistenceError,
    RuntimeClosed,
    StateDecodeError,
    StateEncodeError,
)
from .._telemetry.events import Activated
from .._text import error_summary
from ..storage import AlarmRow, StorageFault, StoredObject
from .envelope import Envelope
from .mailbox import Mailbox
from .observation import after_load_event
from .phase import Job, Phase
from .resident import Resident
from .turns import run_after_load
from .wait_graph import Turn


class Opening(Resident):
    """Loads an object and runs its ``after_load``. See `Activation`."""

    __slots__ = ()

    phase: Phase
    last_used: float
    leaving: bool

    # --- loading ---------------------------------------------------------------------------------

    def _load(self, mailbox: Mailbox, first: Envelope) -> None:
        """Have the row read, for ``first`` and all that come meanwhile."""
        services = self._services
        if services.observation is not None:
            services.observation.begin_load(self.key, first.context)
        self.phase = Phase.LOADING
        mailbox.job = Job("loading", services.loop.now(), None)
        services.batched_load.submit(self)
        mailbox.serving = None

    @property
    def recurring_alarms(self) -> Collection[str]:
        """See `Loading.recurring_alarms`."""
        return self.state.object_type.recurrences

    def loaded(self, row: StoredObject | None, alarms: Sequence[AlarmRow | None]) -> None:
        """See `Loading.loaded`."""
        if self.phase is Phase.LOADING:
            if self._services.observation is not None:
                self._services.observation.end_load(self.key, None)
            self.state.load(row)
            if alarms:
                self._correct(alarms)
            self._end_load(Phase.LOADED)
        self.wake()  # also if this is repeated, because it was cut off

    def _correct(self, alarms: Sequence[AlarmRow | None]) -> None:
        """Make the recurring alarms agree with their declarations."""
        state = self.state
        changes = corrections(
            *(state.object_type.recurrences, self.key, alarms, self.wall_time()),
            starts=state.is_stored,
        )
        if changes is not None:
            state.change_alarms(changes)

    def load_failed(self, fault: StorageFault) -> None:
        """See `Loading.load_failed`."""

        def error() -> PersistenceError:
            failure = PersistenceError(self.key, "load", str(fault))
            failure.__cause__ = fault
            return failure

        if self.phase is Phase.LOADING:
            if self._services.observation is not None:
                self._services.observation.end_load(self.key, fault)
            self._fail_mailbox(error)
            self.leaving = True
            self._end_load(Phase.NEW)
        self.wake()

    def _end_load(self, phase: Phase) -> None:
        if self.mailbox is not None:
            self.mailbox.job = None
        self.phase = phase

    # --- after_load ------------------------------------------------------------------------------

    def _activate(self, mailbox: Mailbox, first: Envelope) -> None:
        """Make the first instance of this activation and let it run ``after_load``."""
        state, object_type = self.state, self.state.object_type
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
            return
        self.phase = Phase.ACTIVATING
        if object_type.after_load_is_async:
            turn = Turn(state, "after_load", False)
            self.last_used = self._services.loop.now()
            mailbox.job = Job("after_load", self.last_used, turn)
            return
        try:
            self._services.loop.interruptible(self._run_after_load_now, first.context)
        except BaseException as error:  # noqa: BLE001  # after_load may raise anything
            self._activation_failed(error)
        else:
            self._activated(was_stored)

    def _run_after_load_now(self, context: Context) -> None:
        observation = self._services.observation
        if observation is None:
            context.run(run_after_load, self.state, self.runtime)
        else:
            event = after_load_event(self.key, self.state.object_type)
            context.run(observation.run, event, run_after_load, self.state, self.runtime)

    def _cancelled(self, turn: Turn) -> BaseException:
        """The error of a turn that was cancelled: by the runtime's end, or by others."""
        if self._services.is_ending():
            return self._services.closed_error()
        return HandlerCancelled(self.key, turn.name)

    def _activated(self, was_stored: bool) -> None:
        # Even if the hook has deleted the object, or it would run for ever.
        self.phase = Phase.READY
        if self._services.notifier is not None:
            self._services.notifier.tell(Activated(self.key, was_stored))

    def _activation_failed(self, error: BaseException) -> None:
        """Fail all that wait; the next call activates the object once more."""
        self.state.roll_back()
        self.state.turn = None
        if self.phase is not Phase.NEW:
            self.phase = Phase.LOADED
        self.leaving = True
        mailbox = self.mailbox
        if not isinstance(error, Exception) and mailbox is not None:
            # Control-C, or an exit: for the first of them, which is served.
            if mailbox.serving is not None:
                mailbox.discard(mailbox.serving)
                self._reply(mailbox.serving, None, error)
            return
        problem = error_summary(error)

        def failure() -> Exception:
            if isinstance(error, RuntimeClosed):
                return self._services.closed_error()
            failed = ActivationFailed(self.key, "after_load", problem)
            failed.__cause__ = error
            return failed

        self._fail_mailbox(failure, live_only=True)
