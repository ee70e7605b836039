"""Move of all alarms between their own tables and jobs of Oban, in one transaction."""

from __future__ import annotations

from ._connection import Connection
from ._job_alarms import NEW_ARGS
from ._job_place import JobPlace
from ._jobs import MAX_ATTEMPTS, UTC_NOW, WORKER, Jobs, at
from ._migrations import Schema
from ._names import Names

_TENANTS = 100
# Nothing is being handled, since no runtime is open: a claim is one of a process that is gone.
_TO_JOBS = f"""
WITH k AS (
    DELETE FROM {{table}} RETURNING type_name AS t, object_id AS i, name AS m, due_at AS d,
        CASE WHEN claim IS NULL THEN available_at ELSE due_at END AS v, payload AS p,
        recurrence AS r, failures, last_error, crashes
)
INSERT INTO {{jobs}} (state, queue, worker, max_attempts, args, scheduled_at, meta)
SELECT CASE WHEN v IS NULL AND r IS NOT DISTINCT FROM 'stopped' THEN 'suspended'
        WHEN v IS NULL THEN 'discarded' WHEN {at("v")} <= {UTC_NOW} THEN 'available'
        WHEN failures > 0 THEN 'retryable' ELSE 'scheduled' END::{{job_state}},
    {{queue}}, '{WORKER}', {MAX_ATTEMPTS}, {NEW_ARGS}, coalesce({at("v")}, {at("d")}),
    jsonb_strip_nulls(jsonb_build_object(
        'failures', nullif(failures, 0), 'last_error', last_error, 'crashes', crashes))
FROM k
"""
_TO_TABLE = """
WITH a AS (
    DELETE FROM {jobs} AS j USING {alarms} AS a WHERE j.id = a.id RETURNING a.*
)
INSERT INTO {table} (type_name, object_id, name, due_at, available_at, payload, failures,
    last_error, crashes, recurrence)
SELECT type_name, object_id, name, due_at, available_at, payload, failures, last_error, crashes,
    recurrence FROM a
"""


def move_alarms(connection: Connection, schema: Schema, to: Jobs | None) -> int:
    """Move the alarms of all tenants, and note where they are. Part of a transaction.

    Args:
        connection: It has a transaction open, and no runtime is.
        schema: The schema, with the place that they are in.
        to: The place of the jobs; None for the tables of alarms.

    Returns:
        The number of alarms, with dead letters and marks.
    """
    jobs = to or schema.jobs
    if jobs is None:
        return 0
    template = _TO_TABLE if to is None else _TO_JOBS
    moved, tenants = 0, [""]
    while tenants:
        for tenant in tenants:
            table = Names(schema.home, tenant).statement("{alarms}").replace("%", "%%")
            query = Names(schema.home, tenant, jobs).query(template, table=table)
            moved += connection.execute(query, ()).rowcount
        tenants = schema.tenants(connection, tenants[-1], _TENANTS)
    if to is None:
        JobPlace(schema.home).clear(connection)
    else:
        JobPlace(schema.home).put(connection, to)
    return moved
