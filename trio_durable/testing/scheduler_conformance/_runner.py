"""A runner whose jobs take virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from ..._eventloop.loop import Loop
from ..._eventloop.runner import Job, Runner


class SlowRunner(Runner):
    """Runs jobs in the event loop, one after the other.

    Args:
        loop: The event loop.
        start: Starts a task.
        latency: The seconds that the next job takes.
    """

    def __init__(
        self,
        loop: Loop,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
        latency: Callable[[], float],
    ) -> None:
        super().__init__(loop, "test")
        self._start = start
        self._latency = latency
        self._jobs: deque[Job] = deque()
        self._runs = False

    def post(self, job: Job) -> None:
        """See `Runner.post`."""
        self._jobs.append(job)
        if not self._runs:
            self._runs = True
            self._start(self._run_jobs)

    async def _run_jobs(self) -> None:
        while self._jobs:
            await anyio.sleep(self._latency())
            self._jobs.popleft()()
        self._runs = False

    def stop(self) -> None:
        """See `Runner.stop`."""
