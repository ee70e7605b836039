"""Making of the scheduler from its settings and the parts of a runtime."""

from __future__ import annotations

from ..._alarms.retry import Retry
from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.runner import Runner
from ..._keys import AlarmKey
from ..._persistence.group_commit import GroupCommit
from ..._telemetry.notifier import Notifier
from ...storage import Reader
from ...storage.postgres import MAX_ATTEMPTS, Jobs, PostgresStorage
from .._contract import Destination
from .instance import AlarmQueue, QueueOfInstance, QueueOfOwn, node_of
from .requirements import require_oban
from .scheduler import JobScheduler
from .settings import ObanScheduler


def prepare_storage(
    settings: ObanScheduler, storage: PostgresStorage, loop: Loop, destination: Destination
) -> None:
    """Let a storage keep alarms as jobs, before it opens.

    Raises:
        WrongEventLoop: The event loop isn't asyncio's.
        StorageUnavailable: Oban can't run in this process.
    """
    require_oban(loop, storage.location)
    if settings.instance is not None:
        node_of(settings.instance, storage.location)

    def attempts(key: AlarmKey) -> int:
        # In the writer's thread. The type of an alarm that is set here is known by then.
        return attempts_of(destination.retry_of(key))

    storage.keep_alarms_as_jobs(Jobs(settings.prefix, settings.queue, attempts))


def make_scheduler(
    settings: ObanScheduler,
    storage: PostgresStorage,
    node: str,
    loop: Loop,
    clock: Clock,
    group_commit: GroupCommit,
    runner: Runner,
    reader: Reader,
    destination: Destination,
    *,
    polling_interval: float,
    claim_ttl: float,
    notifier: Notifier | None = None,
) -> JobScheduler:
    """Make the scheduler of a runtime whose storage is open.

    Args:
        settings: The settings.
        storage: The storage, see `prepare_storage`.
        node: The name of the process among those that run the queue.
        loop: See `JobScheduler`, as for the other arguments.
        clock: The time.
        group_commit: The way to the storage.
        runner: The reader's.
        reader: The reader.
        destination: Handles alarms.
        polling_interval: In seconds.
        claim_ttl: In seconds.
        notifier: The receiver of telemetry, if there are instruments.
    """
    jobs = storage.job_queue
    assert jobs is not None, "the storage is open, and its alarms aren't jobs"
    queue: AlarmQueue
    if settings.instance is None:
        queue = QueueOfOwn(settings, storage.connection_string, node)
    else:
        node = node_of(settings.instance, storage.location)
        queue = QueueOfInstance(settings, settings.instance, node, storage.location)
    return JobScheduler(
        loop,
        clock,
        group_commit,
        runner,
        reader,
        destination,
        jobs,
        queue,
        storage.location,
        polling_interval=polling_interval,
        claim_ttl=claim_ttl,
        notifier=notifier,
    )


def attempts_of(retry: Retry) -> int:
    """The number of attempts, failed ones and crashed ones, that a policy allows."""
    if retry.attempts is None or retry.crashes is None:
        return MAX_ATTEMPTS
    return min(retry.attempts + retry.crashes, MAX_ATTEMPTS)
