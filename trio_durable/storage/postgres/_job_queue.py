"""Queue of the jobs that are alarms: what isn't part of a commit. Used in the writer's thread.

A producer is the part of an Oban instance that fetches jobs; its id is in each job that it has
fetched. The table of producers connects it with a node, and the removal of the node's row removes
it. So a job whose producer isn't in the table was run by a process that is gone.

Notifications are statements of their own. As a part of a commit they would let all commits of the
database wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..._keys import AlarmKey
from .._records import StoredAlarm
from ._arrays import swap_nul
from ._connection import Connection
from ._jobs import (
    ABANDONED,
    MAX_ATTEMPTS,
    ONE_MORE,
    PUT_BACK,
    SUSPECT,
    UTC_NOW,
    WORKER,
    Jobs,
    claim_of,
)
from ._names import Names
from ._nodes import FENCE
from ._reconnecting import ReconnectingConnection

LEAD_MILLISECONDS = 8
"""How long before its time a job is staged by the library, which a job takes until it runs. The
process that runs it waits for the time. Retries aren't waited for, so they aren't staged early."""
_STAGED_AT_ONCE = 20_000
_RENUMBERED_AT = 32_000
"""The number of attempts after which a job gets another number, and counts from 0."""

_FIND_PRODUCER = "SELECT FROM {oban_producers} WHERE uuid = %s::uuid"
_REGISTER = f"""
WITH {FENCE}
INSERT INTO {{producers}} (producer, node_id) SELECT %s, %s FROM fence WHERE passed = 1
ON CONFLICT (producer) DO UPDATE SET node_id = excluded.node_id
"""
_UNREGISTER = "DELETE FROM {producers} WHERE producer = %s"
_STAGE = f"""
WITH k AS MATERIALIZED (
    SELECT id FROM {{jobs}}
    WHERE state = ANY ('{{{{scheduled,retryable}}}}') AND queue = {{queue}} AND worker = '{WORKER}'
        AND scheduled_at <= {UTC_NOW} + interval '{LEAD_MILLISECONDS} milliseconds'
        AND (state = 'scheduled' OR scheduled_at <= {UTC_NOW}) AND attempt < max_attempts
    ORDER BY scheduled_at, id LIMIT {_STAGED_AT_ONCE} FOR UPDATE SKIP LOCKED
)
UPDATE {{jobs}} AS j SET state = 'available' FROM k WHERE j.id = k.id
"""
_WITHOUT_WAITING = b"SELECT set_config('synchronous_commit', 'off', true)"
_NOTIFY = "SELECT pg_notify({inserted}, json_build_object('queue', {queue})::text)"
_CLAIM = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT a.id FROM fence CROSS JOIN {{every}} AS a
    WHERE passed = 1 AND a.type_name = %s AND a.object_id = %s AND a.name = %s AND a.tenant = %s
        AND a.available_at IS NOT NULL
    FOR UPDATE OF a
)
UPDATE {{jobs}} AS j SET state = 'executing', attempt = j.attempt + 1,
    max_attempts = GREATEST(j.max_attempts, j.attempt + 1), attempted_at = {UTC_NOW},
    attempted_by = ARRAY[%s, %s]
FROM k WHERE j.id = k.id RETURNING j.id, j.attempt, j.args, j.meta
"""
_TAKE_OVER = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT j.id FROM fence CROSS JOIN {{jobs}} AS j
    WHERE passed = 1 AND j.worker = '{WORKER}' AND j.state = 'executing' AND (
        j.attempted_at < {UTC_NOW} - make_interval(secs => %s)
        OR {ABANDONED})
    FOR UPDATE OF j SKIP LOCKED
)
UPDATE {{jobs}} AS j SET max_attempts = {ONE_MORE}, meta = j.meta || {SUSPECT},
    state = {PUT_BACK}
FROM k WHERE j.id = k.id
"""
# A dead letter of Oban's making: it has used up what Oban counts as attempts. A recurring alarm
# goes on, for which its next firing is needed, so it is delivered once more.
_KEEP = f"""
WITH {FENCE}
UPDATE {{jobs}} AS j SET discarded_at = NULL,
    state = CASE WHEN args->>'recurrence' IS NULL OR args->>'recurrence' = 'firing'
        THEN 'discarded' ELSE 'available' END::{{job_state}},
    max_attempts = {ONE_MORE},
    meta = j.meta || jsonb_build_object('last_error',
        coalesce(
            j.meta->>'last_error', left(j.errors->-1->>'error', 1000), 'Oban discarded the job'))
FROM fence
WHERE passed = 1 AND worker = '{WORKER}' AND state = 'discarded' AND discarded_at IS NOT NULL
"""
_EXTEND = f"""
WITH {FENCE}
UPDATE {{jobs}} AS j SET max_attempts = {ONE_MORE} FROM fence
WHERE passed = 1 AND worker = '{WORKER}' AND state IN ('available', 'scheduled', 'retryable')
    AND attempt >= max_attempts AND max_attempts < {MAX_ATTEMPTS}
"""
_RENUMBER = f"""
WITH {FENCE}
UPDATE {{jobs}} AS j SET id = DEFAULT, attempt = 0 FROM fence
WHERE passed = 1 AND worker = '{WORKER}' AND state IN ('available', 'scheduled', 'retryable')
    AND attempt >= {_RENUMBERED_AT}
"""
_PRUNE = f"""
DELETE FROM {{jobs}} AS j USING (
    SELECT id FROM {{jobs}} WHERE worker = '{WORKER}'
        AND (state = 'completed' AND completed_at < {UTC_NOW} - make_interval(secs => %s)
            OR state = 'cancelled' AND cancelled_at < {UTC_NOW} - make_interval(secs => %s))
        AND NOT EXISTS (SELECT FROM {{leaders}} WHERE expires_at > {UTC_NOW})
    LIMIT {_STAGED_AT_ONCE}
) AS k WHERE j.id = k.id
"""


@attrs.frozen
class ClaimedJob:
    """One run of a job."""

    alarm: StoredAlarm
    claim: int


class JobQueue:
    """The queue of one database, as one writer uses it.

    Args:
        reconnecting: The writer's connection.
        home: The schema of the nameless tenant.
        jobs: The place of the jobs.
    """

    def __init__(self, reconnecting: ReconnectingConnection, home: str, jobs: Jobs) -> None:
        self._reconnecting = reconnecting
        self.jobs = jobs
        names = Names(home, "", jobs)
        every = jobs.as_alarms(None)
        self._find_producer = names.query(_FIND_PRODUCER)
        self._register = names.query(_REGISTER)
        self._unregister = names.query(_UNREGISTER)
        self._stage = names.query(_STAGE)
        self._notify = names.statement(_NOTIFY).encode()
        self._claim = names.query(_CLAIM, every=every)
        self._take_over = names.query(_TAKE_OVER)
        self._tidying = [names.query(query) for query in (_KEEP, _EXTEND, _RENUMBER)]
        self._prune = names.query(_PRUNE)

    def has_producer(self, producer: str) -> bool:
        """True if an instance of Oban with this producer uses the same tables.

        Raises:
            StorageFault: They can't be read.
        """
        return self._reconnecting.run(
            lambda each: each.execute(self._find_producer, (producer,)).fetchone() is not None
        )

    def register(self, producer: str) -> None:
        """Connect a producer with the writer's node.

        Raises:
            StorageFault: It isn't, as far as is known.
        """

        def work(connection: Connection) -> None:
            node_id, _ = connection.fenced()
            connection.execute(self._register, connection.fenced(producer, node_id))

        self._reconnecting.run(work)

    def unregister(self, producer: str) -> None:
        """Take the jobs of a producer for those of a process that is gone.

        Raises:
            StorageFault: They aren't, as far as is known.
        """
        self._reconnecting.run(lambda each: each.execute(self._unregister, (producer,)))

    def stage(self) -> None:
        """Let the queue run the jobs that are due, or almost, and notify all processes.

        In one round trip, which doesn't wait for the disk: a crash of the server that forgets it
        leaves the jobs to the next who stages them.

        Raises:
            StorageFault: It failed; the stager of any of Oban's instances does the same.
        """

        def work(connection: Connection) -> None:
            def send() -> None:
                connection.execute(_WITHOUT_WAITING)
                connection.execute(self._stage)
                connection.execute(self._notify)

            connection.pipelined(send)

        self._reconnecting.run(work)

    def claim(self, alarm: AlarmKey, node: str, producer: str) -> ClaimedJob | None:
        """Begin a run of an alarm's job, whatever its time and state; None if there is none.

        A run that another process has begun loses its claim.

        Args:
            alarm: The alarm.
            node: The name of this process for Oban.
            producer: The producer that has the run.

        Raises:
            StorageFault: It failed, though the run may have begun all the same.
        """

        def work(connection: Connection) -> ClaimedJob | None:
            parameters = connection.fenced(*alarm, node, producer)
            row = connection.execute(self._claim, parameters).fetchone()
            return None if row is None else claimed_job(*row)

        return self._reconnecting.run(work)

    def take_over(self, claim_ttl: float) -> int:
        """Put back the jobs of processes that are gone, and the ones that nothing renews.

        Args:
            claim_ttl: The seconds for which a run of a job is left alone, unless it is renewed.

        Returns:
            The number of these jobs.

        Raises:
            StorageFault: It failed.
        """
        return self._reconnecting.run(
            lambda connection: (
                connection.execute(self._take_over, connection.fenced(claim_ttl)).rowcount
            )
        )

    def tidy(self, keep_seconds: float) -> None:
        """Keep what Oban would remove or not run, and prune what has ended if no leader does.

        Args:
            keep_seconds: The time for which ended jobs are kept.

        Raises:
            StorageFault: It failed.
        """

        def work(connection: Connection) -> None:
            for query in self._tidying:
                connection.execute(query, connection.fenced())
            connection.execute(self._prune, (keep_seconds, keep_seconds))

        self._reconnecting.run(work)


def claimed_job(
    job_id: int, attempt: int, args: Mapping[str, Any], meta: Mapping[str, Any]
) -> ClaimedJob:
    """A run of a job, from its columns.

    Raises:
        KeyError: It isn't an alarm.
    """
    payload = args.get("payload")
    alarm = StoredAlarm(
        AlarmKey(args["type"], args["id"], args["name"], args["tenant"]),
        args["due_at"],
        None if payload is None else swap_nul(payload.encode()),
        meta.get("failures", 0),
        meta.get("last_error"),
        meta.get("crashes"),
        args.get("recurrence"),
    )
    return ClaimedJob(alarm, claim_of(job_id, attempt))
