"""Alarms of one tenant that are jobs of Oban: the statements that change them.

Reads, checks and locks are those of `AlarmTable`, over jobs that are read as its rows, see `_jobs`.
A change that replaces an alarm removes its live job and inserts another one, so a run of the old
job finds that its claim is gone. An acknowledged job stays as a completed one, until it is pruned.

A statement that an alarm makes due doesn't notify Oban's queues. Notifications take a lock on the
database as a transaction commits, so they are statements of their own, see `_job_queue`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..._clock import LATEST
from ..._keys import AlarmKey
from .._records import NewAlarm, StoredAlarm
from ._alarm_reads import COLUMNS
from ._alarms import (
    CLAIMS,
    HELD,
    IN_ORDER,
    IS_K,
    K_IS_FRESH,
    KEYS,
    OBJECTS,
    POSTPONED,
    AlarmTable,
    claims_of,
    keys_of,
    new_columns,
)
from ._arrays import BigintArray
from ._connection import Connection
from ._jobs import (
    CONFLICT,
    MAX_ATTEMPTS,
    OF_TENANT,
    ONE_MORE,
    PUT_BACK,
    SUSPECT,
    UTC_NOW,
    WORKER,
    Jobs,
    at,
)
from ._names import Names
from ._nodes import FENCE
from ._objects import REQUIRE_ALL
from ._shard_function import ShardSet

_ACKNOWLEDGE_ALL = f"""
WITH k AS MATERIALIZED (SELECT * FROM {CLAIMS} AS k (t, i, m, c) WHERE {K_IS_FRESH}),
held AS MATERIALIZED (
    SELECT a.id FROM k JOIN {{alarms}} AS a ON {IS_K} AND a.claim = k.c
    {IN_ORDER}
), done AS (
    UPDATE {{jobs}} AS j SET state = 'completed', completed_at = {UTC_NOW}
    FROM held AS h WHERE j.id = h.id RETURNING 1
) {REQUIRE_ALL}
"""
_CANCEL = f"""
WITH k AS MATERIALIZED (
    SELECT a.id FROM {KEYS} AS k (t, i, m) JOIN {{alarms}} AS a ON {IS_K}
    WHERE {K_IS_FRESH}
    {IN_ORDER}
)
DELETE FROM {{jobs}} AS j USING k WHERE j.id = k.id
"""
_CLEAR = f"""
WITH k AS MATERIALIZED (
    SELECT a.id FROM {OBJECTS} AS k (t, i)
    JOIN {{alarms}} AS a ON a.type_name = k.t AND a.object_id = k.i
    WHERE {K_IS_FRESH}
    {IN_ORDER}
)
DELETE FROM {{jobs}} AS j USING k WHERE j.id = k.id
"""
NEW_JOBS = (
    "unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], "
    "%s::text[], %s::bigint[])"
)
NEW_STATE = f"""
CASE WHEN k.v IS NULL THEN 'suspended' WHEN {at("k.v")} <= {UTC_NOW} THEN 'available'
    ELSE 'scheduled' END::{{job_state}}
"""
"""The state of a job that was never tried; ``k.v`` is when its alarm is available."""
NEW_ARGS = """
jsonb_strip_nulls(jsonb_build_object('tenant', '{tenant}', 'type', k.t, 'id', k.i, 'name', k.m,
    'due_at', k.d, 'payload', k.p, 'recurrence', k.r))
"""
REPLACED = """
DO UPDATE SET state = excluded.state, queue = excluded.queue, args = excluded.args,
    scheduled_at = excluded.scheduled_at, meta = excluded.meta, errors = excluded.errors,
    max_attempts = LEAST(j.attempt::int + excluded.max_attempts, {most})
""".replace("{most}", str(MAX_ATTEMPTS))
"""How an insertion replaces a job that another process has inserted in this very moment."""
INSERT_JOBS = f"""
INSERT INTO {{jobs}} AS j (state, queue, worker, max_attempts, args, scheduled_at)
SELECT {NEW_STATE}, {{queue}}, '{WORKER}', k.x, {NEW_ARGS}, coalesce({at("k.v")}, {at("k.d")})
FROM {NEW_JOBS} AS k (t, i, m, d, v, p, r, x)
"""
_SET = f"""
{INSERT_JOBS}
WHERE {K_IS_FRESH}
ORDER BY t COLLATE "C", i COLLATE "C", m COLLATE "C"
ON CONFLICT {CONFLICT} {REPLACED}
"""
_UTC_TEXT = f'to_char({UTC_NOW}, \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'
_META = "j.meta - ARRAY['failures', 'last_error', 'crashes', 'marked', 'claim']"
# Oban keeps all errors; an alarm may be tried for ever.
_ERRORS = f"""
CASE WHEN k.f > k.before
    THEN jsonb_path_query_array(j.errors, '$[last - 18 to last]') || jsonb_build_object(
        'attempt', j.attempt, 'at', {_UTC_TEXT}, 'error', k.l)
    ELSE j.errors END
"""
_POSTPONE = f"""
{
    HELD.format(
        columns="a.id AS j, a.failures AS before, k.v, k.f, k.l, k.d",
        claims=POSTPONED,
        names="c, v, f, l, d",
        skip="",
    )
}
UPDATE {{jobs}} AS j SET
    state = CASE WHEN k.v IS NULL THEN 'discarded' WHEN {at("k.v")} <= {UTC_NOW} THEN 'available'
        WHEN k.f > 0 THEN 'retryable' ELSE 'scheduled' END::{{job_state}},
    scheduled_at = coalesce({at("k.v")}, j.scheduled_at), discarded_at = NULL,
    max_attempts = LEAST(
        GREATEST(j.max_attempts + (k.f = k.before)::int, j.attempt + (k.v IS NOT NULL)::int),
        {MAX_ATTEMPTS}),
    errors = {_ERRORS},
    meta = {_META} || jsonb_strip_nulls(
        jsonb_build_object('failures', nullif(k.f, 0), 'last_error', k.l, 'crashes', k.d))
FROM k WHERE j.id = k.j
"""
# For the library itself, as when it restores alarms: not for a queue.
_CLAIM = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT a.* FROM fence CROSS JOIN {KEYS} AS k (t, i, m)
    JOIN {{alarms}} AS a ON {IS_K} AND passed = 1
    WHERE a.available_at <= %s AND (a.claim IS NULL OR %s)
    {IN_ORDER} SKIP LOCKED
)
UPDATE {{jobs}} AS j SET state = 'executing', attempt = j.attempt + 1,
    max_attempts = GREATEST(j.max_attempts, j.attempt + 1), attempted_at = {UTC_NOW},
    attempted_by = ARRAY['trio_durable'], meta = j.meta || jsonb_build_object(
        'claim', jsonb_build_object('attempt', j.attempt + 1, 'claim', %s::bigint))
FROM k WHERE j.id = k.id RETURNING {COLUMNS.replace("a.", "k.")}
"""
# A delivery that takes long isn't taken for one of a dead process, neither here nor by Oban.
_RENEW = f"""
{HELD.format(columns="a.id AS j", claims=CLAIMS, names="c", skip=" SKIP LOCKED")}
UPDATE {{jobs}} AS j SET attempted_at = {UTC_NOW} FROM k WHERE j.id = k.j
"""
_ONE = f"""
WITH {FENCE.replace("{nodes}", "{{nodes}}")}, k AS MATERIALIZED (
    SELECT a.id FROM fence CROSS JOIN {{{{alarms}}}} AS a
    WHERE passed = 1 AND type_name = %s AND object_id = %s AND name = %s AND {{condition}}
    FOR UPDATE OF a
)
"""
_DIED = "available_at IS NULL AND recurrence IS DISTINCT FROM 'stopped'"
_REVIVE = f"""
{_ONE.format(condition=_DIED)}
UPDATE {{jobs}} AS j SET state = 'available', scheduled_at = {at("%s::bigint")},
    discarded_at = NULL, max_attempts = LEAST(j.attempt + %s::int, {MAX_ATTEMPTS}),
    meta = j.meta - 'failures' || CASE WHEN j.meta ? 'crashes'
        THEN '{{{{"crashes": 0}}}}'::jsonb ELSE '{{{{}}}}'::jsonb END
FROM k WHERE j.id = k.id
"""
_MARK = f"""
{_ONE.format(condition="claim = %s")}
UPDATE {{jobs}} AS j SET meta = j.meta || jsonb_build_object('marked', j.attempt)
FROM k WHERE j.id = k.id
"""
_ACQUIT = f"""
{_ONE.format(condition="claim = %s")}
UPDATE {{jobs}} AS j SET meta = j.meta - ARRAY['crashes', 'marked'] FROM k WHERE j.id = k.id
"""
_RELEASE = f"""
WITH {FENCE}, k AS MATERIALIZED (
    SELECT a.id FROM fence CROSS JOIN {{alarms}} AS a
    WHERE passed = 1 AND a.state = 'executing' {IN_ORDER} SKIP LOCKED
)
UPDATE {{jobs}} AS j SET max_attempts = {ONE_MORE},
    state = {PUT_BACK},
    meta = CASE WHEN %s THEN j.meta || {SUSPECT} ELSE j.meta END
FROM k WHERE j.id = k.id
    AND NOT EXISTS (SELECT FROM {{producers}} AS p WHERE p.producer::text = j.attempted_by[2])
"""
_RENAME = f"""
UPDATE {{jobs}} SET args = jsonb_set(args, '{{{{type}}}}', to_jsonb(%s::text))
WHERE {OF_TENANT} AND (args->>'type') COLLATE "C" = %s
"""
_DROP = f"DELETE FROM {{jobs}} WHERE {OF_TENANT}"


class JobAlarmTable(AlarmTable):
    """The alarms of one tenant. Methods raise psycopg's errors.

    Args:
        names: The names of the tenant's tables.
        jobs: The place of the alarms.
    """

    def __init__(self, names: Names, jobs: Jobs) -> None:
        super().__init__(names)
        self._jobs = jobs
        self._acknowledge_all = names.query(_ACKNOWLEDGE_ALL)
        self._cancel = names.query(_CANCEL)
        self._clear = names.query(_CLEAR)
        self._set = names.query(_SET)
        self._postpone = names.query(_POSTPONE)
        self._claim = names.query(_CLAIM)
        self._renew = names.query(_RENEW)
        self._revive = names.query(_REVIVE)
        self._mark = names.query(_MARK)
        self._acquit = names.query(_ACQUIT)
        self._release_dead = names.query(_RELEASE)
        self.rename = names.query(_RENAME)
        """The statement that renames a type in all jobs, with the new and the old name."""
        self.drop = names.query(_DROP)
        """The statement that removes all jobs of the tenant."""

    def set(self, connection: Connection, alarms: Sequence[tuple[AlarmKey, NewAlarm]]) -> None:
        """Set alarms. Each replaces an earlier one of its name."""
        self.cancel(connection, [key for key, _ in alarms])
        connection.execute(self._set, new_jobs(alarms, self._jobs))

    def claim(
        self,
        connection: Connection,
        alarms: Sequence[AlarmKey],
        claim: int,
        now: int,
        until: int,
    ) -> list[StoredAlarm]:
        """See `Writer.claim`. No claim expires; one that is held is taken for any time alone."""
        parameters = (*keys_of(alarms), now, now > LATEST, claim)
        rows = connection.execute(self._claim, connection.fenced(*parameters), binary=True)
        return self._stored(rows)

    def renew(
        self, connection: Connection, claims: Sequence[tuple[AlarmKey, int]], until: int
    ) -> None:
        """See `Writer.renew`. A claim lasts from the time of the server on, not ``until``."""
        connection.execute(self._renew, connection.fenced(*claims_of(claims)))

    def revive(self, connection: Connection, alarm: AlarmKey, now: int) -> bool:
        """See `Writer.revive`."""
        attempts = self._jobs.attempts(alarm)
        parameters = connection.fenced(*alarm[:3], now, now, attempts)
        return connection.execute(self._revive, parameters).rowcount > 0

    def release(
        self, connection: Connection, shards: ShardSet | None, *, are_crashes: bool
    ) -> None:
        """End the claims of all processes that are gone, in whatever shards.

        A job may run in any process, so the owner of the shards didn't have these claims.

        Args:
            connection: For the statement.
            shards: Not heeded.
            are_crashes: See `AlarmTable.release`.
        """
        connection.execute(self._release_dead, connection.fenced(are_crashes))


def new_jobs(alarms: Sequence[tuple[AlarmKey, NewAlarm]], jobs: Jobs) -> tuple[object, ...]:
    """The parameters of `INSERT_JOBS`."""
    attempts = BigintArray([jobs.attempts(key) for key, _ in alarms])
    return (
        *keys_of([key for key, _ in alarms]),
        *new_columns([new for _, new in alarms]),
        attempts,
    )
