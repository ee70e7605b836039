"""Queue of alarms on an instance of Oban: one of the runtime's own, or the application's.

A leader prunes and rescues all jobs of the tables, so an instance of the runtime's own doesn't
lead. The queue starts paused: no job is fetched before the storage knows the producer, or the fetch
of a process that dies in between would look like one of a dead process to others.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from ..._errors import StorageUnavailable
from .dispatcher import AlarmDispatcher
from .settings import ObanInstance, ObanQueueInfo, ObanScheduler

STAGER_SECONDS = 0.1
"""The interval at which an instance of the runtime's own looks for jobs that are due."""
_CONNECTIONS = 4
RELEASES = "oban >= 0.7, < 0.8"


def cancelled_result() -> object:
    """The result of a worker whose job was cancelled while it ran. Oban ends the job by it."""
    return import_module("oban").Cancel("cancelled while it ran")


class AlarmQueue(Protocol):
    """The queue of alarms in this process."""

    async def open(self) -> ObanQueueInfo:
        """Start the queue, which fetches nothing yet."""
        ...

    async def resume(self) -> None:
        """Let it fetch jobs."""
        ...

    async def pause(self) -> None:
        """Fetch no more jobs."""
        ...

    async def cancel(self, job_id: int) -> None:
        """Cancel a job. One that runs is notified."""
        ...

    async def close(self) -> None:
        """Stop the queue. Jobs that still run are cancelled."""
        ...


def node_of(instance: ObanInstance, location: str) -> str:
    """The name of an instance's node, by which a queue is started there and nowhere else.

    Raises:
        StorageUnavailable: It isn't an instance of Oban 0.7, or isn't started.
    """
    # Oban has no public attribute for either. A test says when these are gone.
    node: object = getattr(instance, "_node", None)
    if not isinstance(node, str):
        raise StorageUnavailable(
            location, f"{instance!r:.80} is no oban.Oban of a release that is known; see {RELEASES}"
        )
    if not getattr(instance, "_signal_token", None):
        raise StorageUnavailable(
            location, "the instance of Oban isn't started; open the runtime inside of `async with`"
        )
    return node


class QueueOfInstance(AlarmQueue):
    """The queue on an instance that is started.

    Args:
        settings: The queue.
        instance: The instance.
        node: The name of its node.
        location: The storage, for errors.
    """

    def __init__(
        self, settings: ObanScheduler, instance: ObanInstance, node: str, location: str
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._node = node
        self._location = location

    async def open(self) -> ObanQueueInfo:
        queue, limit = self._settings.queue, self._settings.limit
        if self._instance.check_queue(queue) is not None:
            raise StorageUnavailable(
                self._location,
                f"the instance of Oban runs the queue {queue!r} already; leave it out of its "
                "`queues`, since a runtime starts it when it is ready",
            )
        await self._instance.start_queue(queue=queue, limit=limit, paused=True, node=self._node)
        info = self._instance.check_queue(queue)
        if info is None:
            raise StorageUnavailable(self._location, f"Oban didn't start the queue {queue!r}")
        return info

    async def resume(self) -> None:
        await self._instance.resume_queue(self._settings.queue, node=self._node)

    async def pause(self) -> None:
        await self._instance.pause_queue(self._settings.queue, node=self._node)

    async def cancel(self, job_id: int) -> None:
        await self._instance.cancel_job(job_id)

    async def close(self) -> None:
        await self._instance.stop_queue(self._settings.queue, node=self._node)


class QueueOfOwn(AlarmQueue):
    """The queue on an instance that lives as long as the queue.

    Args:
        settings: The queue.
        conninfo: The connection string of the storage. Oban's notifier takes nothing else.
        node: The name of the instance's node.
    """

    def __init__(self, settings: ObanScheduler, conninfo: str, node: str) -> None:
        self._settings = settings
        self._conninfo = conninfo
        self._node = node
        # Imported by name: the package is an extra, which the Python of a type checker may lack.
        self._pool: Any = None
        self._oban: Any = None

    async def open(self) -> ObanQueueInfo:
        make_pool = import_module("psycopg_pool").AsyncConnectionPool
        make_oban = import_module("oban").Oban
        queue = self._settings.queue
        self._pool = make_pool(self._conninfo, min_size=1, max_size=_CONNECTIONS, open=False)
        try:
            await self._pool.open()
            self._oban = make_oban(
                pool=self._pool,
                name="trio_durable",  # Oban keeps the latest instance of each name for ever
                node=self._node,
                prefix=self._settings.prefix,
                leadership=False,
                queues={queue: {"limit": self._settings.limit, "paused": True}},
                stager={"interval": STAGER_SECONDS},
                dispatcher=AlarmDispatcher(),
                shutdown_grace_period=0.0,
            )
            await self._oban.start()
            info: ObanQueueInfo | None = self._oban.check_queue(queue)
        except BaseException:
            await self.close()
            raise
        assert info is not None
        return info

    async def resume(self) -> None:
        await self._oban.resume_queue(self._settings.queue, node=self._node)

    async def pause(self) -> None:
        await self._oban.pause_queue(self._settings.queue, node=self._node)

    async def cancel(self, job_id: int) -> None:
        await self._oban.cancel_job(job_id)

    async def close(self) -> None:
        oban, self._oban = self._oban, None
        pool, self._pool = self._pool, None
        try:
            if oban is not None:
                await oban.stop()
        finally:
            if pool is not None:
                await pool.close()
