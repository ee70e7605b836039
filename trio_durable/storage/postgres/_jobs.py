"""Jobs of Oban that are alarms: their place in a database, and a job read as a row of an alarm.

Oban's tables belong to the application's migrations; the library reads and changes the jobs of its
own worker, and adds indexes. `Jobs.as_alarms` is a sub-select with the columns of the table of
alarms, so statements that read or lock alarms are the same for both.

- ``args`` have the alarm's key, its time and its payload. The payload is a text, since jsonb
  doesn't keep numbers and escapes as they are.
- ``meta`` has ``failures``, ``last_error``, ``crashes`` and ``marked``, as the table of alarms.
- A claim is the number of the job and of its attempt, or one that the library has given to that
  attempt, in ``meta``. An attempt is never lowered, so that names one run of one job; an attempt
  that isn't counted raises ``max_attempts`` instead.
- A dead letter is ``discarded`` without ``discarded_at``, which Oban's pruning leaves alone.
- The mark of a recurring alarm that was turned off is ``suspended``, which nothing stages.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
from psycopg import sql

from ..._keys import AlarmKey

WORKER = "trio_durable.scheduler.oban.DurableAlarm"
"""The worker of the jobs, as Oban names it: the path of its class."""
MAX_ATTEMPTS = 32_767
"""The most attempts that Oban's tables can hold."""
_ATTEMPTS_PER_ID = 65_536

UTC_NOW = "timezone('UTC', now())"
"""The time, as Oban writes it."""
_LIVE = f"worker = '{WORKER}' AND state NOT IN ('completed', 'cancelled')"
"""The condition of the index, and so of each statement that should use it."""


def _part(name: str, of: str = "") -> str:
    return f"(({of}args->>'{name}') COLLATE \"C\")"


# As the elements of an index. An inner COLLATE isn't found as the arbiter of an insertion.
_KEY = ", ".join(f"(args->>'{name}') COLLATE \"C\"" for name in ("tenant", "type", "id", "name"))
ABANDONED = "NOT EXISTS (SELECT FROM {producers} AS p WHERE p.producer::text = j.attempted_by[2])"
"""The condition of a run, ``j``, whose process is gone."""
CONFLICT = f"({_KEY}) WHERE {_LIVE}"
"""The arbiter of an insertion: one live job per alarm."""
OF_TENANT = f"worker = '{WORKER}' AND {_part('tenant')} = '{{tenant}}'"
"""All jobs of a tenant, ended ones as well."""

UNIQUE = "trio_durable_alarms"
"""The index that makes the jobs of an alarm unique."""
INDEXES = {
    UNIQUE: f"""
CREATE UNIQUE INDEX CONCURRENTLY {UNIQUE} ON {{jobs}} ({_KEY}) WHERE {_LIVE}
""".strip(),
    "trio_durable_recurring": f"""
CREATE INDEX CONCURRENTLY trio_durable_recurring ON {{jobs}} (
    {_part("tenant")}, {_part("type")}, {_part("name")}, ((args->>'due_at')::bigint)
) WHERE {_LIVE} AND args->>'recurrence' IS NOT NULL
""".strip(),
}
"""The indexes that the library adds to Oban's table of jobs, by name."""


def at(microseconds: str) -> str:
    """A time in microseconds since 1970 as a timestamp, exactly."""
    return (
        f"(timestamp 'epoch' + ({microseconds} / 86400000000) * interval '1 day'"
        f" + ({microseconds} %% 86400000000) * interval '1 microsecond')"
    )


def _microseconds(timestamp: str) -> str:
    return f"(extract(epoch FROM {timestamp}) * 1000000)::bigint"


_AS_ALARMS = f"""(
    SELECT id, state, {_part("tenant")} AS tenant, {_part("type")} AS type_name,
        {_part("id")} AS object_id, {_part("name")} AS name,
        (args->>'due_at')::bigint AS due_at,
        CASE WHEN state NOT IN ('discarded', 'suspended')
            THEN {_microseconds("scheduled_at")} END AS available_at,
        CASE WHEN state <> 'executing' THEN NULL
            WHEN meta->'claim'->>'attempt' = attempt::text THEN (meta->'claim'->>'claim')::bigint
            ELSE id * {_ATTEMPTS_PER_ID} + attempt END AS claim,
        args->>'payload' AS payload, (args->>'recurrence') COLLATE "C" AS recurrence,
        coalesce((meta->>'failures')::bigint, 0) AS failures, meta->>'last_error' AS last_error,
        (meta->>'crashes')::bigint AS crashes, (meta->>'marked')::bigint AS marked
    FROM {{jobs}} WHERE {_LIVE}{{of_tenant}}
)"""

SUSPECT = """
jsonb_build_object('crashes', coalesce(
    (j.meta->>'crashes')::bigint + (j.meta->>'marked' IS NOT DISTINCT FROM j.attempt::text)::int, 0
))
"""
"""The part of ``meta`` that makes a suspect of a job whose claim has outlived its process."""
ONE_MORE = f"LEAST(GREATEST(j.max_attempts, j.attempt) + 1, {MAX_ATTEMPTS})"
"""``max_attempts`` after an attempt that isn't counted."""
PUT_BACK = f"""
CASE WHEN j.scheduled_at <= {UTC_NOW} THEN 'available' ELSE 'scheduled' END::{{job_state}}
"""
"""The state of a job that is to be run once more."""


_JOIN = re.compile(
    r"JOIN \{alarms\} AS a ON (a\.type_name = k\.t AND a\.object_id = k\.i"
    r"(?: AND a\.name = k\.m| AND \{is_m\})?)"
)


def key_by_key(template: str) -> str:
    """A statement that looks alarms up by the keys ``k``, one index search for each.

    Without statistics of the key's expressions, the planner takes the table of jobs for almost
    empty, and would compare each job with each key. OFFSET keeps the sub-select as it is.
    """
    return _JOIN.sub(
        r"JOIN LATERAL (SELECT a.* FROM {alarms} AS a WHERE \1 OFFSET 0) AS a ON true", template
    )


@attrs.frozen
class Jobs:
    """The place of alarms that are jobs of Oban."""

    schema: str
    """The schema of Oban's tables."""
    queue: str
    attempts: Callable[[AlarmKey], int] = attrs.field(default=lambda _: MAX_ATTEMPTS)
    """The number of attempts, failed ones and crashed ones, that an alarm has."""

    def __str__(self) -> str:
        return f"jobs of Oban in queue {self.queue!r} of {self.schema}.oban_jobs"

    def names(self) -> dict[str, str]:
        """The names that statements about jobs use, quoted."""
        return {
            "oban_schema": sql.Identifier(self.schema).as_string(None),
            "jobs": sql.Identifier(self.schema, "oban_jobs").as_string(None),
            "job_state": sql.Identifier(self.schema, "oban_job_state").as_string(None),
            "queue": sql.Literal(self.queue).as_string(None),
            "inserted": sql.Literal(f"{self.schema}.oban_insert").as_string(None),
        }

    def as_alarms(self, tenant: str | None) -> str:
        """A sub-select with the columns of the table of alarms; of all tenants for None."""
        of_tenant = "" if tenant is None else f" AND {_part('tenant')} = '{tenant}'"
        return _AS_ALARMS.format(**self.names(), of_tenant=of_tenant)


def claim_of(job_id: int, attempt: int) -> int:
    """The claim that one run of a job has on its alarm."""
    return job_id * _ATTEMPTS_PER_ID + attempt
