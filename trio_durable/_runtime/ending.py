"""Ending: the transition of a runtime to its end, and the errors of callers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from .._activations.directory import Directory
from .._activations.pump import Pump
from .._activations.services import Services
from .._errors import RuntimeClosed
from .._eventloop import current
from .._eventloop.current import Dispatcher
from .._eventloop.loop import Loop
from .._eventloop.tasks import Supervision, exit_in
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .._text import error_summary
from .._watching.hub import Hub
from ..scheduler import Scheduler
from ..storage import Storage
from .host import Host

if TYPE_CHECKING:
    from .._cluster.routed_hub import RoutedHub
    from .control import Control
    from .messaging import Messaging
    from .sharing import Sharing
    from .sides import Sides

logger = logging.getLogger("trio_durable")


class Ending:
    """The end of an `OpenRuntime`, which has the parts."""

    loop: Loop
    host: Host
    storage: Storage
    services: Services
    scheduler: Scheduler
    directories: list[Directory]
    group_commit: GroupCommit
    batched_load: BatchedLoad
    hub: Hub | RoutedHub
    pump: Pump
    sharing: Sharing | None
    control: Control | None
    messaging: Messaging | None
    _runtime: Dispatcher
    sides: Sides
    _supervision: Supervision
    _closed: anyio.Event

    # --- by a failure ----------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """End the runtime because of a fault of its own. The first one counts."""
        services = self.services
        if services.failure is None:
            services.failure = error
        if services.closed:
            return
        self._mark_closed()
        try:
            logger.critical(
                "the runtime on %s has failed, and is closed: %s",
                *(self.storage.location, error_summary(error)),
                exc_info=error,
            )
            self.scheduler.stop()
            self._abandon_calls()
            self._abandon_commits()
        finally:
            self.host.stop(now=True)

    def recover(self, error: BaseException) -> bool:
        """Go on after a fault of the library's own, or an exception of a signal's handler.

        Everything that was cut off is woken again. Faults in quick succession end the runtime.

        Returns:
            Whether the runtime goes on.
        """
        if self.services.closed:
            return False
        if (ending := exit_in(error)) is not None:
            self.services.exit(ending)
            return False
        if not self._supervision.may_continue(error):
            return False
        self.group_commit.wake()
        self.batched_load.wake()
        self.pump.wake()
        return True

    def _task_failed(self, error: BaseException) -> None:
        """A task of the runtime has raised, or was cancelled by others."""
        if not isinstance(error, anyio.get_cancelled_exc_class()):
            self.fail(error)
        elif self._is_ending():
            self.host.stop(now=True)
        else:
            self.fail(RuntimeClosed("a task of the runtime was cancelled from outside"))

    def _is_ending(self) -> bool:
        return self.services.closed or self.host.is_cancelled

    async def leave(self, error: BaseException | None) -> None:
        """Close, and return when that is done.

        Args:
            error: The exception that the body was left by.

        Raises:
            RuntimeClosed: The runtime has failed, and the body raised nothing.
            StorageUnavailable: The storage hasn't ended within ``close_timeout``, likewise.
        """
        cancelled = anyio.get_cancelled_exc_class()
        self.host.stop(now=isinstance(error, cancelled) or self.host.has_forked)
        if self.host.has_forked:
            return
        try:
            await self.host.wait()
        except cancelled:
            if error is None:
                raise
        finally:
            current.unregister(self.loop.token, self._runtime)
        problem = self.host.error
        if self.services.failure is not None:
            problem = self.services.closed_error()
        if isinstance(problem, cancelled):  # the event loop ends
            problem = None
        if problem is None:
            return
        if error is None:
            try:
                raise problem
            finally:
                del problem
        if isinstance(error, cancelled):
            logger.error("%s: %s", self.storage.location, problem)

    async def closed(self) -> None:
        """Return when the runtime is closed, by leaving it or because it has failed."""
        await self._closed.wait()

    def forked(self) -> None:
        """The process is a forked one: the runtime is closed here, and nothing waits for it."""
        self.host.has_forked = True
        if self.control is not None:
            self.control.forked()
        if self.sharing is not None:
            self.sharing.forked()
        self.services.closing = self.services.closed = True
        self.services.failure = RuntimeClosed(
            "the process was forked; a runtime belongs to the process that has opened it"
        )

    # --- for all that waits ----------------------------------------------------------------------

    def _mark_closed(self) -> None:
        self.services.closing = self.services.closed = True
        self._closed.set()

    def _abandon_calls(self) -> None:
        if self.services.tenure is not None:
            self.services.tenure.close(self.services.closed_error)
        for directory in self.directories:
            directory.abandon()
        if self.messaging is not None:
            self.messaging.once_runs.abandon()

    def _abandon_commits(self) -> None:
        closed_error = self.services.closed_error
        states = [
            activation.state
            for directory in self.directories
            for activation in directory.activations()
        ]
        self.group_commit.abandon(states, closed_error)
        self.hub.end(None if self.services.failure is None else closed_error)
        for runner in self.sides.runners:
            runner.abandon(closed_error)
