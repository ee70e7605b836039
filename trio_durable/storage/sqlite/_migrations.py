"""Schema of an SQLite file, as versioned migrations.

Each tenant has tables of its own, named ``tenant_<name>_…``, and a migration set of its own. The
nameless tenant, which every file has, also keeps the list of tenants.

sqlite-utils applies the migrations and records them in its table ``_sqlite_migrations``: each
migration runs in one transaction together with its record. This module reads that table itself and
imports sqlite-utils only if a migration is pending, because the import takes longer than opening
the file.

Invariants:

- A migration that has been released never changes.
- A file holds either all of a migration and its record, or neither.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING

from .._faults import PartialFault
from .._moves import Move
from ._message_schema import SCHEMA as MESSAGES
from ._moves import take_back
from ._names import TableNames
from ._parameters import as_json
from ._transaction import transaction

if TYPE_CHECKING:
    import sqlite_utils

logger = logging.getLogger("trio_durable.storage")

APPLICATION_ID = 0x54524455
"""The ``application_id`` in the header of a file of this library; "TRDU" in ASCII."""

_ANY_TENANT = "any-tenant-at-all"
_ANY_PREFIX = TableNames(_ANY_TENANT).prefix
_MIGRATION_SET = "trio_durable"
_APPLIED = "_sqlite_migrations"
"""The table in which sqlite-utils records applied migrations."""


def m001_objects(connection: sqlite3.Connection, names: TableNames) -> None:
    """Create the table of objects, one row per object."""
    connection.execute(
        f"""
        CREATE TABLE {names.objects} (
            type_name  TEXT NOT NULL,
            object_id  TEXT NOT NULL,
            revision   INTEGER NOT NULL,  -- the object's commit number, from 1
            updated_at INTEGER NOT NULL,  -- microseconds since 1970 UTC
            state      TEXT NOT NULL,     -- JSON
            PRIMARY KEY (type_name, object_id)
        )
        """
    )
    # The half of the fence that an upsert can't express: a save whose row was deleted would insert
    # it again. A save that updates its row doesn't run the trigger.
    connection.execute(
        f"""
        CREATE TRIGGER {names.of("durable_objects_begin_at_1")} AFTER INSERT ON {names.objects}
        WHEN NEW.revision <> 1
        BEGIN SELECT RAISE(ABORT, 'stale'); END
        """
    )


def m002_alarms(connection: sqlite3.Connection, names: TableNames) -> None:
    """Create the table of alarms, one row per alarm."""
    # WITHOUT ROWID, so that the index by time contains the key. The horizon feed then reads the
    # index alone.
    connection.execute(
        f"""
        CREATE TABLE {names.alarms} (
            type_name    TEXT NOT NULL,
            object_id    TEXT NOT NULL,
            name         TEXT NOT NULL,
            due_at       INTEGER NOT NULL,           -- microseconds since 1970 UTC
            available_at INTEGER,                    -- the same; NULL for a dead letter
            claim        INTEGER,                    -- whose it is, until available_at
            failures     INTEGER NOT NULL DEFAULT 0,
            last_error   TEXT,
            payload      TEXT,                       -- JSON
            PRIMARY KEY (type_name, object_id, name)
        ) WITHOUT ROWID
        """
    )
    connection.execute(f"CREATE INDEX {names.alarms_by_time} ON {names.alarms} (available_at)")
    connection.execute(
        f"CREATE INDEX {names.of('durable_alarms_claimed')} ON {names.alarms} (claim) "
        "WHERE claim IS NOT NULL"
    )


def m003_tenants(connection: sqlite3.Connection, names: TableNames) -> None:
    """Create the list of tenants, one row per tenant."""
    connection.execute(
        f"CREATE TABLE {names.of('durable_tenants')} (name TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID"
    )


def m004_crashes(connection: sqlite3.Connection, names: TableNames) -> None:
    """Add the counts of the processes that alarms have ended."""
    # NULL, or for a suspect the number of crashes.
    connection.execute(f"ALTER TABLE {names.alarms} ADD COLUMN crashes INTEGER")
    # The claim that the delivery of a suspect has begun with. It needs no reset, since the next
    # claim is another number.
    connection.execute(f"ALTER TABLE {names.alarms} ADD COLUMN marked INTEGER")


def m005_messages(connection: sqlite3.Connection, names: TableNames) -> None:
    """Create the tables of messages, dead letters and once-keys."""
    for statement in MESSAGES:
        connection.execute(statement(names))


def m006_recurrences(connection: sqlite3.Connection, names: TableNames) -> None:
    """Add the marks of recurring alarms."""
    # Which schedule the time comes from; NULL if it fires once. See `NewAlarm.recurrence`.
    connection.execute(f"ALTER TABLE {names.alarms} ADD COLUMN recurrence TEXT")
    connection.execute(
        f"CREATE INDEX {names.alarms_recurring} ON {names.alarms} (type_name, name, due_at) "
        "WHERE recurrence IS NOT NULL AND available_at IS NOT NULL"
    )


def m007_views(connection: sqlite3.Connection, names: TableNames) -> None:
    """Add the view for the SQL of users, whose columns stay while those of the table change."""
    connection.execute(
        f"CREATE VIEW {names.objects_v1} AS "
        "SELECT type_name AS type, object_id AS id, revision, updated_at, state "
        f"FROM {names.objects}"
    )


_Step = Callable[[sqlite3.Connection, TableNames], None]
_TENANT_STEPS: tuple[_Step, ...] = (
    m001_objects,
    m002_alarms,
    m004_crashes,
    m005_messages,
    m006_recurrences,
    m007_views,
)
_FILE_STEPS: tuple[_Step, ...] = (m003_tenants,)

SCHEMA_VERSION = len(_TENANT_STEPS) + len(_FILE_STEPS)
"""The ``user_version`` in the header of such a file: the number of the latest migration."""

# Tables of this library, of sqlite-utils, of SQLite itself, and of Litestream.
_OTHERS = """
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name <> '_sqlite_migrations'
    AND name NOT GLOB 'durable_*' AND name NOT GLOB 'tenant_*_durable_*'
    AND name NOT GLOB 'sqlite_*' AND name NOT GLOB '_litestream_*'
"""


_PARTIAL_ERRORS = {
    sqlite3.SQLITE_ERROR,  # such as a missing table, or an index on an expression that fails
    sqlite3.SQLITE_CORRUPT,  # of one page or index
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}
"""Primary result codes of statements that may succeed for other rows or other tables."""


def is_partial(error: sqlite3.Error) -> bool:
    """True if a statement may succeed for other rows or other tables."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _PARTIAL_ERRORS


def warn_of_tenant(tenant: str, error: sqlite3.Error) -> None:
    """Log a warning that the tables of a tenant are damaged."""
    logger.warning(
        "tenant %r can't be used, the others can: %s; restore its tables from a backup of the "
        "file, or drop the tenant",
        *(tenant, error),
    )


def migrations_of(tenant: str) -> sqlite_utils.Migrations:
    """The migrations of a tenant's tables; for the nameless tenant also those of the file."""
    from sqlite_utils import Migrations

    migrations = Migrations(_migration_set(tenant))
    names = TableNames(tenant)

    def register(step: _Step) -> None:
        @migrations(name=step.__name__)
        def apply(db: sqlite_utils.Database) -> None:
            step(db.conn, names)

    for step in _steps_of(tenant):
        register(step)
    return migrations


def _steps_of(tenant: str) -> tuple[_Step, ...]:
    if tenant:
        return _TENANT_STEPS
    return tuple(sorted((*_TENANT_STEPS, *_FILE_STEPS), key=lambda step: step.__name__))


@lru_cache(maxsize=1)
def _statements_of_a_tenant() -> tuple[str, ...]:
    """The SQL of a new tenant's tables, as all migrations leave them.

    To alter a table, SQLite reads the whole schema, which takes long in a file of many tenants.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        for step in _TENANT_STEPS:
            step(connection, TableNames(_ANY_TENANT))
        found = connection.execute(
            "SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY rowid"
        )
        return tuple(sql for (sql,) in found)


def _migration_set(tenant: str) -> str:
    return f"{_MIGRATION_SET}:{tenant}" if tenant else _MIGRATION_SET


class Schema:
    """The schema of an SQLite file: its migrations and its list of tenants.

    Args:
        connection: Its isolation level is None.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.moves: dict[str, Move] = {}
        """The marks, by tenant, as they were when the file was opened."""

    # --- migrations ------------------------------------------------------------------------------

    def is_new(self) -> bool:
        """True if the file has none of this library's tables."""
        return not any(self._applied())

    def is_foreign(self) -> bool:
        """True if the file has tables, but none of this library."""
        if not self.is_new():
            return False
        found = self._connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table'")
        return found.fetchone() is not None

    def unknown(self) -> list[str]:
        """The names of applied migrations that this release doesn't know."""
        known = {step.__name__ for step in _steps_of("")}
        return sorted({name for _, name in self._applied()} - known)

    def pending(self) -> list[tuple[str, str]]:
        """The migrations to apply, as (tenant, name)."""
        # Both reads in one transaction, because another process may create a tenant in between.
        with transaction(self._connection, writes=False):
            applied = set(self._applied())
            has_list = (_MIGRATION_SET, m003_tenants.__name__) in applied
            return [
                (tenant, step.__name__)
                for tenant in ("", *(self.tenants() if has_list else ()))
                for step in _steps_of(tenant)
                if (_migration_set(tenant), step.__name__) not in applied
            ]

    def apply(self) -> None:
        """Apply the pending migrations. The caller holds the file's lock.

        A tenant whose tables can't be migrated stays old, and the others are migrated.
        """
        if not self.pending():
            return
        import sqlite_utils

        # Without its settings of the connection, which would differ from those of the next open.
        database = sqlite_utils.Database(
            self._connection, recursive_triggers=False, execute_plugins=False
        )
        of_the_file = migrations_of("")
        # sqlite-utils creates its table and then an index on it, in two transactions. A crash in
        # between would leave the index out for ever.
        with transaction(self._connection):
            of_the_file.ensure_migrations_table(database)
        of_the_file.apply(database)
        for tenant in dict(self.pending()):
            try:
                migrations_of(tenant).apply(database)
            except sqlite3.Error as error:
                if not is_partial(error):
                    raise
                warn_of_tenant(tenant, error)

    def _applied(self) -> Iterator[tuple[str, str]]:
        """The applied migrations, as (migration set, name)."""
        exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if self._connection.execute(exists, (_APPLIED,)).fetchone() is None:
            return
        yield from self._connection.execute(
            f"SELECT migration_set, name FROM {_APPLIED} "
            "WHERE migration_set = ? OR migration_set GLOB ?",
            (_MIGRATION_SET, f"{_MIGRATION_SET}:*"),
        )

    # --- the header ------------------------------------------------------------------------------

    def application_id(self) -> int:
        """The ``application_id`` in the file's header; 0 if no program has set it."""
        return self._pragma("application_id")

    def user_version(self) -> int:
        """The ``user_version`` in the file's header."""
        return self._pragma("user_version")

    def has_other_tables(self) -> bool:
        """True if another program keeps tables in the file."""
        return self._connection.execute(_OTHERS).fetchone() is not None

    def mark(self) -> None:
        """Set ``application_id`` and ``user_version``, unless they are another program's.

        They are if the id is another one, or if it is 0, and the version isn't or the file has
        tables of another program. The caller has a transaction open.
        """
        application_id, version = self.application_id(), self.user_version()
        if application_id == version == 0 and not self.has_other_tables():
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            application_id = APPLICATION_ID
        if application_id == APPLICATION_ID and version < SCHEMA_VERSION:
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    # --- tenants ---------------------------------------------------------------------------------

    def tenants(self, after: str = "", limit: int = -1, without: Collection[str] = ()) -> list[str]:
        """The names of the tenants after ``after``, in order; all, if ``limit`` is negative."""
        rows = self._connection.execute(
            "SELECT name FROM durable_tenants WHERE name > ? "
            "AND name NOT IN (SELECT value FROM json_each(?)) ORDER BY name LIMIT ?",
            (after, as_json(list(without)), limit),
        )
        return [name for (name,) in rows]

    def has_tenant(self, tenant: str) -> bool:
        """True if the tables of a tenant exist.

        Raises:
            PartialFault: It was moved to another storage.
        """
        if tenant in self.moves:
            raise PartialFault(self.moves[tenant].refusal_of_tenant())
        found = self._connection.execute("SELECT 1 FROM durable_tenants WHERE name = ?", (tenant,))
        return found.fetchone() is not None

    def add_tenant(self, tenant: str) -> None:
        """Create the tables of a tenant that doesn't exist. The caller has a transaction open."""
        self._connection.execute("INSERT INTO durable_tenants VALUES (?)", (tenant,))
        prefix = TableNames(tenant).prefix
        for sql in _statements_of_a_tenant():
            self._connection.execute(sql.replace(_ANY_PREFIX, prefix))
        for step in _steps_of(tenant):
            # As sqlite-utils does, which would also list all tables of the file several times.
            self._connection.execute(
                f"INSERT INTO {_APPLIED} (migration_set, name, applied_at) "
                "VALUES (?, ?, datetime())",
                (_migration_set(tenant), step.__name__),
            )

    def drop_tenant(self, tenant: str) -> bool:
        """Remove a tenant and all its data, in one transaction. Returns whether it existed."""
        names = TableNames(tenant)
        execute = self._connection.execute
        with transaction(self._connection):
            if not execute("DELETE FROM durable_tenants WHERE name = ?", (tenant,)).rowcount:
                return False
            execute(f"DROP VIEW IF EXISTS {names.objects_v1}")
            for table in names.tables:
                execute(f"DROP TABLE IF EXISTS {table}")
            execute(f"DELETE FROM {_APPLIED} WHERE migration_set = ?", (_migration_set(tenant),))
            if self.moves.pop(tenant, None) is not None:
                take_back(self._connection, tenant)
        return True
