"""Table of marks in a PostgreSQL database. It exists once the first mark was made."""

from __future__ import annotations

from .._moves import Move
from ._connection import Connection
from ._names import Names

_CREATE = """
CREATE TABLE IF NOT EXISTS {moves} (
    tenant   text COLLATE "C" PRIMARY KEY,
    target   text NOT NULL,
    moved_at bigint NOT NULL
)
"""
_EXISTS = """
SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'durable_moves'
"""
_MARK = """
INSERT INTO {moves} VALUES (%s, %s, %s)
ON CONFLICT (tenant) DO UPDATE SET target = excluded.target, moved_at = excluded.moved_at
"""
_LIST = "SELECT tenant, target, moved_at FROM {moves} ORDER BY tenant"
_TAKE_BACK = "DELETE FROM {moves} WHERE tenant = %s"


class MoveTable:
    """The table of one database. Methods raise psycopg's errors."""

    def __init__(self, home: str) -> None:
        self._home = home
        names = Names(home)
        self._create = names.statement(_CREATE).encode()
        self._grant = names.statement("GRANT SELECT ON {moves} TO PUBLIC").encode()
        self._mark = names.query(_MARK)
        self._list = names.statement(_LIST).encode()
        self._drop = names.statement("DROP TABLE {moves}").encode()
        self._take_back = names.query(_TAKE_BACK)

    def _exists(self, connection: Connection) -> bool:
        # Looked for first, because an error would be in the server's log.
        return connection.execute(_EXISTS, (self._home,)).fetchone() is not None

    def list(self, connection: Connection) -> list[Move]:
        """All marks."""
        if not self._exists(connection):
            return []
        return [Move(*row) for row in connection.execute(self._list)]

    def mark(self, connection: Connection, move: Move) -> None:
        """Make a mark. Part of a transaction."""
        if not self._exists(connection):
            connection.execute(self._create)
            connection.execute(self._grant)  # or a role that was granted the others couldn't open
        connection.execute(self._mark, (move.tenant, move.target, move.moved_at))

    def drop(self, connection: Connection) -> None:
        """Remove the table."""
        if self._exists(connection):
            connection.execute(self._drop)

    def take_back(self, connection: Connection, tenant: str) -> bool:
        """Remove a mark. Returns whether there was one."""
        if not self._exists(connection):
            return False
        return connection.execute(self._take_back, (tenant,)).rowcount > 0
