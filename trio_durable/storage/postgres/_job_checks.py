"""Checks of Oban's tables as a storage opens, and the indexes that the library adds to them.

A comment on the index that makes jobs unique names the schema of the objects whose alarms they are.
Two schemas can't have alarms in the same tables: their keys may be equal.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from ._connection import Connection
from ._errors import statement_problem
from ._job_place import JobPlace
from ._jobs import INDEXES, UNIQUE, Jobs
from ._migrations import Schema
from ._names import Names
from ._verification import Unsuitable

_COLUMNS = {
    "id": "bigint",
    "state": "oban_job_state",
    "queue": "text",
    "worker": "text",
    "attempt": "smallint",
    "max_attempts": "smallint",
    "args": "jsonb",
    "meta": "jsonb",
    "errors": "jsonb",
    "attempted_by": "text[]",
    "attempted_at": "timestamp without time zone",
    "scheduled_at": "timestamp without time zone",
    "completed_at": "timestamp without time zone",
    "cancelled_at": "timestamp without time zone",
    "discarded_at": "timestamp without time zone",
}
"""The columns of Oban's jobs that the library uses, with their types."""
_TABLES = ("oban_jobs", "oban_leaders", "oban_producers")
_STATES = ("available", "scheduled", "suspended", "executing", "retryable", "completed")

_TENANTS = 100

_FIND_TABLES = """
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s)
"""
_FIND_COLUMNS = """
SELECT a.attname, t.typname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'oban_jobs' AND a.attnum > 0 AND NOT a.attisdropped
"""
_FIND_STATES = """
SELECT e.enumlabel FROM pg_enum AS e JOIN pg_type AS t ON t.oid = e.enumtypid
JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE n.nspname = %s AND t.typname = 'oban_job_state'
"""
_FIND_INDEXES = """
SELECT c.relname, i.indisvalid AND i.indisready, obj_description(c.oid, 'pg_class')
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s)
"""


def prepare_jobs(connection: Connection, schema: Schema, wanted: Jobs) -> Jobs:
    """Check that alarms can be jobs, or are, and note that they are. As a writer opens.

    Returns:
        The place, as ``wanted``.

    Raises:
        Unsuitable: They can't be.
    """
    prepare_tables(connection, schema.home, wanted)
    place = JobPlace(schema.home)
    found = place.find(connection)
    if found is None:
        _require_no_alarms(connection, schema)
        with connection.transaction():
            place.put(connection, wanted)
    elif (found.schema, found.queue) != (wanted.schema, wanted.queue):
        raise Unsuitable(
            f"its alarms are jobs in queue {found.queue!r} of {found.schema}.oban_jobs, and not in "
            f"{wanted.queue!r} of {wanted.schema}.oban_jobs; pass ObanScheduler({found.queue!r}, "
            f"prefix={found.schema!r}), or move them to the wheel with `trio-durable alarms move` "
            "first, and then to the other queue"
        )
    return wanted


def _require_no_alarms(connection: Connection, schema: Schema) -> None:
    tenants = [""]
    while tenants:
        for tenant in tenants:
            query = Names(schema.home, tenant).statement("SELECT FROM {alarms} LIMIT 1")
            if connection.execute(query.encode()).fetchone() is not None:
                of_tenant = f" of tenant {tenant!r}" if tenant else ""
                raise Unsuitable(
                    f"the timing wheel has alarms{of_tenant}, which would never be delivered; move "
                    "them with `trio-durable alarms move --to oban`"
                )
        tenants = schema.tenants(connection, tenants[-1], _TENANTS)


def prepare_tables(connection: Connection, home: str, jobs: Jobs) -> None:
    """Check Oban's tables, and add the library's indexes.

    Raises:
        Unsuitable: They can't be used.
    """
    check_jobs(connection, jobs)
    add_indexes(connection, home, jobs)


def check_jobs(connection: Connection, jobs: Jobs) -> None:
    """Check that Oban's tables are there and have what the library uses.

    Raises:
        Unsuitable: They aren't, or they are of another release.
    """
    schema = jobs.schema
    tables = {name for (name,) in connection.execute(_FIND_TABLES, (schema, list(_TABLES)))}
    if missing := [name for name in _TABLES if name not in tables]:
        raise Unsuitable(
            f"there is no table {schema}.{missing[0]} of Oban; install Oban's tables by your "
            "migrations, with the SQL of oban.schema.install_sql() or `oban install`. For another "
            f"schema than public set search_path to it first, and pass ObanScheduler(prefix=…)"
        )
    found = {
        name: kind if kind == "oban_job_state" else type_name
        for name, kind, type_name in connection.execute(_FIND_COLUMNS, (schema,))
    }
    for name, wanted in _COLUMNS.items():
        if found.get(name) != wanted:
            raise Unsuitable(
                f"the column {name} of {schema}.oban_jobs is {found.get(name) or 'missing'}, and "
                f"not {wanted}; the tables may be those of Oban for Elixir, or of another release. "
                "Install those of the package oban 0.7 for Python"
            )
    states = {name for (name,) in connection.execute(_FIND_STATES, (schema,))}
    if missing := [name for name in _STATES if name not in states]:
        raise Unsuitable(
            f"the type {schema}.oban_job_state lacks the state {missing[0]!r}; bring Oban's tables "
            "up to date, with the SQL of oban.schema.install_sql()"
        )


def find_indexes(connection: Connection, home: str, jobs: Jobs) -> dict[str, bool]:
    """The indexes of the library that exist, each with whether it is complete.

    Raises:
        Unsuitable: They are those of objects in another schema.
    """
    found = connection.execute(_FIND_INDEXES, (jobs.schema, list(INDEXES))).fetchall()
    for name, _, comment in found:
        if name == UNIQUE and comment is not None and comment != _comment(home):
            raise Unsuitable(
                f"{jobs.schema}.oban_jobs has the {comment}, and alarms of objects with equal keys "
                f"would replace each other; install Oban's tables in a schema for those of {home} "
                "too, and pass ObanScheduler(prefix=…)"
            )
    return {name: is_complete for name, is_complete, _ in found}


def _comment(home: str) -> str:
    return f"alarms of the objects in schema {home}"


def add_indexes(connection: Connection, home: str, jobs: Jobs) -> None:
    """Add the library's indexes to Oban's table of jobs, while others use it.

    Raises:
        Unsuitable: The role has no right to do so, or it failed; or they are those of objects in
            another schema.
    """
    names = Names(home, "", jobs)
    found = find_indexes(connection, home, jobs)
    for index, template in INDEXES.items():
        if found.get(index):
            continue
        statement = names.statement(template)
        try:
            if index in found:  # left by a build that was interrupted
                connection.execute(names.statement(_dropping(jobs, index)).encode())
            connection.execute(statement.encode())
            if index == UNIQUE:
                connection.execute(names.statement(_commenting(home, jobs)).encode())
        except psycopg.errors.DuplicateTable:
            continue  # another process has built it meanwhile
        except psycopg.Error as error:
            if error.sqlstate is None or error.sqlstate.startswith(("08", "57")):
                raise
            raise Unsuitable(
                f"the index {index} on {jobs.schema}.oban_jobs is missing, and can't be built here "
                f"({statement_problem(error)}); let an administrator run: {statement}"
            ) from None


def _dropping(jobs: Jobs, index: str) -> str:
    return f"DROP INDEX CONCURRENTLY {jobs.names()['oban_schema']}.{index}"


def _commenting(home: str, jobs: Jobs) -> str:
    literal = sql.Literal(_comment(home)).as_string(None)
    return f"COMMENT ON INDEX {jobs.names()['oban_schema']}.{UNIQUE} IS {literal}"
