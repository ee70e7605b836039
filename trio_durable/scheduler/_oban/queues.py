"""Queues of alarms that runtimes of this process serve, by the ids of their producers.

A worker of Oban knows nothing but its job. The job has the id of the producer that has fetched it,
and by that the runtime is found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol


class ObanJob(Protocol):
    """A run of a job: the part of ``oban.Job`` that the worker reads."""

    @property
    def id(self) -> int | None:
        """The number of the job."""
        ...

    @property
    def attempt(self) -> int:
        """The number of the run."""
        ...

    @property
    def args(self) -> Mapping[str, object]:
        """The arguments of the worker."""
        ...

    @property
    def meta(self) -> Mapping[str, object]:
        """The rest of the data that is stored with it."""
        ...

    @property
    def attempted_by(self) -> Sequence[str]:
        """The names of the node and of the producer."""
        ...

    def cancelled(self) -> bool:
        """True if the job was cancelled since this run has begun."""
        ...


served: dict[str, Callable[[ObanJob], Awaitable[object]]] = {}
"""The function that runs a job, by producer."""


async def run_job(job: ObanJob) -> object:
    """Run a job in the runtime that has its queue; return the result for Oban.

    Raises:
        RuntimeError: There is none in this process.
        Exception: What the alarm's handler raised.
    """
    run = served.get(job.attempted_by[-1]) if job.attempted_by else None
    if run is None:
        raise RuntimeError(
            "no DurableRuntime of this process serves the queue of this alarm; let no instance of "
            "Oban but that of a DurableRuntime(scheduler=ObanScheduler(…)) run the queue"
        )
    return await run(job)
