"""The tables of an SQLite file, as versioned migrations.

Each tenant has tables of its own, with ``tenant_`` and its name before theirs, and a set of
migrations of its own; the nameless tenant, which everybody has, also keeps the list of the others.
Applied by sqlite-utils, each migration in a transaction of its own together with the note that it
was.
A migration that has been released is never edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import sqlite_utils
from sqlite_utils import Migrations

_MIGRATION_SET = "trio_durable"


class TableNames:
    """What the tables of a tenant are called, quoted for SQL where they have to be.

    Args:
        tenant: A checked name; "" for the tables that have no prefix.
    """

    def __init__(self, tenant: str = "") -> None:
        self.tenant = tenant
        self.objects = self.of("durable_objects")
        self.alarms = self.of("durable_alarms")
        self.alarms_by_time = self.of("durable_alarms_by_time")

    def of(self, name: str) -> str:
        """What is called ``name`` where there is no prefix."""
        if not self.tenant:
            return name
        # Not the name alone: what begins with "sqlite_" is SQLite's own.
        quoted = f"tenant_{self.tenant}_{name}".replace('"', '""')
        return f'"{quoted}"'


def m001_objects(db: sqlite_utils.Database, names: TableNames) -> None:
    """One row an object."""
    db.execute(
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
    # The half of the fence that an upsert can't express: a save that finds its row gone would
    # insert it anew. It costs nothing where the row is there.
    db.execute(
        f"""
        CREATE TRIGGER {names.of("durable_objects_begin_at_1")} AFTER INSERT ON {names.objects}
        WHEN NEW.revision <> 1
        BEGIN SELECT RAISE(ABORT, 'stale'); END
        """
    )


def m002_alarms(db: sqlite_utils.Database, names: TableNames) -> None:
    """One row an alarm."""
    # Without rowid, so that the index by time holds the key and the horizon feed reads nothing
    # else.
    db.execute(
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
    db.execute(f"CREATE INDEX {names.alarms_by_time} ON {names.alarms} (available_at)")
    db.execute(
        f"CREATE INDEX {names.of('durable_alarms_claimed')} ON {names.alarms} (claim) "
        "WHERE claim IS NOT NULL"
    )


def m003_tenants(db: sqlite_utils.Database, names: TableNames) -> None:
    """One row a tenant."""
    db.execute(
        f"CREATE TABLE {names.of('durable_tenants')} (name TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID"
    )


_Step = Callable[[sqlite_utils.Database, TableNames], None]
_TENANT_STEPS: tuple[_Step, ...] = (m001_objects, m002_alarms)
_SHARED_STEPS: tuple[_Step, ...] = (m003_tenants,)


def migrations_of(tenant: str) -> Migrations:
    """The migrations of a tenant's tables; those of the file, if it is the nameless one."""
    migrations = Migrations(_migration_set(tenant))
    names = TableNames(tenant)

    def register(step: _Step) -> None:
        @migrations(name=step.__name__)
        def apply(db: sqlite_utils.Database) -> None:
            step(db, names)

    for step in _steps_of(tenant):
        register(step)
    return migrations


def _steps_of(tenant: str) -> tuple[_Step, ...]:
    return _TENANT_STEPS if tenant else (*_TENANT_STEPS, *_SHARED_STEPS)


def _migration_set(tenant: str) -> str:
    return f"{_MIGRATION_SET}:{tenant}" if tenant else _MIGRATION_SET


class Schema:
    """The migrations of an SQLite file, applied and to be applied."""

    def __init__(self, db: sqlite_utils.Database) -> None:
        self._db = db

    def is_new(self) -> bool:
        """Whether no release has made its tables yet."""
        return not any(self._applied())

    def is_foreign(self) -> bool:
        """Whether there are tables, and none of them ours."""
        return self.is_new() and bool(self._db.table_names())

    def unknown(self) -> list[str]:
        """The names of migrations that were applied and that this release doesn't know."""
        known = {step.__name__ for step in _steps_of("")}
        return sorted({name for _, name in self._applied()} - known)

    def pending(self) -> list[tuple[str, str]]:
        """The migrations that are to be applied, as (tenant, name)."""
        # In one transaction, for another process may make a tenant meanwhile.
        with self._db.atomic():
            applied = set(self._applied())
            has_list = (_MIGRATION_SET, m003_tenants.__name__) in applied
            return [
                (tenant, step.__name__)
                for tenant in ("", *(self.tenants() if has_list else ()))
                for step in _steps_of(tenant)
                if (_migration_set(tenant), step.__name__) not in applied
            ]

    def apply(self) -> None:
        """Apply what is pending."""
        of_the_file = migrations_of("")
        # By itself it makes its table first and then the index on it, which would stay away if the
        # process died in between.
        with self._db.atomic():
            of_the_file.ensure_migrations_table(self._db)
        of_the_file.apply(self._db)
        for tenant in dict(self.pending()):
            migrations_of(tenant).apply(self._db)

    def _applied(self) -> Iterator[tuple[str, str]]:
        if Migrations.migrations_table not in self._db.table_names():
            return
        yield from self._db.execute(
            f"SELECT migration_set, name FROM {Migrations.migrations_table} "
            "WHERE migration_set = ? OR migration_set GLOB ?",
            (_MIGRATION_SET, f"{_MIGRATION_SET}:*"),
        )

    # --- tenants ---------------------------------------------------------------------------------

    def tenants(self, after: str = "", limit: int = -1) -> list[str]:
        """The names of the tenants behind ``after``, in order; all, if ``limit`` is negative."""
        rows = self._db.execute(
            "SELECT name FROM durable_tenants WHERE name > ? ORDER BY name LIMIT ?", (after, limit)
        )
        return [name for (name,) in rows]

    def has_tenant(self, tenant: str) -> bool:
        """Whether there are tables of a tenant."""
        found = self._db.execute("SELECT 1 FROM durable_tenants WHERE name = ?", (tenant,))
        return found.fetchone() is not None

    def add_tenant(self, tenant: str) -> None:
        """Make the tables of a tenant that isn't there, as part of a transaction."""
        self._db.execute("INSERT INTO durable_tenants VALUES (?)", (tenant,))
        names = TableNames(tenant)
        for step in _steps_of(tenant):
            step(self._db, names)
            # As sqlite-utils would, but that lists all tables of the file several times for it.
            self._db.execute(
                f"INSERT INTO {Migrations.migrations_table} (migration_set, name, applied_at) "
                "VALUES (?, ?, datetime())",
                (_migration_set(tenant), step.__name__),
            )

    def drop_tenant(self, tenant: str) -> bool:
        """Remove all that is stored of a tenant, in one transaction; whether there was one."""
        names = TableNames(tenant)
        with self._db.atomic():
            dropped = self._db.execute("DELETE FROM durable_tenants WHERE name = ?", (tenant,))
            if not dropped.rowcount:
                return False
            self._db.execute(f"DROP TABLE IF EXISTS {names.objects}")
            self._db.execute(f"DROP TABLE IF EXISTS {names.alarms}")
            self._db.execute(
                f"DELETE FROM {Migrations.migrations_table} WHERE migration_set = ?",
                (_migration_set(tenant),),
            )
        return True
