"""Own tasks: the tasks of a runtime, which no nursery or cancel scope of its user's contains.

A nursery that a runtime opened in the task of its user would tie the two together: the runtime must
be left in the task that entered it, a scope around it cancels its objects' turns, and a fault of
its own cancels the user's code. So each task is a task of the event loop, with a cancel scope of
its own. Prior art: trio's system tasks.

No exception leaves such a task: one would end trio's run with an internal error, and would be lost
in asyncio. It is passed to a callback.
"""

from __future__ import annotations

import logging
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

import anyio

from .loop import Loop, Waiter

logger = logging.getLogger("trio_durable")


@types.coroutine
def suspended() -> Generator[None, None, None]:
    """Suspend a coroutine that `spawn` begins, until its event loop resumes it."""
    yield


def spawn(loop: Loop, main: Coroutine[Any, Any, None], name: str, context: Context) -> object:
    """Start a task, whose function is in its ``try`` before the loop has it.

    Else an exception that is raised before its first line, by a signal's handler, would leave it.

    Args:
        loop: The event loop.
        main: It must await `suspended` first, in a ``try``.
        name: The task's name, for debuggers.
        context: Its context variables.

    Returns:
        See `Loop.spawn`.
    """
    main.send(None)
    try:
        return loop.spawn(lambda: main, name, context)
    except BaseException:
        main.close()
        raise


class OwnTask:
    """A running task."""

    __slots__ = ("_failed", "_is_cancelled", "_run", "_scope", "_task", "_tasks")

    def __init__(
        self,
        tasks: OwnTasks,
        run: Callable[[], Coroutine[Any, Any, None]],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._tasks = tasks
        self._run = run
        self._failed = failed
        self._scope: anyio.CancelScope | None = None
        self._task: object = None
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """True if `cancel` was called. No other cancellation of the task is the runtime's."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Cancel it, whether it has begun or not."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def start(self, loop: Loop, name: str, context: Context) -> None:
        """Start the task."""
        self._task = spawn(loop, self._main(), name, context)

    async def _main(self) -> None:
        try:
            try:
                await suspended()
                # Shielded: when the loop ends, it cancels its tasks in no order. The owner cancels
                # them in the order of its closing.
                with anyio.CancelScope(shield=True) as scope:
                    self._scope = scope
                    if self._is_cancelled:
                        scope.cancel()
                    await self._run()
            finally:
                self._tasks.ended(self)
        except GeneratorExit:
            raise  # it was not started, or the event loop was dropped
        except BaseException as error:  # noqa: BLE001  # anything, and a cancellation by the loop
            self._tasks.ended(self)  # once more, should it have been cut off
            if not (self._is_cancelled and isinstance(error, anyio.get_cancelled_exc_class())):
                self._tasks.report(error, self._failed)


class Supervision:
    """Restarts of a task, and the limit on their number.

    Each pass of such a task can be cut off and begun once more. Prior art: Erlang's supervisors and
    their restart intensity.

    Args:
        loop: The event loop.
        failed: Called with the fault that is one too many.
    """

    MOST = 3
    SECONDS = 5.0

    def __init__(self, loop: Loop, failed: Callable[[BaseException], object]) -> None:
        self._loop = loop
        self._failed = failed
        self._times: deque[float] = deque(maxlen=self.MOST)

    def may_continue(self, error: BaseException) -> bool:
        """Note a fault. If `MOST` others came in `SECONDS` before it, report it; return False."""
        now, times = self._loop.now(), self._times
        if len(times) == self.MOST and times[0] > now - self.SECONDS:
            self._failed(error)
            return False
        times.append(now)
        logger.error("a fault of trio_durable's, after which it goes on", exc_info=error)
        return True


class OwnTasks:
    """The tasks of one runtime.

    Args:
        loop: The event loop.
        context: Context variables of the tasks; each task has a copy.
        failed: Called with what a task raises, and with a cancellation by others.
    """

    def __init__(
        self, loop: Loop, context: Context, failed: Callable[[BaseException], object]
    ) -> None:
        self._failed = failed
        self._loop = loop
        self._context = context
        self._running: set[OwnTask] = set()
        self._all_ended: Waiter | None = None
        self.is_cancelled: bool = False
        """True if `cancel` was called: whatever ends needs no replacement."""

    def start(
        self,
        run: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        failed: Callable[[BaseException], object] | None = None,
    ) -> OwnTask:
        """Start a task.

        Args:
            run: Its function.
            name: Its name, for debuggers.
            failed: Called with what it raises, in place of the common callback.
        """
        task = OwnTask(self, run, failed or self._failed)
        self._running.add(task)  # first, so that `wait` never misses one
        try:
            task.start(self._loop, name, self._context.copy())
        except BaseException:
            self.ended(task)
            raise
        return task

    def supervise(
        self,
        run: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        may_continue: Callable[[BaseException], bool],
    ) -> None:
        """Start a task whose function runs for ever; when it raises, another one is started.

        Args:
            run: The function.
            name: The task's name, for debuggers.
            may_continue: Called with what it raises. If it returns False, no other is started.
        """

        def failed(error: BaseException) -> None:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                self._failed(error)
            elif may_continue(error):
                self.start(run, name, failed)

        self.start(run, name, failed)

    def cancel(self) -> None:
        """Cancel all tasks."""
        self.is_cancelled = True
        for task in list(self._running):
            task.cancel()

    async def wait(self) -> None:
        """Return when all tasks have ended."""
        while self._running:
            self._all_ended = self._loop.waiter()
            await self._all_ended.wait()

    def report(self, error: BaseException, failed: Callable[[BaseException], object]) -> None:
        """Call ``failed`` with the exception of a task.

        An exception within that, of a signal's handler, is a fault of the whole runtime: ``failed``
        may have started the task once more, so it isn't called again.
        """
        try:
            failed(error)
        except BaseException as another:  # noqa: BLE001  # nothing leaves the task
            self._failed(another)

    def ended(self, task: OwnTask) -> None:
        """Note that a task has ended."""
        self._running.discard(task)
        if not self._running and self._all_ended is not None:
            self._all_ended.settle()


def exit_in(error: BaseException) -> BaseException | None:
    """Control-C or an exit, alone or in a group."""
    while isinstance(error, BaseExceptionGroup):
        found, _ = error.split((KeyboardInterrupt, SystemExit))
        if found is None:
            return None
        error = found.exceptions[0]
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None
