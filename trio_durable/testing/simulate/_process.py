"""Simulated process: an event loop with the real runtime in it, from its start to its end.

The runtime's storage is a disk that outlives the process. Jobs of the storage run when the loop has
settled, so that as many operations as possible are in flight when the process crashes at a commit.

A crash ends the process between two ticks of the loop. Python can't drop running tasks, so they are
cancelled; neither the disk nor stand-ins accept anything from them as they unwind.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import anyio
import attrs

from ..._activations.calls import LocalCalls
from ..._activations.object_type import ObjectType
from ..._api.durable_object import DurableObject
from ..._api.runtime import DurableRuntime
from ..._clock import Clock
from ..._eventloop.runner import Job, Runner
from ...storage import Storage
from ._call import Call
from ._faults import Life
from ._loop import SteppedLoop
from ._operations import ObservedCalls, Record

MAX_STEP_SECONDS = timedelta(hours=1).total_seconds()
"""Limit on the virtual time that the operations of a step may take."""

_MAX_JOBS = 1000
_MAX_TIMES = 20_000


class WallClock(Clock):
    """The clock of the simulated machine, which is set by steps.

    Args:
        epoch: The wall time at the loop's time 0, in seconds since 1970 UTC.
        may_jump: See `Clock.may_jump`.
    """

    def __init__(self, epoch: float, *, may_jump: bool) -> None:
        self.epoch = epoch
        self._may_jump = may_jump
        self.loop: SteppedLoop | None = None

    @property
    def may_jump(self) -> bool:
        """See `Clock.may_jump`."""
        return self._may_jump

    def now(self) -> int:
        """See `Clock.now`."""
        assert self.loop is not None
        return round(self.epoch * 1e6) + round(self.loop.now * 1e6)


class _ObservedRuntime(DurableRuntime):
    """A runtime that records the calls of some types."""

    observed: frozenset[type[DurableObject]]
    life: Life
    record: Record

    def _serve(self, object_type: ObjectType) -> LocalCalls:
        if object_type.cls not in self.observed:
            return super()._serve(object_type)
        calls = self._open().serve(object_type, ObservedCalls)
        calls.life, calls.record = self.life, self.record
        return calls


@attrs.define
class TenantDrop:
    """The drop of a tenant, and its outcome."""

    tenant: str
    has_ended: bool = False
    error: Exception | None = None


class Process:
    """A process, from its start to its end.

    Args:
        life: Its life, which a fault can end.
        storage: Its storage on the disk.
        objects: The classes that it serves.
        observed: The classes whose calls are recorded.
        record: The record of these calls.
        now: The loop's time at the start, in seconds.
        clock: The clock of the machine.
        polling_interval: The polling interval of the runtime, in seconds.
    """

    def __init__(
        self,
        life: Life,
        storage: Storage,
        objects: Iterable[type[DurableObject]],
        observed: frozenset[type[DurableObject]],
        record: Record,
        now: float,
        clock: WallClock,
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
            # The caller can't dispose of it yet, and no other event loop can run until it is.
            self.dispose()
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

    # --- running ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """Run tasks and storage jobs until none can run at this time, or the process dies.

        Raises:
            AssertionError: The process doesn't settle.
            BaseException: The error that ended the event loop.
        """
        life, loop, jobs = self._life, self._loop, self._jobs
        for _ in range(_MAX_JOBS):
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
            f"the process hasn't settled after {_MAX_JOBS} storage jobs without time passing; look "
            "for an alarm that sets itself again, due at once"
        )

    def _lives(self) -> bool:
        return not self._life.is_over

    def run_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until ``done()``, the end of ``seconds`` or of the process.

        Returns:
            The last result of ``done()``.

        Raises:
            AssertionError: Too many timers expire for a search.
        """
        end = self.now + seconds
        self.settle()
        for _ in range(_MAX_TIMES):
            if self._life.is_over or done():
                return done()
            if self._loop.next_deadline > end:
                self._loop.advance(end)
                self.settle()
                return done()
            self._loop.advance(self._loop.next_deadline)
            self.settle()
        raise AssertionError(
            f"timers expired at {_MAX_TIMES} times within {seconds:g} s of virtual time; use "
            "shorter delays, or fewer timers"
        )

    def is_idle(self) -> bool:
        """True if no object is busy and no alarm or message is in flight."""
        statistics = self.runtime.statistics()
        return not (statistics.busy or statistics.alarms_in_flight or statistics.messages_in_flight)

    # --- calls -----------------------------------------------------------------------------------

    def start_calls(self, calls: Iterable[Call]) -> None:
        """Start ``calls``, all at the same time."""
        self._loop.call_soon(self._begin, tuple(calls))

    def _begin(self, calls: tuple[Call, ...]) -> None:
        for call in calls:
            self._tasks.start_soon(self._call, call)

    async def _call(self, call: Call) -> None:
        result: object = None
        error: Exception | None = None
        runtime = self.runtime.tenant(call.tenant) if call.tenant else self.runtime
        try:
            kwargs: dict[str, Any] = call.kwargs
            result = await runtime.call(
                call.object_type, call.object_id, call.handler, *call.args, **kwargs
            )
        except Exception as raised:  # noqa: BLE001  # a part of the history
            error = raised
        if self._life.is_heard:
            call.result, call.error, call.has_ended = result, error, True

    def start_drop(self, drop: TenantDrop) -> None:
        """Begin to drop a tenant."""
        self._loop.call_soon(lambda: self._tasks.start_soon(self._drop, drop))

    async def _drop(self, drop: TenantDrop) -> None:
        try:
            await self.runtime.drop_tenant(drop.tenant)
        except Exception as raised:  # noqa: BLE001  # a part of the history
            drop.error = raised
        drop.has_ended = True

    # --- its end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the runtime, as at the end of its ``async with`` block."""
        self._loop.call_soon(self._to_close.set)
        self.run_until(self._has_ended, MAX_STEP_SECONDS)

    def dispose(self) -> None:
        """End the event loop of a process that has died.

        Raises:
            AssertionError: A task doesn't end although it is cancelled.
        """
        self._life.is_over = True
        loop, jobs = self._loop, self._jobs
        if loop.outcome is None:
            loop.call_soon(self._scope.cancel)
        for _ in range(_MAX_TIMES):
            if loop.outcome is not None:
                return
            loop.settle()
            if jobs:
                jobs.popleft()()
            elif loop.next_deadline < math.inf:
                # Time that passes for the dead process only: the next one starts at the crash.
                loop.advance(loop.next_deadline)
            elif loop.outcome is None:
                break
        loop.abandon()
        raise AssertionError(
            "a crash cancels the tasks of the process, but one doesn't end; look for a shielded "
            "wait in a handler"
        )

    def _has_ended(self) -> bool:
        return self._loop.outcome is not None
