"""Dispatcher of an instance of Oban that runs nothing but alarms.

Oban acknowledges each run of a job with a statement of its own. The end of an alarm's run is stored
already, in the commit of its effect, so that statement finds the job in another state and changes
nothing; for a backlog of alarms these statements take half of the time. The dispatcher is the part
of Oban that an instance may be given, and this one leaves out the acknowledgements of runs that
ended well. If the end of one weren't stored, its claim would run out.

The names that it uses of the producer and of a job are private to Oban; a test says when these are
gone.
"""

from __future__ import annotations

import asyncio
from typing import Any


class AlarmDispatcher:
    """See ``oban._producer.Dispatcher``."""

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def dispatch(self, producer: Any, job: Any) -> asyncio.Task[None]:
        """Run a job."""
        return asyncio.create_task(self._execute(producer, job))

    def cancel(self, _producer: Any, job: Any) -> None:
        """Let a run know that its job was cancelled."""
        if job._cancellation is not None:
            job._cancellation.set()

    async def _execute(self, producer: Any, job: Any) -> None:
        await producer._execute(job)
        # The last one is of this job, since nothing ran between.
        if producer._pending_acks[-1].state == "completed":
            producer._pending_acks.pop()
