"""Where storage work and its answers are on their way, for as long as the seed says.

A runtime gives its storage work to a runner, and what comes of it returns through the loop. Both
take a while here, for the writer and the reader apart, so that a commit is applied long before its
process knows, and what was read first may arrive last. Each side stays in order, as a thread does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, TypeVarTuple

import anyio

from trio_durable import Runner
from trio_durable._eventloop.asyncio import AsyncioLoop
from trio_durable._eventloop.loop import Loop
from trio_durable._eventloop.runner import Job
from trio_durable._eventloop.trio import TrioLoop

if TYPE_CHECKING:
    from .world import Process

Ts = TypeVarTuple("Ts")


class Network:
    """Does things at their time, one after the other."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._changed = anyio.Event()
        self.is_slow = True
        self.at_work: Side | None = None
        """The side whose job runs right now."""

    def delay(self) -> float:
        """How long something is on its way."""
        rng = self._rng
        if not self.is_slow:
            return 0.0
        kind = rng.random()
        if kind < 0.5:
            return 0.0
        if kind < 0.9:
            return rng.uniform(0, 0.01)
        return rng.uniform(0, 0.1) if kind < 0.99 else rng.uniform(0.5, 2)

    def post(self, at: float, act: Callable[[], object]) -> None:
        """Do something at a time."""
        heapq.heappush(self._heap, (at, next(self._numbers), act))
        self._changed.set()

    async def run(self) -> None:
        """Do what is to be done, for ever."""
        while True:
            self._changed = anyio.Event()
            if self._heap and self._heap[0][0] <= anyio.current_time():
                heapq.heappop(self._heap)[2]()
                await anyio.lowlevel.checkpoint()
                continue
            deadline = self._heap[0][0] if self._heap else float("inf")
            with anyio.CancelScope(deadline=deadline):
                await self._changed.wait()


class Side:
    """The writer or the reader of a process."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._work_at = self._answer_at = 0.0

    def post_work(self, job: Job) -> None:
        self._work_at = max(self._work_at, self._arrival())
        self._network.post(self._work_at, lambda: self._do(job))

    def _do(self, job: Job) -> None:
        self._network.at_work = self
        try:
            job()
        finally:
            self._network.at_work = None

    def post_answer(self, answer: Callable[[], object]) -> None:
        self._answer_at = max(self._answer_at, self._arrival())
        self._network.post(self._answer_at, answer)

    def _arrival(self) -> float:
        process, now = self._process, anyio.current_time()
        if process.is_dead:
            return now
        arrival = now + self._network.delay()
        return max(arrival, process.storage_held_until) if self._network.is_slow else arrival


class SimulatedLoop(Loop):
    """The loop as a process sees it: what comes from its storage takes a while.

    Mixed into the loop of a backend.
    """

    def __init__(self, network: Network, process: Process) -> None:
        super().__init__()
        self.network = network
        self.process = process

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        side = self.network.at_work
        if side is None:
            super().call_soon_threadsafe(callback, *args)  # type: ignore[safe-super]  # the backend's
        else:
            side.post_answer(lambda: callback(*args))


class SimulatedTrioLoop(SimulatedLoop, TrioLoop):
    """See `SimulatedLoop`."""


class SimulatedAsyncioLoop(SimulatedLoop, AsyncioLoop):
    """See `SimulatedLoop`."""


class SimulatedRunner(Runner):
    """Does storage work by way of the network."""

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__(loop, name)
        assert isinstance(loop, SimulatedLoop)
        self._side = Side(loop.network, loop.process)

    def post(self, job: Job) -> None:
        self._side.post_work(job)

    def stop(self) -> None:
        pass
