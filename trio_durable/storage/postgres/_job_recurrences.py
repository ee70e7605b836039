"""Recurring alarms of one tenant that are jobs of Oban."""

from __future__ import annotations

from collections.abc import Sequence

from ..._keys import AlarmKey
from .._records import DeadFiring, NewAlarm, Postponement
from ._alarms import HELD, IN_ORDER, IS_K, K_IS_FRESH
from ._arrays import BigintArray
from ._connection import Connection
from ._job_alarms import INSERT_JOBS, NEW_ARGS, REPLACED, new_jobs
from ._jobs import CONFLICT, MAX_ATTEMPTS, UTC_NOW, WORKER, Jobs, at
from ._names import Names
from ._recurrences import FIRINGS, MAY_REPLACE, Recurrences, dead_columns

_REMOVE = f"""
WITH k AS MATERIALIZED (
    SELECT a.id FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[],
        %s::bigint[]) AS k (t, i, m, d, r, o)
    JOIN {{alarms}} AS a ON {IS_K}
    WHERE {K_IS_FRESH} AND {MAY_REPLACE}
    {IN_ORDER}
)
DELETE FROM {{jobs}} AS j USING k WHERE j.id = k.id
"""
# What may be replaced is gone by now.
_ADD = f"""
{INSERT_JOBS}
WHERE {K_IS_FRESH}
ORDER BY t COLLATE "C", i COLLATE "C", m COLLATE "C"
ON CONFLICT {CONFLICT} DO NOTHING
"""
_LETTER_ARGS = NEW_ARGS.replace("k.m", "k.n").replace("k.r", "k.x")
_BURY = f"""
{
    HELD.format(
        columns="a.id AS j, a.due_at AS d, a.payload AS p, "
        "k.f, k.l, k.y, k.n, k.x, k.nd, k.nv, k.np, k.nr",
        claims=FIRINGS,
        names="c, f, l, y, n, x, nd, nv, np, nr",
        skip="",
    )
}, buried AS (
    INSERT INTO {{jobs}} AS j (state, queue, worker, max_attempts, args, scheduled_at, meta)
    SELECT 'discarded', {{queue}}, '{WORKER}', {MAX_ATTEMPTS}, {_LETTER_ARGS}, {at("k.d")},
        jsonb_strip_nulls(jsonb_build_object(
            'failures', nullif(k.f, 0), 'last_error', k.l, 'crashes', k.y))
    FROM k
    ON CONFLICT {CONFLICT} {REPLACED}, discarded_at = NULL
)
UPDATE {{jobs}} AS j SET
    state = CASE WHEN {at("k.nv")} <= {
    UTC_NOW
} THEN 'available' ELSE 'scheduled' END::{{job_state}},
    scheduled_at = {at("k.nv")}, meta = '{{{{}}}}', errors = '[]',
    max_attempts = LEAST(j.max_attempts::int + j.attempt, {MAX_ATTEMPTS}),
    args = {NEW_ARGS.replace("k.d", "k.nd").replace("k.p", "k.np").replace("k.r", "k.nr")}
FROM k WHERE j.id = k.j
"""


class JobRecurrences(Recurrences):
    """The recurring alarms of one tenant. Methods raise psycopg's errors.

    Args:
        names: The names of the tenant's tables.
        jobs: The place of the alarms.
    """

    def __init__(self, names: Names, jobs: Jobs) -> None:
        super().__init__(names)
        self._jobs = jobs
        self._remove = names.query(_REMOVE)
        self._add = names.query(_ADD)
        self._bury = names.query(_BURY)

    def set_onto(
        self, connection: Connection, alarms: Sequence[tuple[AlarmKey, NewAlarm]], now: int
    ) -> None:
        """Set alarms, as far as they may replace what is there. See `Onto`."""
        columns = new_jobs(alarms, self._jobs)
        types, ids, names, due_at, _, _, recurrences, _ = columns
        onto = BigintArray([new.onto.value for _, new in alarms])
        removed = (types, ids, names, due_at, recurrences, onto, now)
        connection.execute(self._remove, removed)
        connection.execute(self._add, columns)

    def bury(self, connection: Connection, dead: Sequence[tuple[Postponement, DeadFiring]]) -> None:
        """Store dead letters and the alarms' next firings, as far as the claims are held."""
        connection.execute(self._bury, connection.fenced(*dead_columns(dead)))
