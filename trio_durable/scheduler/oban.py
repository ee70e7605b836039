"""Alarms as jobs of Oban: the scheduler for applications that run Oban's package for Python.

::

    scheduler = ObanScheduler("durable_alarms")
    async with DurableRuntime("postgresql://…", scheduler=scheduler) as runtime:
        ...

Each alarm is a job of the worker `DurableAlarm`, in Oban's own tables of the same database. The job
is enqueued in the transaction of the object's commit, and completed in the one of its handler's.
Needs asyncio, Python 3.12 and ``pip install 'trio-durable[oban]'``.
"""

from __future__ import annotations

from ._oban.queues import ObanJob, run_job
from ._oban.settings import ObanInstance, ObanQueueInfo, ObanScheduler

__all__ = ["DurableAlarm", "ObanInstance", "ObanJob", "ObanQueueInfo", "ObanScheduler"]


class DurableAlarm:
    """The worker of the jobs that are alarms. Oban makes one for each run of a job.

    Its path is in each job. Jobs are made by the library alone.
    """

    async def process(self, job: ObanJob) -> object:
        """Deliver the alarm, and return when that is durable.

        Returns:
            None, or ``oban.Cancel`` if the job was cancelled meanwhile.

        Raises:
            RuntimeError: No runtime of this process has the queue.
            Exception: What the alarm's handler raised. The retry is stored by then.
        """
        return await run_job(job)
