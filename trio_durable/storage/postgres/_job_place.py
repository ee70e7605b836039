"""Tables that say that alarms are jobs of Oban. They exist from the first such opening on.

Alarms are in one place: jobs, or a table of their own, in which the timing wheel finds them. A
scheduler that looked in the other place would leave all of them undelivered.
"""

from __future__ import annotations

from collections.abc import Iterator

from ._connection import Connection
from ._jobs import Jobs
from ._names import Names

_CREATE = """
CREATE TABLE IF NOT EXISTS {oban} (
    only_one boolean NOT NULL DEFAULT true CHECK (only_one),
    prefix   text NOT NULL,  -- the schema of Oban's tables
    queue    text NOT NULL,
    CONSTRAINT durable_oban_pkey PRIMARY KEY (only_one)
)
"""
_CREATE_PRODUCERS = """
CREATE TABLE IF NOT EXISTS {producers} (
    producer uuid NOT NULL,  -- of the part of an instance of Oban that fetches jobs
    node_id  uuid NOT NULL REFERENCES {nodes} ON DELETE CASCADE,
    CONSTRAINT durable_oban_producers_pkey PRIMARY KEY (producer)
)
"""
_EXISTS = """
SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'durable_oban'
"""
_FIND = "SELECT prefix, queue FROM {oban}"
_PUT = """
INSERT INTO {oban} (prefix, queue) VALUES (%s, %s)
ON CONFLICT (only_one) DO UPDATE SET prefix = excluded.prefix, queue = excluded.queue
"""
_CLEAR = "DELETE FROM {oban}"


class JobPlace:
    """The place of the alarms of one database. Methods raise psycopg's errors.

    Args:
        home: The schema of the nameless tenant.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        names = Names(home)
        self._making = [names.statement(each).encode() for each in _statements()]
        self._find = names.statement(_FIND).encode()
        self._put = names.query(_PUT)
        self._clear = names.statement(_CLEAR).encode()
        self._drop = [
            names.statement(f"DROP TABLE {table}").encode() for table in ("{producers}", "{oban}")
        ]

    def _exists(self, connection: Connection) -> bool:
        # Looked for first, because an error would be in the server's log.
        return connection.execute(_EXISTS, (self._home,)).fetchone() is not None

    def find(self, connection: Connection) -> Jobs | None:
        """The place of alarms that are jobs; None if they are in their own table."""
        if not self._exists(connection):
            return None
        row = connection.execute(self._find).fetchone()
        return None if row is None else Jobs(*row)

    def put(self, connection: Connection, jobs: Jobs) -> None:
        """Note that alarms are jobs from now on. Part of a transaction."""
        if not self._exists(connection):
            for statement in self._making:
                connection.execute(statement)
        connection.execute(self._put, (jobs.schema, jobs.queue))

    def clear(self, connection: Connection) -> None:
        """Note that alarms are in their own table from now on. Part of a transaction."""
        if self._exists(connection):
            connection.execute(self._clear)

    def drop(self, connection: Connection) -> None:
        """Remove the tables."""
        if self._exists(connection):
            for statement in self._drop:
                connection.execute(statement)


def _statements() -> Iterator[str]:
    yield _CREATE
    yield "GRANT SELECT ON {oban} TO PUBLIC"  # or a role that only reads couldn't open
    yield _CREATE_PRODUCERS
