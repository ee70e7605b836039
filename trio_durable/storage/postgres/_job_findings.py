"""Checks of the jobs of Oban that are alarms, for ``trio-durable doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from .._records import Finding
from ._connection import Connection
from ._job_checks import check_jobs, find_indexes
from ._job_place import JobPlace
from ._jobs import ABANDONED, INDEXES, UTC_NOW, WORKER, Jobs
from ._names import Names

_LATE_SECONDS = 60.0
_COUNTS = f"""
SELECT count(*),
    count(*) FILTER (WHERE queue <> {{queue}}),
    count(*) FILTER (WHERE state = 'available' AND attempt >= max_attempts),
    count(*) FILTER (WHERE state = 'executing' AND {ABANDONED}),
    coalesce(max(extract(epoch FROM {UTC_NOW} - scheduled_at))
        FILTER (WHERE state IN ('available', 'scheduled', 'retryable')), 0)::float8
FROM {{jobs}} AS j
WHERE worker = '{WORKER}' AND state NOT IN ('completed', 'cancelled', 'discarded', 'suspended')
"""


def job_findings(connection: Connection, home: str) -> Iterator[Finding]:
    """The state of the jobs, if alarms are jobs.

    Raises:
        Unsuitable: Oban's tables can't be used.
    """
    jobs = JobPlace(home).find(connection)
    if jobs is None:
        return
    check_jobs(connection, jobs)
    complete = find_indexes(connection, home, jobs)
    if lacking := [index for index in INDEXES if not complete.get(index)]:
        yield Finding(
            "jobs",
            "problem",
            f"{jobs.schema}.oban_jobs lacks the index {lacking[0]}, or its build was cut off",
            "open a runtime whose role owns the table, which builds it",
        )
        return
    yield _of_counts(connection, home, jobs)


def _of_counts(connection: Connection, home: str, jobs: Jobs) -> Finding:
    query = Names(home, "", jobs).statement(_COUNTS)
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    count, elsewhere, used_up, abandoned, late = row
    if elsewhere:
        return Finding(
            "jobs",
            "problem",
            f"{elsewhere:,} alarms are in other queues than {jobs.queue!r}, where no runtime runs "
            "them",
            f"UPDATE {jobs.schema}.oban_jobs SET queue = '{jobs.queue}' WHERE worker = '{WORKER}'",
        )
    if used_up:
        return Finding(
            "jobs",
            "warning",
            f"{used_up:,} alarms have no attempt left for Oban, and fill up what it fetches",
            "open a runtime, which gives them one within a minute",
        )
    if abandoned:
        return Finding(
            "jobs",
            "warning",
            f"{abandoned:,} alarms were run by processes that are gone",
            "open a runtime, which takes them over",
        )
    if late > _LATE_SECONDS:
        return Finding(
            "jobs",
            "warning",
            f"an alarm has been due for {late:,.0f} s",
            "open a runtime with ObanScheduler, or raise its limit, if the queue has a backlog",
        )
    return Finding("jobs", "ok", f"{count:,} alarms are {jobs}")
