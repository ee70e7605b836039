"""Scheduler whose alarms are jobs of Oban.

The job is the alarm: commits write jobs in the place of rows, see `storage.postgres._jobs`. A run
of a job is a claim. Oban fetches jobs and runs its workers; each hands its alarm to the deliverer
here, and returns when the outcome is durable.

Beside the deliverer there are these tasks: one maintains claims, one delivers suspects, one checks
the times of recurring alarms at the start, one stages jobs at the times that this process has set,
one sweeps. The sweep is for jobs that nothing else ends: jobs of processes that are gone, jobs that
were fetched and never run, and dead letters of Oban's making.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from ..._clock import Clock
from ..._errors import StorageUnavailable
from ..._eventloop.loop import Loop
from ..._eventloop.runner import Runner
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.group_commit import GroupCommit
from ..._telemetry.notifier import Notifier
from ...storage import STOPPED, AlarmChanges, Postponement, Reader, StorageFault, StoredAlarm
from ...storage.postgres import LEAD_MILLISECONDS, ClaimedJob, JobQueue, claimed_job
from .._contract import Destination, Scheduler, SchedulerStatistics
from .._delivery.claims import RETRY_SECONDS, Claims
from .._delivery.from_outside import FromOutside
from .._delivery.in_flight import InFlight, InFlightDeliveries
from .._delivery.start_check import StartCheck
from .deliverer import Claimed, JobDeliverer
from .instance import AlarmQueue, cancelled_result
from .queues import ObanJob, served
from .settings import ObanQueueInfo
from .staging import EarlyStaging

logger = logging.getLogger("trio_durable.alarms")

_LEAD_MICROSECONDS = LEAD_MILLISECONDS * 1000
SWEEP_SECONDS = 5.0
"""The interval at which jobs of processes that are gone are put back."""
TIDY_SECONDS = 60.0
KEEP_SECONDS = 86_400.0
"""How long ended jobs are kept, as by Oban."""


class JobScheduler(FromOutside):
    """A `Scheduler` over a queue of Oban.

    Args:
        loop: The event loop, which is asyncio's.
        clock: The time.
        group_commit: The way to the storage. The scheduler must be one of its listeners.
        runner: The reader's.
        reader: The side of the storage that reads alarms.
        destination: Handles alarms.
        jobs: The queue in the storage. Used in the writer's thread.
        queue: The queue on an instance of Oban.
        location: The storage, for errors.
        polling_interval: Seconds between looks for what nothing else finds.
        claim_ttl: How many seconds a run of a job is left alone, unless it is renewed.
        notifier: The receiver of telemetry, if there are instruments.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        runner: Runner,
        reader: Reader,
        destination: Destination,
        jobs: JobQueue,
        queue: AlarmQueue,
        location: str,
        *,
        polling_interval: float,
        claim_ttl: float,
        notifier: Notifier | None = None,
    ) -> None:
        super().__init__(runner, reader, destination)
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._jobs = jobs
        self._queue = queue
        self._location = location
        self._polling_interval = polling_interval
        self._claim_ttl = claim_ttl
        self._in_flight = InFlightDeliveries()
        self._staging = EarlyStaging(loop, clock, self._stage)
        self._claims = Claims(
            loop,
            clock,
            group_commit,
            self._in_flight,
            round(claim_ttl * 1e6),
            lambda _flight: None,  # the bound on deliveries is Oban's
            self._postponed,
        )
        self._deliverer = JobDeliverer(
            loop,
            clock,
            self._in_flight,
            self._claims,
            destination,
            notifier,
            self._claim,
            polling_interval,
        )
        self._start_check = StartCheck(loop, clock, runner, reader, destination, polling_interval)
        self._info: ObanQueueInfo | None = None
        self._registered: set[str] = set()
        self._is_open = anyio.Event()
        self._is_stopped = False
        self._to_register = AutoResetEvent(loop)
        self._to_pause = AutoResetEvent(loop)

    # --- from outside ----------------------------------------------------------------------------

    async def fire(self, key: AlarmKey) -> bool:
        """See `Scheduler.fire`."""
        return await self._deliverer.fire(key)

    async def revive(self, key: AlarmKey) -> bool:
        """See `Scheduler.revive`."""
        now = self._clock.now()
        is_revived = await self._group_commit.perform(lambda writer: writer.revive(key, now))
        if is_revived:
            self._staging.expect(now)
        return is_revived

    def statistics(self) -> SchedulerStatistics:
        """See `Scheduler.statistics`."""
        return SchedulerStatistics(
            waiting=len(self._staging),
            in_flight=len(self._in_flight),
            delivered=self._deliverer.delivered,
            failed=self._deliverer.failed,
        )

    # --- changes of alarms -----------------------------------------------------------------------

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Scheduler.committed`."""
        self._in_flight.committed(key, changes)
        self._expect(changes)

    def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Scheduler.unsure`."""
        self._in_flight.unsure(key, changes)
        self._expect(changes)

    def _expect(self, changes: AlarmChanges) -> None:
        """Stage the alarms that are set just before their times. A mark is never staged."""
        for new in changes.changed.values():
            if new is not None and new.recurrence != STOPPED:
                self._staging.expect(new.due_at - _LEAD_MICROSECONDS)

    def uncertain(self) -> None:
        """See `Scheduler.uncertain`. Jobs that are unknown here are found by Oban's stager."""
        self._staging.expect(self._clock.now())

    def acquired(self) -> None:
        """See `Scheduler.acquired`. The runtime may be another node since."""
        self._to_register.set()
        self._start_check.request()

    def dropped(self, tenant: str) -> None:
        """See `Scheduler.dropped`."""
        self._in_flight.dropped(tenant)

    def _postponed(self, flight: InFlight, record: Postponement) -> None:
        if self._destination.obstacle(flight.key.type_name) is not None:
            return  # else this process would fetch it first again, and not one that serves its type
        time = record.available_at
        if record.dead_firing is not None:
            time = record.dead_firing.next.due_at
        if time is not None:
            self._staging.expect(time)

    # --- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """See `Scheduler.run`."""
        info = await self._opened()
        served[info.uuid] = self._run_job
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._claims.maintain)
                tasks.start_soon(self._deliverer.suspects.run)
                tasks.start_soon(self._start_check.run)
                tasks.start_soon(self._staging.run)
                tasks.start_soon(self._pause_when_stopped)
                tasks.start_soon(self._sweep)
                await self._register(info)
        finally:
            del served[info.uuid]
            with anyio.CancelScope(shield=True):
                await self.close()

    def stop(self) -> None:
        """See `Scheduler.stop`."""
        self._is_stopped = True
        self._deliverer.stop()
        self._to_pause.set()

    async def give_back(self) -> None:
        """See `Scheduler.give_back`."""
        await self._claims.give_back()
        for producer in self._registered:
            await self._group_commit.perform(
                lambda _writer, producer=producer: self._jobs.unregister(  # type: ignore[misc]
                    producer
                )
            )
        await self._stage()

    async def open(self) -> ObanQueueInfo:
        """Start the queue, which fetches nothing until the scheduler runs.

        Raises:
            StorageUnavailable: The instance of Oban can't be used.
            StorageFault: The storage can't be read.
        """
        info = await self._queue.open()
        is_here = await self._group_commit.perform(
            lambda _writer: self._jobs.has_producer(info.uuid)
        )
        if not is_here:
            await self._queue.close()
            raise StorageUnavailable(
                self._location,
                "the instance of Oban is on another database, or another prefix; start one with a "
                "pool on this database, and give its prefix to ObanScheduler",
            )
        self._info = info
        self._is_open.set()
        return info

    async def close(self) -> None:
        """Stop the queue, if it was started. Jobs that still run are cut off."""
        if self._info is not None:
            self._info = None
            await self._queue.close()

    async def _opened(self) -> ObanQueueInfo:
        while True:
            try:
                return self._info or await self.open()
            except Exception as error:  # noqa: BLE001  # logged, and retried
                logger.warning("could not start the queue of alarms: %s", error)
                await anyio.sleep(RETRY_SECONDS)

    async def _register(self, info: ObanQueueInfo) -> None:
        """Let the storage know the producer, first of all and whenever the node is another one."""
        is_resumed = False
        self._registered.add(info.uuid)
        while True:
            try:
                await self._group_commit.perform(lambda _writer: self._jobs.register(info.uuid))
                if not is_resumed and not self._is_stopped:
                    await self._queue.resume()
                    is_resumed = True
            except Exception as error:  # noqa: BLE001  # logged, and retried
                logger.warning("could not register the queue of alarms: %s", error)
                await anyio.sleep(RETRY_SECONDS)
            else:
                await self._to_register.wait()

    async def _pause_when_stopped(self) -> None:
        await self._to_pause.wait()
        # Shielded, since a statement that is cut off costs Oban its connection.
        with anyio.CancelScope(shield=True):
            try:
                await self._queue.pause()
            except Exception as error:  # noqa: BLE001  # what it fetches meanwhile is given back
                logger.debug("could not pause the queue of alarms: %s", error)

    async def _run_job(self, job: ObanJob) -> object:
        assert job.id is not None, "a job that isn't stored"
        claimed = claimed_job(job.id, job.attempt, job.args, job.meta)
        try:
            await self._deliverer.run(claimed.alarm, claimed.claim, job.cancelled)
        except Exception:
            if not job.cancelled():
                raise
            await self._cancel_retry(job.id)
        return cancelled_result() if job.cancelled() else None

    async def _cancel_retry(self, job_id: int) -> None:
        """Cancel the retry that another process has stored, which doesn't know of the end."""
        try:
            await self._queue.cancel(job_id)
        except Exception as error:  # noqa: BLE001  # logged; the job may be cancelled once more
            logger.warning("could not cancel the retry of job %d: %s", job_id, error)

    async def deliver(self, stored: StoredAlarm, claim: int) -> None:
        """Deliver an alarm whose job runs in another process of the cluster.

        Raises:
            Exception: What its handler raised. The retry, or the end, is stored.
        """
        await self._deliverer.run_here(stored, claim)

    def deliver_elsewhere(self, deliver: Callable[[StoredAlarm, int], Awaitable[None]]) -> None:
        """Let alarms of objects in other processes be delivered there, by ``deliver``."""
        self._deliverer.elsewhere = deliver

    async def _claim(self, key: AlarmKey) -> Claimed | None:
        await self._is_open.wait()  # a moment, while the scheduler begins
        info = self._info
        if info is None:
            raise StorageFault("the queue of alarms is stopped; nothing was claimed")
        found: ClaimedJob | None = await self._group_commit.perform(
            lambda _writer: self._jobs.claim(key, info.node, info.uuid)
        )
        return None if found is None else (found.alarm, found.claim)

    async def _stage(self) -> None:
        await self._group_commit.perform(lambda _writer: self._jobs.stage())

    async def _sweep(self) -> None:
        tidy_at = self._loop.now()
        while True:
            try:
                await self._group_commit.perform(
                    lambda _writer: self._jobs.take_over(self._claim_ttl)
                )
                if self._loop.now() >= tidy_at:
                    await self._group_commit.perform(lambda _writer: self._jobs.tidy(KEEP_SECONDS))
                    tidy_at = self._loop.now() + TIDY_SECONDS
            except Exception as error:  # noqa: BLE001  # logged, and retried
                logger.warning("could not sweep the jobs of alarms: %s", error)
            await anyio.sleep(min(SWEEP_SECONDS, self._polling_interval / 2))


if TYPE_CHECKING:

    def _is_a_scheduler(scheduler: JobScheduler) -> Scheduler:
        return scheduler
