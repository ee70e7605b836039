"""One life of the process that the objects live in: an event loop with the runtime in it.

The real runtime, on a disk that is left when the process has died. Storage work is done when
nothing else goes on in the loop, so that as much as possible is on its way when the process
crashes at a commit.

A crash ends the process between two ticks of the loop. What was its tasks is cancelled then, as
Python has no other way to be rid of them; but all they do on their way out meets a disk and a world
that no longer listen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import anyio

from ..._activations.calls import LocalCalls
from ..._activations.object_type import ObjectType
from ..._api.durable_object import DurableObject
from ..._api.runtime import DurableRuntime
from ..._clock import Clock
from ..._eventloop.runner import Job, Runner
from ...storage import Storage
from ._faults import Life
from ._loop import SteppedLoop
from ._operations import ObservedCalls, Record
from ._source import source_of

LONGEST = timedelta(hours=1).total_seconds()
"""How long what a step has begun may be under way."""

_MOST_JOBS = 1000
_MOST_MOMENTS = 20_000


class Call:
    """A call of a handler, as it is made in a step; and what came of it.

    Args:
        object_type: The class.
        object_id: The object's id.
        handler: The handler's name.
        *args: What it is called with.
        **kwargs: What it is called with.
    """

    def __init__(
        self,
        object_type: type[DurableObject],
        object_id: str,
        handler: str,
        /,
        *args: object,
        **kwargs: object,
    ) -> None:
        self.object_type = object_type
        self.object_id = object_id
        self.handler = handler
        self.args = args
        self.kwargs = kwargs
        self.has_ended = False
        """Whether its caller has heard of it. If not, the process died before."""
        self.result: Any = None
        self.error: Exception | None = None
        """What it raised instead."""

    def __repr__(self) -> str:
        return f"Call({', '.join(self.told())})"

    def told(self) -> list[str]:
        """What it is made of, as code."""
        named = [f"{name}={source_of(value)}" for name, value in self.kwargs.items()]
        addressed = [self.object_type.__name__, repr(self.object_id), repr(self.handler)]
        return [*addressed, *map(source_of, self.args), *named]


class _WallClock(Clock):
    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.loop: SteppedLoop | None = None

    @property
    def may_jump(self) -> bool:
        return False

    def now(self) -> int:
        assert self.loop is not None
        return self._epoch + round(self.loop.now * 1e6)


class _ObservedRuntime(DurableRuntime):
    """A runtime that notes the calls of some types."""

    observed: frozenset[type[DurableObject]]
    life: Life
    record: Record

    def _serve(self, object_type: ObjectType) -> LocalCalls:
        if object_type.cls not in self.observed:
            return super()._serve(object_type)
        calls = self._open().serve(object_type, ObservedCalls)
        calls.life, calls.record = self.life, self.record
        return calls


class Process:
    """A process, from its start to its end.

    Args:
        life: Whether it lives.
        storage: The disk as it sees it.
        objects: The classes that it serves.
        observed: Those whose calls are noted.
        record: Where they are noted.
        now: The loop's time when it starts, in seconds.
        epoch: The wall time when the loop's was 0, in microseconds since 1970 UTC.
        polling_interval: The runtime's, in seconds.
    """

    def __init__(
        self,
        life: Life,
        storage: Storage,
        objects: Iterable[type[DurableObject]],
        observed: frozenset[type[DurableObject]],
        record: Record,
        now: float,
        epoch: int,
        polling_interval: float,
    ) -> None:
        self._life = life
        self._jobs: deque[Job] = deque()
        jobs = self._jobs

        class BetweenTicks(Runner):
            def post(self, job: Job) -> None:
                jobs.append(job)

            def stop(self) -> None:
                pass

        clock = _WallClock(epoch)
        self.runtime = runtime = _ObservedRuntime(
            storage,
            objects=objects,
            runner=BetweenTicks,
            clock=clock,
            polling_interval=polling_interval,
        )
        runtime.observed, runtime.life, runtime.record = observed, life, record
        self._loop = clock.loop = SteppedLoop(self._main, now)
        try:
            self.settle()
        except BaseException:
            # Nobody else has it yet, and while one event loop runs no other one can.
            self.bury()
            raise

    async def _main(self) -> None:
        with anyio.CancelScope() as self._scope:
            async with self.runtime, anyio.create_task_group() as self._tasks:
                self._to_close = anyio.Event()
                await self._to_close.wait()

    @property
    def now(self) -> float:
        """The loop's time, in seconds."""
        return self._loop.now

    # --- letting it go on ------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything happen that needs no time; or until the process dies.

        Raises:
            AssertionError: It never comes to an end.
            BaseException: Something brought the event loop down.
        """
        life, loop, jobs = self._life, self._loop, self._jobs
        for _ in range(_MOST_JOBS):
            loop.settle(self._lives)
            if life.is_over:
                return
            if loop.outcome is not None:
                loop.outcome.unwrap()
                return
            if not jobs:
                return
            jobs.popleft()()
        raise AssertionError(
            f"the storage worked {_MOST_JOBS} times without time passing, and would go on; look "
            "for an alarm that sets itself again for now"
        )

    def _lives(self) -> bool:
        return not self._life.is_over

    def run_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until something is so, but not more than ``seconds``; whether it is.

        Raises:
            AssertionError: So much happens meanwhile that it would take for ever.
        """
        end = self.now + seconds
        self.settle()
        for _ in range(_MOST_MOMENTS):
            if self._life.is_over or done():
                return done()
            if self._loop.next_deadline > end:
                self._loop.advance(end)
                self.settle()
                return done()
            self._loop.advance(self._loop.next_deadline)
            self.settle()
        raise AssertionError(
            f"something happened at {_MOST_MOMENTS} moments of {seconds:g} s of virtual time, and "
            "would go on; let less time pass, or let less happen"
        )

    def is_quiet(self) -> bool:
        """Whether nothing is under way."""
        statistics = self.runtime.statistics()
        return not statistics.busy and not statistics.alarms_in_flight

    # --- what happens in it ----------------------------------------------------------------------

    def make(self, calls: Iterable[Call]) -> None:
        """Begin ``calls``, all at the same moment."""
        self._loop.call_soon(self._begin, tuple(calls))

    def _begin(self, calls: tuple[Call, ...]) -> None:
        for call in calls:
            self._tasks.start_soon(self._call, call)

    async def _call(self, call: Call) -> None:
        result: object = None
        error: Exception | None = None
        try:
            result = await self.runtime.call(
                call.object_type, call.object_id, call.handler, *call.args, **call.kwargs
            )
        except Exception as raised:  # noqa: BLE001  # a part of the history
            error = raised
        if not self._life.is_over:
            call.result, call.error, call.has_ended = result, error, True

    # --- its end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the runtime come to its end as it does when a program leaves it."""
        self._loop.call_soon(self._to_close.set)
        self.run_until(self._has_ended, LONGEST)

    def bury(self) -> None:
        """Be rid of what the process leaves in this one, after it has died.

        Raises:
            AssertionError: One of its tasks doesn't end although it is cancelled.
        """
        self._life.is_over = True
        loop, jobs = self._loop, self._jobs
        if loop.outcome is None:
            loop.call_soon(self._scope.cancel)
        for _ in range(_MOST_MOMENTS):
            if loop.outcome is not None:
                return
            loop.settle()
            if jobs:
                jobs.popleft()()
            elif loop.next_deadline < math.inf:
                # The time of the dead: the next process knows nothing of it.
                loop.advance(loop.next_deadline)
            elif loop.outcome is None:
                break
        loop.abandon()
        raise AssertionError(
            "a crash cancels the tasks of the process, and one never ends; look for a shielded "
            "wait in a handler"
        )

    def _has_ended(self) -> bool:
        return self._loop.outcome is not None
