"""Host: the task that opens a runtime, keeps it, and closes it.

A runtime's parts belong to this task and not to its user's, so that it can be entered in one task
and left in another, as fixtures of tests and lifespans of web frameworks do; and so that a scope
around the user's code, a crash of it or a runtime that is never left doesn't break the order in
which things close. Prior art: trio's system tasks, and service actors that own a resource.

Invariants:

- Nothing leaves the task but into `error`.
- It ends once: told to by `stop`, or cancelled by the event loop, which means "stop now".
- `started` and `ended` are settled on every path.
- Each step of closing is run, whatever another one raises, and a second time if it raises itself: a
  signal's handler may have cut it off. That is why this isn't an `AsyncExitStack`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeAlias

import anyio
import attrs

from .._eventloop.loop import Loop, Waiter
from .._eventloop.tasks import spawn, suspended

Undo: TypeAlias = "Callable[[], Awaitable[object] | None]"


@attrs.define(eq=False)
class _Step:
    """A step of closing."""

    run: Undo
    is_tried: bool = False


class Host:
    """The task of one runtime.

    Args:
        loop: The event loop.
        live: Opens, calls `opened`, awaits `stopped`, and closes.
        close_timeout: How long closing takes at most, besides the grace period, in seconds.
    """

    def __init__(
        self,
        loop: Loop,
        live: Callable[[Host], Coroutine[Any, Any, None]],
        close_timeout: float,
    ) -> None:
        self._loop = loop
        self._live = live
        self._close_timeout = close_timeout
        self._closes_until = math.inf
        self._handle: object = None
        self._cancellation: Callable[[], object] | None = None
        self._clean: object = None
        self._started = loop.waiter()
        self._stop = loop.waiter()
        self._enders: list[Waiter] = []
        self._steps: list[_Step] = []
        self._grace: anyio.CancelScope | None = None
        self._opening: anyio.CancelScope | None = None
        self.has_forked = False
        """This is its copy in a forked process, which has none of its threads."""
        self.has_ended: bool = False
        self.is_hurried: bool = False
        """It is to close without a grace period."""
        self.error: BaseException | None = None
        """The error with which it has ended."""

    # --- for the users' tasks --------------------------------------------------------------------

    async def start(self, context: Context) -> None:
        """Start it, and return when it has opened the runtime.

        Raises:
            BaseException: The runtime can't be opened; or the caller was cancelled, and all that
                was open by then is closed.
        """
        self._handle = spawn(self._loop, self._main(), "trio_durable host", context)
        try:
            await self._started.wait()
        except BaseException:
            self.stop(now=True)
            await self.wait()
            raise

    def stop(self, *, now: bool) -> None:
        """Have it close. May be repeated, with more hurry.

        Args:
            now: Without a grace period for turns that run.
        """
        if now:
            self.is_hurried = True
            if self._grace is not None:
                self._grace.cancel()
            if self._opening is not None:
                self._opening.deadline = self._loop.now() + self._close_timeout
        self._stop.settle()

    async def wait(self) -> None:
        """Return when it has ended, however often the caller is cancelled meanwhile.

        A cancellation means that it stops now. It is raised at the end.
        """
        cancelled: BaseException | None = None
        while not self.has_ended:
            ended = self._loop.waiter()
            self._enders.append(ended)
            try:
                if cancelled is None:
                    await ended.wait()
                else:
                    with anyio.CancelScope(shield=True):
                        await ended.wait()
            except anyio.get_cancelled_exc_class() as error:
                cancelled = error
                self.stop(now=True)
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled

    @property
    def is_cancelled(self) -> bool:
        """True if the event loop ends, and has cancelled it."""
        return self._cancellation is not None and self._cancellation() != self._clean

    # --- for its own task ------------------------------------------------------------------------

    def opened(self) -> None:
        """The runtime is open."""
        self._started.settle()

    async def stopped(self) -> None:
        """Return when it is to close."""
        await self._stop.wait()

    async def grace(self, seconds: float, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Await ``wait`` for so long, unless it is to close now."""
        if not self.is_hurried:
            with anyio.move_on_after(seconds) as self._grace:
                await wait()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """A step of opening. If it is to close meanwhile, the step may take ``close_timeout``."""
        until = self._loop.now() + self._close_timeout if self.is_hurried else math.inf
        with anyio.CancelScope(shield=True, deadline=until) as self._opening:
            yield
        self._opening = None

    def push(self, undo: Undo) -> None:
        """Add a step of closing. The steps run in the opposite order; each can be repeated."""
        self._steps.append(_Step(undo))

    def closing(self) -> anyio.CancelScope:
        """A step of closing: until the end of ``close_timeout``, and nothing else ends it.

        The timeout begins with the first step.
        """
        if self._closes_until == math.inf:
            self._closes_until = self._loop.now() + self._close_timeout
        until = -math.inf if self.has_forked else self._closes_until
        return anyio.CancelScope(shield=True, deadline=until)

    async def _main(self) -> None:
        try:
            try:
                await suspended()
                self._cancellation = self._loop.cancel_probe(self._loop.current_task())
                self._clean = self._cancellation()
                try:
                    await self._live(self)
                finally:
                    await self._undo()
            except BaseException as error:  # noqa: BLE001  # its users raise it
                self._failed(error)
            await self._undo()  # what is left, should that have been cut off
            self._end()
        except BaseException as error:  # noqa: BLE001
            self._failed(error)
            self._end()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):  # the loop was dropped, so nothing can be awaited
            self._steps.clear()
        if self.error is None:
            self.error = error

    async def _undo(self) -> None:
        """Run all steps of closing, the latest first."""
        steps = self._steps
        while steps:
            step = steps[-1]
            if step.is_tried:
                steps.pop()
            step.is_tried = True
            try:
                undoing = step.run()
                if undoing is not None:
                    await undoing
            except BaseException as error:  # noqa: BLE001  # the other steps are run all the same
                self._failed(error)
            else:
                if steps and steps[-1] is step:
                    steps.pop()

    def _end(self) -> None:
        self.has_ended = True
        self._started.fail(self.error or RuntimeError("the runtime didn't open"))
        for ended in self._enders:
            ended.settle()
