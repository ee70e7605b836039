"""Worker: a task of the runtime that serves mailboxes, and finishes the turns it suspends in.

The worker that has the pump serves mailboxes. An ``async def`` turn begins there as a ``def`` one
does, on the worker's stack. If it suspends, it needs that task until it ends: the worker hands the
pump over to another one, finishes the turn, serves that object's mailbox on, and rests. So a turn
that doesn't suspend costs no switch of tasks, and the stacks in use are few and recent. Prior art:
Go's scheduler, where a thread that blocks in a system call hands its processor over.

A worker runs turns of many callers and of many objects, and nothing of one may be left for the
next:

- It is a task of the runtime's, in the context variables that the runtime was entered in, within a
  cancel scope of its own. No caller's scope reaches it.
- It has a turn, and its object, only until that has ended.
- A handler may leave its task's cancellation changed: a scope left open in a generator, a
  cancellation that came from elsewhere. Then the worker is spent: it begins no other turn, and its
  task ends.
- The same after a turn that was interrupted: that cancels the worker's own scope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._eventloop.loop import CallbackWaiter, Loop, Waiter
from .._eventloop.tasks import OwnTask, OwnTasks
from .await_chain import AwaitedFrame
from .slices import Slice, SliceClock
from .turns import AsyncTurn


class Workplace(Protocol):
    """An object whose mailbox is served: an activation."""

    def serve(self, share: Slice, worker: Worker) -> None:
        """Serve the mailbox until it is empty, a job has to end first, or the slice is over.

        A turn that suspends is the worker's from then on. Must not raise.
        """
        ...

    def conclude(self, turn: AsyncTurn) -> None:
        """Hand out the outcome of a turn that was suspended. Must not raise."""
        ...

    def cut_off(self, turn: AsyncTurn, error: BaseException) -> None:
        """End a turn whose worker has ended, with ``error``. May be repeated."""
        ...

    def wake(self) -> None:
        """Have the mailbox served. May be repeated."""
        ...


class Pool(Protocol):
    """The workers of a runtime, of which one has the pump."""

    holder: Worker | None

    @property
    def has_work(self) -> bool:
        """True if there are mailboxes to serve."""
        ...

    def run_pass(self, worker: Worker) -> None:
        """Serve the mailboxes, until a turn suspends or the worker is spent."""
        ...

    def hand_over(self, worker: Worker) -> None:
        """Give the pump to another worker, if this one has it."""
        ...

    def rest(self, worker: Worker) -> bool:
        """Keep a worker that has nothing to do; return False if there are enough of them."""
        ...

    def left(self, worker: Worker) -> None:
        """Forget a worker whose task ends. May be repeated."""
        ...


class Worker:
    """One of the workers.

    Args:
        loop: The event loop.
        clock: The time of its slices.
        pool: All of them.
    """

    __slots__ = (
        "_clean",
        "_clock",
        "_loop",
        "_own",
        "_parked",
        "_place",
        "_pool",
        "_probe",
        "_resistance",
        "_serving",
        "_turn",
        "is_spent",
        "task",
        "was_cut_off",
    )

    def __init__(self, loop: Loop, clock: SliceClock, pool: Pool) -> None:
        self._loop = loop
        self._clock = clock
        self._pool = pool
        self._place: Workplace | None = None
        self._turn: AsyncTurn | None = None
        self._serving: Workplace | None = None
        """The object of a turn that it has finished, until its mailbox was served on."""
        self._parked: Waiter | None = None
        self._probe: Callable[[], object] = _nothing
        self._clean: object = None
        self._resistance: CallbackWaiter | None = None
        self._own: OwnTask | None = None
        self.is_spent: bool = False
        """It must not begin a turn: see `look`."""
        self.task: object = None
        """The event loop's task."""
        self.was_cut_off: bool = False
        """Its task has ended in the middle of a turn, whose caller got the error."""

    def start(self, tasks: OwnTasks, failed: Callable[[BaseException], object]) -> None:
        """Start the task; ``failed`` is called with its exception."""
        self._own = tasks.start(self.main, "trio_durable worker", failed)

    def cancel(self, resistance: CallbackWaiter) -> None:
        """Cancel the turn that runs. The task ends with it.

        Args:
            resistance: Discarded when the task ends.
        """
        self._resistance = resistance
        self.is_spent = True
        if self._own is not None:
            self._own.cancel()

    @property
    def is_parked(self) -> bool:
        """True if it waits for work, and wasn't woken."""
        return self._parked is not None and not self._parked.ended

    @property
    def has_turn(self) -> bool:
        """True from the beginning of an ``async def`` turn to its end."""
        return self._turn is not None

    def awaited(self) -> list[AwaitedFrame]:
        """The frames in which its turn waits."""
        return [] if self._turn is None else self._turn.awaited()

    def look(self) -> None:
        """Look at what handlers have left in the task: it is spent if its cancellation changed."""
        if self._probe() != self._clean:
            self.is_spent = True

    def take(self, place: Workplace, turn: AsyncTurn) -> None:
        """A turn begins in it. Until `drop` it is the worker's to finish."""
        self._place = place
        self._turn = turn

    def drop(self) -> None:
        """The turn has ended, and its outcome was handed out."""
        self.look()
        self._turn = self._place = None

    def wake(self) -> None:
        """Look for work. May be repeated."""
        if self._parked is not None:
            self._parked.wake()

    async def main(self) -> None:
        """The task's function."""
        pool = self._pool
        self.task = self._loop.current_task()
        self._probe = self._loop.cancel_probe(self.task)
        self._clean = self._probe()
        try:
            while True:
                if self.has_turn:
                    await self._finish()
                elif self.is_spent:
                    return
                elif pool.holder is not self:
                    if not pool.rest(self):
                        return
                    await self._park()
                elif pool.has_work:
                    pool.run_pass(self)
                    if self.has_turn:
                        continue
                    self.look()  # a ``def`` handler can leave a scope open, too
                    if pool.has_work:
                        await self._loop.checkpoint()
                else:
                    await self._park()
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:
            self._cut_off(error)
            raise
        finally:
            self._leave()

    async def _finish(self) -> None:
        """Run a suspended turn to its end, and serve its object on."""
        turn, place = self._turn, self._place
        assert turn is not None
        assert place is not None
        self._pool.hand_over(self)
        await turn
        self._serving = place
        place.conclude(turn)
        self.drop()
        if self.is_spent:
            place.wake()
        else:
            place.serve(self._clock.slice(self._clock.end_of_pass()), self)
        self._serving = None

    async def _park(self) -> None:
        self._parked = parked = self._loop.waiter()
        try:
            await parked.wait()
        finally:
            self._parked = None

    def _cut_off(self, error: BaseException) -> None:
        turn, place = self._turn, self._place
        if turn is not None and place is not None:
            place.cut_off(turn, error)
            self.was_cut_off = True
            self.drop()
        if self._serving is not None:
            self._serving.wake()
            self._serving = None

    def _leave(self) -> None:
        self._own = None  # or the two would be a cycle
        if self._resistance is not None:
            self._resistance.discard()
        self._pool.left(self)

    def failed(self, error: BaseException) -> None:
        """The task has raised ``error``. Repeats all that may have been cut off."""
        self._cut_off(error)
        self._leave()


def _nothing() -> None:
    pass
